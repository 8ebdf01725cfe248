import TestSupport
import Testing

/// What a client that was away gets, and what a client that is not sure may send again.
@Suite("Recovery and once")
struct RecoveryTests {
    @Test("G2: a join with since brings what was missed, own messages with their id, then what is live")
    func since() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let user = newUser("away")
            let instance = "instance-1"
            let talker = try await cluster.connect(newUser("talker"), to: 1)
            let first = try await cluster.connect(user, to: 0, client: instance)
            try await talker.join(room)
            let epoch = try #require(try await first.join(room)["epoch"]?.string)
            try await talker.say("one", in: room)
            let seen = try await first.hears("one", in: room)
            // Published, but the connection ends before the ack is read.
            first.client.setReads(false)
            first.client.send(["type": "message", "room": .string(room), "text": "two", "id": "own"])
            _ = try await talker.hears("two", in: room)
            first.client.abort()
            try await talker.say("three", in: room)

            let again = try await cluster.connect(user, to: 2, client: instance)
            let tag = try #require(seen["tag"])
            let since: JSON = ["epoch": .string(epoch), "seq": 1, "tag": tag]
            let joined = try await again.join(room, ["since": since])
            #expect(joined["recovered"]?.bool == true)
            #expect(joined["epoch"]?.string == epoch)
            #expect(joined["seq"]?.int == 3)
            let own = try await again.hears("two", in: room)
            #expect(own["id"]?.string == "own")
            #expect(own["from"]?.string == user)
            _ = try await again.hears("three", in: room)
            try await talker.say("live", in: room)
            _ = try await again.hears("live", in: room)
            #expect(again.messages(in: room).compactMap { $0["seq"]?.int } == [2, 3, 4])
            // Sent again because nobody saw the ack: the first seq, and no second message.
            let ack = try await again.say("two", in: room, id: "own")
            #expect(ack["seq"]?.int == 2)
            #expect(ack["duplicate"]?.bool == true)
            try await again.say("five", in: room)

            // From the same place on a third node; in one frame with a room that needs nothing.
            let other = newRoom()
            let third = try await cluster.connect(user, to: 1, client: instance)
            third.client.send([
                "type": "join", "rooms": [["room": .string(room), "since": since], ["room": .string(other)]],
            ])
            #expect(try await third.client.next("joined", room: room)["seq"]?.int == 5)
            #expect(try await third.client.next("joined", room: other)["recovered"]?.bool != true)
            _ = try await third.hears("five", in: room)
            #expect(third.messages(in: room).compactMap { $0["seq"]?.int } == [2, 3, 4, 5])
            // Nothing missed: recovered, and nothing comes.
            let fourth = try await cluster.connect(newUser(), to: 0)
            let last = try await fourth.join(room, ["since": ["epoch": .string(epoch), "seq": 5]])
            #expect(last["recovered"]?.bool == true)
            try await talker.say("six", in: room)
            _ = try await fourth.hears("six", in: room)
            #expect(fourth.messages(in: room).count == 1)
        }
    }

    @Test("G2 G6: a long absence comes back whole, however much it weighs, to a client that reads")
    func heavy() async throws {
        let options = Cluster.Options(nodes: 2, environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"])
        try await Machine.with(options) { cluster in
            let room = newRoom()
            let talker = try await cluster.connect("talker", to: 0)
            let epoch = try #require(try await talker.join(room)["epoch"])
            let text = String(repeating: "x", count: 30_000)
            for number in 1...400 { try await talker.say(text, in: room, id: "\(number)") }
            let back = try await cluster.connect("back", to: 1)
            let joined = try await back.join(room, ["since": ["epoch": epoch, "seq": 0]])
            #expect(joined["recovered"]?.bool == true)
            try await talker.say("and live", in: room)
            _ = try await back.hears("and live", in: room, within: .seconds(60))
            #expect(back.messages(in: room).compactMap { $0["seq"]?.int } == Array(1...401))
        }
    }

    @Test("G2 G3: a second join with since, sent before the first was answered, repeats nothing")
    func twoJoins() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let talker = try await cluster.connect(newUser("talker"), to: 0)
            let epoch = try #require(try await talker.join(room)["epoch"])
            for number in 1...20 { try await talker.say("\(number)", in: room) }
            let back = try await cluster.connect(newUser("back"), to: 1)
            for id in ["A", "B"] {
                back.client.send([
                    "type": "join", "room": .string(room), "id": .string(id), "since": ["epoch": epoch, "seq": 0],
                ])
            }
            for id in ["A", "B"] { _ = try await back.client.next("joined", room: room, id: id) }
            try await talker.say("live", in: room)
            _ = try await back.hears("live", in: room)
            #expect(back.messages(in: room).compactMap { $0["seq"]?.int } == Array(1...21))
        }
    }

    @Test("G2: what cannot be recovered is said: another epoch, a fork, too long ago")
    func notRecovered() async throws {
        let options = Cluster.Options(
            nodes: 1,
            environment: ["MARTLET_HISTORY_MESSAGES": "5", "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"]
        )
        try await Machine.with(options) { cluster in
            let room = newRoom()
            let talker = try await cluster.connect("talker", to: 0)
            let epoch = try #require(try await talker.join(room)["epoch"])
            // More than Redis keeps when it trims whole blocks of a stream.
            for number in 1...400 {
                talker.client.send([
                    "type": "message", "room": .string(room), "text": .string("m\(number)"), "id": .string("\(number)"),
                ])
            }
            var head: Int64 = 400
            for number in 1...400 { _ = try await talker.client.next("ack", id: "\(number)") }
            let positions: [(String, (Int64) -> JSON)] = [
                ("another epoch", { ["epoch": "other", "seq": .int($0 - 2)] }),
                ("a fork", { ["epoch": epoch, "seq": .int($0), "tag": "????"] }),
                ("too long ago", { _ in ["epoch": epoch, "seq": 2] }),
                ("the future", { ["epoch": epoch, "seq": .int($0 + 1)] }),
            ]
            for (name, since) in positions {
                let session = try await cluster.connect(newUser(), to: 0)
                let joined = try await session.join(room, ["since": since(head)])
                #expect(joined["recovered"]?.bool == false, "\(name): \(joined.text)")
                #expect(joined["seq"]?.int == head, "\(name)")
                // It is in the room all the same.
                let text = "after \(name)"
                try await talker.say(text, in: room)
                head += 1
                #expect(try await session.hears(text, in: room)["seq"]?.int == head)
                #expect(session.messages(in: room).count == 1, "\(name): nothing that does not follow")
                session.client.close()
            }
            let recent = try await cluster.connect(newUser(), to: 0)
            let joined = try await recent.join(room, ["since": ["epoch": epoch, "seq": .int(head - 2)]])
            #expect(joined["recovered"]?.bool == true)
            for seq in (head - 1)...head {
                #expect(try await recent.client.next("message", room: room)["seq"]?.int == seq)
            }
        }
    }

    @Test("G3: the same id from two nodes is stored once and answered with the first seq")
    func once() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let user = newUser()
            let listener = try await cluster.connect(newUser("listener"), to: 2)
            try await listener.join(room)
            let first = try await cluster.connect(user, to: 0, client: "one")
            let second = try await cluster.connect(user, to: 1, client: "one")
            for session in [first, second] { try await session.join(room) }
            try await listener.say("before", in: room)
            let ack = try await first.say("hello", in: room, id: "same")
            let again = try await second.say("hello", in: room, id: "same")
            #expect(again["seq"] == ack["seq"])
            #expect(again["ts"] == ack["ts"])
            let third = try await first.say("hello", in: room, id: "same")
            #expect(third["seq"] == ack["seq"])

            // Both at the same time: one is stored, both have its seq.
            let id = Session.newID()
            async let one = first.say("race", in: room, id: id)
            async let two = second.say("race", in: room, id: id)
            let seqs = [try await one["seq"], try await two["seq"]]
            #expect(seqs[0] == seqs[1])

            // Another payload under that id is refused; another instance or user has ids of its own.
            do {
                try await second.say("something else", in: room, id: "same")
                Issue.record("stored two payloads under one id")
            } catch let refusal as Refusal {
                expectError(refusal.error, 112, "id_reused")
            }
            let other = try await cluster.connect(user, to: 0, client: "two")
            try await other.join(room)
            #expect(try await other.say("of another instance", in: room, id: "same")["seq"] != ack["seq"])
            #expect(try await listener.say("of another user", in: room, id: "same")["seq"] != ack["seq"])
            let texts = listener.messages(in: room).compactMap { $0["text"]?.string }
            #expect(texts == ["hello", "race", "of another instance"])
        }
    }

    @Test("G3: an id that contains every awkward character is still one id")
    func awkwardIDs() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let session = try await cluster.connect(newUser(), to: 0, client: "one")
            try await session.join(room)
            var seqs: Set<Int64> = []
            for id in ["a", "a ", "a\n", "a\nb", "\u{0}", "ü", "\"", "\\", "{}", "%s", "-", "0", "00"] {
                let first = try await session.say("text", in: room, id: id)
                let second = try await session.say("text", in: room, id: id)
                #expect(first["seq"] == second["seq"], "\(id.debugDescription)")
                #expect(first["id"]?.string == id)
                if let seq = first["seq"]?.int { #expect(seqs.insert(seq).inserted, "\(id.debugDescription)") }
            }
        }
    }
}
