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
 * - `joined` {room, recovered, first} · `left` {room, reason} · `gap` {room, from, to, turned}: those `seq`s are
 *   lost; `turned` says that the room counts from a new start, so an equal `seq` is another message
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

/** Milliseconds. An unacknowledged message is sent again after `ack`, but not after `resend`: the server knows an id
 * for two minutes. A message may wait `hole` for its predecessors. A member list is read again at the age of
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
  #pending = new Map(); // own messages without an ack, oldest first
  #requests = new Map();
  #prefix = token(); // of ids: a reload must not use an id again
  #counter = 0;
  #attempt = 0;
  #timer;
  #ticker;
  #openedAt = 0;
  #welcomedAt = 0;
  #heardAt = 0;
  #pingAt = 0;
  #reconnectAt = 0;
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
    globalThis.addEventListener?.("online", () => this.retryNow());
    globalThis.addEventListener?.("visibilitychange", () => {
      if (globalThis.document?.hidden) return;
      this.retryNow();
      this.#ping();
    });
    // A browser may keep a page that was left, and its socket with it: others would go on seeing this user.
    globalThis.addEventListener?.("pagehide", () => {
      if (this.state === "closed") return;
      this.#drop(1000);
      this.#setState("waiting", { attempt: 0, retryAt: Date.now(), code: 1000, reason: "the page was left" });
    });
    globalThis.addEventListener?.("pageshow", () => this.retryNow());
  }

  connect() {
    if (this.state === "closed") this.#open();
  }

  /** Ends for good; `connect()` starts again. */
  close() {
    this.#drop(1000);
    this.#setState("closed", { code: 1000, reason: "" });
  }

  /** Does not wait for the backoff. */
  retryNow() {
    if (this.state === "waiting") this.#open();
  }

  join(name) {
    const room = this.#room(name);
    if (room.wanted) return;
    room.wanted = true;
    if (this.state === "online") this.#sendJoins([room]);
  }

  leave(name) {
    const room = this.#rooms.get(name);
    if (!room?.wanted) return;
    this.#transmit({ type: "leave", room: name });
    this.#forget(room);
  }

  /**
   * Sends as soon as the room is joined, and again until it is acknowledged.
   * @returns {{id: string, done: Promise<{seq: number, ts: number}>}}
   */
  send(name, text, data) {
    const id = `${this.#prefix}-${++this.#counter}`;
    const message = { id, room: name, text, data, inFlight: false, firstSentAt: 0, sentAt: 0 };
    const done = new Promise((resolve, reject) => Object.assign(message, { resolve, reject }));
    done.catch(() => {}); // who does not look at it has the `sent` event
    this.#pending.set(id, message);
    this.#room(name).typedAt = 0;
    this.#flush(this.#room(name));
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
    clearInterval(this.#ticker);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
    this.#pongDue = false;
    for (const room of this.#rooms.values()) room.joined = false;
    for (const message of this.#pending.values()) message.inFlight = false;
    for (const request of this.#requests.values()) request.reject(new Error("the connection is gone"));
    this.#requests.clear();
  }

  #lost(code, reason) {
    const now = Date.now();
    if (this.#welcomedAt && now - this.#welcomedAt > after.stable) this.#attempt = 0;
    this.#drop();
    const action = closeAction(code);
    if (action === "stop") return this.#setState("closed", { code, reason });
    if (action === "backoff") this.#attempt = Math.max(this.#attempt, 3);
    const asked = this.#reconnectAt - now;
    const delay = asked > 0 ? asked : backoff(this.#attempt) + (action === "backoff" ? 2000 : 0);
    this.#attempt += 1;
    this.#welcomedAt = this.#reconnectAt = 0;
    for (const room of this.#rooms.values()) this.#endTyping(room, () => true);
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#setState("waiting", { attempt: this.#attempt, retryAt: now + delay, code, reason });
  }

  #tick(now) {
    if (this.state !== "online") {
      if (now - this.#openedAt > after.connect) this.#lost(1006, "no answer");
      return;
    }
    if (this.#reconnectAt && now >= this.#reconnectAt) return this.#open();
    if (this.#pongDue && now - this.#pingAt > after.pong) return this.#lost(1006, "no answer to ping");
    if (now - Math.max(this.#heardAt, this.#pingAt) > after.pingEvery) this.#ping();
    for (const room of this.#rooms.values()) {
      this.#flush(room, now);
      if (room.wanted && !room.joined && room.retryAt && now >= room.retryAt) this.#sendJoins([room]);
      if (room.holeSince && now - room.holeSince > after.hole) this.#fillHole(room);
      if (room.joined && now - room.listedAt > after.presence) this.#askPresence(room);
      this.#endTyping(room, (until) => until <= now);
    }
  }

  #ping() {
    if (this.state !== "online" || this.#pongDue) return;
    this.#pongDue = true;
    this.#pingAt = Date.now();
    this.#transmit({ type: "ping", id: "ping" });
  }

  #transmit(frame) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(frame));
  }

  #request(frame) {
    if (this.state !== "online") return Promise.reject(new Error("there is no connection"));
    const id = `r-${++this.#counter}`;
    return new Promise((resolve, reject) => {
      this.#requests.set(id, { resolve, reject });
      this.#transmit({ ...frame, id });
    });
  }

  // Rooms

  #room(name) {
    let room = this.#rooms.get(name);
    if (!room) {
      room = { name, wanted: false, joined: false, retryAt: 0, holdUntil: 0, typedAt: 0, typing: new Map() };
      Object.assign(room, { epoch: null, seq: 0, tag: undefined, held: new Map(), holeSince: 0, target: 0 });
      Object.assign(room, { members: new Map(), count: 0, pv: 0, listedAt: 0 });
      this.#rooms.set(name, room);
    }
    return room;
  }

  #forget(room) {
    this.#rooms.delete(room.name);
    for (const message of [...this.#pending.values()]) {
      if (message.room === room.name) this.#settle(message, message.firstSentAt ? "unknown" : "failed");
    }
  }

  #sendJoins(rooms) {
    for (const room of rooms) room.retryAt = 0;
    const list = rooms.map(({ name, epoch, seq, tag }) => ({ room: name, since: epoch ? { epoch, seq, tag } : undefined }));
    if (list.length) this.#transmit({ type: "join", id: `j-${++this.#counter}`, rooms: list });
  }

  /** Sends what waits in a room, oldest first, unless the server asked for a pause. */
  #flush(room, now = Date.now()) {
    for (const message of this.#pending.values()) {
      const { id, text, data, inFlight, sentAt, firstSentAt } = message;
      if (message.room !== room.name) continue;
      if (firstSentAt && now - firstSentAt > after.resend) this.#settle(message, "unknown");
      else if (room.joined && now >= room.holdUntil && !(inFlight && now - sentAt <= after.ack)) {
        Object.assign(message, { inFlight: true, sentAt: now, firstSentAt: firstSentAt || now });
        this.#transmit({ type: "message", room: room.name, text, data, id });
      }
    }
  }

  #settle(message, status, detail = {}) {
    this.#pending.delete(message.id);
    if (status === "acked") message.resolve(detail);
    else message.reject(Object.assign(new Error(detail.error?.message ?? status), { status, ...detail.error }));
    this.#emit("sent", { room: message.room, id: message.id, status, ...detail });
  }

  // Frames

  #receive(frame) {
    const room = frame.room && this.#rooms.get(frame.room);
    switch (frame.type) {
      case "welcome": return this.#welcome(frame);
      case "joined": return room && this.#joined(room, frame);
      case "left":
        if (room) this.#forget(room);
        return this.#emit("left", frame);
      case "message": return this.#place(room ?? this.#room(frame.room), frame);
      case "ack": return this.#ack(frame);
      case "gap": return room && this.#gap(room, frame);
      case "presence": return room && this.#presence(room, frame);
      case "typing":
        if (!room || frame.from === this.user) return;
        if (frame.typing === false) room.typing.delete(frame.from);
        else room.typing.set(frame.from, Date.now() + after.typing);
        return this.#emitTyping(room);
      case "history":
        if (frame.id === undefined) return this.#emit("page", frame);
        this.#requests.get(frame.id)?.resolve(frame);
        return this.#requests.delete(frame.id);
      case "pong":
        if (frame.id === "ping") this.roundTrip = Date.now() - this.#pingAt;
        return;
      case "reconnect":
        this.#reconnectAt = Date.now() + (frame.delay_ms ?? 0);
        return;
      case "error": return this.#error(frame, room);
    }
  }

  #welcome({ session, user, node, limits: serverLimits }) {
    Object.assign(this, { session, user, node, limits: serverLimits ?? {} });
    this.#welcomedAt = Date.now();
    this.#reconnectAt = 0;
    this.#setState("online");
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
      Object.assign(room, { epoch: frame.epoch, seq: frame.seq, tag: frame.tag, holeSince: 0, target: 0 });
      room.held.clear();
      if (lost) this.#emit("gap", { room: room.name, to: frame.seq, turned: true });
    } else if (frame.seq > room.seq) {
      // The missed messages follow as `message` frames, or a `gap` says which do not.
      Object.assign(room, { target: frame.seq, holeSince: Date.now() });
    }
    this.#emit("joined", { room: room.name, recovered: frame.recovered, first });
    this.#list(room, frame);
    this.#flush(room);
  }

  #gap(room, { epoch, from, to }) {
    const turned = epoch !== undefined && epoch !== room.epoch;
    if (turned) room.held.clear();
    else if (to <= room.seq) return;
    Object.assign(room, { epoch: epoch ?? room.epoch, seq: to, tag: undefined });
    this.#emit("gap", { room: room.name, from, to, turned });
    this.#drain(room);
  }

  /** Delivers a message in its place: once, and not before its predecessors. */
  #place(room, message) {
    const { seq, id } = message;
    const mine = id !== undefined && message.from === this.user && this.#pending.get(id);
    if (mine) this.#settle(mine, "acked", { seq, ts: message.ts });
    if (mine) message.own = true;
    if (room.wanted && seq <= room.seq) return;
    if (!room.wanted) room.seq = Math.max(room.seq, seq - 1); // a direct message needs no join
    if (seq > room.seq) room.held.set(seq, message);
    this.#drain(room);
  }

  #drain(room) {
    for (let next; (next = room.held.get(room.seq + 1)); ) {
      Object.assign(room, { seq: next.seq, tag: next.tag, holeSince: 0 });
      this.#emit("message", { ...next, own: next.own ?? next.from === this.user });
      if (room.typing.delete(next.from)) this.#emitTyping(room);
    }
    for (const seq of room.held.keys()) if (seq <= room.seq) room.held.delete(seq);
    if (room.seq >= room.target) room.target = 0;
    room.holeSince = room.held.size || room.target ? room.holeSince || Date.now() : 0;
  }

  /** Reads what is missing before the first held message; what even the history does not have is a gap. */
  async #fillHole(room) {
    room.holeSince = Infinity; // one question at a time
    const end = Math.min(room.target || Infinity, ...[...room.held.keys()].map((seq) => seq - 1));
    try {
      const { messages } = await this.history(room.name, { after: room.seq, limit: 100 });
      room.holeSince = 0;
      const found = messages.filter((message) => message.seq > room.seq);
      const known = found.length ? found[0].seq - 1 : end;
      if (known > room.seq) this.#gap(room, { from: room.seq + 1, to: known });
      for (const message of found) this.#place(room, { ...message, room: room.name });
      this.#drain(room);
    } catch {
      room.holeSince = Date.now();
    }
  }

  /** The ack stands where the own message would stand. */
  #ack({ id, room: name, seq, ts, tag }) {
    const message = this.#pending.get(id);
    if (!message) return;
    const room = this.#room(name ?? message.room);
    const placed = { room: room.name, seq, ts, tag, id, from: this.user, text: message.text, data: message.data };
    const before = seq <= room.seq; // stored by an earlier attempt, and that place is past
    this.#settle(message, "acked", { seq, ts });
    if (before) this.#emit("message", { ...placed, own: true });
    else this.#place(room, { ...placed, own: true });
  }

  #error(frame, room) {
    // Without a welcome there is nothing to go on with: another user or token is needed.
    const isFinal = ["authentication_failed", "not_authenticated", "invalid_user"].includes(frame.reason);
    if (this.state === "connecting" && isFinal) return this.#lost(4201, frame.message);
    const retryable = frame.retry_ms !== undefined || errors[frame.code]?.[1];
    const wait = Date.now() + (frame.retry_ms ?? 2000);
    const message = this.#pending.get(frame.id);
    if (message) {
      const target = this.#room(message.room);
      const rejoin = frame.reason === "not_in_room" && target.wanted;
      if (!retryable && !rejoin) return this.#settle(message, "failed", { error: frame });
      message.inFlight = false;
      target.holdUntil = wait;
      if (rejoin) this.#sendJoins([target]);
      return;
    }
    const request = this.#requests.get(frame.id);
    if (request) {
      this.#requests.delete(frame.id);
      return request.reject(Object.assign(new Error(frame.message), frame));
    }
    if (frame.id?.startsWith("j-")) {
      for (const each of room ? [room] : this.#rooms.values()) {
        if (!each.wanted || each.joined) continue;
        if (retryable) each.retryAt = wait;
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

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
