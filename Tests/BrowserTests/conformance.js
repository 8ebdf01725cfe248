// The clients of one scenario of Tests/Conformance, in a page of the cluster. Calls back when they are there.
const [people, done] = arguments;

import("/martlet.js").then(({ Martlet }) => {
  const player = ({ name, tokens, ...options }) => [name, new Player(new Martlet({ ...options, token: provider(tokens) ?? options.token }))];
  window.conformance = Object.fromEntries(people.map(player));
  done(null);
}, (error) => done(`${error}`));

/** Gives one after the other, the last again and again; null is one that cannot be had. */
function provider(tokens) {
  return tokens && (async () => {
    const token = tokens.length > 1 ? tokens.shift() : tokens[0];
    if (!token) throw new Error("no token");
    return token;
  });
}

/** A client, and what it was told; conformance_test.py reads the record. */
class Player {
  record = { states: [], messages: [], gaps: [], joined: [], fates: [], members: {}, left: [], typing: {}, out: [], expiring: 0 };

  constructor(chat) {
    const { record } = this;
    const on = (type, handler) => chat.addEventListener(type, ({ detail }) => handler(detail));
    on("state", ({ state }) => record.states.push(state));
    on("message", ({ room, seq, text }) => record.messages.push([room, seq, text]));
    on("gap", ({ room, from, to }) => record.gaps.push([room, from, to]));
    on("joined", ({ room, recovered }) => record.joined.push([room, recovered ?? null]));
    on("sent", ({ room, status }) => record.fates.push([room, status]));
    on("presence", ({ room, members }) => {
      const known = Object.keys(record.members[room] ?? {});
      record.members[room] = Object.fromEntries(members.map(({ user, status = "online" }) => [user, status]));
      record.left.push(...known.filter((user) => !(user in record.members[room])).map((user) => [room, user]));
    });
    on("left", ({ room }) => record.out.push(room));
    on("expiring", () => (record.expiring += 1));
    on("typing", ({ room, users }) => (record.typing[room] = users));
    this.chat = chat;
  }

  /** @returns {string|null} why the client refuses to do it */
  act({ do: what, rooms, room, to, texts, status, close }) {
    const { chat } = this;
    try {
      if (what === "connect") chat.connect();
      else if (what === "join") rooms.forEach((name) => chat.join(name));
      else if (what === "leave") chat.leave(room);
      else if (what === "send" && to) texts.forEach((text) => chat.direct(to, text));
      else if (what === "send") texts.forEach((text) => chat.send(room, text));
      else if (what === "status") chat.status(status);
      else if (what === "typing") chat.typing(room);
      else if (what !== "close") throw new Error(`no step is called ${what}`);
      if (close || what === "close") chat.close();
      return null;
    } catch ({ message }) {
      return message;
    }
  }
}
