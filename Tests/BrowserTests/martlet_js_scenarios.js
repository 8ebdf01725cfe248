// Rooms, the order of messages, presence. Behind martlet_js_fake.js.
run({
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
  "an own message that came as others see it, before its ack, appears once and is acknowledged": async () => {
    const client = enter(4);
    const refused = client.chat.send("r", "hi");
    const refusal = { type: "error", code: 113, reason: "unavailable", message: "wait", retry_ms: 50, id: refused.id };
    client.socket().say(refusal, message(5, { from: "alice", text: "hi" }));
    await tick(100);
    equal(client.socket().of("message").map(({ id }) => id), [refused.id, refused.id]);
    client.socket().say({ type: "ack", room: "r", id: refused.id, seq: 5, ts: 9, tag: "t5", duplicate: true });
    equal((await refused.done).seq, 5);
    const lost = client.chat.send("r", "there");
    await back(client);
    client.socket().say(joined(7, { recovered: true }), message(6, { from: "alice", text: "there" }), message(7));
    client.socket().say({ type: "ack", room: "r", id: lost.id, seq: 6, ts: 9, tag: "t6", duplicate: true }, message(8));
    equal([client.seqs(), client.of("sent").map(({ seq }) => seq)], [[5, 6, 7, 8], [5, 6]]);
    client.chat.close();
  },
  "an own message whose place lies in a gap is acknowledged, and none comes out of its order": async () => {
    const client = enter(4);
    const { id } = client.chat.send("r", "hi");
    await back(client);
    client.socket().say(joined(90, { recovered: false }), { type: "gap", room: "r", epoch: "e", from: 5, to: 90 });
    client.socket().say(message(91), { type: "ack", room: "r", id, seq: 5, ts: 9, tag: "t5", duplicate: true });
    equal([client.seqs(), client.of("sent").map(({ status, seq }) => [status, seq])], [[91], [["acked", 5]]]);
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
  "what was refused for now goes alone, and those behind it when it is stored, in order": async () => {
    const client = enter(0);
    const first = client.chat.send("r", "one");
    client.socket().say({ type: "error", code: 103, reason: "rate_limited", retry_ms: 100, id: first.id });
    const others = [client.chat.send("r", "two"), client.chat.send("r", "three")];
    equal(client.socket().of("message").length, 1);
    await tick(200);
    equal(client.socket().of("message").map(({ id }) => id), [first.id, first.id]);
    client.socket().say({ type: "ack", room: "r", id: first.id, seq: 1, ts: 9 });
    equal(client.socket().of("message").slice(2).map(({ id }) => id), others.map(({ id }) => id));
    client.chat.close();
  },
  "a message that was refused each time was not stored; one that was lost may be": async () => {
    const client = enter(0);
    const refused = client.chat.send("r", "x");
    client.socket().say({ type: "error", code: 103, reason: "rate_limited", retry_ms: 60000, id: refused.id });
    client.chat.close();
    equal(client.of("sent").map(({ status }) => status), ["failed"]);
    equal(await refused.done.catch(({ status }) => status), "failed");
    const other = enter(0);
    const lost = other.chat.send("r", "x");
    await back(other);
    const refusal = { type: "error", code: 103, reason: "rate_limited", retry_ms: 60000, id: lost.id };
    other.socket().say(joined(0, { recovered: true }), refusal);
    other.chat.close();
    equal(other.of("sent").map(({ status }) => status), ["unknown"]);
  },
  "a room that was left can be joined again: the new join waits for the answer": async () => {
    const client = enter(4);
    client.chat.leave("r");
    client.chat.join("r");
    const [leave] = client.socket().of("leave");
    equal(client.socket().of("join").length, 1);
    client.socket().say(message(5), { type: "left", room: "r", reason: "kicked" });
    client.socket().say({ type: "left", room: "r", id: leave.id });
    await tick(0);
    equal(client.socket().of("join").at(-1).rooms, [{ room: "r" }]);
    client.socket().say(joined(7), { type: "left", room: "r", id: leave.id }, message(8));
    equal([client.seqs(), client.of("left"), client.of("joined").length], [[8], [], 2]);
    client.socket().say({ type: "left", room: "r", reason: "kicked" });
    equal(client.of("left").map(({ reason }) => reason), ["kicked"]);
    client.chat.close();
  },
  "a leave that was refused for now is sent again": async () => {
    const client = enter(4);
    client.chat.leave("r");
    const [leave] = client.socket().of("leave");
    client.socket().say({ type: "error", code: 103, reason: "rate_limited", retry_ms: 100, id: leave.id }, message(5));
    client.chat.join("r");
    await tick(200);
    const leaves = client.socket().of("leave");
    equal([leaves.map(({ room }) => room), client.socket().of("join").length], [["r", "r"], 1]);
    client.socket().say({ type: "error", code: 111, reason: "not_in_room", room: "r", id: leaves[1].id });
    await tick(0);
    equal(client.socket().of("join").length, 2);
    equal([client.seqs(), client.of("error"), client.of("sent")], [[], [], []]);
    client.chat.close();
  },
  "a leave ends with its connection: the next session is not in the room": async () => {
    const client = enter(4);
    client.chat.leave("r");
    const [leave] = client.socket().of("leave");
    client.socket().say({ type: "error", code: 103, reason: "rate_limited", retry_ms: 50, id: leave.id });
    await tick(0);
    client.chat.join("r");
    await back(client);
    await tick(100);
    equal([client.socket().of("join").length, client.socket().of("leave").length], [1, 0]);
    client.chat.close();
  },
  "of rooms that were not joined only private ones bring messages, also after their count began anew": () => {
    const client = enter(0);
    const direct = { room: "dm:alice:bob", to: "alice", epoch: "e" };
    const late = [message(9, direct), message(11, direct)];
    client.socket().say(message(1, { room: "q" }), message(9, direct), message(10, direct), ...late);
    client.socket().say(message(2, { ...direct, epoch: "f" }));
    equal(client.seqs(), [9, 10, 11, 2]);
    equal(client.of("gap"), [{ room: "dm:alice:bob", to: 1, turned: true }]);
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
    const gap = { type: "gap", room: "r", epoch: "e", from: 5, to: 90 };
    client.socket().say(joined(90, { recovered: false }), gap, page, message(91));
    equal(client.of("gap").map(({ from, to, turned }) => [from, to, turned]), [[5, 90, false]]);
    equal(client.of("page").length, 1);
    equal(client.seqs(), [91]);
    client.chat.close();
  },
  "another epoch is a new start": async () => {
    const client = enter(40);
    await back(client);
    const gap = { type: "gap", room: "r", epoch: "f", from: 1, to: 2 };
    client.socket().say(joined(2, { epoch: "f", recovered: false }), gap, message(3));
    equal(client.of("gap").map(({ turned }) => turned), [true]);
    equal(client.seqs(), [3]);
    client.chat.close();
  },
  "what a recovery owed is not waited for in the epoch after it": async () => {
    const client = enter(4);
    await back(client);
    client.socket().say(joined(100, { recovered: true }));
    await tick(2300);
    const [question] = client.socket().of("history");
    equal(question.after, 4);
    client.socket().say({ type: "gap", room: "r", epoch: "g", to: 1 });
    const page = { type: "history", room: "r", id: question.id, epoch: "g", messages: [message(7)], more: false };
    client.socket().say(page);
    await tick(0);
    client.socket().say(message(2), message(3));
    equal(client.seqs(), [2, 3]);
    equal(client.of("gap").map(({ to }) => to), [1]);
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
  "a whole list of members replaces what is known, also with a lower pv": () => {
    const client = enter(0);
    client.socket().say({ type: "presence", room: "r", joined: [{ user: "bob" }], left: [], count: 2, pv: 2 });
    client.socket().say({ type: "presence", room: "r", members: [{ user: "zoe" }], count: 1, pv: 1 });
    equal(client.chat.members("r").map(({ user }) => user), ["zoe"]);
    client.chat.close();
  },
  "with a new epoch the room's pv counts from a new start, and the list is read again": () => {
    const client = enter(4);
    client.socket().say({ type: "presence", room: "r", joined: [{ user: "bob" }], left: [], count: 2, pv: 2 });
    client.socket().say({ type: "gap", room: "r", epoch: "f", to: 1 });
    equal(client.socket().of("presence").length, 1);
    client.socket().say({ type: "presence", room: "r", joined: [{ user: "carl" }], left: [], count: 3, pv: 1 });
    equal(client.chat.members("r").map(({ user }) => user), ["alice", "bob", "carl"]);
    client.socket().say({ type: "gap", room: "r", epoch: "f", from: 2, to: 3 });
    client.socket().say({ type: "presence", room: "r", joined: [{ user: "dora" }], left: [], count: 4, pv: 1 });
    equal([client.chat.members("r").length, client.socket().of("presence").length], [3, 1]);
    client.chat.close();
  },
  "what is no room name is refused here": async () => {
    const good = ["general", "a.b:c@d/e-f_9", "x".repeat(128), "dm:alice:b%C3%A9a"];
    const bad = ["", "bad room", "ä", "a\n", "x".repeat(129), "dm:alice"];
    equal([...good, ...bad].filter(isRoomName), good);
    const client = enter(0);
    const codes = [];
    for (const call of [() => client.chat.join("bad room"), () => client.chat.send("bad room", "x")]) {
      try { call(); } catch ({ code, reason }) { codes.push(code, reason); }
    }
    await client.chat.history("bad room").catch(({ code }) => codes.push(code));
    equal(codes, [108, "invalid_room", 108, "invalid_room", 108]);
    equal(client.socket().sent.map(({ type }) => type).filter((type) => type !== "ping"), ["join"]);
    client.chat.close();
  },
  "a refused name takes only its own room; the others of the frame are joined again": () => {
    const client = enter(0);
    const refuse = (room) => {
      const { id } = client.socket().of("join").at(-1);
      client.socket().say({ type: "error", code: 108, reason: "invalid_room", message: "no", room, id });
    };
    client.socket().onclose({ code: 1006, reason: "" });
    client.chat.join("dm:b:a");
    client.chat.join("q");
    client.chat.retryNow();
    client.socket().say(welcome);
    refuse("dm:b:a");
    equal(client.socket().of("join").at(-1).rooms.map(({ room }) => room), ["r", "q"]);
    equal(client.of("error").map(({ code, refused }) => [code, refused]), [[108, ["dm:b:a"]]]);
    refuse(undefined);
    equal(client.socket().of("join").slice(-2).map(({ rooms }) => rooms.map(({ room }) => room)), [["r"], ["q"]]);
    refuse(undefined);
    client.socket().say(joined(0, { recovered: true }));
    equal([client.of("error").at(-1).refused, client.of("joined").length], [["q"], 2]);
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
  "a direct message needs no join, and its ack says its room": async () => {
    const client = enter(0);
    const { id, done: acked } = client.chat.direct("bob", "psst");
    equal(client.socket().of("direct"), [{ type: "direct", to: "bob", text: "psst", id }]);
    client.socket().say({ type: "ack", room: "dm:alice:bob", id, seq: 3, ts: 9, tag: "t", epoch: "e" });
    equal((await acked).room, "dm:alice:bob");
    equal(client.of("message").map(({ room, seq, own, to, text }) => [room, seq, own, to, text]),
      [["dm:alice:bob", 3, true, "bob", "psst"]]);
    client.chat.close();
  },
  "a frame of an unknown type is let pass": () => {
    const client = enter(0);
    client.socket().say({ type: "sparkle" }, message(1));
    equal(client.seqs(), [1]);
    client.chat.close();
  },
}).then(done, (error) => done([["scenarios", `${error.stack}`]]));
