import TestSupport
import Testing

extension RedisTroubleTests {
    @Test(
        "G4: a second join that Redis cannot take harms nobody who is in: paused, and full",
        .patience
    )
    func joinAgainInTrouble() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom("again")
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            for session in [alice, bob] { try await session.join(room) }

            func joinsAgain(_ id: String) async throws {
                alice.client.send(["type": "join", "room": .string(room), "id": .string(id)])
                let answer = try await alice.client.next("an answer", within: .seconds(6)) { $0["id"]?.string == id }
                #expect(answer["type"]?.string == "error" && answer["retry_ms"]?.int != nil, "\(answer.text)")
            }
            cluster.redis.pause()
            try await joinsAgain("paused")
            cluster.redis.resume()
            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(20)) }
            try await sayUntilStored("still here", id: "1", in: room, by: alice, within: .seconds(10))
            _ = try await bob.hears("still here", in: room)

            try await cluster.redis.command("CONFIG", "SET", "maxmemory", "1")
            try await joinsAgain("full")
            try await cluster.redis.command("CONFIG", "SET", "maxmemory", "0")
            try await sayUntilStored("and still", id: "2", in: room, by: alice, within: .seconds(10))
            _ = try await bob.hears("and still", in: room)
            #expect(try await alice.join(room)["count"]?.int == 2)
            #expect(bob.presenceCounts("left", of: room).isEmpty)
            #expect(try await bob.users(of: room) == ["alice", "bob"])
        }
    }

    @Test("G4: a status that Redis could not take is written when it can again", .patience)
    func statusInTrouble() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom("status")
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            for session in [alice, bob] { try await session.join(room) }
            try await cluster.redis.command("CONFIG", "SET", "maxmemory", "1")
            alice.client.send(["type": "status", "status": "away", "id": "s"])
            _ = try await alice.client.next("ack", id: "s")
            try await cluster.redis.command("CONFIG", "SET", "maxmemory", "0")
            _ = try await poll(within: .seconds(15), every: .milliseconds(200), "alice to be away") {
                let members = try await bob.presence(of: room)["members"]?.array ?? []
                return members.first { $0["user"]?.string == "alice" }?["status"]?.string == "away" ? true : nil
            }
        }
    }

    @Test(
        "G1 G2 G3: private messages while the subscriptions are cut: each acknowledged, all delivered once and in order",
        .patience
    )
    func directsThroughCuts() async throws {
        try await Machine.with(
            Cluster.Options(nodes: 2, environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"])
        ) { cluster in
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            let stranger = try await cluster.connect("carol", to: 0)
            let count = 400
            for number in 1...count {
                alice.client.send([
                    "type": "direct", "to": "bob", "text": .string("d\(number)"), "id": .string("d\(number)"),
                ])
                if number % 100 == 50 {
                    try await cluster.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
                    // A room that no node has heard of before says its first word into the silence.
                    stranger.client.send([
                        "type": "direct", "to": "bob", "text": .string("s\(number)"), "id": .string("s\(number)"),
                    ])
                }
                try await Task.sleep(for: .milliseconds(3))
            }
            for number in 1...count {
                let answer = try await alice.client.next("the answer to d\(number)", within: .seconds(15)) {
                    $0["id"]?.string == "d\(number)" && $0["type"]?.string != "message"
                }
                #expect(answer["type"]?.string == "ack", "\(answer.text)")
            }
            let room = "dm:alice:bob"
            alice.client.send(["type": "direct", "to": "bob", "text": "last", "id": "last"])
            _ = try await alice.client.next("ack", id: "last")
            _ = try await bob.hears("last", in: room, within: .seconds(15))
            let heard = bob.messages(in: room).compactMap { $0["seq"]?.int }
            #expect(heard == Array(1...Int64(count + 1)))
            for number in [50, 150, 250, 350] {
                _ = try await bob.hears("s\(number)", in: "dm:bob:carol", within: .seconds(15))
            }
            #expect(bob.messages(in: "dm:bob:carol").compactMap { $0["seq"]?.int } == [1, 2, 3, 4])
        }
    }

    @Test(
        "G2: Redis forgets a tail: the epoch turns, everybody is told, and what is said then reaches all",
        .patience
    )
    func forgottenTail() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, isDurable: true)) { cluster in
            let room = newRoom("tail")
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            let before = try await alice.join(room)
            try await bob.join(room)
            for number in 1...3 { try await alice.say("kept \(number)", in: room) }
            _ = try await bob.hears("kept 3", in: room)
            await cluster.redis.kill()
            try cluster.redis.keep()
            try await cluster.redis.startAgain()
            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(30)) }
            for number in 4...6 {
                try await sayUntilStored("lost \(number)", id: "l\(number)", in: room, by: alice, within: .seconds(10))
                _ = try await bob.hears("lost \(number)", in: room)
            }
            await cluster.redis.kill()
            try cluster.redis.restore()
            try await cluster.redis.startAgain()
            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(30)) }

            for (index, session) in [alice, bob].enumerated() {
                let gap = try await session.client.next("gap", room: room, within: .seconds(20))
                #expect(gap["epoch"]?.string != before["epoch"]?.string, "\(gap.text)")
                let text = "after \(index)"
                try await sayUntilStored(text, id: "a\(index)", in: room, by: session, within: .seconds(10))
            }
            _ = try await bob.hears("after 0", in: room)
            _ = try await alice.hears("after 1", in: room)
            // Who was away during all this, and knows the forgotten story, is told too.
            let late = try await cluster.connect("late", to: 1)
            let since: JSON = ["epoch": before["epoch"] ?? .null, "seq": 6]
            #expect(try await late.join(room, ["since": since])["recovered"] == .bool(false))
            _ = try await late.client.next("gap", room: room)
            let page = try await late.client.next("history", room: room)
            let texts = page["messages"]?.array?.compactMap { $0["text"]?.string } ?? []
            #expect(texts == ["kept 1", "kept 2", "kept 3", "after 0", "after 1"])
        }
    }
}
