/** Milliseconds until an attempt is given up, until somebody silent is pinged, and until they count as gone. */
const patience = { welcome: 10_000, silence: 20_000, pong: 10_000 };

/** One connection, from the attempt to its end: its socket, what was asked on it, and whether anybody is still there. */
export class Link {
  /** The node said that it will close this connection, and that another is to be had at once. */
  isToldToMove = false;
  #socket;
  #requests = new Map();
  #counter = 0;
  #openedAt = Date.now();
  #heardAt = Date.now();
  #pingAt = 0;
  #pongDue = false;

  /** The handlers are called until `drop()`. */
  constructor(socket, { opened, received, lost }) {
    this.#socket = socket;
    const mine = (handler) => (event) => this.#socket && handler(event);
    socket.onopen = mine(() => opened(this));
    socket.onclose = mine(({ code, reason }) => lost(code, reason));
    socket.onmessage = mine(({ data }) => {
      this.#heardAt = Date.now();
      this.#pongDue = false;
      received(JSON.parse(data));
    });
  }

  get isDropped() {
    return !this.#socket;
  }

  /** Does not wait for the close handshake: a dead network would not answer it. */
  drop(code) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
    for (const request of this.#requests.values()) request.reject(new Error("the connection is gone"));
    this.#requests.clear();
  }

  transmit(frame) {
    if (this.#socket?.readyState === 1) this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  /** @returns {Promise<object>} the frame that answers it; an `error` frame rejects */
  request(frame) {
    const id = `r-${++this.#counter}`;
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { resolve, reject });
      this.transmit({ ...frame, id });
    });
  }

  /** @returns {boolean} whether the frame answers a request */
  answer(frame) {
    const request = this.#requests.get(frame.id);
    if (!request) return false;
    this.#requests.delete(frame.id);
    if (frame.type === "error") request.reject(Object.assign(new Error(frame.message), frame));
    else request.resolve(frame);
    return true;
  }

  ping() {
    if (this.#pongDue) return;
    this.#pongDue = true;
    this.#pingAt = Date.now();
    this.transmit({ type: "ping", id: "ping" });
  }

  /** Milliseconds since the ping. */
  get roundTrip() {
    return Date.now() - this.#pingAt;
  }

  /** Call it about once a second. @returns {string|undefined} why the connection is to be given up */
  check(now, isOnline) {
    if (!isOnline) return now - this.#openedAt > patience.welcome ? "no answer" : undefined;
    if (this.#pongDue && now - this.#pingAt > patience.pong) return "no answer to ping";
    if (now - Math.max(this.#heardAt, this.#pingAt) > patience.silence) this.ping();
  }
}

/** Delay before reconnect number `attempt` (0, 1, 2 …): full jitter under 1 s doubling to 30 s. */
export function backoff(attempt, random = Math.random) {
  return Math.round(random() * Math.min(30_000, 1000 * 2 ** Math.min(attempt, 10)));
}

/** What to do about a close code: "resume", "backoff" or "stop". */
export function closeAction(code) {
  if (code >= 4200 && code < 4300) return "stop";
  return code >= 4100 && code < 4200 ? "backoff" : "resume";
}
