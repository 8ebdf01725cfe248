// What the scenarios of martlet.js have in common. They run behind this script in a page of the cluster, so that
// /martlet.js is the file that nodes serve.
const done = arguments[arguments.length - 1];
let Martlet, isRoomName;

class Socket {
  static all = [];
  sent = [];
  readyState = 1;
  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    Socket.all.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.readyState = 3; }
  say(...frames) { for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) }); }
  of(type) { return this.sent.filter((frame) => frame.type === type); }
}

const welcome = { type: "welcome", session: "s", user: "alice", node: "node-a", limits: {} };
const message = (seq, extra = {}) =>
  ({ type: "message", room: "r", seq, tag: `t${seq}`, from: "bob", text: `m${seq}`, ts: 1, ...extra });
const joined = (seq, extra = {}) =>
  ({ type: "joined", room: "r", epoch: "e", seq, pv: 1, count: 1, members: [{ user: "alice" }], ...extra });
const tick = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const equal = (got, expected) => {
  const [one, other] = [got, expected].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${one} is not ${other}`);
};

/** A client in room r at `seq`, with all its events. */
function enter(seq, limits = {}) {
  Socket.all = [];
  const chat = new Martlet({ url: "ws://test/ws", user: "alice", client: "c", WebSocket: Socket });
  const events = [];
  for (const type of ["state", "joined", "left", "gap", "page", "message", "sent", "presence", "typing", "error"]) {
    chat.addEventListener(type, ({ detail }) => events.push([type, detail]));
  }
  chat.join("r");
  chat.connect();
  Socket.all[0].say({ ...welcome, limits }, joined(seq));
  const of = (type) => events.filter(([name]) => name === type).map(([, detail]) => detail);
  return { chat, events, of, seqs: () => of("message").map(({ seq }) => seq), socket: () => Socket.all.at(-1) };
}

/** Loses the connection and comes back, up to the welcome. */
async function back(client, code = 1006) {
  client.socket().onclose({ code, reason: "" });
  client.chat.retryNow();
  client.socket().say(welcome);
}

/** Answers the last ping. */
function pong({ socket }) {
  socket().say({ type: "pong", id: socket().of("ping").at(-1).id });
}

/** Calls back with [name, failure][]. */
async function run(scenarios) {
  ({ Martlet, isRoomName } = await import("/martlet.js"));
  const results = [];
  for (const [name, play] of Object.entries(scenarios)) {
    try {
      await Promise.race([play(), tick(5000).then(() => Promise.reject(new Error("it did not end within 5 s")))]);
      results.push([name, null]);
    } catch (error) {
      results.push([name, `${error.message}`]);
    }
  }
  return results;
}
