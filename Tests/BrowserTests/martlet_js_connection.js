// The connection: pace, loss, resume, liveness. Behind martlet_js_fake.js.
run({
  "the user and the client instance go in the address, the subprotocol is asked for": () => {
    const { chat, socket } = enter(0);
    equal([socket().url, socket().protocol], ["ws://test/ws?user=alice&client=c", "martlet.v1.json"]);
    chat.close();
  },
  "messages go at the pace that the server named, and in order": async () => {
    const client = enter(0, { messages_per_second: 100 });
    const ids = Array.from({ length: 60 }, (_, index) => client.chat.send("r", `m${index}`).id);
    const sent = () => client.socket().of("message").map(({ id }) => id);
    await tick(100);
    equal(sent(), ids.slice(0, 20));
    const started = performance.now();
    for (let acked = 0; acked < 60; ) {
      if (acked === sent().length) await tick(5);
      else client.socket().say({ type: "ack", room: "r", id: ids[acked], seq: ++acked, ts: 1 });
    }
    equal([sent(), performance.now() - started > 200], [ids, true]);
    client.chat.close();
  },
  "what is no message counts too: messages wait for it, and typing is left out when they have to wait": async () => {
    const client = enter(0, { messages_per_second: 20 });
    for (let index = 0; index < 25; index += 1) {
      client.chat.typing("r");
      client.chat.send("r", `m${index}`);
    }
    equal(["typing", "message"].map((type) => client.socket().of(type).length), [8, 8]);
    client.chat.close();
  },
  "a message larger than the server takes is refused here; 1009 ends the largest": async () => {
    const client = enter(0, { message_bytes: 1000 });
    const { done: large } = client.chat.send("r", "ä".repeat(500));
    client.chat.send("r", "small");
    equal(client.socket().of("message").map(({ text }) => text), ["small"]);
    equal(await large.catch(({ code, message }) => [code, message.includes("at most 1000")]), [104, true]);
    client.chat.close();
    const other = enter(0);
    const { id } = other.chat.send("r", "small");
    const { done: larger } = other.chat.send("r", "larger".repeat(10));
    await back(other, 1009);
    equal(await larger.catch(({ code }) => code), 104);
    other.socket().say(joined(0, { recovered: true }));
    equal(other.socket().of("message").map((frame) => frame.id), [id]);
    other.chat.close();
  },
  "closed, it holds no message, no listener and no delay of before": async () => {
    const signals = [];
    const { addEventListener } = globalThis;
    globalThis.addEventListener = (type, handler, { signal }) => signals.push(signal);
    const client = enter(0);
    globalThis.addEventListener = addEventListener;
    equal(signals.map(({ aborted }) => aborted), [false, false, false, false]);
    const { done: sent } = client.chat.send("r", "x");
    client.socket().say({ type: "reconnect", delay_ms: 60000 });
    client.chat.close();
    equal(await sent.catch(({ status }) => status), "unknown");
    equal(signals.map(({ aborted }) => aborted), [true, true, true, true]);
    client.chat.connect();
    client.socket().say(welcome);
    equal(client.socket().of("join").at(-1).rooms.map(({ room }) => room), ["r"]);
    client.socket().onclose({ code: 4000, reason: "draining" });
    equal([client.chat.state, client.of("state").at(-1).attempt], ["waiting", 1]);
    client.chat.close();
  },
  "what to be seen as is said at once, so who is not known learns it without a wait": async () => {
    Socket.all = [];
    const chat = new Martlet({ url: "ws://test/ws", user: "alice", client: "c", WebSocket: Socket });
    chat.connect();
    await Socket.all[0].onopen();
    equal(Socket.all[0].sent, [{ type: "status", status: "online" }]);
    Socket.all[0].say({ type: "error", code: 106, reason: "not_authenticated", message: "send auth first" });
    equal([chat.state, Socket.all[0].readyState], ["closed", 3]);
    const other = new Martlet({ url: "ws://test/ws", token: async () => "ey", client: "c", WebSocket: Socket });
    other.status("away");
    other.connect();
    await tick(0);
    Socket.all[1].onopen();
    equal(Socket.all[1].sent, [{ type: "auth", id: "auth", token: "ey", client: "c" }, { type: "status", status: "away" }]);
    other.close();
  },
  "close codes say whether to come back": async () => {
    const states = [1006, 4000, 4099, 4100, 4199, 4200, 4299].map((code) => {
      const client = enter(0);
      client.socket().onclose({ code, reason: "why" });
      const { state, retryAt, attempt } = client.of("state").at(-1);
      client.chat.close();
      return [state, attempt, retryAt >= Date.now() + 1900];
    });
    const [soon, later, never] = [["waiting", 1, false], ["waiting", 4, true], ["closed", undefined, false]];
    equal(states, [soon, soon, soon, later, later, never, never]);
  },
  "the backoff is full jitter under 1 s doubling to 30 s, and small again after a stable connection": async () => {
    const { random } = Math;
    const { now } = Date;
    let time = now();
    try {
      Date.now = () => time;
      Math.random = () => 0.5;
      const client = enter(0);
      const wait = () => {
        client.socket().onclose({ code: 1006, reason: "" });
        const delay = client.of("state").at(-1).retryAt - time;
        client.chat.retryNow();
        return delay;
      };
      equal(Array.from({ length: 8 }, wait), [500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
      client.socket().say(welcome);
      time += 9000;
      equal(wait(), 15000);
      client.socket().say(welcome);
      time += 11000;
      equal(wait(), 500);
      client.chat.close();
    } finally {
      Object.assign(Math, { random });
      Object.assign(Date, { now });
    }
  },
  "who waits on a line that is back tries at once": () => {
    const client = enter(0);
    client.socket().onclose({ code: 1006, reason: "" });
    dispatchEvent(new Event("online"));
    equal([client.chat.state, Socket.all.length], ["connecting", 2]);
    client.chat.close();
    dispatchEvent(new Event("online"));
    equal([client.chat.state, Socket.all.length], ["closed", 2]);
  },
  "an attempt that hangs is given up for a new one as soon as the line is back, but not one that just began": async () => {
    const client = enter(0);
    const wake = () => dispatchEvent(new Event("online"));
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    wake();
    equal(Socket.all.length, 2);
    await tick(1100);
    wake();
    equal([client.chat.state, Socket.all.map(({ readyState }) => readyState)], ["connecting", [3, 3, 1]]);
    wake(); // it has two seconds now
    await tick(2100);
    equal([client.chat.state, Socket.all.length], ["connecting", 4]);
    client.chat.close();
  },
  "a connection that does not answer within two seconds when the line is back is replaced, whatever lay in its socket": async () => {
    const client = enter(0);
    const earlier = client.socket().of("ping")[0];
    await tick(5);
    dispatchEvent(new Event("online"));
    client.socket().say({ type: "pong", id: earlier.id }, { type: "presence", room: "r", diff: {} });
    equal([client.chat.state, client.socket().of("ping").length], ["online", 2]);
    await tick(2100);
    equal([client.chat.state, Socket.all.map(({ readyState }) => readyState)], ["connecting", [3, 1]]);
    client.chat.close();
  },
  "a connection that answers when the line is back stays": async () => {
    const client = enter(0);
    dispatchEvent(new Event("online"));
    pong(client);
    await tick(2100);
    equal([client.chat.state, Socket.all.length, client.socket().of("ping").length], ["online", 1, 2]);
    client.chat.close();
  },
  "only the answer to auth, or a server that wants one, ends the client for good": async () => {
    const unknown = { type: "error", code: 106, reason: "not_authenticated", message: "send auth first" };
    const refusal = { type: "error", id: "auth", code: 102, reason: "invalid_field", message: "no" };
    const states = [];
    for (const frames of [[unknown], [refusal, unknown], [{ ...refusal, code: 115, reason: "authentication_failed" }]]) {
      Socket.all = [];
      const chat = new Martlet({ url: "ws://test/ws", token: "ey", WebSocket: Socket });
      chat.connect();
      await Socket.all[0].onopen();
      Socket.all[0].say(...frames);
      states.push(chat.state);
      if (chat.state === "connecting") Socket.all[0].onclose({ code: 4100, reason: "no auth in time" });
      states.push(chat.state);
      chat.close();
    }
    equal(states, ["connecting", "waiting", "waiting", "waiting", "closed", "closed"]);
  },
  "in no room it comes back to its session too, and as a newcomer to a server that refuses that": async () => {
    const client = enter(0);
    client.chat.leave("r");
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    client.socket().say({ ...welcome, secret: "x", ts: 77 });
    const sent = [];
    for (const refused of [true, true, false]) {
      client.socket().onclose({ code: 1006, reason: "" });
      client.chat.retryNow();
      await client.socket().onopen();
      sent.push(client.socket().sent[0]);
      client.socket().say({ type: "error", code: 106, reason: "not_authenticated", message: "send auth first" });
      if (refused) client.socket().say({ type: "error", id: "auth", code: 102, reason: "invalid_field", message: "no" });
    }
    const who = { type: "auth", id: "auth", user: "alice", client: "c", status: "online" };
    const directs = { since: 77, rooms: [] };
    const resume = { session: "s", secret: "x" };
    equal(sent, [{ ...who, resume, directs }, { ...who, directs }, { type: "status", status: "online" }]);
    client.chat.close();
  },
  "pings are rarer while the line is idle and stable, frequent after a loss, and none where nobody looks": async () => {
    const { now } = Date;
    const { setInterval } = globalThis;
    const page = (globalThis.document ??= {});
    const view = { hidden: false };
    let time = now();
    let tick;
    try {
      Date.now = () => time;
      globalThis.setInterval = (handler) => setInterval((tick = handler), 1e9);
      Object.defineProperty(page, "hidden", { configurable: true, get: () => view.hidden });
      const client = enter(0);
      /** Seconds until the next ping, which is answered. */
      const silence = () => {
        const { socket } = client;
        const known = socket().of("ping").length;
        const from = time;
        pong(client);
        while (socket().of("ping").length === known && time - from < 200_000) {
          time += 1000;
          tick();
        }
        return Math.round((time - from) / 1000);
      };
      equal(Array.from({ length: 4 }, silence), [21, 41, 61, 61]);
      time += 40;
      pong(client);
      equal(client.chat.rtt, 40);
      client.socket().onclose({ code: 1006, reason: "" });
      client.chat.retryNow();
      client.socket().say(welcome);
      equal([silence(), silence()], [11, 21]);
      view.hidden = true;
      equal(silence() > 199, true);
      view.hidden = false;
      tick();
      equal([client.chat.state, client.socket().of("ping").length], ["online", 4]);
      time += 11_000;
      tick();
      equal([client.chat.state, client.of("state").at(-1).reason], ["waiting", "no answer to ping"]);
      client.chat.close();
    } finally {
      Object.assign(Date, { now });
      Object.assign(globalThis, { setInterval });
      delete page.hidden;
    }
  },
  "a message is not sent again two minutes after the first time: it is unknown": async () => {
    const { now } = Date;
    let time = now();
    try {
      Date.now = () => time;
      const client = enter(0);
      const { id, done: acked } = client.chat.send("r", "x");
      equal(client.chat.bufferedAmount, JSON.stringify({ type: "message", room: "r", text: "x", id }).length);
      for (let passed = 0; passed < 180; passed += 20) {
        time += 20_000;
        await back(client);
        client.socket().say(joined(0, { recovered: true }));
      }
      const sent = Socket.all.slice(1).map((socket) => socket.of("message").length);
      equal(sent, [1, 1, 1, 1, 1, 0, 0, 0, 0]);
      equal([await acked.catch(({ status }) => status), client.chat.bufferedAmount], ["unknown", 0]);
      client.chat.close();
    } finally {
      Object.assign(Date, { now });
    }
  },
  "told to reconnect, it goes on until the node closes, and then connects at once": async () => {
    const client = enter(0);
    client.socket().say({ type: "reconnect", delay_ms: 1 });
    await tick(1100);
    equal([client.chat.state, Socket.all.length], ["online", 1]);
    client.socket().onclose({ code: 4000, reason: "draining" });
    equal([client.chat.state, Socket.all.length], ["connecting", 2]);
    client.chat.close();
  },
  "a session is resumed: its rooms come without a join, new ones are joined, what was left is left": async () => {
    const client = enter(4);
    client.chat.join("q");
    client.socket().say({ ...joined(0), room: "q" });
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    equal(new URL(client.socket().url).searchParams.get("resume"), null); // the server gave no secret
    client.socket().say({ ...welcome, secret: "x1", grace_ms: 30000 }, joined(4, { recovered: true }));
    client.socket().say({ ...joined(0), room: "q" });
    const { id } = client.chat.send("r", "hi");
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.leave("q");
    client.chat.join("p");
    client.chat.retryNow();
    const socket = client.socket();
    equal(socket.url, "ws://test/ws?user=alice&client=c&resume=1");
    await socket.onopen();
    const rooms = [{ room: "r", since: { epoch: "e", seq: 4 } }];
    const who = { type: "auth", id: "auth", user: "alice", client: "c" };
    equal(socket.sent, [{ ...who, status: "online", resume: { session: "s", secret: "x1" }, rooms }]);
    client.chat.status("busy"); // said before the welcome it would confirm a secret that may never come
    equal(socket.sent.length, 1);
    socket.say({ ...welcome, secret: "x2", resumed: true });
    equal(socket.of("status").map(({ status }) => status), ["busy"]);
    equal(socket.of("join").map((join) => join.rooms), [[{ room: "p" }]]);
    equal(socket.of("leave").map(({ room }) => room), ["q"]);
    equal(socket.of("message").length, 0);
    socket.say(joined(6, { recovered: true }), message(5), message(6, { from: "alice", id, text: "hi" }), message(7));
    equal([client.seqs(), client.of("sent").map(({ status }) => status)], [[5, 6, 7], ["acked"]]);
    socket.onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    await client.socket().onopen();
    equal(client.socket().sent[0].resume, { session: "s", secret: "x2" });
    client.chat.join("n");
    client.socket().say({ ...welcome, session: "t" }); // too late: a new session, which joins what auth said
    equal(client.socket().of("join").map(({ rooms }) => rooms.map(({ room }) => room)), [["p", "n"]]);
    client.socket().say(joined(8, { recovered: true }), message(8));
    equal([client.seqs().at(-1), client.socket().of("leave").length], [8, 1]);
    client.chat.close();
    client.chat.connect();
    equal(client.socket().url, "ws://test/ws?user=alice&client=c");
    client.chat.close();
  },
  "who comes back says since when it is to have private messages, and what it has of them": async () => {
    const client = enter(4);
    const direct = (seq, peer) => message(seq, { room: `dm:alice:${peer}`, epoch: "e", from: peer, to: "alice" });
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    client.socket().say({ ...welcome, ts: 77 });
    client.socket().say(direct(4, "bob"), direct(9, "carl"), direct(5, "bob"));
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    await client.socket().onopen();
    const [{ directs, resume }] = client.socket().sent;
    const place = (name, seq) => ({ room: `dm:alice:${name}`, since: { epoch: "e", seq, tag: `t${seq}` } });
    equal([resume ?? null, directs], [null, { since: 77, rooms: [place("carl", 9), place("bob", 5)] }]);
    client.socket().say({ ...welcome, ts: 99 }, direct(5, "bob"), direct(6, "bob"), direct(8, "bob"), direct(7, "bob"));
    client.socket().say({ type: "gap", room: "dm:alice:carl", epoch: "e", from: 10, to: 12 }, direct(13, "carl"));
    equal(client.seqs(), [4, 9, 5, 6, 7, 8, 13]);
    // A server that cannot do it in one frame is not asked again for it.
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.retryNow();
    await client.socket().onopen();
    client.socket().say({ type: "error", id: "auth", code: 110, reason: "too_many_rooms", message: "no" });
    client.chat.retryNow();
    await client.socket().onopen();
    equal([client.socket().sent[0].rooms ?? null, client.socket().sent[0].directs.since], [null, 77]);
    client.chat.close();
  },
  "a token is renewed in time, again after a failure, and the connection goes on": async () => {
    Socket.all = [];
    const tokens = ["one", new Error("no"), "two"];
    const token = async () => {
      const value = tokens.shift();
      if (value instanceof Error) throw value;
      return value;
    };
    const chat = new Martlet({ url: "ws://test/ws", token, client: "c", WebSocket: Socket });
    const left = [];
    chat.addEventListener("expiring", ({ detail }) => left.push(detail.left));
    chat.join("r");
    chat.connect();
    await tick(0);
    const [socket] = Socket.all;
    await socket.onopen();
    socket.say({ ...welcome, secret: "z" }, joined(1));
    socket.say({ type: "token_expiring", expires_in_ms: 60000 });
    equal(left, [60000]);
    await tick(1500);
    const [renewal, ...others] = socket.of("auth").slice(1);
    equal(renewal.token, "two");
    equal(others, []);
    socket.say({ ...welcome, id: renewal.id, session: "other" });
    equal([chat.state, chat.session, socket.of("join").length], ["online", "s", 1]);
    socket.say(message(2));
    chat.close();
  },
  "what the server refuses for a new token is asked for again; an ended token brings a new connection with a new one": async () => {
    Socket.all = [];
    let asked = 0;
    const chat = new Martlet({ url: "ws://test/ws", token: () => `t${++asked}`, client: "c", WebSocket: Socket });
    chat.connect();
    await tick(0);
    const [socket] = Socket.all;
    await socket.onopen();
    socket.say({ ...welcome, secret: "z" });
    socket.say({ type: "token_expiring", expires_in_ms: 60000 });
    await tick(0);
    const { id } = socket.of("auth")[1];
    socket.say({ type: "error", id, code: 115, reason: "authentication_failed", message: "old" });
    equal(chat.state, "online");
    await tick(1200);
    equal(socket.of("auth").map(({ token }) => token), ["t1", "t2", "t3"]);
    socket.onclose({ code: 4003, reason: "token expired" });
    equal(chat.state, "waiting");
    chat.retryNow();
    await tick(0);
    await Socket.all[1].onopen();
    equal(Socket.all[1].sent[0].token, "t4");
    equal(Socket.all[1].sent[0].resume, { session: "s", secret: "z" });
    chat.close();
  },
  "a token that is a string is not renewed, and the client ends when it is refused": async () => {
    Socket.all = [];
    const chat = new Martlet({ url: "ws://test/ws", token: "ey", client: "c", WebSocket: Socket });
    const left = [];
    chat.addEventListener("expiring", ({ detail }) => left.push(detail.left));
    chat.connect();
    await Socket.all[0].onopen();
    Socket.all[0].say(welcome, { type: "token_expiring", expires_in_ms: 5000 });
    await tick(0);
    equal([left, Socket.all[0].of("auth").length], [[5000], 1]);
    Socket.all[0].onclose({ code: 4003, reason: "token expired" });
    chat.retryNow();
    await Socket.all[1].onopen();
    const codes = [];
    chat.addEventListener("state", ({ detail }) => codes.push([detail.state, detail.code]));
    Socket.all[1].say({ type: "error", id: "auth", code: 115, reason: "authentication_failed", message: "no" });
    equal(codes, [["closed", 4201]]);
  },
  "an auth that the server cannot judge now is tried again": async () => {
    Socket.all = [];
    const chat = new Martlet({ url: "ws://test/ws", token: "ey", client: "c", WebSocket: Socket });
    chat.connect();
    await Socket.all[0].onopen();
    Socket.all[0].say({ type: "error", id: "auth", code: 113, reason: "unavailable", message: "wait", retry_ms: 1000 });
    equal(chat.state, "waiting");
    chat.close();
  },
  "a room of a namespace that is not there, or forbidden, is refused once, and the other rooms are joined": () => {
    for (const [code, reason] of [[119, "unknown_namespace"], [116, "forbidden"]]) {
      const client = enter(1);
      client.chat.join("x:1");
      const { id } = client.socket().of("join").at(-1);
      client.socket().say({ type: "error", id, room: "x:1", code, reason, message: "no" });
      equal(client.of("error").map(({ refused }) => refused), [["x:1"]]);
      const count = client.socket().of("join").length;
      client.chat.join("y");
      equal(client.socket().of("join").slice(count).map(({ rooms }) => rooms.map(({ room }) => room)), [["y"]]);
      client.chat.close();
    }
  },
  "a token that cannot be had is a loss like others": async () => {
    Socket.all = [];
    const token = async () => { throw new Error("no token"); };
    const chat = new Martlet({ url: "ws://test/ws", token, WebSocket: Socket });
    const reasons = [];
    chat.addEventListener("state", ({ detail }) => reasons.push(detail.reason));
    chat.connect();
    await tick(0);
    equal([chat.state, reasons, Socket.all.length], ["waiting", [null, "no token"], 0]);
    chat.close();
  },
  "martlet.d.ts names the members that a client has": async () => {
    const types = await (await fetch("/martlet.d.ts")).text();
    const [body] = types.slice(types.indexOf("export class Martlet ")).split("\n}\n");
    const named = [...body.matchAll(/^  (?:readonly )?(\w+)[?(:]/gm)].map(([, name]) => name);
    const chat = new Martlet({ url: "ws://test/ws" });
    equal(named.filter((name) => name !== "constructor").sort(), Object.getOwnPropertyNames(chat).sort());
  },
}).then(done, (error) => done([["scenarios", `${error.stack}`]]));
