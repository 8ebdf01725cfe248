/**
 * Martlet's client for the browser: an ES module, and the three beside it that it imports.
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
 * - `presence` {room, members, count} · `typing` {room, users} · `error` {code, reason, message, room, refused}: `refused`
 *   lists the rooms that this client is not in because of it
 */

import { Link, backoff, closeAction } from "./link.js";
import { Outbox, clientInstance } from "./outbox.js";
import { Room, isRoomName } from "./room.js";

export { backoff, closeAction, isRoomName };

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

/** Milliseconds. An unanswered message is not sent again after `resend`: the server knows an id for two minutes. A
 * message may wait `hole` for its predecessors. A member list is read again at the age of `presence`, should the last
 * event be lost. Online for `stable`, the next backoff starts small. */
const after = { resend: 110_000, hole: 1000, typing: 6000, typingRefresh: 3000, presence: 50_000, stable: 10_000 };

function checkRoom(name) {
  if (isRoomName(name)) return;
  throw Object.assign(new RangeError(`“${name}” is no room name`), { code: 108, reason: errors[108][0] });
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
  #link = null;
  #rooms = new Map();
  #outbox = new Outbox();
  #leaving = new Set(); // rooms; until the answer, what is said of one is about the time before
  #counter = 0;
  #attempt = 0;
  #listeners; // to the page's events, while this is not closed
  #timer;
  #ticker;
  #waker;
  #welcomedAt = 0;

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

  /** @throws {RangeError} code 108 when this is no room name: see `isRoomName` */
  join(name) {
    checkRoom(name);
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
   * @returns {{id: string, done: Promise<{seq: number, ts: number}>}} @throws {RangeError} as `join` does
   */
  send(name, text, data) {
    checkRoom(name);
    let settle;
    const done = new Promise((resolve, reject) => (settle = { resolve, reject }));
    done.catch(() => {}); // who does not look at it has the `sent` event
    const id = this.#outbox.add({ room: name, text, data, ...settle });
    this.#room(name).typedAt = 0;
    queueMicrotask(() => this.#refuseTooLarge()); // who called knows the id first
    this.#flush();
    return { id, done };
  }

  /** Say it on every keystroke; it goes out every 3 s at most. */
  typing(name, typing = true) {
    const room = this.#rooms.get(name);
    const now = Date.now();
    if (!room?.joined || (typing ? now - room.typedAt < after.typingRefresh : !room.typedAt)) return;
    if (!this.#outbox.hasCredit(now)) return; // messages are worth more
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
  async history(name, range = {}) {
    checkRoom(name);
    return this.#request({ type: "history", room: name, limit: 50, ...range });
  }

  members(name) {
    return [...(this.#rooms.get(name)?.members.values() ?? [])];
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
    if (this.state !== "connecting") return; // who heard of it closed the client
    this.#link = new Link(new WebSocket(address.href, "martlet.v1.json"), {
      opened: (link) => this.#introduce(link),
      received: (frame) => this.#receive(frame),
      lost: (code, reason) => this.#lost(code, reason),
    });
    this.#ticker = setInterval(() => this.#tick(Date.now()), 1000);
  }

  async #introduce(link) {
    const { token, client, status = "online" } = this.#options;
    const value = typeof token === "function" ? await token() : token;
    if (link.isDropped) return;
    if (token) link.transmit({ type: "auth", token: value, client });
    this.status(status); // a server that wants to know who this is, and was not told, says so at once
  }

  #drop(code) {
    clearTimeout(this.#timer);
    clearTimeout(this.#waker);
    clearInterval(this.#ticker);
    this.#link?.drop(code);
    this.#link = null;
    for (const room of this.#rooms.values()) room.disconnected();
    this.#leaving.clear();
    this.#outbox.connectionLost();
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
    if (code === 4000 && this.#link?.isToldToMove) return this.#open();
    this.#drop();
    if (action === "backoff") this.#attempt = Math.max(this.#attempt, 3);
    const delay = backoff(this.#attempt) + (action === "backoff" ? 2000 : 0);
    this.#attempt += 1;
    this.#welcomedAt = 0;
    for (const room of this.#rooms.values()) if (room.endTyping(() => true)) this.#emitTyping(room);
    this.#timer = setTimeout(() => this.#open(), delay);
    this.#setState("waiting", { attempt: this.#attempt, retryAt: now + delay, code, reason });
  }

  #tick(now) {
    const end = this.#link?.check(now, this.state === "online");
    if (end) return this.#lost(1006, end);
    if (this.state !== "online") return;
    this.#sendJoins([...this.#rooms.values()].filter(({ retryAt }) => retryAt && now >= retryAt));
    for (const room of this.#rooms.values()) {
      if (room.joined && room.holeSince && now - room.holeSince > after.hole) this.#fillHole(room);
      if (room.joined && now - room.listedAt > after.presence) this.#askPresence(room);
      if (room.endTyping((until) => until <= now)) this.#emitTyping(room);
    }
    this.#flush(now);
  }

  #ping() {
    if (this.state === "online") this.#link.ping();
  }

  #transmit(frame) {
    this.#outbox.count();
    this.#link?.transmit(frame);
  }

  async #request(frame) {
    if (this.state !== "online") throw new Error("there is no connection");
    this.#outbox.count();
    return this.#link.request(frame);
  }

  // Rooms

  #room(name) {
    if (!this.#rooms.has(name)) this.#rooms.set(name, new Room(name));
    return this.#rooms.get(name);
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
    this.#transmit({ type: "join", id, rooms: free.map(({ name, since }) => ({ room: name, since })) });
  }

  /** Again until it is answered; a new join of the room waits for that. */
  async #sendLeave(name) {
    const link = this.#link;
    this.#leaving.add(name);
    let wait;
    do {
      wait = await this.#request({ type: "leave", room: name }).then(() => 0, ({ retry_ms: retry = 0 }) => retry);
      if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
      if (link !== this.#link) return; // the next session is in no room but those that it joins
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
    for (const { frame } of due) this.#link.transmit(frame);
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
        if (frame.id !== undefined) return this.#link.answer(frame);
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
        if (frame.id !== undefined) return this.#link.answer(frame);
        return room?.joined && this.#emit("page", frame);
      case "pong":
        if (frame.id === "ping") this.roundTrip = this.#link.roundTrip;
        return;
      case "reconnect": return (this.#link.isToldToMove = true); // once the node closes; until then all goes on
      case "error": return this.#error(frame);
    }
  }

  #welcome({ session, user, node, limits: serverLimits }) {
    Object.assign(this, { session, user, node, limits: serverLimits ?? {} });
    this.#welcomedAt = Date.now();
    this.#outbox.begin(this.limits.messages_per_second);
    this.#setState("online");
    this.#refuseTooLarge();
    this.#sendJoins([...this.#rooms.values()].filter((room) => room.wanted));
    this.#ping();
  }

  #joined(room, frame) {
    const how = room.enter(frame, Date.now());
    if (how === "turned") this.#emit("gap", { room: room.name, to: frame.seq, turned: true });
    this.#emit("joined", { room: room.name, recovered: frame.recovered, first: how === "first" });
    this.#list(room, frame);
    this.#flush();
  }

  #gap(room, frame) {
    const { isNew, turned } = room.skip(frame);
    if (!isNew) return;
    this.#emit("gap", { room: room.name, from: frame.from, to: frame.to, turned });
    this.#drain(room);
    if (turned) this.#askPresence(room);
  }

  /** Delivers a message in its place: once, and not before its predecessors. */
  #place(room, message) {
    const { seq, id } = message;
    const mine = id !== undefined && message.from === this.user && this.#outbox.get(id);
    if (mine) this.#settle(mine, "acked", { seq, ts: message.ts });
    if (mine) message.own = true;
    if (room?.epoch) {
      room.hold(message);
      this.#drain(room);
    } else if (message.room.startsWith("dm:")) {
      this.#emitMessage(message); // a private room needs no join, and has no place to be compared with
    }
    this.#flush();
  }

  #drain(room) {
    for (const message of room.take(Date.now())) {
      this.#emitMessage(message);
      if (room.typing.delete(message.from)) this.#emitTyping(room);
    }
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
      const lost = room.lostUpTo(found);
      if (lost) this.#gap(room, { from: room.seq + 1, to: lost });
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

  #error(frame) {
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
    if (this.#link.answer(frame)) return;
    if (frame.id?.startsWith("j-")) return this.#joinRefused(frame, retryable && again);
    this.#emit("error", frame);
  }

  /** The server named the room at fault, or did not. */
  #joinRefused(frame, again) {
    const joining = [...this.#rooms.values()].filter(({ joinID, joined }) => joinID === frame.id && !joined);
    const refused = joining.filter(({ name }) => name === (frame.room ?? name));
    if (again) return refused.forEach((room) => (room.retryAt = again));
    // One room that cannot be is refused with its whole frame. If it is not said which, each goes on alone.
    if (refused.length > 1) return refused.forEach((room) => this.#sendJoins([room]));
    refused.forEach((room) => this.#forget(room));
    this.#emit("error", { ...frame, refused: refused.map(({ name }) => name) });
    if (frame.reason === "invalid_room") this.#sendJoins(joining.filter((room) => !refused.includes(room)));
  }

  // Presence and typing

  #presence(room, frame) {
    if (frame.members) return this.#list(room, frame);
    const result = room.change(frame);
    if (result === "old") return;
    this.#emitPresence(room);
    if (result === "hole") this.#askPresence(room);
  }

  #list(room, frame) {
    room.list(frame, Date.now());
    this.#emitPresence(room);
  }

  #askPresence(room) {
    room.listedAt = Date.now();
    this.#transmit({ type: "presence", room: room.name });
  }

  #emitPresence(room) {
    this.#emit("presence", { room: room.name, members: [...room.members.values()], count: room.count });
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
