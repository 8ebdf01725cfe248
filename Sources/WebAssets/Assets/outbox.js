const token = () => Math.random().toString(36).slice(2, 10).padEnd(8, "0");

/** Scopes the ids of this tab's messages; a reload keeps it. */
export function clientInstance() {
  try {
    let id = sessionStorage.getItem("martlet.client");
    if (!id) sessionStorage.setItem("martlet.client", (id = `web-${token()}${token()}`));
    return id;
  } catch {
    return `web-${token()}${token()}`; // storage is forbidden here
  }
}

/** Messages on their way at once, where the server counts: even if it reads them all at one moment, it refuses none. */
const burst = 20;

/** Milliseconds after which an unanswered message is sent again. */
const ackPatience = 10_000;

/**
 * Own messages without an ack, oldest first. They go in order and a little slower than the server counts, which counts
 * every frame, so that it refuses none. If it does, the first of that room goes alone, until it is stored.
 */
export class Outbox {
  #messages = new Map();
  #holds = new Map(); // room → until when nothing is sent there
  #rate = 0; // messages in a millisecond; 0 is no limit
  #credit = 0;
  #most = burst;
  #countedAt = 0;
  #prefix = token(); // of ids: a reload must not use an id again
  #counter = 0;

  get(id) {
    return this.#messages.get(id);
  }

  all() {
    return [...this.#messages.values()];
  }

  /**
   * `doubtfulSince` is when it was sent that it may be stored; 0 when it never was, or was refused each time.
   * @returns {string} its id
   */
  add(message) {
    const { room, text, data } = message;
    const id = `${this.#prefix}-${++this.#counter}`;
    const frame = JSON.stringify({ type: "message", room, text, data, id });
    const { length: bytes } = new TextEncoder().encode(frame);
    this.#messages.set(id, { ...message, id, frame, bytes, sentAt: 0, doubtfulSince: 0, unanswered: 0, probe: false });
    return id;
  }

  remove({ id, room, probe }) {
    if (probe) this.#holds.delete(room);
    return this.#messages.delete(id);
  }

  /** A session begins in which the server lets so many pass; 0 is no limit. */
  begin(perSecond = 0) {
    this.#rate = (0.9 * perSecond) / 1000;
    this.#credit = this.#most = Math.min(perSecond, burst);
    this.#countedAt = Date.now();
  }

  /** A frame that is no message goes out. The server counts it too, so the messages wait for it. */
  count() {
    if (this.#rate) this.#credit = Math.max(this.#credit - 1, -burst);
  }

  /** @returns {boolean} whether a frame that need not be sent may go now */
  hasCredit(now) {
    this.#refill(now);
    return !this.#rate || this.#credit >= 1;
  }

  #refill(now) {
    if (this.#rate) this.#credit = Math.min(this.#most, this.#credit + Math.max(0, now - this.#countedAt) * this.#rate);
    this.#countedAt = now;
  }

  /** What is to be sent now, and after how many milliseconds there may be more, unless an ack comes first. */
  takeDue(now, isOpen) {
    const due = [];
    const rooms = new Set();
    let wait = Infinity;
    let flying = 0;
    this.#refill(now);
    for (const message of this.#messages.values()) {
      const { room, sentAt } = message;
      const isFirst = !rooms.has(room);
      rooms.add(room);
      const hold = this.#holds.get(room);
      if (sentAt && now - sentAt <= ackPatience) {
        flying += 1;
        continue;
      }
      if (!isOpen(room) || (hold && !isFirst)) continue;
      if (hold > now) {
        wait = Math.min(wait, hold - now);
        continue;
      }
      if (this.#rate && flying >= burst) break;
      if (this.#rate && this.#credit < 1) {
        wait = Math.min(wait, Math.ceil((1 - this.#credit) / this.#rate));
        break;
      }
      this.#credit -= 1;
      flying += 1;
      message.sentAt = now;
      message.doubtfulSince ||= now;
      message.unanswered += 1;
      message.probe = !!hold;
      due.push(message);
    }
    return { due, wait };
  }

  /** The server refused it for now. Only one that could not reach its store may have stored it. */
  putBack(message, reason, until) {
    if (reason === "rate_limited") this.#credit = 0;
    this.#holds.set(message.room, until);
    this.#rest(message);
    if (reason !== "unavailable" && !(message.unanswered -= 1)) message.doubtfulSince = 0;
  }

  connectionLost() {
    this.#holds.clear();
    this.all().forEach(this.#rest);
  }

  #rest(message) {
    Object.assign(message, { sentAt: 0, probe: false });
  }
}
