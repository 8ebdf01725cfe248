// What the address says of a client with a token, so that routers keep it to its user's node. Behind martlet_js_fake.js.
const encoded = (text) => {
  const bytes = String.fromCharCode(...new TextEncoder().encode(text));
  return btoa(bytes).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
};
const jwt = (payload) => `${encoded('{"alg":"HS256"}')}.${encoded(payload)}.AAAA`;
const of = (user) => jwt(JSON.stringify({ exp: 1, sub: user }));

/** The queries of the addresses at which a client with these options connects. */
async function queries(options) {
  Socket.all = [];
  const chat = new Martlet({ url: "ws://test/ws", client: "c", WebSocket: Socket, ...options });
  chat.connect();
  await tick(0);
  chat.close();
  return Socket.all.map(({ url }) => new URL(url).search);
}

run({
  "the user of the token stands in the address, whatever the name": async () => {
    for (const user of ["alice", "grüße & co/🐦", "a+b%20c", "???>>>~~~", "x".repeat(128)]) {
      const [query, ...others] = await queries({ token: of(user) });
      equal([[...new URLSearchParams(query)], others], [[["client", "c"], ["key", user]], []]);
    }
    equal(await queries({ token: of("ü &+") }), ["?client=c&key=%C3%BC+%26%2B"]);
  },
  "what is no token, or tells no user, brings no key and no failure": async () => {
    const payloads = ["{}", "[]", "null", "", "no JSON", '"alice"', '{"sub":17}', '{"sub":null}', '{"sub":["alice"]}'];
    payloads.push('{"sub":""}', JSON.stringify({ sub: "x".repeat(129) }));
    const tokens = [...payloads.map(jwt), "opaque", ".", "..", "a.b.c", "a.!!!!.c", "é.é.é", "a.AAAAA.c"];
    for (const token of tokens) equal([token, await queries({ token })], [token, ["?client=c"]]);
    for (const value of [undefined, null, 17, {}]) equal(await queries({ token: () => value }), ["?client=c"]);
  },
  "a key of its own, and a key, user or token in the URL, go before it": async () => {
    const token = of("alice");
    equal(await queries({ token, key: "k" }), ["?key=k&client=c"]);
    for (const name of ["key", "user", "token"]) {
      for (const value of ["x", ""]) {
        equal(await queries({ token, url: `ws://test/ws?a=b&${name}=${value}` }), [`?a=b&${name}=${value}&client=c`]);
      }
    }
    equal(await queries({ token, url: "ws://test/ws?keys=1&a=user" }), ["?keys=1&a=user&client=c&key=alice"]);
  },
  "it stays out when it is told to": async () => {
    equal(await queries({ token: of("alice"), keepsToNode: false }), ["?client=c"]);
    equal(await queries({ token: async () => of("alice"), keepsToNode: false }), ["?client=c"]);
  },
  "a function is asked once for each attempt, before it connects; the first frame shows what the address was made of": async () => {
    Socket.all = [];
    let asked = 0;
    const token = async () => of(`user-${++asked}`);
    const chat = new Martlet({ url: "ws://test/ws", token, client: "c", WebSocket: Socket });
    chat.connect();
    equal([asked, Socket.all.length], [1, 0]);
    for (const attempt of [1, 2]) {
      await tick(0);
      const socket = Socket.all.at(-1);
      equal([Socket.all.length, socket.url], [attempt, `ws://test/ws?client=c&key=user-${attempt}`]);
      socket.onopen();
      equal([socket.sent[0].token, asked], [of(`user-${attempt}`), attempt]);
      socket.onclose({ code: 1006, reason: "" });
      chat.retryNow();
    }
    chat.close();
  },
  "the question where the node is has the key, and the node's address as well": async () => {
    const { fetch } = globalThis;
    const asked = [];
    globalThis.fetch = async (url) => {
      asked.push(url);
      return { ok: true, json: async () => ({ node: "node-a", url: "ws://n/ws" }) };
    };
    const found = await queries({ token: async () => of("alice"), locatesNode: true });
    globalThis.fetch = fetch;
    equal([asked, found], [["http://test/locate?client=c&key=alice"], ["?client=c&key=alice"]]);
  },
  "a function that is slow holds up nothing else: closed meanwhile, it connects nowhere; a later attempt counts alone": async () => {
    Socket.all = [];
    const given = [];
    const token = () => new Promise((resolve) => given.push(resolve));
    const chat = new Martlet({ url: "ws://test/ws", token, client: "c", WebSocket: Socket });
    chat.connect();
    chat.close();
    chat.connect();
    given[0](of("early"));
    await tick(0);
    equal(Socket.all.length, 0);
    given[1](of("late"));
    await tick(0);
    equal(Socket.all.map(({ url }) => url), ["ws://test/ws?client=c&key=late"]);
    chat.close();
  },
}).then(done, (error) => done([["scenarios", `${error.stack}`]]));
