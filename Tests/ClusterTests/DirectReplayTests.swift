import TestSupport
import Testing

/// Private messages to and of a user whose client was away: on the wire, as `docs/protocol.md` says it.
@Suite("Private messages that were missed")
struct DirectReplayTests {
    private func cluster(
        nodes: Int = 2, grace: Int = 30, _ more: [String: String] = [:], configuration: String? = nil,
        _ body: @Sendable (Cluster) async throws -> Void
    ) async throws {
        let environment = ["MARTLET_RESUME_GRACE_SECONDS": String(grace), "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"]
        try await Machine.with(
            Cluster.Options(nodes: nodes, environment: environment.merging(more) { $1 }, configuration: configuration),
            body)
    }

    @discardableResult
    private func direct(_ text: String, to user: String, from session: Session) async throws -> JSON {
        session.client.send(["type": "direct", "to": .string(user), "text": .string(text), "id": .string(text)])
        return try await session.client.next("ack", id: text)
    }

    private func texts(_ session: Session, in room: String) -> [String] {
        session.messages(in: room).compactMap { $0["text"]?.string }
    }

    private func last(_ session: Session, _ text: String) async throws {
        _ = try await session.client.next("the message \(text)", within: .seconds(20)) { $0["text"]?.string == text }
    }

    @Test(
        "G1 G2 G3: what others said and what this user said elsewhere, in rooms known and new, on any node, also when its own was killed",
        arguments: [(0, false), (1, false), (1, true)])
    func replayed(node: Int, isKilled: Bool) async throws {
        try await cluster(nodes: 3) { cluster in
            let bob = try await cluster.connect("bob", to: 2)
            try await direct("before alice came", to: "alice", from: bob)
            let alice = try await cluster.connect("alice", to: 0)
            try await direct("known", to: "alice", from: bob)
            let known = try await alice.client.next("known") { $0["text"]?.string == "known" }
            #expect(known["epoch"] != nil)
            if isKilled { await cluster.nodes[0].kill() } else { alice.client.abort() }

            let phone = try await cluster.connect("alice", to: 2)
            let carol = try await cluster.connect("carol", to: 2)
            try await direct("one", to: "alice", from: bob)
            try await direct("two", to: "bob", from: phone)
            for number in 1...3 { try await direct("new \(number)", to: "alice", from: carol) }

            let back = try await cluster.comeBack(alice, on: node, directs: [known])
            #expect(back.welcome["resumed"]?.bool == true)
            try await direct("live", to: "alice", from: bob)
            try await direct("new and live", to: "alice", from: carol)
            try await last(back, "live")
            try await last(back, "new and live")
            #expect(texts(back, in: "dm:alice:bob") == ["one", "two", "live"])
            #expect(back.messages(in: "dm:alice:bob").map { $0["id"]?.string } == [nil, "two", nil])
            #expect(texts(back, in: "dm:alice:carol") == ["new 1", "new 2", "new 3", "new and live"])
            #expect(back.gaps.isEmpty)
        }
    }

    @Test("G2: also in a new session, where none is kept")
    func newSession() async throws {
        try await cluster(grace: 0) { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            alice.client.abort()
            try await direct("missed", to: "alice", from: bob)
            let back = try await cluster.comeBack(alice, on: 1)
            #expect(back.welcome["resumed"] == nil && back.id != alice.id)
            try await direct("live", to: "alice", from: bob)
            try await last(back, "live")
            #expect(texts(back, in: "dm:alice:bob") == ["missed", "live"])
        }
    }

    @Test("G1 G3: many, while both go on talking: each once and in order, and own ones acknowledged in their place")
    func seam() async throws {
        try await cluster { cluster in
            let bob = try await cluster.connect("bob", to: 0)
            let alice = try await cluster.connect("alice", to: 0)
            alice.client.abort()
            for number in 1...700 {
                bob.client.send([
                    "type": "direct", "to": "alice", "text": .string("\(number)"), "id": .string("\(number)"),
                ])
            }
            _ = try await bob.client.next("ack", id: "300")
            let back = try await cluster.comeBack(alice, on: 1)
            for number in 1...50 {
                let id = JSON.string("own \(number)")
                back.client.send(["type": "direct", "to": "bob", "text": id, "id": id])
            }
            try await direct("the end", to: "alice", from: bob)
            try await last(back, "the end")
            let heard = back.client.heard.current.all.filter {
                $0["room"]?.string == "dm:alice:bob" && ["ack", "message"].contains($0["type"]?.string)
            }
            #expect(heard.compactMap { $0["seq"]?.int } == Array(1...751))
            #expect(heard.count { $0["id"] != nil } == 50)
        }
    }

    @Test("G2: what cannot be had is said: too long ago, another story, and never another user's")
    func gaps() async throws {
        try await cluster(["MARTLET_HISTORY_MESSAGES": "5"]) { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            try await direct("first", to: "alice", from: bob)
            let first = try await alice.client.next("first") { $0["text"]?.string == "first" }
            alice.client.abort()
            for number in 2...20 { try await direct("\(number)", to: "alice", from: bob) }
            let back = try await cluster.comeBack(alice, on: 1, directs: [first])
            let gap = try await back.client.next("gap", room: "dm:alice:bob")
            #expect(gap["from"]?.int == 2 && gap["to"]?.int == 20 && gap["epoch"] == first["epoch"])
            let page = try await back.client.next("history", room: "dm:alice:bob")
            #expect(page["id"] == nil && page["messages"]?.array?.last?["text"]?.string == "20")
            try await direct("after", to: "alice", from: bob)
            try await last(back, "after")
            #expect(texts(back, in: "dm:alice:bob") == ["after"])

            back.client.abort()
            let forked = first.with("epoch", "other")
            let again = try await cluster.comeBack(back, on: 0, directs: [forked])
            #expect(try await again.client.next("gap", room: "dm:alice:bob")["from"]?.int == 1)

            for (room, code) in [("dm:bob:carol", Int64(116)), ("general", 108)] {
                let other = first.with("room", .string(room))
                let thief = try await cluster.open("/ws?user=alice&resume=1", at: cluster.nodes[0])
                thief.send(["type": "auth", "directs": ["since": 0, "rooms": [other.asPlace]]])
                #expect(try await thief.next("error")["code"]?.int == code)
            }
        }
    }

    @Test("G2: Redis lost everything meanwhile: the client is told, and hears what is said from then on")
    func forgotten() async throws {
        try await cluster { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            for number in 1...3 { try await direct("\(number)", to: "alice", from: bob) }
            try await last(alice, "3")
            let seen = try #require(alice.messages(in: "dm:alice:bob").last)
            alice.client.abort()
            try await cluster.redis.command("FLUSHALL")
            let bobAgain = try await poll(within: .seconds(20), "the nodes to be back") {
                try? await cluster.connect("bob", to: 1)
            }
            try await direct("new story", to: "alice", from: bobAgain)
            let back = try await cluster.comeBack(alice, on: 1, directs: [seen])
            #expect(try await back.client.next("gap", room: "dm:alice:bob")["epoch"] != seen["epoch"])
            try await direct("and on", to: "alice", from: bobAgain)
            try await last(back, "and on")
        }
    }

    @Test("G2: all that the namespace of private rooms keeps, in rooms known and new")
    func namespace() async throws {
        try await cluster(configuration: #"{"namespaces": {"dm": {"history": {"messages": 3000}}}}"#) { cluster in
            let (bob, carol) = (try await cluster.connect("bob", to: 1), try await cluster.connect("carol", to: 1))
            let alice = try await cluster.connect("alice", to: 0)
            try await direct("known", to: "alice", from: bob)
            let known = try await alice.client.next("known") { $0["text"]?.string == "known" }
            alice.client.abort()
            for talker in [bob, carol] {
                for number in 1...1300 {
                    talker.client.send([
                        "type": "direct", "to": "alice", "text": "x", "id": .string("\(number)"),
                    ])
                }
                _ = try await talker.client.next("ack", id: "1300", within: .seconds(20))
            }
            let back = try await cluster.comeBack(alice, on: 1, directs: [known])
            for talker in [bob, carol] {
                try await direct("the last of \(talker.user)", to: "alice", from: talker)
                try await last(back, "the last of \(talker.user)")
            }
            #expect(back.messages(in: "dm:alice:bob").compactMap { $0["seq"]?.int } == Array(2...1302))
            #expect(back.messages(in: "dm:alice:carol").compactMap { $0["seq"]?.int } == Array(1...1301))
            #expect(back.gaps.isEmpty)
        }
    }

    @Test("G5: an ack that waits for what was missed is refused within 5 s, and comes when it is asked for again")
    func overdue() async throws {
        try await cluster { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            alice.client.abort()
            // More than the sockets take.
            let text = String(repeating: "x", count: 40_000)
            for number in 1...250 {
                bob.client.send(["type": "direct", "to": "alice", "text": .string(text), "id": .string("\(number)")])
                _ = try await bob.client.next("ack", id: "\(number)")
            }
            let back = try await cluster.comeBack(alice, on: 1)
            back.client.setReads(false)
            let sent = ContinuousClock.now
            back.client.send(["type": "direct", "to": "bob", "text": "mine", "id": "mine"])
            try await last(bob, "mine")
            _ = try await poll(within: .seconds(5) - sent.duration(to: .now), "the answer") {
                try await cluster.nodes[1].internals("/metrics").text.contains("martlet_publishes_refused_total 1\n")
                    ? true : nil
            }
            back.client.setReads(true)
            let refused = try await back.client.next("the answer", within: .seconds(30)) {
                $0["id"]?.string == "mine" && ["ack", "error"].contains($0["type"]?.string)
            }
            #expect(refused["reason"]?.string == "unavailable" && refused["retry_ms"]?.int != nil)
            back.client.send(["type": "direct", "to": "bob", "text": "mine", "id": "mine"])
            let ack = try await back.client.next("ack", id: "mine", within: .seconds(30))
            #expect(ack["duplicate"]?.bool == true && ack["seq"]?.int == 251)
            let heard = back.messages(in: "dm:alice:bob")
            #expect(heard.compactMap { $0["seq"]?.int } == Array(1...251) && back.gaps.isEmpty)
        }
    }

    @Test(
        "G1 G2: a late message of an epoch that was left behind does not turn the client back",
        arguments: [true, false])
    func late(isKnown: Bool) async throws {
        try await cluster { cluster in
            let room = "dm:alice:bob"
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 1)
            for number in 1...8 { try await direct("\(number)", to: "alice", from: bob) }
            try await last(alice, "8")
            let known = try #require(alice.messages(in: room).last)
            alice.client.abort()
            try await direct("9", to: "alice", from: bob)
            let (epoch, tag) = (known["epoch"]?.string ?? "", known["tag"]?.string ?? "")
            try await cluster.redis.command("HSET", cluster.key("{r:\(room)}:meta"), "epoch", "turned")

            let back = try await cluster.comeBack(alice, on: 0, directs: isKnown ? [known] : [])
            _ =
                try await isKnown
                ? back.client.next("history", room: room) : back.client.next("the last") { $0["seq"]?.int == 9 }
            let frame = #"{"type":"message","room":"\#(room)","seq":9,"epoch":"\#(epoch)","text":"late"}"#
            try await cluster.redis.command(
                "PUBLISH", cluster.key("{u:alice}"), "D9 late \(tag) \(epoch) \(room) 1 - 0\n\(frame)")
            try await direct("10", to: "alice", from: bob)
            try await last(back, "10")
            #expect(texts(back, in: room) == (isKnown ? ["10"] : (1...10).map(String.init)))
            #expect(back.gaps.map { $0["epoch"]?.string } == (isKnown ? ["turned"] : []))
        }
    }
}

extension Session {
    fileprivate var gaps: [JSON] { client.heard.current.all.filter { $0["type"]?.string == "gap" } }
}

extension JSON {
    fileprivate func with(_ key: String, _ value: JSON) -> JSON {
        .object((object ?? [:]).merging([key: value]) { $1 })
    }

    /// Of a private message: where its room stands for who saw it.
    fileprivate var asPlace: JSON {
        [
            "room": self["room"] ?? .null,
            "since": [
                "epoch": self["epoch"] ?? .null, "seq": self["seq"] ?? .null,
                "tag": self["tag"] ?? .null,
            ],
        ]
    }
}

extension Cluster {
    /// Comes back to the session, with the last private message of each room that is known.
    fileprivate func comeBack(_ session: Session, on node: Int, directs: [JSON] = []) async throws -> Session {
        let client = try await open("/ws?user=\(session.user)&resume=1", at: nodes[node])
        var auth: [String: JSON] = [
            "type": "auth",
            "directs": ["since": session.welcome["ts"] ?? 0, "rooms": .array(directs.map(\.asPlace))],
        ]
        if let secret = session.welcome["secret"] {
            auth["resume"] = ["session": .string(session.id), "secret": secret]
        }
        client.send(.object(auth))
        return Session(user: session.user, client: client, welcome: try await client.next("welcome"))
    }
}
