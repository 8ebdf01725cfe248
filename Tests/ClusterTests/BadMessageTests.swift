import TestSupport
import Testing

/// G7: whatever a client says, it gets a numbered error and nobody else notices.
@Suite("G7: bad messages")
struct BadMessageTests {
    static let rows = BadMessage.all

    @Test("G7, T17: a numbered error with a sentence, and the connection goes on", arguments: rows)
    func refused(row: BadMessage) async throws {
        try await SharedCluster.use { cluster in
            try await harmless(cluster) { session, _ in
                session.client.send(text: row.text)
                let error = try await session.client.next("error")
                expectError(error, row.code, row.reason)
                #expect(error["id"]?.string == row.id, "\(error.text)")
            }
        }
    }

    @Test("G7, T24: a message over the limit is refused, one of exactly the limit is not")
    func tooLarge() async throws {
        try await SharedCluster.use { cluster in
            try await harmless(cluster) { session, room in
                let frame = #"{"type":"message","room":"\#(room)","id":"big","text":""}"#
                let limit = try #require(session.welcome["limits"]?["message_bytes"]?.int)
                #expect(limit == 65536)
                let fits = String(repeating: "x", count: Int(limit) - frame.utf8.count)
                session.client.send(text: frame.replacing(#""text":""#, with: #""text":""# + fits))
                _ = try await session.client.next("ack", id: "big")
            }
            // A larger one ends at most its own connection.
            let session = try await cluster.connect(newUser(), to: 0)
            session.client.send(["type": "ping", "x": .string(String(repeating: "x", count: 65537))])
            try await expectErrorOrClose(session, 104, "too_large", close: 1009)
        }
    }

    @Test("G7, T24: the 101st room is refused, the hundred stay")
    func tooManyRooms() async throws {
        try await SharedCluster.use { cluster in
            try await harmless(cluster) { session, _ in
                // One room is joined already.
                let rooms = (0..<99).map { _ in newRoom("many") }
                session.client.send([
                    "type": "join", "rooms": .array(rooms.map { ["room": .string($0)] }),
                ])
                for room in rooms { _ = try await session.client.next("joined", room: room) }
                let extra = newRoom("many")
                session.client.send(["type": "join", "room": .string(extra), "id": "one-more"])
                let error = try await session.client.next("error", id: "one-more")
                expectError(error, 110, "too_many_rooms")
                #expect(error["room"]?.string == extra)
                try await session.say("still here", in: rooms[98])
                try await session.leave(rooms[0])
                // Joins have a rate too, and this one may be over it.
                while true {
                    do {
                        try await session.join(extra)
                        break
                    } catch let refusal as Refusal where refusal.code == 103 {
                        try await Task.sleep(for: .milliseconds(refusal.error["retry_ms"]?.int ?? 100))
                    }
                }
            }
        }
    }

    @Test("G7: beyond the burst a message is refused with retry_ms; what was taken is delivered")
    func rateLimit() async throws {
        let options = Cluster.Options(
            nodes: 1,
            environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "30", "MARTLET_LIMIT_MESSAGES_BURST": "40"]
        )
        try await Machine.with(options) { cluster in
            try await harmless(cluster) { session, room in
                let other = try await cluster.connect(newUser("other"), to: 0)
                try await other.join(room)
                for number in 1...150 {
                    session.client.send([
                        "type": "message", "room": .string(room), "text": .string("m\(number)"),
                        "id": .string("m\(number)"),
                    ])
                }
                var acks: [String] = []
                var errors: [JSON] = []
                for number in 1...150 {
                    let answer = try await session.client.next("the answer to m\(number)") {
                        $0["id"]?.string == "m\(number)"
                    }
                    if answer["type"]?.string == "ack" { acks.append("m\(number)") } else { errors.append(answer) }
                }
                // The join was one of the 40.
                #expect((39...100).contains(acks.count), "\(acks.count) taken")
                for error in errors {
                    expectError(error, 103, "rate_limited")
                    #expect((1...2000).contains(error["retry_ms"]?.int ?? 0), "\(error.text)")
                }
                for text in acks { _ = try await other.hears(text, in: room) }
                // Another session of the same user is not limited by it, nor is this one after the time it was told.
                let twin = try await cluster.connect(session.user, to: 0)
                try await twin.join(room)
                try await twin.say("not limited", in: room)
                try await sayAsTold(session, "again", in: room)
                let heard = other.messages(in: room).compactMap { $0["text"]?.string }.filter { $0.hasPrefix("m") }
                #expect(heard == acks, "in order, and nothing that was refused")
            }
        }
    }

    @Test(
        "T10: user names with { } % : and spaces work and never meet in a key",
        arguments: [
            ["a:b", "a%3Ab", "a%3ab", "a%253Ab"], ["{a}", "a", "{a", "a}"], ["%", "%25", "%%"], ["ü", "u\u{308}"],
            [" ", "  "], ["a\"b", "a\\b", "a'b"], ["sessions", "x}:sessions", "{u:x}:sessions"],
        ]
    )
    func userNames(names: [String]) async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let tag = "\(UInt32.random(in: 0...UInt32.max))"
            // The tag keeps the names of repeated runs apart and stands where it hides nothing.
            let users = names.map { $0 + tag }
            var sessions: [Session] = []
            for (index, user) in users.enumerated() {
                let session = try await cluster.connect(user, to: index % 3)
                #expect(session.welcome["user"]?.string == user)
                try await session.join(room)
                sessions.append(session)
            }
            let first = try #require(sessions.first)
            for user in users.dropFirst() { try await first.sees("joined", user, in: room) }
            let answer = try await first.presence(of: room)
            #expect(answer["count"]?.int == Int64(users.count))
            let listed = (answer["members"]?.array ?? []).compactMap { $0["user"]?.string }
            // Compared as bytes: Swift holds ü and u with a diaeresis for equal.
            #expect(Set(listed.map { Array($0.utf8) }) == Set(users.map { Array($0.utf8) }))
            for (index, session) in sessions.enumerated() {
                let text = "I am number \(index)"
                try await session.say(text, in: room)
                for other in sessions where other.id != session.id {
                    #expect(
                        try await other.hears(text, in: room)["from"].map { Array(($0.string ?? "").utf8) }
                            == Array(session.user.utf8)
                    )
                }
            }
            // A direct message reaches the one and no other.
            let second = sessions[1]
            first.client.send([
                "type": "direct", "to": .string(second.user), "text": "only you", "id": "d",
            ])
            _ = try await first.client.next("ack", id: "d")
            let direct = try await second.client.next("the direct message") { $0["text"]?.string == "only you" }
            #expect(direct["from"]?.string.map { Array($0.utf8) } == Array(first.user.utf8))
            for session in sessions { try await session.say("done", in: room) }
            for session in sessions where session.id != second.id {
                for _ in 1..<sessions.count { _ = try await session.hears("done", in: room) }
                #expect(!session.client.heard.current.all.contains { $0["text"]?.string == "only you" })
            }
            for session in sessions { session.client.close() }
            _ = try await poll(within: .seconds(5), "the room to be empty") {
                try await cluster.sessionsInRedis(of: room).isEmpty ? true : nil
            }
            #expect(try await cluster.usersInRedis(of: room).isEmpty)
        }
    }

    @Test(
        "G7: user names that are refused",
        arguments: [
            "%00", "a%0Ab", "a%7F", "%C2%85", "%E2%80%A8", "%FF", "%C0%80", "%ED%A0%80", "", "%",
            String(repeating: "u", count: 129),
        ]
    )
    func refusedNames(encoded: String) async throws {
        try await SharedCluster.use { cluster in
            let path = "/ws?user=\(encoded)"
            do {
                let client = try await cluster.open(path, at: cluster.nodes[0])
                // Refused before or after the upgrade, but with a number and a sentence. An empty name may be no name.
                let answer = try await client.next("an error", within: .seconds(3)) { $0["type"]?.string != nil }
                expectError(answer, 109, "invalid_user")
            } catch let refused as TestClient.Refused {
                #expect((400...403).contains(refused.answer.status))
                let error = try #require(try refused.answer.json()["error"])
                #expect(error["code"]?.int != nil)
                #expect(error["message"]?.string?.isEmpty == false)
            } catch is TimedOut where encoded.isEmpty {
                // No name was given, so the node waits for auth.
            }
        }
    }

    @Test("G7: without a name nothing but auth is taken")
    func notAuthenticated() async throws {
        try await SharedCluster.use { cluster in
            let client = try await cluster.open("/ws", at: cluster.nodes[0])
            for type in ["join", "message", "presence", "history", "typing", "leave"] {
                client.send(["type": .string(type), "room": "r", "text": "x", "id": .string(type)])
                let error = try await client.next("error", id: type)
                #expect(error["code"]?.int == 106 && error["reason"]?.string == "not_authenticated", "\(error.text)")
            }
            let user = newUser()
            client.send(["type": "auth", "user": .string(user), "id": "a"])
            #expect(try await client.next("welcome", id: "a")["user"]?.string == user)
            client.send(["type": "auth", "user": .string(newUser()), "id": "b"])
            expectError(try await client.next("error", id: "b"), 107, "identity_conflict")
            let room = newRoom()
            try await Session(user: user, client: client, welcome: [:]).join(room)
        }
    }

    @Test("unknown fields are ignored, of every type")
    func unknownFields() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            session.client.send(text: #"{"x":[1,{"y":null}],"type":"ping","id":"p","z":1e400,"":"\u0000"}"#)
            _ = try await session.client.next("pong", id: "p")
        }
    }
}

/// Runs `attack` with a session in a room, and shows that neither that session nor the others in the room are harmed.
func harmless(_ cluster: Cluster, _ attack: (Session, _ room: String) async throws -> Void) async throws {
    let room = newRoom("harmless")
    let session = try await cluster.connect(newUser("attacker"), to: 0)
    let bystander = try await cluster.connect(newUser("bystander"), to: 0)
    let far = try await cluster.connect(newUser("far"), to: cluster.nodes.count - 1)
    for session in [session, bystander, far] { try await session.join(room) }
    try await attack(session, room)
    for speaker in [session, bystander, far] {
        let text = "after all, \(speaker.user)"
        try await sayAsTold(speaker, text, in: room)
        for listener in [session, bystander, far] where listener.user != speaker.user {
            _ = try await listener.hears(text, in: room)
        }
    }
    for other in [bystander, far] {
        #expect(!other.client.heard.current.all.contains { $0["type"]?.string == "error" })
        let left = other.presenceCounts("left", of: room)
        for member in [session, bystander, far] { #expect(left[member.user] == nil) }
    }
}

/// Who said too much waits as long as the error says, once; then it must be taken.
private func sayAsTold(_ session: Session, _ text: String, in room: String) async throws {
    do {
        try await session.say(text, in: room)
    } catch let refusal as Refusal where refusal.code == 103 {
        try await Task.sleep(for: .milliseconds(try #require(refusal.error["retry_ms"]?.int)))
        try await session.say(text, in: room)
    }
}

func expectError(
    _ error: JSON,
    _ code: Int64,
    _ reason: String,
    sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(error["type"]?.string == "error", "\(error.text)", sourceLocation: sourceLocation)
    #expect(error["code"]?.int == code, "\(error.text)", sourceLocation: sourceLocation)
    #expect(error["reason"]?.string == reason, "\(error.text)", sourceLocation: sourceLocation)
    #expect(error["message"]?.string?.isEmpty == false, "\(error.text)", sourceLocation: sourceLocation)
}

/// Either an error frame on a connection that goes on, or a Close with this code and a reason.
func expectErrorOrClose(
    _ session: Session,
    _ code: Int64,
    _ reason: String,
    close: UInt16,
    sourceLocation: SourceLocation = #_sourceLocation
) async throws {
    do {
        expectError(try await session.client.next("error"), code, reason, sourceLocation: sourceLocation)
    } catch is TestClient.ConnectionClosed {
        let closed = try await session.client.closed()
        #expect(closed.code == close, "\(closed)", sourceLocation: sourceLocation)
        #expect(!closed.reason.isEmpty, sourceLocation: sourceLocation)
    }
}
