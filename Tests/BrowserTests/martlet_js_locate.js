// Where a client connects that asks the router for its node. Behind martlet_js_fake.js.
const told = (url) => ({ ok: true, json: async () => ({ node: "node-a", url }) });
const node = "ws://n:8081/ws";

/** A client that asks; `answer` gets the request, as `fetch` does. */
function seek(answer, options = {}) {
  Socket.all = [];
  const asked = [];
  const states = [];
  globalThis.fetch = (url, request) => {
    asked.push([url, request]);
    return answer(url, request);
  };
  const chat = new Martlet({
    url: "ws://test/ws", user: "alice", client: "c", locatesNode: true, WebSocket: Socket, ...options,
  });
  chat.addEventListener("state", ({ detail }) => states.push(detail.state));
  chat.connect();
  return { chat, asked, states };
}

const urls = () => Socket.all.map(({ url }) => url);
/** Until the answer is read. */
const settled = () => tick(0);
const never = () => new Promise(() => {});
const query = "?user=alice&client=c";

const { fetch } = globalThis;
run({
  "it asks beside the path of the WebSocket, with the same query": async () => {
    const places = ["ws://r/ws", "wss://r:8443/chat/ws?x=/y", "ws://r/", "ws://r//e/ws#part", "https://ws.r/ws"].map((url) => {
      const { chat, asked } = seek(never, { url, key: "k", user: undefined });
      chat.close();
      return asked.map(([address]) => address);
    });
    equal(places, [
      ["http://r/locate?key=k&client=c"], ["https://r:8443/chat/locate?x=%2Fy&key=k&client=c"],
      ["http://r/locate?key=k&client=c"], ["http://r//e/locate?key=k&client=c"], ["https://ws.r/locate?key=k&client=c"],
    ]);
  },
  "it connects to the address that it is told, with its own query": async () => {
    const { chat, states } = seek(async () => told(node));
    equal(urls(), []);
    await settled();
    equal([urls(), Socket.all[0].protocol], [[`${node}${query}`], "martlet.v1.json"]);
    await Socket.all[0].onopen();
    Socket.all[0].say(welcome);
    await tick(2100);
    equal([states, urls().length], [["connecting", "online"], 1]);
    chat.close();
  },
  "the question has no cookies and no token, and is for nobody but the router": async () => {
    const { chat, asked } = seek(async () => told(node), { user: undefined, token: async () => "secret" });
    await settled();
    const [[address, { credentials, redirect, ...rest }]] = asked;
    equal([credentials, redirect, Object.keys(rest)], ["omit", "error", ["signal"]]);
    equal([address, urls()], ["http://test/locate?client=c", [`${node}?client=c`]]);
    await Socket.all[0].onopen();
    equal(Socket.all[0].sent[0].token, "secret");
    chat.close();
  },
  "it does not ask unless it is told to": async () => {
    const { chat, asked } = seek(never, { locatesNode: undefined });
    equal([asked.length, urls()], [0, [`ws://test/ws${query}`]]);
    chat.close();
  },
  "it goes through the router when there is no address, or one that will not do": async () => {
    const addresses = [undefined, "", "https://n/ws", "ws://n/ws?user=mallory", "ws://n/ws#x", "ws://u@n/ws", "ws://", 17, null];
    const answers = addresses.map((url) => async () => told(url));
    answers.push(
      async () => ({ ok: false, status: 404, json: async () => ({ url: node }) }),
      async () => ({ ok: true, json: async () => null }),
      async () => ({ ok: true, json: async () => JSON.parse("no JSON") }),
      async () => { throw new TypeError("Failed to fetch"); },
    );
    for (const answer of answers) {
      const { chat, states } = seek(answer);
      await settled();
      equal([urls(), states], [[`ws://test/ws${query}`], ["connecting"]]);
      chat.close();
    }
  },
  "never without TLS where the router has it": async () => {
    const places = [];
    for (const [url, address] of [["wss://test/ws", node], ["wss://test/ws", "wss://n/ws"], ["ws://test/ws", "wss://n/ws"]]) {
      const { chat } = seek(async () => told(address), { url });
      await settled();
      places.push(...urls());
      chat.close();
    }
    equal(places, ["wss://test/ws", "wss://n/ws", "wss://n/ws"].map((url) => url + query));
  },
  "an answer that takes longer than two seconds is not waited for": async () => {
    const { chat, asked, states } = seek((url, { signal }) =>
      new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason))));
    await tick(1800);
    equal(urls(), []);
    await tick(400);
    equal([urls(), asked.length, states], [[`ws://test/ws${query}`], 1, ["connecting"]]);
    chat.close();
  },
  "a node that does not accept within two seconds is given up for the router, whatever it says then": async () => {
    const { chat, states } = seek(async () => told(node));
    await settled();
    const [late] = Socket.all;
    await tick(1800);
    equal(urls().length, 1);
    await tick(400);
    equal([urls()[1], late.readyState, states], [`ws://test/ws${query}`, 3, ["connecting"]]);
    late.onopen();
    late.say(welcome);
    late.onclose({ code: 1006, reason: "" });
    equal([urls().length, late.sent, chat.state], [2, [], "connecting"]);
    Socket.all[1].say(welcome);
    equal(chat.state, "online");
    chat.close();
  },
  "a node that refuses is given up for the router at once": async () => {
    const { chat, states } = seek(async () => told(node));
    await settled();
    Socket.all[0].onclose({ code: 1006, reason: "" });
    equal([urls(), states], [[`${node}${query}`, `ws://test/ws${query}`], ["connecting"]]);
    Socket.all[1].onclose({ code: 1006, reason: "" });
    equal(states, ["connecting", "waiting"]);
    chat.close();
  },
  "where the WebSocket refuses the address itself, it goes through the router": async () => {
    class Strict extends Socket {
      constructor(url, protocol) {
        if (url.includes("//n:")) throw new SyntaxError("not this one");
        super(url, protocol);
      }
    }
    const { chat } = seek(async () => told(node), { WebSocket: Strict });
    await settled();
    equal(urls(), [`ws://test/ws${query}`]);
    chat.close();
  },
  "after a connection that never came to be online the next goes through the router, and the one behind it asks again": async () => {
    const { chat, asked, states } = seek(async () => told(node));
    await settled();
    await Socket.all[0].onopen();
    Socket.all[0].onclose({ code: 1006, reason: "" });
    equal([states, urls().length], [["connecting", "waiting"], 1]);
    chat.retryNow();
    equal([urls()[1], asked.length], [`ws://test/ws${query}`, 1]);
    Socket.all[1].onclose({ code: 1006, reason: "" });
    chat.retryNow();
    await settled();
    equal([urls()[2], asked.length], [`${node}${query}`, 2]);
    chat.close();
  },
  "after a connection that was online it asks again, with what it comes back with": async () => {
    const { chat, asked } = seek(async () => told(node));
    await settled();
    await Socket.all[0].onopen();
    Socket.all[0].say({ ...welcome, secret: "x" });
    Socket.all[0].say({ type: "reconnect", delay_ms: 1 });
    Socket.all[0].onclose({ code: 4000, reason: "draining" });
    await settled();
    equal([asked[1][0], urls()[1]], [`http://test/locate${query}&resume=1`, `${node}${query}&resume=1`]);
    chat.close();
  },
  "closed meanwhile, it takes the question back and connects nowhere": async () => {
    let answer;
    const { chat, asked } = seek(() => new Promise((resolve) => (answer = resolve)));
    chat.close();
    equal([asked[0][1].signal.aborted, chat.state], [true, "closed"]);
    answer(told(node));
    await settled();
    equal(urls(), []);
  },
  "when the line is back, a question that hangs is asked anew": async () => {
    const answers = [never, async () => told(node)];
    const { chat, asked } = seek((...request) => answers.shift()(...request));
    await tick(1100);
    dispatchEvent(new Event("online"));
    await settled();
    equal([asked.map(([, { signal }]) => signal.aborted), urls()], [[true, false], [`${node}${query}`]]);
    chat.close();
  },
}).finally(() => Object.assign(globalThis, { fetch })).then(done, (error) => done([["scenarios", `${error.stack}`]]));
