import TestSupport
import Testing

/// What somebody can do who has Redis, and so more than anybody should.
@Suite("Who writes into Redis", .serialized)
struct ForgeryTests {
    private struct Head {
        let epoch: String
        let seq: Int64
        let tag: String
    }

    private func head(of room: String, _ cluster: Cluster) async throws -> Head {
        let meta = try await cluster.redis.command("HGETALL", cluster.key("{r:\(room)}:meta")).dictionary
        return Head(
            epoch: try #require(meta["epoch"]), seq: try #require(meta["seq"].flatMap { Int64($0) }),
            tag: try #require(meta["tag"]))
    }

    private func forged(_ text: String, after head: Head, previousTag: String) -> String {
        let body = #""from":"bob","text":"\#(text)""#
        return "M\(head.seq + 1) 1790000000000 1 \(previousTag) \(head.epoch)\nfake - 0 \(body.utf8.count) bob\n\(body)"
    }

    @Test("T26: what is no message on the channels of a room, a user and the cluster is passed over", .patience)
    func nonsense() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom("forged")
            let alice = try await cluster.connect("alice", to: 0)
            let bob = try await cluster.connect("bob", to: 1)
            for session in [alice, bob] { try await session.join(room) }
            let channels = ["{r:\(room)}", "{u:alice}", "control"].map { cluster.key($0) }
            let payloads = [
                "", "\n", "M", "M\n", "M1 1 1 - e\n", "M9 9 9 - e\nt - 0 2 bob\n{}", "M-1 0 1 - e\nt - 0 2 b\n{}",
                "M999999999999999999 1 999999999999999999 - e\nt - 999999999999999999 9 b\n{}",
                "D1 1 1 - e dm:alice:bob\nt - 0 9 b\n", "D1 1 1 - e nowhere\nt - 0 2 b\n{}",
                "D1 1 1 - e dm:carol:dave\nt - 0 2 b\n{}", "P1 1 e\n", "P1 1 e\n+x",
                "T\n", "T \n", "K{bad}\nx", "O\n", "OAAAAAAAAAAAAAAA x\n", "up", "up x", "drain nobody.1", "down {}.1",
                String(repeating: "M", count: 100_000), "*3\r\n$7\r\nmessage\r\n", "ban", "revoke x", "reload",
            ]
            for channel in channels {
                for payload in payloads { try await cluster.redis.command("PUBLISH", channel, payload) }
                try await cluster.redis.command(
                    "EVAL", "for byte = 0, 255 do redis.call('PUBLISH', KEYS[1], string.char(byte, 10, 255, 0)) end",
                    "1",
                    channel)
            }
            let text = "still here"
            try await alice.say(text, in: room)
            #expect(try await bob.hears(text, in: room)["seq"]?.int == 1)
            #expect(try await bob.users(of: room).sorted() == ["alice", "bob"])
            for node in cluster.nodes { #expect(await node.readiness() == 200) }
        }
    }

    /// Alice and Bob in a room in which Alice has said "first", and what Redis knows of it then.
    private func conversation(in cluster: Cluster) async throws -> (String, Session, Session, Head) {
        let room = newRoom("forged")
        let alice = try await cluster.connect("alice", to: 0)
        let bob = try await cluster.connect("bob", to: 0)
        for session in [alice, bob] { try await session.join(room) }
        try await alice.say("first", in: room)
        return (room, alice, bob, try await head(of: room, cluster))
    }

    @Test("T26: a message that does not know the tag of the one before is not delivered", .patience)
    func withoutTag() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let (room, alice, bob, head) = try await conversation(in: cluster)
            let payload = forged("forged", after: head, previousTag: "XXXX")
            try await cluster.redis.command("PUBLISH", cluster.key("{r:\(room)}"), payload)
            try await alice.say("second", in: room)
            #expect(try await bob.hears("second", in: room)["seq"]?.int == head.seq + 1)
            try await bob.client.roundTrip()
            #expect(bob.messages(in: room).compactMap { $0["text"]?.string } == ["first", "second"])
        }
    }

    @Test("T26: one that knows the tag is found out by the next, and clients are told of the gap", .patience)
    func withTag() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let (room, alice, bob, head) = try await conversation(in: cluster)
            let payload = forged("forged", after: head, previousTag: head.tag)
            try await cluster.redis.command("PUBLISH", cluster.key("{r:\(room)}"), payload)
            _ = try await bob.hears("forged", in: room)
            alice.client.send(["type": "message", "room": .string(room), "text": "second", "id": "second"])
            let gap = try await bob.client.next("gap", room: room)
            #expect(gap["epoch"]?.string != head.epoch)
            // Who is told a gap has the room as it is now, and goes on.
            _ = try await alice.client.next("the answer to second") {
                $0["id"]?.string == "second" && ["ack", "error"].contains($0["type"]?.string)
            }
            try await alice.say("third", in: room)
            _ = try await bob.hears("third", in: room)
        }
    }
}
