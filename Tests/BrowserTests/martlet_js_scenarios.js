// Runs in a page of the cluster, so that /martlet.js is the file that nodes serve. Calls back with [name, failure][].
const done = arguments[arguments.length - 1];

(async () => {
  const { Martlet, backoff, closeAction } = await import("/martlet.js");

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
  const message = (seq, extra = {}) => ({ type: "message", room: "r", seq, tag: `t${seq}`, from: "bob", text: `m${seq}`, ts: 1, ...extra });
  const joined = (seq, extra = {}) => ({ type: "joined", room: "r", epoch: "e", seq, pv: 1, count: 1, members: [{ user: "alice" }], ...extra });
  const tick = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const equal = (got, expected) => {
    if (JSON.stringify(got) !== JSON.stringify(expected)) throw new Error(`${JSON.stringify(got)} is not ${JSON.stringify(expected)}`);
  };

  /** A client in room r at `seq`, with all its events. */
  function enter(seq) {
    Socket.all = [];
    const chat = new Martlet({ url: "ws://test/ws", user: "alice", client: "c", WebSocket: Socket });
    const events = [];
    for (const type of ["state", "joined", "left", "gap", "page", "message", "sent", "presence", "typing", "error"]) {
      chat.addEventListener(type, ({ detail }) => events.push([type, detail]));
    }
    chat.join("r");
    chat.connect();
    Socket.all[0].say(welcome, joined(seq));
    const of = (type) => events.filter(([name]) => name === type).map(([, detail]) => detail);
    return { chat, events, of, seqs: () => of("message").map(({ seq }) => seq), socket: () => Socket.all.at(-1) };
  }

  /** Loses the connection and comes back, up to the welcome. */
  async function back(client, code = 1006) {
    client.socket().onclose({ code, reason: "" });
    client.chat.retryNow();
    client.socket().say(welcome);
  }

  const scenarios = {
    "the user and the client instance go in the address, the subprotocol is asked for": () => {
      const { socket } = enter(0);
      equal([socket().url, socket().protocol], ["ws://test/ws?user=alice&client=c", "martlet.v1.json"]);
    },
    "each message once and in order": () => {
      const client = enter(4);
      client.socket().say(message(5), message(5), message(7), message(6), message(3));
      equal(client.seqs(), [5, 6, 7]);
      client.chat.close();
    },
    "a rejoin asks for what comes after the last delivered message, in one frame": async () => {
      const client = enter(4);
      client.chat.join("q");
      client.socket().say(message(5));
      await back(client);
      const [join] = client.socket().of("join");
      equal(join.rooms, [{ room: "r", since: { epoch: "e", seq: 5, tag: "t5" } }, { room: "q" }]);
      client.socket().say(joined(7, { recovered: true }), message(6), message(7), message(7), message(8));
      equal(client.seqs(), [5, 6, 7, 8]);
      client.chat.close();
    },
    "an unacknowledged message is sent again with the same id, after the join": async () => {
      const client = enter(4);
      const { id, done: acked } = client.chat.send("r", "hi");
      await back(client);
      equal(client.socket().of("message").length, 0);
      client.socket().say(joined(4, { recovered: true }));
      equal(client.socket().of("message").map((frame) => frame.id), [id]);
      client.socket().say({ type: "ack", room: "r", id, seq: 5, ts: 9, tag: "t5" });
      equal((await acked).seq, 5);
      equal(client.of("message").map(({ seq, own, text }) => [seq, own, text]), [[5, true, "hi"]]);
      client.chat.close();
    },
    "an own message that recovery brings is its ack and appears once": async () => {
      const client = enter(4);
      const { id } = client.chat.send("r", "hi");
      await back(client);
      client.socket().say(joined(5, { recovered: true }), message(5, { from: "alice", id, text: "hi" }));
      client.socket().say({ type: "ack", room: "r", id, seq: 5, ts: 9, tag: "t5", duplicate: true });
      equal(client.seqs(), [5]);
      equal(client.of("sent").map(({ status }) => status), ["acked"]);
      client.chat.close();
    },
    "an ack that overtakes the recovery waits for its place": async () => {
      const client = enter(4);
      const { id } = client.chat.send("r", "hi");
      await back(client);
      client.socket().say(joined(6, { recovered: true }), { type: "ack", room: "r", id, seq: 6, ts: 9, tag: "t6" });
      equal(client.seqs(), []);
      client.socket().say(message(5), message(6, { from: "alice", id }));
      equal(client.seqs(), [5, 6]);
      client.chat.close();
    },
    "a rate limit keeps the message and those behind it, in order": async () => {
      const client = enter(0);
      const first = client.chat.send("r", "one");
      client.socket().say({ type: "error", code: 103, reason: "rate_limited", retry_ms: 100, id: first.id });
      const second = client.chat.send("r", "two");
      equal(client.socket().of("message").length, 1);
      await tick(1300);
      equal(client.socket().of("message").map(({ id }) => id), [first.id, first.id, second.id]);
      client.chat.close();
    },
    "a final refusal fails the message": async () => {
      const client = enter(0);
      const { id, done: acked } = client.chat.send("r", "x");
      client.socket().say({ type: "error", code: 104, reason: "too_large", message: "send less", id });
      equal(await acked.catch((error) => [error.code, error.message]), [104, "send less"]);
      client.chat.close();
    },
    "a hole is read from the history; what is not there is a gap": async () => {
      const client = enter(4);
      client.socket().say(message(8));
      await tick(2300);
      const [read] = client.socket().of("history");
      equal([read.room, read.after], ["r", 4]);
      client.socket().say({ type: "history", room: "r", id: read.id, messages: [message(7)], more: false });
      await tick(0);
      equal(client.seqs(), [7, 8]);
      equal(client.of("gap").map(({ from, to }) => [from, to]), [[5, 6]]);
      client.chat.close();
    },
    "a refused recovery is a gap with the newest page": async () => {
      const client = enter(4);
      await back(client);
      const page = { type: "history", room: "r", messages: [message(90)], more: true };
      client.socket().say(joined(90, { recovered: false }), { type: "gap", room: "r", epoch: "e", from: 5, to: 90 }, page, message(91));
      equal(client.of("gap").map(({ from, to, turned }) => [from, to, turned]), [[5, 90, false]]);
      equal(client.of("page").length, 1);
      equal(client.seqs(), [91]);
      client.chat.close();
    },
    "another epoch is a new start": async () => {
      const client = enter(40);
      await back(client);
      client.socket().say(joined(2, { epoch: "f", recovered: false }), { type: "gap", room: "r", epoch: "f", from: 1, to: 2 }, message(3));
      equal(client.of("gap").map(({ turned }) => turned), [true]);
      equal(client.seqs(), [3]);
      client.chat.close();
    },
    "presence follows the events, and a hole in pv is answered by asking": () => {
      const client = enter(0);
      client.socket().say({ type: "presence", room: "r", joined: [{ user: "bob" }], left: [], count: 2, pv: 2 });
      client.socket().say({ type: "presence", room: "r", joined: [{ user: "bob" }], left: [], count: 2, pv: 2 });
      equal(client.chat.members("r").map(({ user }) => user), ["alice", "bob"]);
      equal(client.socket().of("presence").length, 0);
      client.socket().say({ type: "presence", room: "r", joined: [], left: [{ user: "bob" }], count: 3, pv: 5 });
      equal(client.socket().of("presence").length, 1);
      client.socket().say({ type: "presence", room: "r", members: [{ user: "zoe" }], count: 1, pv: 5 });
      equal(client.chat.members("r").map(({ user }) => user), ["zoe"]);
      client.chat.close();
    },
    "close codes say whether to come back": async () => {
      equal([1006, 4000, 4099, 4100, 4199, 4200, 4299].map(closeAction), ["resume", "resume", "resume", "backoff", "backoff", "stop", "stop"]);
      const client = enter(0);
      client.socket().onclose({ code: 4200, reason: "kicked" });
      equal(client.of("state").at(-1), { state: "closed", code: 4200, reason: "kicked" });
    },
    "the backoff is full jitter under 1 s doubling to 30 s": () => {
      equal([0, 1, 2, 3, 4, 5, 20].map((attempt) => backoff(attempt, () => 1)), [1000, 2000, 4000, 8000, 16000, 30000, 30000]);
      equal(backoff(5, () => 0), 0);
    },
    "told to reconnect, it waits as long as it is told": async () => {
      const client = enter(0);
      client.socket().say({ type: "reconnect", delay_ms: 60000 });
      client.socket().onclose({ code: 4000, reason: "draining" });
      const { retryAt } = client.of("state").at(-1);
      equal(Math.abs(retryAt - Date.now() - 60000) < 1000, true);
      client.chat.close();
    },
    "typing goes out every three seconds at most, and ends by itself": async () => {
      const client = enter(0);
      for (let count = 0; count < 5; count += 1) client.chat.typing("r");
      equal(client.socket().of("typing").length, 1);
      client.socket().say({ type: "typing", room: "r", from: "bob", typing: true }, message(1));
      equal(client.of("typing").map(({ users }) => users), [["bob"], []]);
      client.chat.close();
    },
    "a frame of an unknown type is let pass": () => {
      const client = enter(0);
      client.socket().say({ type: "sparkle" }, message(1));
      equal(client.seqs(), [1]);
      client.chat.close();
    },
  };

  const results = [];
  for (const [name, run] of Object.entries(scenarios)) {
    try {
      await Promise.race([run(), tick(5000).then(() => Promise.reject(new Error("it did not end within 5 s")))]);
      results.push([name, null]);
    } catch (error) {
      results.push([name, `${error.message}`]);
    }
  }
  return results;
})().then(done, (error) => done([["scenarios", `${error.stack}`]]));
