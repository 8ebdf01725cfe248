import TestSupport
import Testing

/// The protocol as two people and a program see it, each on another node.
@Suite("A conversation over three nodes")
struct ConversationTests {
    @Test("welcome says session, user, node and limits; each session has its own name")
    func welcome() async throws {
        try await SharedCluster.use { cluster in
            let user = newUser()
            var ids: Set<String> = []
            for (index, node) in cluster.nodes.enumerated() {
                let session = try await cluster.connect(user, to: index)
                #expect(session.welcome["user"]?.string == user)
                #expect(session.node.hasPrefix(node.name), "\(session.welcome.text)")
                #expect(session.welcome["heartbeat_ms"]?.int == 25_000)
                #expect(session.welcome["limits"]?["rooms"]?.int == 100)
                #expect(session.welcome["limits"]?["messages_per_second"]?.int == 30)
                ids.insert(session.id)
            }
            #expect(ids.count == 3)
            #expect(!ids.contains(""))
        }
    }

    @Test("G1: join, message, ack: every field of the design, on the same node and on others")
    func message() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let alice = try await cluster.connect(newUser("alice"), to: 0)
            let joined = try await alice.join(room, ["id": "j1"])
            #expect(joined["id"]?.string == "j1")
            #expect(joined["seq"]?.int == 0)
            #expect(joined["epoch"]?.string?.isEmpty == false)
            #expect(joined["count"]?.int == 1)
            #expect(joined["members"]?.array == [["user": .string(alice.user)]])
            var others: [Session] = []
            for node in 0..<3 { others.append(try await cluster.connect(newUser("other"), to: node)) }
            for other in others { try await other.join(room) }

            let ack = try await alice.say("hällo \"you\" \\ 😀 \u{2028}", in: room, id: "m1")
            #expect(ack["room"]?.string == room)
            #expect(ack["seq"]?.int == 1)
            let ts = try #require(ack["ts"]?.int)
            #expect(ts > 1_700_000_000_000)
            for other in others {
                let message = try await other.client.next("message", room: room)
                #expect(message["text"]?.string == "hällo \"you\" \\ 😀 \u{2028}")
                #expect(message["from"]?.string == alice.user)
                #expect(message["seq"]?.int == 1)
                #expect(message["ts"]?.int == ts)
                #expect(message["tag"]?.string?.utf8.count == 4)
            }
            // Data of any shape, beside text or alone, comes through as it was.
            let data: JSON = ["a": [1, .double(2.5), nil, true], "b": ["c": "ü"], "": .string("\u{0}")]
            alice.client.send(["type": "message", "room": .string(room), "data": data, "id": "m2"])
            #expect(try await alice.client.next("ack", id: "m2")["seq"]?.int == 2)
            for other in others {
                let message = try await other.client.next("message", room: room)
                #expect(message["data"] == data)
                #expect(message["text"] == nil)
            }
            // A message without an id has no ack, or one without id; it is delivered all the same.
            alice.client.send(["type": "message", "room": .string(room), "text": "no id"])
            for other in others { #expect(try await other.hears("no id", in: room)["seq"]?.int == 3) }
        }
    }

    @Test("a client may say all that it wants at once: it is done in order, behind the answers that it needs")
    func allAtOnce() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let client = try await cluster.open("/ws?user=\(newUser())", at: cluster.nodes[0])
            client.send(["type": "join", "room": .string(room), "id": "1"])
            client.send(["type": "message", "room": .string(room), "text": "at once", "id": "2"])
            client.send(["type": "history", "room": "elsewhere", "id": "3"])
            client.send(["type": "leave", "room": .string(room), "id": "4"])
            client.send(["type": "message", "room": .string(room), "text": "too late", "id": "5"])
            _ = try await client.next("welcome")
            #expect(try await client.next("joined", id: "1")["seq"]?.int == 0)
            expectError(try await client.next("error", id: "3"), 111, "not_in_room")
            #expect(try await client.next("ack", id: "2")["seq"]?.int == 1)
            _ = try await client.next("left", id: "4")
            expectError(try await client.next("error", id: "5"), 111, "not_in_room")
        }
    }

    @Test("G1: who leaves a room and comes back at once gets the answer to what it said before")
    func leavesAndComesBack() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let client = try await cluster.open("/ws?user=\(newUser())", at: cluster.nodes[0])
            _ = try await client.next("welcome")
            for round in 0..<10 {
                client.send(["type": "join", "room": .string(room), "id": .string("in \(round)")])
                client.send(["type": "message", "room": .string(room), "text": "said", "id": .string("said \(round)")])
                client.send(["type": "leave", "room": .string(room), "id": .string("out \(round)")])
            }
            for round in 0..<10 {
                #expect(try await client.next("ack", id: "said \(round)")["seq"]?.int == Int64(round + 1))
            }
            client.send(["type": "join", "room": .string(room), "id": "in"])
            client.send(["type": "message", "room": .string(room), "text": "the last", "id": "last"])
            client.send(["type": "leave", "room": .string(room), "id": "out"])
            client.send(["type": "join", "room": .string(room), "id": "again"])
            #expect(try await client.next("ack", id: "last")["seq"]?.int == 11)
            _ = try await client.next("joined", id: "again")
        }
    }

    @Test("a sender does not get its own message on that session, its other session does; with echo both do")
    func ownMessages() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let user = newUser()
            let speaks = try await cluster.connect(user, to: 0)
            let same = try await cluster.connect(user, to: 0)
            let far = try await cluster.connect(user, to: 1)
            for session in [speaks, same, far] { try await session.join(room) }
            let ack = try await speaks.say("one", in: room)
            for session in [same, far] { #expect(try await session.hears("one", in: room)["seq"] == ack["seq"]) }
            try await far.say("two", in: room)
            _ = try await speaks.hears("two", in: room)
            #expect(speaks.messages(in: room).count == 1)

            let echo = newRoom("echo")
            let echoing = try await cluster.connect(user, to: 2)
            try await echoing.join(echo, ["echo": true])
            try await far.join(echo)
            try await echoing.say("mine", in: echo, id: "e1")
            try await far.say("theirs", in: echo)
            try await echoing.say("mine again", in: echo)
            for text in ["mine", "theirs", "mine again"] { _ = try await echoing.hears(text, in: echo) }
            #expect(echoing.messages(in: echo).compactMap { $0["seq"]?.int } == [1, 2, 3])
        }
    }

    @Test("presence: joined, left, count and a pv without holes; the answer lists everybody")
    func presence() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect(newUser("watcher"), to: 2)
            let start = try #require(try await watcher.join(room)["pv"]?.int)
            let (alice, bob) = (
                try await cluster.connect(newUser("alice"), to: 0), try await cluster.connect(newUser("bob"), to: 1)
            )
            try await alice.join(room)
            let event = try await watcher.sees("joined", alice.user, in: room)
            #expect(event["count"]?.int == 2)
            #expect(event["pv"]?.int == start + 1)
            try await bob.join(room)
            try await watcher.sees("joined", bob.user, in: room)
            // To join again changes nothing.
            let again = try await bob.join(room)
            #expect(again["count"]?.int == 3)
            let answer = try await watcher.presence(of: room)
            #expect(answer["count"]?.int == 3)
            #expect(answer["pv"]?.int == start + 2)
            #expect(
                Set((answer["members"]?.array ?? []).compactMap { $0["user"]?.string })
                    == [watcher.user, alice.user, bob.user]
            )
            try await alice.leave(room)
            let left = try await watcher.sees("left", alice.user, in: room)
            #expect(left["count"]?.int == 2)
            #expect(left["pv"]?.int == start + 3)
            // Who left hears no more of it, and can come back.
            try await bob.say("without alice", in: room)
            _ = try await watcher.hears("without alice", in: room)
            try await alice.join(room)
            try await bob.say("with alice", in: room)
            _ = try await alice.hears("with alice", in: room)
            #expect(alice.messages(in: room).count == 1)
            #expect(watcher.presenceCounts("left", of: room) == [alice.user: 1])
        }
    }

    @Test("status: the most present of a user's sessions counts, invisible is as good as away from the list")
    func status() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let user = newUser()
            let watcher = try await cluster.connect(newUser("watcher"), to: 2)
            try await watcher.join(room)
            let (first, second) = (try await cluster.connect(user, to: 0), try await cluster.connect(user, to: 1))
            try await first.join(room)
            try await second.join(room)
            @Sendable func status() async throws -> String? {
                let members = try await watcher.presence(of: room)["members"]?.array ?? []
                guard let member = members.first(where: { $0["user"]?.string == user }) else { return nil }
                return member["status"]?.string ?? "online"
            }
            func set(_ session: Session, _ status: String) async throws {
                let id = Session.newID()
                session.client.send(["type": "status", "status": .string(status), "id": .string(id)])
                #expect(try await session.client.next("ack", id: id)["status"]?.string == status)
            }
            func become(_ wanted: String?) async throws {
                _ = try await poll(within: .seconds(5), "the status \(wanted ?? "of nobody")") {
                    try await status() == wanted ? true : nil
                }
            }
            try await become("online")
            try await set(first, "busy")
            try await become("online")
            try await set(second, "away")
            try await become("away")
            try await set(second, "invisible")
            try await become("busy")
            try await set(first, "invisible")
            try await watcher.sees("left", user, in: room)
            try await become(nil)
            #expect(try await watcher.presence(of: room)["count"]?.int == 1)
            // Still there: hears and speaks.
            try await watcher.say("anybody?", in: room)
            for session in [first, second] { _ = try await session.hears("anybody?", in: room) }
            try await set(first, "online")
            try await become("online")
            try await poll(within: .seconds(5), "the second time that it joined") {
                watcher.presenceCounts("joined", of: room)[user] == 2 ? () : nil
            }
        }
    }

    @Test("info given at auth stands in the member lists")
    func info() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let client = try await cluster.open("/ws", at: cluster.nodes[0])
            let user = newUser()
            client.send([
                "type": "auth", "user": .string(user), "info": ["name": "Alice \"A\" Ä", "avatar": "a.png"],
            ])
            let session = Session(user: user, client: client, welcome: try await client.next("welcome"))
            let watcher = try await cluster.connect(newUser("watcher"), to: 1)
            try await watcher.join(room)
            try await session.join(room)
            let event = try await watcher.sees("joined", user, in: room)
            let member = event["joined"]?.array?.first { $0["user"]?.string == user }
            #expect(member?["info"]?["name"]?.string == "Alice \"A\" Ä")
            let listed = try await watcher.presence(of: room)["members"]?.array?.first { $0["user"]?.string == user }
            #expect(listed?["info"]?["avatar"]?.string == "a.png")
        }
    }

    @Test("typing reaches the others on all nodes, not the one who types")
    func typing() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let typist = try await cluster.connect(newUser(), to: 0)
            let others = [try await cluster.connect(newUser(), to: 0), try await cluster.connect(newUser(), to: 1)]
            for session in others + [typist] { try await session.join(room) }
            typist.client.send(["type": "typing", "room": .string(room)])
            for other in others {
                let event = try await other.client.next("typing", room: room)
                #expect(event["from"]?.string == typist.user)
                #expect(event["typing"]?.bool == true)
                #expect(event["seq"] == nil)
            }
            typist.client.send(["type": "typing", "room": .string(room), "typing": false])
            for other in others { #expect(try await other.client.next("typing", room: room)["typing"]?.bool == false) }
            try await others[0].say("after", in: room)
            _ = try await typist.hears("after", in: room)
            #expect(!typist.client.heard.current.all.contains { $0["type"]?.string == "typing" })
        }
    }

    @Test("direct: reaches every session of both without a join, has seq and history, and nobody else sees it")
    func direct() async throws {
        try await SharedCluster.use { cluster in
            let (a, b) = (newUser("alice"), newUser("bob"))
            let alice = [try await cluster.connect(a, to: 0), try await cluster.connect(a, to: 1)]
            let bob = [try await cluster.connect(b, to: 1), try await cluster.connect(b, to: 2)]
            let carol = try await cluster.connect(newUser("carol"), to: 1)
            func send(_ session: Session, to user: String, _ text: String) async throws -> JSON {
                let id = Session.newID()
                session.client.send([
                    "type": "direct", "to": .string(user), "text": .string(text), "id": .string(id),
                ])
                return try await session.client.next("ack", id: id)
            }
            let first = try await send(alice[0], to: b, "psst")
            let second = try await send(bob[1], to: a, "yes?")
            #expect(first["seq"]?.int == 1)
            #expect(second["seq"]?.int == 2)
            let room = try #require(first["room"]?.string)
            #expect(second["room"]?.string == room, "one room for both directions")
            for session in [alice[1]] + bob {
                let message = try await session.hears("psst", in: room)
                #expect(message["from"]?.string == a)
                #expect(message["to"]?.string == b)
                #expect(message["seq"]?.int == 1)
            }
            for session in alice + [bob[0]] { #expect(try await session.hears("yes?", in: room)["seq"]?.int == 2) }
            #expect(alice[0].messages(in: room).count == 1)
            for session in [alice[0], bob[0]] {
                session.client.send(["type": "history", "room": .string(room), "id": "h"])
                let history = try await session.client.next("history", id: "h")
                #expect(history["messages"]?.array?.compactMap { $0["text"]?.string } == ["psst", "yes?"])
            }
            // Nobody else may read or enter it.
            carol.client.send(["type": "history", "room": .string(room), "id": "h"])
            expectError(try await carol.client.next("error", id: "h"), 116, "forbidden")
            carol.client.send(["type": "join", "room": .string(room), "id": "j"])
            expectError(try await carol.client.next("error", id: "j"), 116, "forbidden")
            #expect(carol.messages(in: room).isEmpty)
        }
    }

    @Test("history: the latest, before and after a seq, at most limit, oldest first")
    func history() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let session = try await cluster.connect(newUser(), to: 0)
            try await session.join(room)
            for number in 1...25 { try await session.say("m\(number)", in: room, id: "m\(number)") }
            let reader = try await cluster.connect(newUser(), to: 1)
            try await reader.join(room)
            func read(_ fields: [String: JSON]) async throws -> (seqs: [Int64], more: Bool?, messages: [JSON]) {
                let id = Session.newID()
                let request: [String: JSON] = ["type": "history", "room": .string(room), "id": .string(id)]
                reader.client.send(.object(request.merging(fields) { $1 }))
                let answer = try await reader.client.next("history", room: room, id: id)
                let messages = answer["messages"]?.array ?? []
                return (messages.compactMap { $0["seq"]?.int }, answer["more"]?.bool, messages)
            }
            let latest = try await read(["limit": 10])
            #expect(latest.seqs == Array(16...25))
            #expect(latest.more == true)
            #expect(latest.messages.first?["text"]?.string == "m16")
            #expect(latest.messages.first?["from"]?.string == session.user)
            #expect(latest.messages.first?["ts"]?.int != nil)
            #expect(try await read(["before": 16, "limit": 10]).seqs == Array(6...15))
            let first = try await read(["before": 6, "limit": 10])
            #expect(first.seqs == Array(1...5))
            #expect(first.more == false)
            #expect(try await read(["after": 0, "limit": 3]).seqs == [1, 2, 3])
            #expect(try await read(["after": 23, "limit": 100]).seqs == [24, 25])
            #expect(try await read(["after": 25]).seqs == [])
            #expect(try await read(["limit": 100]).seqs == Array(1...25))
        }
    }

    @Test("many rooms in one frame: each is answered, a bad one does not spoil the others")
    func manyRooms() async throws {
        try await SharedCluster.use { cluster in
            let rooms = (0..<20).map { _ in newRoom("many") }
            let session = try await cluster.connect(newUser(), to: 0)
            session.client.send([
                "type": "join", "rooms": .array(rooms.map { ["room": .string($0)] }), "id": "all",
            ])
            for room in rooms {
                let joined = try await session.client.next("joined", room: room)
                #expect(joined["count"]?.int == 1)
            }
            let other = try await cluster.connect(newUser(), to: 1)
            for room in rooms { try await other.join(room) }
            for room in rooms { try await other.say("to \(room)", in: room) }
            for room in rooms { _ = try await session.hears("to \(room)", in: room) }
        }
    }

    @Test("ping is answered with pong and the time, in order with all else")
    func ping() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            for number in 0..<50 { session.client.send(["type": "ping", "id": .string("p\(number)")]) }
            for number in 0..<50 {
                let pong = try await session.client.next("pong") { $0["type"]?.string == "pong" }
                #expect(pong["id"]?.string == "p\(number)")
                #expect((pong["ts"]?.int ?? 0) > 1_700_000_000_000)
            }
        }
    }

    @Test("G1: the messages of one session keep their order, whatever the tick they fall into")
    func pipelined() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let (alice, bob) = (
                try await cluster.connect(newUser(), to: 0), try await cluster.connect(newUser(), to: 1)
            )
            for session in [alice, bob] { try await session.join(room) }
            // Within the burst.
            for number in 1...50 {
                alice.client.send([
                    "type": "message", "room": .string(room), "text": .string("\(number)"), "id": .string("\(number)"),
                ])
            }
            for number in 1...50 {
                #expect(try await alice.client.next("ack", id: "\(number)")["seq"]?.int == Int64(number))
            }
            _ = try await bob.hears("50", in: room)
            #expect(bob.messages(in: room).compactMap { $0["text"]?.string } == (1...50).map { "\($0)" })
            #expect(bob.messages(in: room).compactMap { $0["seq"]?.int } == Array(1...50))
        }
    }
}
