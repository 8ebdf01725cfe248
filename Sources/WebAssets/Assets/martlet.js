/**
 * Martlet's client for the browser: one ES module, nothing to install.
 *
 *     const chat = new Martlet({ user: "alice" });
 *     chat.addEventListener("message", ({ detail }) => console.log(detail.room, detail.seq, detail.from, detail.text));
 *     chat.join("general");
 *     chat.connect();
 *     await chat.send("general", "hi").done;
 *
 * What it does for its user: reconnects by itself, takes up each room after the last message it has seen, delivers
 * each message of a room once and in the order of `seq`, sends an unacknowledged message again under the same id, and
 * says `gap` where messages could not be had.
 *
 * Events (each a CustomEvent, what is listed stands in `detail`):
 * - `state` {state, attempt, retryAt, code, reason}: "connecting", "online", "waiting" (until retryAt) or "closed"
 * - `joined` {room, recovered, first} · `left` {room, reason}: the server took this client out · `gap` {room, from, to,
 *   turned}: those `seq`s are lost; `turned` says that the room counts from a new start, so an equal `seq` is another message
 * - `page` {room, messages, more}: the newest messages, behind a `gap` that a reconnect met
 * - `message` {room, seq, from, text, data, ts, id, own} · `sent` {room, id, status, seq, ts, error}: "acked",
 *   "failed" (it was not stored) or "unknown" (it may have been stored)
 * - `presence` {room, members, count} · `typing` {room, users} · `error` {code, reason, message, room}
 */

/** Number → [name, whether the same request may succeed later]. */
export const errors = {
  // <errors>
  100: ["malformed_json", false], 101: ["unknown_type", false], 102: ["invalid_field", false],
  103: ["rate_limited", true], 104: ["too_large", false], 105: ["binary_not_supported", false],
  106: ["not_authenticated", false], 107: ["identity_conflict", false], 108: ["invalid_room", false],
  109: ["invalid_user", false], 110: ["too_many_rooms", false], 111: ["not_in_room", false],
  112: ["id_reused", false], 113: ["unavailable", true], 114: ["storage_full", true],
  115: ["authentication_failed", false], 116: ["forbidden", false],
  // </errors>
};

/** Milliseconds. An unanswered message is sent again after `ack`, but not after `resend`: the server knows an id for two
 * minutes. A message may wait `hole` for its predecessors. A member list is read again at the age of
 * `presence`, should the last event be lost. Online for `stable`, the next backoff starts small. */
const after = {
  connect: 10_000, pingEvery: 20_000, pong: 10_000, ack: 10_000, resend: 110_000, hole: 1000,
  typing: 6000, typingRefresh: 3000, presence: 50_000, stable: 10_000,
};

/** Delay before reconnect number `attempt` (0, 1, 2 …): full jitter under 1 s doubling to 30 s. */
export function backoff(attempt, random = Math.random) {
  return Math.round(random() * Math.min(30_000, 1000 * 2 ** Math.min(attempt, 10)));
}

/** What to do about a close code: "resume", "backoff" or "stop". */
export function closeAction(code) {
  if (code >= 4200 && code < 4300) return "stop";
  return code >= 4100 && code < 4200 ? "backoff" : "resume";
}

const token = () => Math.random().toString(36).slice(2, 10).padEnd(8, "0");

/** Scopes the ids of this tab's messages; a reload keeps it. */
function clientInstance() {
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

/**
 * Own messages without an ack, oldest first. They go in order and a little slower than the server counts, which counts
 * every frame, so that it refuses none. If it does, the first of that room goes alone, until it is stored.
 */
class Outbox {
  #messages = new Map();
  #holds = new Map(); // room → until when nothing is sent there
  #rate = 0; // messages in a millisecond; 0 is no limit
  #credit = 0;
  #countedAt = 0;

  get(id) {
    return this.#messages.get(id);
  }

  all() {
    return [...this.#messages.values()];
  }

  /** `doubtfulSince` is when it was sent that it may be stored; 0 when it never was, or was refused each time. */
  add(message) {
    const { id, room, text, data } = message;
    const frame = JSON.stringify({ type: "message", room, text, data, id });
    const { length: bytes } = new TextEncoder().encode(frame);
    this.#messages.set(id, { ...message, frame, bytes, sentAt: 0, doubtfulSince: 0, unanswered: 0, probe: false });
  }

  remove({ id, room, probe }) {
    if (probe) this.#holds.delete(room);
    return this.#messages.delete(id);
  }

  /** A session begins in which the server lets so many pass; 0 is no limit. */
  begin(perSecond = 0) {
    this.#rate = (0.9 * perSecond) / 1000;
    this.#credit = burst;
    this.#countedAt = Date.now();
  }

  /** What is to be sent now, and after how many milliseconds there may be more, unless an ack comes first. */
  takeDue(now, isOpen) {
    const due = [];
    const rooms = new Set();
    let wait = Infinity;
    let flying = 0;
    if (this.#rate) this.#credit = Math.min(burst, this.#credit + Math.max(0, now - this.#countedAt) * this.#rate);
    this.#countedAt = now;
    for (const message of this.#messages.values()) {
      const { room, sentAt } = message;
      const isFirst = !rooms.has(room);
      rooms.add(room);
      const hold = this.#holds.get(room);
      if (sentAt && now - sentAt <= after.ack) {
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

export class Martlet extends EventTarget {
  state = "closed";
  /** From the last `welcome`: the serving node, this session, the user name and the server's limits. */
  node;
  session;
  user;
  limits = {};
  /** Last measured round trip in milliseconds. */
  roundTrip;

  #options;
  #socket = null;
  #rooms = new Map();
  #outbox = new Outbox();
  #leaving = new Set(); // rooms; until the answer, what is said of one is about the time before
  #requests = new Map();
  #prefix = token(); // of ids: a reload must not use an id again
  #counter = 0;
  #attempt = 0;
  #listeners; // to the page's events, while this is not closed
  #timer;
  #ticker;
  #waker;
  #openedAt = 0;
  #welcomedAt = 0;
  #heardAt = 0;
  #pingAt = 0;
  #isToldToMove = false;
  #pongDue = false;

  /**
   * @param {{url?: string, user?: string, token?: string | (() => string | Promise<string>), client?: string,
   *   key?: string, WebSocket?: typeof WebSocket}} options `url` defaults to this page's host; `token` wins over
   *   `user`; `key` is the router's affinity key.
   */
  constructor(options = {}) {
    super();
    const page = globalThis.location;
    this.#options = {
      url: page && `${page.protocol === "https:" ? "wss" : "ws"}://${page.host}/ws`,
      WebSocket: globalThis.WebSocket,
      ...options,
      client: options.client ?? clientInstance(),
    };
  }

  connect() {
    if (this.state !== "closed") return;
    this.#listen();
    this.#open();
  }

  /** Messages without an ack fail, or are unknown where they were sent. `connect()` starts again, in the same rooms. */
  close() {
    this.#end(1000, "");
  }

  /** Does not wait for the backoff. */
  retryNow() {
    if (this.state === "waiting") this.#open();
  }

  join(name) {
    const room = this.#room(name);
    if (room.wanted) return;
    room.wanted = true;
    this.#sendJoins([room]);
  }

  leave(name) {
    const room = this.#rooms.get(name);
    if (!room?.wanted) return;
    if (room.joinID) this.#sendLeave(name);
    this.#forget(room);
  }

  /**
   * Sends as soon as the room is joined, in order and as fast as the server allows, and again until it is acknowledged.
   * @returns {{id: string, done: Promise<{seq: number, ts: number}>}}
   */
  send(name, text, data) {
    const id = `${this.#prefix}-${++this.#counter}`;
    let settle;
    const done = new Promise((resolve, reject) => (settle = { resolve, reject }));
    done.catch(() => {}); // who does not look at it has the `sent` event
    this.#outbox.add({ id, room: name, text, data, ...settle });
    this.#room(name).typedAt = 0;
    queueMicrotask(() => this.#refuseTooLarge()); // who called knows the id first
    this.#flush();
    return { id, done };
  }

  /** Say it on every keystroke; it goes out every 3 s at most. */
  typing(name, typing = true) {
    const room = this.#room(name);
    const now = Date.now();
    if (!room.joined || (typing ? now - room.typedAt < after.typingRefresh : !room.typedAt)) return;
    room.typedAt = typing ? now : 0;
    this.#transmit({ type: "typing", room: name, typing });
  }

  /** @param {"online"|"away"|"busy"|"invisible"} status */
  status(status) {
    this.#options.status = status;
    this.#transmit({ type: "status", status });
  }

  /**
   * Oldest first; without `before` or `after` (a `seq`) the newest.
   * @param {{before?: number, after?: number, limit?: number}} range at most 100 @returns {Promise<{messages: object[], more: boolean}>}
   */
  history(name, range = {}) {
    return this.#request({ type: "history", room: name, limit: 50, ...range });
  }

  members(name) {
    return [...this.#room(name).members.values()];
  }

  // Connection

  #listen() {
    this.#listeners = new AbortController();
    const { signal } = this.#listeners;
    const on = (type, handler) => globalThis.addEventListener?.(type, handler, { signal });
    on("online", () => this.retryNow());
    on("visibilitychange", () => {
      if (globalThis.document?.hidden) return;
      this.retryNow();
      this.#ping();
    });
    // A browser may keep a page that was left, and its socket with it: others would go on seeing this user.
    on("pagehide", () => {
      this.#drop(1000);
      this.#setState("waiting", { attempt: 0, retryAt: Date.now(), code: 1000, reason: "the page was left" });
    });
    on("pageshow", () => this.retryNow());
  }

  #end(code, reason) {
    this.#listeners?.abort();
    this.#drop(1000);
    this.#attempt = this.#welcomedAt = 0;
    for (const message of this.#outbox.all()) this.#giveUp(message, "the client is closed");
    this.#setState("closed", { code, reason });
  }

  #open() {
    this.#drop();
    const { url, user, token, client, key, WebSocket } = this.#options;
    const address = new URL(url);
    if (!token && user) address.searchParams.set("user", user);
    if (key) address.searchParams.set("key", key);
    address.searchParams.set("client", client);
    this.#setState("connecting");
    const socket = (this.#socket = new WebSocket(address.href, "martlet.v1.json"));
    this.#openedAt = this.#heardAt = Date.now();
    this.#isToldToMove = false;
    const mine = (handler) => (event) => socket === this.#socket && handler(event);
    socket.onopen = mine(async () => {
      if (!token) return;
      const value = typeof token === "function" ? await token() : token;
      if (socket === this.#socket) this.#transmit({ type: "auth", token: value, client });
    });
    socket.onmessage = mine(({ data }) => {
      this.#heardAt = Date.now();
      this.#pongDue = false;
      this.#receive(JSON.parse(data));
    });
    socket.onclose = mine(({ code, reason }) => this.#lost(code, reason));
    this.#ticker = setInterval(() => this.#tick(Date.now()), 1000);
  }

  /** Lets go of the socket without waiting for its close handshake: a dead network would not answer it. */
  #drop(code) {
    clearTimeout(this.#timer);
    clearTimeout(this.#waker);
    clearInterval(this.#ticker);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
    this.#pongDue = false;
    for (const room of this.#rooms.values()) Object.assign(room, { joined: false, joinID: null, retryAt: 0 });
    this.#leaving.clear();
    this.#outbox.connectionLost();
    for (const request of this.#requests.values()) request.reject(new Error("the connection is gone"));
    this.#requests.clear();
  }

  #lost(code, reason) {
    const now = Date.now();
    if (this.#welcomedAt && now - this.#welcomedAt > after.stable) this.#attempt = 0;
    const action = closeAction(code);
    if (action === "stop") return this.#end(code, reason);
    if (code === 1009) {
      const [largest] = this.#outbox.all().filter(({ sentAt }) => sentAt).sort((a, b) => b.bytes - a.bytes);
      if (largest) this.#refuse(largest, "fewer");
    }
    if (code === 4000 && this.#isToldToMove) return this.#open();
    this.#drop();
    if (action === "backoff") this.#attempt = Math.max(this.#attempt, 3);
    const delay = backoff(this.#attempt) + (action === "backoff" ? 2000 : 0);
    this.#attempt += 1;
    this.#welcomedAt = 0;
    for (const room of this.#rooms.values()) this.#endTyping(room, () => true);
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#setState("waiting", { attempt: this.#attempt, retryAt: now + delay, code, reason });
  }

  #tick(now) {
    if (this.state !== "online") {
      if (now - this.#openedAt > after.connect) this.#lost(1006, "no answer");
      return;
    }
    if (this.#pongDue && now - this.#pingAt > after.pong) return this.#lost(1006, "no answer to ping");
    if (now - Math.max(this.#heardAt, this.#pingAt) > after.pingEvery) this.#ping();
    this.#sendJoins([...this.#rooms.values()].filter(({ retryAt }) => retryAt && now >= retryAt));
    for (const room of this.#rooms.values()) {
      if (room.joined && room.holeSince && now - room.holeSince > after.hole) this.#fillHole(room);
      if (room.joined && now - room.listedAt > after.presence) this.#askPresence(room);
      this.#endTyping(room, (until) => until <= now);
    }
    this.#flush(now);
  }

  #ping() {
    if (this.state !== "online" || this.#pongDue) return;
    this.#pongDue = true;
    this.#pingAt = Date.now();
    this.#transmit({ type: "ping", id: "ping" });
  }

  #transmit(frame) {
    if (this.#socket?.readyState === 1) this.#socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
  }

  #request(frame) {
    if (this.state !== "online") return Promise.reject(new Error("there is no connection"));
    const id = `r-${++this.#counter}`;
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { resolve, reject });
      this.#transmit({ ...frame, id });
    });
  }

  #answer(frame) {
    this.#requests.get(frame.id)?.resolve(frame);
    this.#requests.delete(frame.id);
  }

  // Rooms

  #room(name) {
    let room = this.#rooms.get(name);
    if (!room) {
      room = { name, wanted: false, joined: false, joinID: null, retryAt: 0, typedAt: 0, typing: new Map() };
      Object.assign(room, { epoch: null, seq: 0, tag: undefined, held: new Map(), holeSince: 0, target: 0, turns: 0 });
      Object.assign(room, { members: new Map(), count: 0, pv: 0, listedAt: 0 });
      this.#rooms.set(name, room);
    }
    return room;
  }

  #forget(room) {
    this.#rooms.delete(room.name);
    for (const message of this.#outbox.all()) if (message.room === room.name) this.#giveUp(message, "the room was left");
  }

  /** One frame for all of them that may be joined now. */
  #sendJoins(rooms) {
    const free = rooms.filter(({ name }) => !this.#leaving.has(name));
    if (this.state !== "online" || !free.length) return;
    const id = `j-${++this.#counter}`;
    for (const room of free) Object.assign(room, { joinID: id, retryAt: 0 });
    const list = free.map(({ name, epoch, seq, tag }) => ({ room: name, since: epoch ? { epoch, seq, tag } : undefined }));
    this.#transmit({ type: "join", id, rooms: list });
  }

  /** Again until it is answered; a new join of the room waits for that. */
  async #sendLeave(name) {
    const socket = this.#socket;
    this.#leaving.add(name);
    let wait;
    do {
      wait = await this.#request({ type: "leave", room: name }).then(() => 0, ({ retry_ms: retry = 0 }) => retry);
      if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
      if (socket !== this.#socket) return; // the next session is in no room but those that it joins
    } while (wait);
    this.#leaving.delete(name);
    const room = this.#rooms.get(name);
    if (room?.wanted) this.#sendJoins([room]);
  }

  // Own messages

  #flush(now = Date.now()) {
    clearTimeout(this.#waker);
    for (const message of this.#outbox.all()) {
      if (message.doubtfulSince && now - message.doubtfulSince > after.resend) this.#settle(message, "unknown");
    }
    if (this.state !== "online") return;
    const { due, wait } = this.#outbox.takeDue(now, (name) => this.#rooms.get(name)?.joined);
    for (const { frame } of due) this.#transmit(frame);
    if (wait < Infinity) this.#waker = setTimeout(() => this.#flush(), wait);
  }

  #settle(message, status, detail = {}) {
    if (!this.#outbox.remove(message)) return;
    if (status === "acked") message.resolve(detail);
    else message.reject(Object.assign(new Error(detail.error?.message ?? status), { status, ...detail.error }));
    this.#emit("sent", { room: message.room, id: message.id, status, ...detail });
  }

  /** What was sent may be stored; what was not is not. */
  #giveUp(message, why) {
    if (message.doubtfulSince) this.#settle(message, "unknown");
    else this.#settle(message, "failed", { error: { message: why } });
  }

  /** A message over the limit would end the connection, each time it is sent. */
  #refuseTooLarge() {
    const limit = this.limits.message_bytes;
    for (const message of this.#outbox.all()) if (message.bytes > limit) this.#refuse(message, `at most ${limit}`);
  }

  #refuse(message, limit) {
    const text = `the message has ${message.bytes} bytes; this server takes ${limit}`;
    this.#settle(message, "failed", { error: { code: 104, reason: errors[104][0], message: text } });
  }

  // Frames

  #receive(frame) {
    const room = frame.room && this.#rooms.get(frame.room);
    switch (frame.type) {
      case "welcome": return this.#welcome(frame);
      case "joined": return room?.wanted && !this.#leaving.has(room.name) && this.#joined(room, frame);
      case "left":
        if (frame.id !== undefined) return this.#answer(frame);
        if (!room || this.#leaving.has(room.name)) return;
        this.#forget(room);
        return this.#emit("left", frame);
      case "message": return this.#place(room, frame);
      case "ack": return this.#ack(frame);
      case "gap": return room?.epoch && this.#gap(room, frame);
      case "presence": return room?.joined && this.#presence(room, frame);
      case "typing":
        if (!room?.joined || frame.from === this.user) return;
        if (frame.typing === false) room.typing.delete(frame.from);
        else room.typing.set(frame.from, Date.now() + after.typing);
        return this.#emitTyping(room);
      case "history":
        if (frame.id !== undefined) return this.#answer(frame);
        return room?.joined && this.#emit("page", frame);
      case "pong":
        if (frame.id === "ping") this.roundTrip = Date.now() - this.#pingAt;
        return;
      case "reconnect":
        this.#isToldToMove = true; // once the node closes; until then all goes on
        return;
      case "error": return this.#error(frame, room);
    }
  }

  #welcome({ session, user, node, limits: serverLimits }) {
    Object.assign(this, { session, user, node, limits: serverLimits ?? {} });
    this.#welcomedAt = Date.now();
    this.#outbox.begin(this.limits.messages_per_second);
    this.#setState("online");
    this.#refuseTooLarge();
    const { status } = this.#options;
    if (status && status !== "online") this.status(status);
    this.#sendJoins([...this.#rooms.values()].filter((room) => room.wanted));
    this.#ping();
  }

  #joined(room, frame) {
    const first = room.epoch === null;
    Object.assign(room, { joined: true, pv: 0 });
    if (first || (!frame.recovered && (frame.epoch !== room.epoch || frame.seq < room.seq))) {
      const lost = !first; // Redis forgot what this client has seen
      this.#turn(room, frame);
      if (lost) this.#emit("gap", { room: room.name, to: frame.seq, turned: true });
    } else if (frame.seq > room.seq) {
      // The missed messages follow as `message` frames, or a `gap` says which do not.
      Object.assign(room, { target: frame.seq, holeSince: Date.now() });
    }
    this.#emit("joined", { room: room.name, recovered: frame.recovered, first });
    this.#list(room, frame);
    this.#flush();
  }

  /** The room counts from a new start: what was promised, held or asked for is of the time before. */
  #turn(room, { epoch, seq, tag }) {
    Object.assign(room, { epoch, seq, tag, holeSince: 0, target: 0, turns: room.turns + 1 });
    room.held.clear();
  }

  #gap(room, { epoch, from, to }) {
    const turned = epoch !== undefined && epoch !== room.epoch;
    if (turned) this.#turn(room, { epoch, seq: to });
    else if (to <= room.seq) return;
    else Object.assign(room, { seq: to, tag: undefined });
    this.#emit("gap", { room: room.name, from, to, turned });
    this.#drain(room);
  }

  /** Delivers a message in its place: once, and not before its predecessors. */
  #place(room, message) {
    const { seq, id } = message;
    const mine = id !== undefined && message.from === this.user && this.#outbox.get(id);
    if (mine) this.#settle(mine, "acked", { seq, ts: message.ts });
    if (mine) message.own = true;
    if (room?.epoch) {
      if (seq > room.seq) room.held.set(seq, message);
      this.#drain(room);
    } else if (message.room.startsWith("dm:")) {
      this.#emitMessage(message); // a private room needs no join, and has no place to be compared with
    }
    this.#flush();
  }

  #drain(room) {
    for (let next; (next = room.held.get(room.seq + 1)); ) {
      Object.assign(room, { seq: next.seq, tag: next.tag, holeSince: 0 });
      this.#emitMessage(next);
      if (room.typing.delete(next.from)) this.#emitTyping(room);
    }
    for (const seq of room.held.keys()) if (seq <= room.seq) room.held.delete(seq);
    if (room.seq >= room.target) room.target = 0;
    room.holeSince = room.held.size || room.target ? room.holeSince || Date.now() : 0;
  }

  /** Reads what is missing before the first held message; what even the history does not have is a gap. */
  async #fillHole(room) {
    room.holeSince = Infinity; // one question at a time
    const { turns } = room;
    const isOver = () => room.turns !== turns || this.#rooms.get(room.name) !== room;
    try {
      const { messages, epoch = room.epoch } = await this.history(room.name, { after: room.seq, limit: 100 });
      if (isOver()) return;
      room.holeSince = epoch === room.epoch ? 0 : Date.now();
      if (room.holeSince) return; // a gap will say that the room has turned
      const found = messages.filter((message) => message.seq > room.seq);
      const end = Math.min(room.target || Infinity, ...[...room.held.keys()].map((seq) => seq - 1));
      const known = found.length ? found[0].seq - 1 : end;
      if (known > room.seq && known < Infinity) this.#gap(room, { from: room.seq + 1, to: known });
      for (const message of found) this.#place(room, { ...message, room: room.name });
      this.#drain(room);
    } catch {
      if (!isOver()) room.holeSince = Date.now();
    }
  }

  /** The ack stands where the own message would stand. */
  #ack({ id, room: name, seq, ts, tag }) {
    const message = this.#outbox.get(id);
    if (!message) return;
    const room = this.#room(name ?? message.room);
    const placed = { room: room.name, seq, ts, tag, id, from: this.user, text: message.text, data: message.data };
    const before = seq <= room.seq; // stored by an earlier attempt, and that place is past
    this.#settle(message, "acked", { seq, ts });
    if (before) this.#emitMessage({ ...placed, own: true });
    else this.#place(room, { ...placed, own: true });
    this.#flush();
  }

  #error(frame, room) {
    // Without a welcome there is nothing to go on with: another user or token is needed.
    const isFinal = ["authentication_failed", "not_authenticated", "invalid_user"].includes(frame.reason);
    if (this.state === "connecting" && isFinal) return this.#lost(4201, frame.message);
    const retryable = frame.retry_ms !== undefined || errors[frame.code]?.[1];
    const again = Date.now() + (frame.retry_ms ?? 2000);
    const message = this.#outbox.get(frame.id);
    if (message) {
      const target = this.#room(message.room);
      const rejoin = frame.reason === "not_in_room" && target.wanted;
      if (retryable || rejoin) this.#outbox.putBack(message, frame.reason, again);
      else this.#settle(message, "failed", { error: frame });
      if (rejoin) Object.assign(target, { joined: false, retryAt: again });
      return this.#flush();
    }
    const request = this.#requests.get(frame.id);
    if (request) {
      this.#requests.delete(frame.id);
      return request.reject(Object.assign(new Error(frame.message), frame));
    }
    if (frame.id?.startsWith("j-")) {
      for (const each of room ? [room] : this.#rooms.values()) {
        if (each.joinID !== frame.id || each.joined) continue;
        if (retryable) each.retryAt = again;
        else this.#forget(each);
      }
      if (retryable) return;
    }
    this.#emit("error", frame);
  }

  // Presence and typing

  #presence(room, frame) {
    if (frame.members) return this.#list(room, frame);
    const { joined = [], left = [], updated = [], count, pv } = frame;
    const changes = joined.length + left.length + updated.length;
    if (pv <= room.pv) return;
    const hole = changes > 0 && pv - changes > room.pv;
    for (const member of [...joined, ...updated]) room.members.set(member.user, member);
    for (const { user } of left) room.members.delete(user);
    Object.assign(room, { pv, count });
    this.#emitPresence(room);
    if (hole) this.#askPresence(room);
  }

  #list(room, { members = [], count = members.length, pv = 0 }) {
    if (pv < room.pv) return; // older than what the events have told
    room.members = new Map(members.map((member) => [member.user, member]));
    Object.assign(room, { count, pv, listedAt: Date.now() });
    this.#emitPresence(room);
  }

  #askPresence(room) {
    room.listedAt = Date.now();
    this.#transmit({ type: "presence", room: room.name });
  }

  #emitPresence(room) {
    this.#emit("presence", { room: room.name, members: [...room.members.values()], count: room.count });
  }

  #endTyping(room, isOver) {
    const ended = [...room.typing].filter(([, until]) => isOver(until));
    for (const [user] of ended) room.typing.delete(user);
    if (ended.length) this.#emitTyping(room);
  }

  #emitTyping(room) {
    this.#emit("typing", { room: room.name, users: [...room.typing.keys()] });
  }

  #setState(state, detail = {}) {
    this.state = state;
    this.#emit("state", { state, ...detail });
  }

  #emitMessage(message) {
    this.#emit("message", { ...message, own: message.own ?? message.from === this.user });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
