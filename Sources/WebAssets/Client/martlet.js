/*!
 * Martlet's client for browsers and Node 22: this one file. martlet.d.ts beside it types and explains calls and events.
 *
 *     const chat = new Martlet({ user: "alice" });
 *     chat.addEventListener("message", ({ detail }) => console.log(detail.from, detail.text));
 *     chat.join("general");
 *     chat.connect();
 *     await chat.send("general", "hi").done;
 */
/* It reconnects by itself, delivers each message of a room once and in the order of `seq`, sends an unacknowledged one
 * again under the same id, and says `gap` where messages could not be had. Nodes serve what `make client` makes. */

/** Milliseconds. A message is sent again `flight` after the last time, but not past `resend`: the server knows an id
 * for two minutes. One waits `hole` for its predecessors. A list of members is read again at the age of `list`. `node` is
 * for the router to say where the node is, and again for the node to accept. */
const after = { answer: 1e4, flight: 1e4, hole: 1e3, list: 4e4, node: 2e3, resend: 11e4, stable: 1e4, typing: 6e3, retype: 3e3, wake: 2e3 };
/** On their way at once: even if the server counts them all at one moment, it refuses none. */
const burst = 20;

const { assign } = Object;
const all = (map) => [...map.values()];
const random = () => Math.random().toString(36).slice(2, 10).padEnd(8, "0");
const failure = (message, detail) => assign(new Error(message), detail);

/** @param {string} name @returns {boolean} whether a server may take it for a room */
export const isRoomName = (name) => /^(dm(:([\w.@/-]|%[\dA-F]{2})+){2}|(?!dm:)[\w.:@/-]{1,128})$/.test(name);

/** Whom a token is about, unproved, for a router to find the node; undefined when it does not tell a user.
 * @param {string} [token] */
function subject(token) {
	try {
		const payload = atob(token.split(".")[1].replace(/[-_]/g, (c) => (c < "_" ? "+" : "/")));
		const { sub } = JSON.parse(new TextDecoder().decode(Uint8Array.from(payload, (c) => c.charCodeAt())));
		if (typeof sub === "string" && sub.length < 129) return sub;
	} catch {} // it is no JWT
}

/** @implements {import("./martlet.d.ts").Martlet} */
export class Martlet extends EventTarget {
	state = "closed";
	limits = {};
	node;
	session;
	user;
	rtt;

	/** @param {import("./martlet.d.ts").Options} options */
	constructor(options = {}) {
		super();
		Object.defineProperties(this, Object.getOwnPropertyDescriptors(calls(this, options)));
	}
}

function calls(chat, { url, user, token, key, status = "online", client = `js-${random()}${random()}`, keepsToNode = true, ...options }) {
	const page = globalThis.location;
	const Socket = options.WebSocket ?? globalThis.WebSocket;
	const prefix = random(); // of ids: a reload must not use an id again
	const rooms = new Map();
	const outbox = new Map(); // own messages without an ack, by id, oldest first
	const requests = new Map();
	const leaving = new Set(); // names; until the answer, what is said of one is about the time before
	const direct = { joined: true }; // the room of all direct messages that go out
	const directs = new Map(); // private rooms by name, the one in which something was heard last behind the others
	let socket, proof, secret, claim, began, bare, said, listeners, ticker, retry, waker, told, pinged;
	let distrusted; // the last connection without the router has not come to be online: the next goes through it
	let counter = 0, attempt = 0, openedAt = 0, heardAt = 0, pingAt = 0, quiet = 1e4;
	let pace = 0, most = burst, spent = 0; // milliseconds a frame, 0 without a limit; frames at once; paid until

	const now = () => Date.now();
	const online = () => chat.state === "online";
	const largest = () => chat.limits.message_bytes; // undefined where the server has not said it
	const hidden = () => globalThis.document?.hidden;
	const emit = (type, detail) => chat.dispatchEvent(new CustomEvent(type, { detail }));
	const set = (state, detail) => emit("state", { state: (chat.state = state), ...detail });

	// The connection

	function listen() {
		const { signal } = (listeners = new AbortController());
		const on = (type, handler) => globalThis.addEventListener?.(type, handler, { signal });
		on("online", wake);
		on("visibilitychange", () => hidden() || wake());
		on("pageshow", wake);
		// A browser may keep a page that was left, and its socket with it: others would go on seeing this user.
		on("pagehide", () => {
			drop(1000);
			set("waiting", { attempt: 0, retryAt: now(), code: 1000, reason: "the page was left" });
		});
	}

	function wake() {
		if (chat.state === "waiting" || (chat.state === "connecting" && now() - openedAt > 1e3)) return open();
		pinged = ""; // what came meanwhile was not looked at, and frames that lie in the socket are no sign of life
		ping();
		clearTimeout(retry);
		retry = setTimeout(() => (pinged || !online()) && lost(1006, "", true), after.wake);
	}

	function open() {
		drop();
		const address = new URL(url ?? `${page.protocol.replace("http", "ws")}//${page.host}/ws`);
		const query = { user: token ? "" : user, key, client, resume: (secret || began) && 1 };
		for (const name in query) if (query[name]) address.searchParams.set(name, query[name]);
		told = false;
		claim = undefined;
		said = status;
		set("connecting");
		if (chat.state !== "connecting") return; // who heard of it closed the client
		openedAt = now();
		if (typeof token === "function") return ask(address);
		proof = token;
		reach(address);
	}

	/** Asks for the token before it connects, as the address says whose it is. */
	async function ask(address) {
		const mine = (socket = { close() {} }); // until there is one
		try {
			const value = await token();
			if (mine !== socket) return;
			proof = value;
			reach(address);
		} catch ({ message }) {
			if (mine === socket) lost(1006, message);
		}
	}

	function reach(address) {
		// The first frame, which shows the token, is nothing that a router sees.
		const name = keepsToNode && !/[?&](key|user|token)=/.test(address.search) && subject(proof);
		if (name) address.searchParams.set("key", name);
		if (options.locatesNode && !distrusted) return locate(address);
		distrusted = false;
		dial(address.href);
	}

	/** Asks the router where the node is, and connects there; through the router when no address comes that will do. */
	async function locate({ href, search }) {
		const question = new AbortController();
		const mine = (socket = { close: () => question.abort() }); // until there is one
		const timer = setTimeout(mine.close, after.node);
		const address = new URL(`locate${search}`, href).href.replace(/^ws/, "http");
		let node;
		try {
			// The query may say who this is: nobody but the router reads it.
			const answer = await fetch(address, { credentials: "omit", redirect: "error", signal: question.signal });
			const { url } = answer.ok && (await answer.json());
			// Never without TLS where the router has it.
			if (/^wss?:\/\/[^?#@]+$/.test(url) && (/^wss/.test(url) || !/^https/.test(address))) node = url + search;
		} catch {} // it goes through the router
		clearTimeout(timer);
		if (mine !== socket) return;
		distrusted = !!node;
		try {
			if (node) return dial(node, href);
		} catch {} // it is no address, or one that this page may not connect to
		dial(href);
	}

	/** @param {string} [router] where to connect when `address` does not accept, whatever the reason */
	function dial(address, router) {
		const mine = (socket = new Socket(address, "martlet.v1.json"));
		openedAt = now();
		const on = (handler) => (event) => mine === socket && handler(event);
		const giveUpNode = on(() => {
			dial(router);
			mine.close();
		});
		const timer = router && setTimeout(giveUpNode, after.node);
		mine.onopen = on(() => {
			clearTimeout(timer);
			router = ""; // from here on a loss is one
			introduce();
		});
		mine.onclose = on(({ code, reason }) => (router ? dial(router) : lost(code, reason)));
		mine.onmessage = on(({ data }) => {
			heardAt = now();
			receive(JSON.parse(data));
		});
	}

	function introduce() {
		const who = { type: "auth", id: "auth", ...(token ? { token: proof } : { user }), client };
		if (secret || began) return say({ ...who, status, ...comeBack() }); // any further word would confirm the new secret
		if (token) say(who);
		say({ type: "status", status }); // a server that wants to know who this is says so at once
	}

	function expiring({ expires_in_ms: left }) {
		emit("expiring", { left });
		if (typeof token === "function") renew(socket, now() + left);
	}

	/** Again until the server took one, or the old one's time is over. */
	async function renew(mine, end, wait = 1e3) {
		if (mine !== socket) return;
		try {
			const value = await token();
			if (mine === socket) await request({ type: "auth", token: value });
		} catch {
			if (mine === socket && now() + wait < end) setTimeout(renew, wait, mine, end, 2 * wait);
		}
	}

	function comeBack() {
		const inside = all(rooms).filter((room) => !bare && room.inside && !leaving.has(room.name));
		for (const room of inside) room.claimed = true;
		const list = all(directs).filter(({ epoch }) => epoch).slice(-200).map(place);
		while (JSON.stringify(list).length > (largest() ?? 65536) / 2) list.shift();
		const resume = secret && { session: chat.session, secret };
		return (claim = { resume, rooms: inside[0] && inside.map(place), directs: began && { since: began, rooms: list } });
	}

	/** Does not wait for the close handshake: a dead network would not answer it. */
	function drop(code) {
		clearTimeout(retry);
		clearTimeout(waker);
		const old = socket;
		socket = undefined;
		old?.close(code);
		for (const { reject } of requests.values()) reject(failure("the connection is gone"));
		requests.clear();
		direct.hold = 0;
		for (const room of rooms.values()) {
			assign(room, { joined: false, claimed: false, asked: "", retryAt: 0, hold: 0, pv: 0 });
			endTyping(room, Infinity);
		}
		for (const message of outbox.values()) land(message);
	}

	function lost(code, reason, soon = code === 4000 && told) {
		const kind = Math.floor(code / 100);
		if (kind === 42) return end(code, reason);
		if (online() && now() - openedAt > after.stable) attempt = 0;
		if (code === 1009) {
			const [message] = all(outbox).filter(({ sentAt }) => sentAt).sort((a, b) => b.bytes - a.bytes);
			if (message) tooLarge(message, "fewer");
		}
		quiet = 5e3;
		if (soon) return open();
		drop();
		if (kind === 41) attempt = Math.max(attempt, 3);
		const delay = Math.random() * Math.min(3e4, 1e3 * 2 ** attempt++) + (kind === 41 ? 2e3 : 0);
		retry = setTimeout(open, delay);
		set("waiting", { attempt, retryAt: now() + delay, code, reason });
	}

	function end(code, reason = "") {
		listeners?.abort();
		clearInterval(ticker);
		drop(1000);
		attempt = 0;
		secret = undefined;
		for (const message of all(outbox)) giveUp(message, "the client is closed");
		set("closed", { code, reason });
	}

	function tick() {
		const time = now();
		flush();
		if (chat.state === "connecting" && time - openedAt > after.answer) return lost(1006, "no answer");
		if (!online()) return;
		if (pinged && !hidden() && time - Math.max(heardAt, pingAt) > after.answer) return lost(1006, "no answer to ping");
		if (!hidden() && time - Math.max(heardAt, pingAt) > quiet) ping();
		join(all(rooms).filter(({ retryAt }) => retryAt && time >= retryAt));
		let asked = 0;
		for (const room of rooms.values()) {
			endTyping(room, time);
			if (!room.joined) continue;
			seek(room, time);
			// A hundred rooms take their turns within a minute.
			if (time - room.listedAt > after.list && ++asked < 7) askPresence(room);
		}
		for (const room of directs.values()) seek(room, time);
	}

	const seek = (room, time) => room.holeSince && time - room.holeSince > after.hole && fill(room);

	function ping() {
		if (pinged || !online()) return;
		pinged = `${(pingAt = now())}`;
		say({ type: "ping", id: pinged });
	}

	/** The server counts every frame, so each pays. */
	function say(frame) {
		spent = Math.max(spent, now()) + pace;
		if (socket?.readyState === 1) socket.send(frame.frame ?? JSON.stringify(frame));
	}

	/** Milliseconds until the next frame is paid for. */
	const credit = () => Math.max(0, Math.floor(spent - now() - (most - 1) * pace));

	const request = (frame) =>
		new Promise((resolve, reject) => {
			if (!online()) return reject(failure("there is no connection"));
			const id = `r-${++counter}`;
			requests.set(id, { resolve, reject });
			say({ ...frame, id });
		});

	function answer(frame) {
		const asked = requests.get(frame.id);
		requests.delete(frame.id);
		if (frame.type === "error") asked?.reject(failure(frame.message, frame));
		else asked?.resolve(frame);
		return asked;
	}

	// Rooms

	function enter(name) {
		if (!isRoomName(name)) {
			throw assign(new RangeError(`“${name}” is no room name`), { code: 108, reason: "invalid_room" });
		}
		return known(rooms, name);
	}

	function known(map, name) {
		const room = { name, seq: 0, held: new Map(), members: new Map(), typing: new Map(), pv: 0 };
		if (!map.has(name)) map.set(name, room);
		return map.get(name);
	}

	const isDirect = (name) => name?.startsWith("dm:");

	const place = ({ name, epoch, seq, tag }) => ({ room: name, since: epoch && { epoch, seq, tag } });

	/** One frame for all of them that may be joined now. */
	function join(list) {
		const free = list.filter(({ name, wanted }) => wanted && !leaving.has(name));
		if (!online() || !free.length) return;
		const id = `j-${++counter}`;
		for (const room of free) assign(room, { asked: id, retryAt: 0 });
		say({ type: "join", id, rooms: free.map(place) });
	}

	function forget(room) {
		rooms.delete(room.name);
		for (const message of all(outbox)) if (message.room === room) giveUp(message, "the room was left");
	}

	/** Again until it is answered; a new join of the room waits for that. */
	async function leave(name) {
		const mine = socket;
		for (let wait = 1; wait; ) {
			wait = await request({ type: "leave", room: name }).then(() => 0, ({ retry_ms: ms }) => ms);
			if (wait) await new Promise((resolve) => setTimeout(resolve, wait));
			if (mine !== socket) return; // the next welcome says what became of it
		}
		leaving.delete(name);
		if (rooms.has(name)) join([rooms.get(name)]);
	}

	/** What was promised, held, or known of the members is of the time before. */
	const turn = (room, epoch, seq, tag) =>
		assign(room, { epoch, seq, tag, target: 0, holeSince: 0, pv: 0, held: new Map() });

	/** Delivers a message in its place: once, and not before its predecessors. */
	function put(room, message) {
		const { room: name, epoch, seq, ts } = message;
		const mine = message.from === chat.user && outbox.get(message.id);
		if (mine) settle(mine, "acked", { room: name, seq, ts });
		if (isDirect(name)) {
			directs.delete(name);
			directs.set(name, room);
			// It begins with the first message that is heard of it, and turns with one of another epoch.
			if (!room.epoch) turn(room, epoch, seq - 1);
			else if (epoch) skip(room, { epoch, to: epoch === room.epoch ? 0 : seq - 1 });
		}
		if (room?.epoch) {
			room.held.set(seq, message);
			drain(room);
		}
		flush();
	}

	function drain(room) {
		const { held } = room;
		for (let next; (next = held.get(room.seq + 1)); ) {
			assign(room, { seq: next.seq, tag: next.tag, holeSince: 0 });
			emit("message", { ...next, own: next.from === chat.user });
			if (room.typing.delete(next.from)) sayTyping(room);
		}
		for (const seq of held.keys()) if (seq <= room.seq) held.delete(seq);
		room.holeSince = held.size || room.target > room.seq ? room.holeSince || now() : 0;
	}

	/** Reads what is missing before the first held message; what even the history does not have is a gap. */
	async function fill(room) {
		const { held, seq: from } = room;
		room.holeSince = Infinity; // one question at a time
		const page = await chat.history(room.name, { after: from, limit: 100 }).catch(() => ({}));
		if (held !== room.held || (isDirect(room.name) ? directs : rooms).get(room.name) !== room) return; // of the time before
		room.holeSince = now();
		if (!page.messages || (page.epoch ?? room.epoch) !== room.epoch) return; // a gap will say that it has turned
		const found = page.messages.filter(({ seq }) => seq > room.seq);
		const next = found[0]?.seq ?? Math.min(room.target > room.seq ? room.target + 1 : Infinity, ...held.keys());
		if (next > room.seq + 1 && next < Infinity) skip(room, { from: room.seq + 1, to: next - 1 });
		for (const message of found) put(room, { ...message, room: room.name });
		drain(room);
	}

	function skip(room, { epoch = room.epoch, from, to }) {
		const turned = epoch !== room.epoch;
		if (!turned && to <= room.seq) return;
		if (turned) turn(room, epoch, to);
		else assign(room, { seq: to, tag: undefined });
		emit("gap", { room: room.name, from, to, turned });
		drain(room);
		if (turned && room.joined) askPresence(room);
	}

	// Own messages

	/** `since` is when it was sent that it may be stored; 0 when it never was, or was refused each time. */
	function post(room, frame) {
		const id = `${prefix}-${++counter}`;
		const text = JSON.stringify({ ...frame, id });
		const bytes = new TextEncoder().encode(text).length;
		const message = { ...frame, id, room, frame: text, bytes, sentAt: 0, since: 0, unanswered: 0 };
		message.done = new Promise((resolve, reject) => assign(message, { resolve, reject }));
		message.done.catch(() => {}); // who does not look at it has the `sent` event
		outbox.set(id, message);
		room.typedAt = 0;
		queueMicrotask(refuseTooLarge); // who called knows the id first
		flush();
		return { id, done: message.done };
	}

	/** In order; behind a message that was refused for now, those of its room wait until it is stored. */
	function flush() {
		clearTimeout(waker);
		const time = now();
		const seen = new Set();
		let flying = 0;
		let wait = Infinity;
		for (const message of all(outbox)) {
			const { room, sentAt, since } = message;
			const waits = room.hold && seen.has(room);
			if (since && time - since > after.resend) {
				settle(message, "unknown");
				continue;
			}
			seen.add(room);
			if (sentAt && time - sentAt <= after.flight) flying += 1;
			else if (!online() || !room.joined || waits || message.bytes > largest()) continue;
			else if (room.hold > time) wait = Math.min(wait, room.hold - time);
			else if (pace && flying >= burst) break;
			else if (credit()) {
				wait = Math.min(wait, credit());
				break;
			} else {
				flying += 1;
				message.unanswered += 1;
				assign(message, { sentAt: time, since: since || time, probe: !!room.hold });
				say(message);
			}
		}
		if (wait < Infinity) waker = setTimeout(flush, wait);
	}

	const land = (message) => assign(message, { sentAt: 0, probe: false });

	function settle(message, status, detail) {
		const { id, room, probe, resolve, reject } = message;
		if (!outbox.delete(id)) return;
		if (probe) room.hold = 0;
		if (status === "acked") resolve(detail);
		else reject(failure(detail?.error.message ?? status, { status, ...detail?.error }));
		emit("sent", { room: room.name, id, status, ...detail });
	}

	/** What was sent may be stored; what was not is not. */
	const giveUp = (message, why) =>
		message.since ? settle(message, "unknown") : settle(message, "failed", { error: { message: why } });

	/** It would end the connection, each time it is sent. */
	function tooLarge(message, limit) {
		const text = `the message has ${message.bytes} bytes; this server takes ${limit}`;
		settle(message, "failed", { error: { code: 104, reason: "too_large", message: text } });
	}

	function refuseTooLarge() {
		for (const message of all(outbox)) if (message.bytes > largest()) tooLarge(message, `at most ${largest()}`);
	}

	// Frames

	function receive(frame) {
		const { type, id, room: name } = frame;
		const room = isDirect(name) ? known(directs, name) : leaving.has(name) ? undefined : rooms.get(name);
		if (type === "welcome" && !online()) welcome(frame);
		else if (type === "message") put(room, frame);
		else if (type === "ack") acked(room, frame);
		else if (type === "error") refused(frame);
		else if (type === "reconnect") told = true; // once the node closes; until then all goes on
		else if (type === "token_expiring") expiring(frame);
		else if (type === "pong") {
			chat.rtt = heardAt - id;
			if (id === pinged) pinged = "";
			quiet = Math.min(6e4, quiet * 2);
		} else if (id !== undefined && answer(frame)) return;
		else if (type === "joined" && room?.wanted) joined(room, frame);
		else if (type === "gap" && (room?.epoch || isDirect(name))) skip(room, frame);
		else if (type === "left" && room && id === undefined) {
			forget(room);
			emit("left", frame);
		} else if (type === "history" && id === undefined && (room?.joined || isDirect(name))) emit("page", frame);
		else if (!room?.joined) return;
		else if (type === "presence") presence(room, frame);
		else if (type === "typing" && frame.from !== chat.user) {
			if (frame.typing === false) room.typing.delete(frame.from);
			else room.typing.set(frame.from, now() + after.typing);
			sayTyping(room);
		}
	}

	function welcome({ session, user, node, limits = {}, secret: next, resumed, ts }) {
		const limit = limits.messages_per_second;
		assign(chat, { session, user, node, limits });
		secret = next;
		began ??= ts; // of the first session
		bare = distrusted = false;
		openedAt = now();
		pace = limit ? 1111 / limit : 0; // a little slower than the server counts
		spent = openedAt + 2 * pace; // what introduced this client counts too
		most = Math.min(limit || burst, burst);
		if (!claim) leaving.clear(); // a new session is in no room but those that it joins
		for (const room of rooms.values()) {
			if (!resumed) room.inside = false;
			if (room.claimed) assign(room, { asked: "-", retryAt: openedAt + 5e3 }); // its `joined` comes unasked
		}
		set("online");
		refuseTooLarge();
		if (said !== status) say({ type: "status", status });
		for (const name of leaving) leave(name);
		join(all(rooms).filter(({ asked }) => !asked));
		flush();
		ping();
	}

	function joined(room, frame) {
		const { epoch, seq, tag, recovered } = frame;
		const first = !room.epoch;
		const turned = !first && !recovered && (epoch !== room.epoch || seq < room.seq);
		assign(room, { joined: true, inside: true, retryAt: 0 });
		if (first || turned) turn(room, epoch, seq, tag);
		else if (seq > room.seq) assign(room, { target: seq, holeSince: now() });
		if (turned) emit("gap", { room: room.name, to: seq, turned });
		emit("joined", { room: room.name, recovered, first });
		list(room, frame);
		flush();
	}

	/** The ack stands where the own message would stand. When that place is past, it was shown, or lies in a gap. */
	function acked(room, { id, room: name, seq, ts, tag, epoch }) {
		if (!outbox.has(id)) return;
		const { text, data, to } = outbox.get(id);
		put(room, { room: name, seq, ts, tag, epoch, id, from: chat.user, to, text, data });
	}

	function refused(frame) {
		const { id, reason, room: name, retry_ms: ms } = frame;
		if (chat.state === "connecting") {
			// The answer to `auth` decides; who sent none hears by the answer to another frame that one is wanted.
			const answered = id === "auth";
			const isNoUser = ["authentication_failed", "invalid_user"].includes(reason);
			const isAsked = reason === "not_authenticated" && !token && !claim;
			if (answered ? isNoUser : isAsked) return lost(4201, frame.message); // another user or token is needed
			if (answered) {
				if (ms === undefined) {
					if (bare) began = undefined;
					bare = true; // it cannot do it in one frame
					secret = undefined;
				}
				return lost(1006, frame.message);
			}
		}
		const again = now() + (ms ?? 2e3);
		const message = outbox.get(id);
		if (message) {
			const { room } = message;
			const rejoin = reason === "not_in_room" && room.wanted;
			if (rejoin) assign(room, { joined: false, retryAt: again });
			if (ms === undefined && !rejoin) settle(message, "failed", { error: frame });
			else {
				if (reason === "rate_limited") spent = Math.max(spent, now() + most * pace);
				room.hold = again;
				land(message);
				// Only a server that could not reach its store may have stored it.
				if (reason !== "unavailable" && !(message.unanswered -= 1)) message.since = 0;
			}
			return flush();
		}
		if (answer(frame)) return;
		const joining = all(rooms).filter(({ asked, joined }) => id && asked === id && !joined);
		const at = joining.filter((room) => room.name === (name ?? room.name));
		if (ms !== undefined && at.length) return at.forEach((room) => (room.retryAt = again));
		// One room that cannot be is refused with its whole frame. If it is not said which, each goes on alone.
		if (at.length > 1) return at.forEach((room) => join([room]));
		at.forEach(forget);
		emit("error", { ...frame, refused: at.map((room) => room.name) });
		if (reason === "invalid_room") join(joining.filter((room) => !at.includes(room)));
	}

	// Presence and typing

	function presence(room, frame) {
		const { joined = [], left = [], updated = [], count, pv } = frame;
		if (frame.members) return list(room, frame);
		if (pv <= room.pv) return;
		const changes = joined.length + left.length + updated.length;
		const hole = changes && pv - changes > room.pv;
		for (const member of [...joined, ...updated]) room.members.set(member.user, member);
		for (const { user } of left) room.members.delete(user);
		sayPresence(room, count, pv);
		if (hole) askPresence(room);
	}

	function list(room, { members = [], count = members.length, pv = 0 }) {
		room.members = new Map(members.map((member) => [member.user, member]));
		room.listedAt = now();
		sayPresence(room, count, pv);
	}

	function sayPresence(room, count, pv) {
		assign(room, { count, pv });
		emit("presence", { room: room.name, members: all(room.members), count });
	}

	function askPresence(room) {
		room.listedAt = now();
		say({ type: "presence", room: room.name });
	}

	const sayTyping = ({ name, typing }) => emit("typing", { room: name, users: [...typing.keys()] });

	function endTyping(room, time) {
		const over = [...room.typing].filter(([user, until]) => until <= time && room.typing.delete(user));
		if (over.length) sayTyping(room);
	}

	return {
		get bufferedAmount() {
			return all(outbox).reduce((sum, { bytes }) => sum + bytes, 0);
		},
		connect() {
			if (chat.state !== "closed") return;
			listen();
			ticker = setInterval(tick, 1e3);
			open();
		},
		close: () => end(1000),
		retryNow: () => chat.state === "waiting" && open(),
		join(name) {
			const room = enter(name);
			if (!room.wanted) join([assign(room, { wanted: true })]);
		},
		leave(name) {
			const room = rooms.get(name);
			if (!room?.wanted) return;
			forget(room);
			if (!room.asked && !room.inside) return;
			leaving.add(name);
			if (online()) leave(name);
		},
		send: (room, text, data) => post(enter(room), { type: "message", room, text, data }),
		direct: (to, text, data) => post(direct, { type: "direct", to, text, data }),
		typing(name, typing = true) {
			const room = rooms.get(name);
			const { typedAt = 0 } = room ?? {};
			if (!room?.joined || (typing ? now() - typedAt < after.retype : !typedAt) || credit()) return;
			room.typedAt = typing ? now() : 0;
			say({ type: "typing", room: name, typing });
		},
		status(value) {
			status = value;
			if (online()) say({ type: "status", status });
		},
		history: async (name, range) => request({ type: "history", room: enter(name).name, limit: 50, ...range }),
		members: (name) => [...(rooms.get(name)?.members.values() ?? [])],
	};
}
