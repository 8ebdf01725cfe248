import Foundation
import TestSupport
import Testing
import TokenAuth

/// Two nodes that take tokens, for all tests of this file. They end with the test process.
private enum TokenCluster {
    static let secret = "for the tests of rights, 40 bytes of it."
    static let configuration = """
        {"namespaces": {
          "news": {"allow": ["join", "history"]},
          "hidden": {"presence": false},
          "small": {"message_bytes": 20, "messages_per_second": 1, "messages_burst": 2}
        }}
        """

    private static let cluster = Task {
        try await Cluster.start(
            Cluster.Options(
                nodes: 2,
                environment: [
                    "MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": secret, "MARTLET_RESUME_GRACE_SECONDS": "30",
                ],
                configuration: configuration))
    }

    static func use(_ body: @Sendable (Cluster) async throws -> Void) async throws {
        try await Machine.with {
            let cluster = try await cluster.value
            try await body(cluster)
            try cluster.checkClients()
        }
    }

    static var now: Int64 { Int64(Date().timeIntervalSince1970) }

    /// - Parameters:
    ///   - rooms: JSON.
    ///   - age: seconds since it was made.
    ///   - lasts: seconds from now until it ends.
    static func token(_ user: String, rooms: String? = nil, age: Int64 = 0, lasts: Int64 = 3600) throws -> String {
        try TokenMinter(secret: Array(secret.utf8)).mint(
            subject: user, issuedAt: now - age, expiresAt: now + lasts, rooms: rooms)
    }
}

extension Cluster {
    fileprivate func enter(
        _ user: String, to index: Int = 0, rooms: String? = nil, age: Int64 = 60, lasts: Int64 = 3600
    ) async throws -> Session {
        let token = try TokenCluster.token(user, rooms: rooms, age: age, lasts: lasts)
        let client = try await open("/ws?token=\(token)", at: nodes[index])
        return Session(user: user, client: client, welcome: try await client.next("welcome"))
    }
}

extension Session {
    /// The answer, an error too.
    fileprivate func ask(_ message: JSON) async throws -> JSON {
        guard case .object(var fields) = message else { return message }
        let id = Self.newID()
        fields["id"] = .string(id)
        client.send(.object(fields))
        return try await client.next("the answer to \(message.text)") { $0["id"]?.string == id }
    }

    fileprivate func ask(_ type: String, _ room: String) async throws -> JSON {
        try await ask(["type": .string(type), "room": .string(room), "text": "hi"])
    }

    fileprivate func renew(_ token: String) async throws -> JSON {
        try await ask(["type": "auth", "token": .string(token)])
    }
}

@Suite("Who may do what in a room, on a node", .patience)
struct RightsTests {
    @Test(
        "T7: without join nobody is in a room; without publish nobody speaks in it; a token with rooms gives those alone"
    )
    func joinAndPublish() async throws {
        try await TokenCluster.use { cluster in
            let (room, news) = (newRoom(), "news:\(newRoom())")
            let outside = try await cluster.enter(
                newUser(), rooms: #"{"\#(room)":["publish","presence","history"],"lobby":["join"]}"#)
            expectError(try await outside.ask("join", room), 116, "forbidden")
            expectError(try await outside.ask("message", room), 111, "not_in_room")
            // One of many is refused by itself, and those that auth names too.
            outside.client.send(["type": "join", "rooms": [["room": .string(room)], ["room": "lobby"]], "id": "many"])
            expectError(try await outside.client.next("error", room: room, id: "many"), 116, "forbidden")
            _ = try await outside.client.next("joined", room: "lobby", id: "many")

            expectError(try await outside.ask("join", newRoom()), 116, "forbidden")

            let silent = try await cluster.enter(newUser(), rooms: #"{"\#(room)":["join"],"\#(news)":["join"]}"#)
            try await silent.join(room)
            for type in ["message", "typing"] { expectError(try await silent.ask(type, room), 116, "forbidden") }
            try await silent.join(news)
            expectError(try await silent.ask("message", news), 116, "forbidden")

            let editor = try await cluster.enter(
                newUser(), to: 1, rooms: #"{"news:*":["join","publish"],"\#(room)":["join","publish"]}"#)
            try await editor.join(news)
            try await editor.join(room)
            try await editor.say("in the news", in: news)
            try await editor.say("in the room", in: room)
            _ = try await silent.hears("in the news", in: news)
            _ = try await silent.hears("in the room", in: room)
        }
    }

    @Test("T7: who may not see who is there gets no list, no count and no events, and everything else")
    func presence() async throws {
        try await TokenCluster.use { cluster in
            let (room, hidden) = (newRoom(), "hidden:\(newRoom())")
            let blind = try await cluster.enter(
                newUser(), rooms: #"{"\#(room)":["join","publish"],"*":[],"hidden:*":["join","presence"]}"#)
            let sees = try await cluster.enter(newUser())
            for (session, room) in [(blind, room), (blind, hidden), (sees, hidden)] {
                let joined = try await session.join(room)
                #expect(joined["members"] == nil && joined["count"] == nil && joined["pv"] == nil, "\(joined.text)")
                expectError(try await session.ask("presence", room), 116, "forbidden")
            }
            #expect(try await sees.join(room)["count"]?.int == 2)
            let third = try await cluster.enter(newUser(), to: 1)
            try await third.join(room)
            try await third.join(hidden)
            try await sees.sees("joined", third.user, in: room)
            try await third.say("after", in: room)
            try await third.say("after", in: hidden)
            for session in [blind, sees] { _ = try await session.hears("after", in: hidden) }
            _ = try await blind.hears("after", in: room)
            #expect(blind.presenceEvents(of: room).isEmpty)
            #expect(sees.presenceEvents(of: hidden).isEmpty)
        }
    }

    @Test("T7: who may not read what is stored is told of what it missed, and shown nothing of it")
    func history() async throws {
        try await TokenCluster.use { cluster in
            let room = newRoom()
            let user = newUser()
            let speaker = try await cluster.enter(newUser(), to: 1)
            let epoch = try #require(try await speaker.join(room)["epoch"])
            for number in 1...3 { try await speaker.say("\(number)", in: room) }
            let session = try await cluster.enter(user, rooms: #"{"\#(room)":["join"],"dm:*":["join"]}"#)
            let joined = try await session.join(room, ["since": ["epoch": epoch, "seq": 1]])
            #expect(joined["recovered"]?.bool == false && joined["seq"]?.int == 3)
            let gap = try await session.client.next("gap", room: room)
            #expect(gap["from"]?.int == 2 && gap["to"]?.int == 3)
            expectError(try await session.ask("history", room), 116, "forbidden")
            try await speaker.say("live", in: room)
            _ = try await session.hears("live", in: room)
            #expect(session.messages(in: room).count == 1)
            // Nothing was missed: nothing is said.
            let other = try await cluster.enter(newUser(), rooms: #"{"\#(room)":["join"]}"#)
            #expect(try await other.join(room, ["since": ["epoch": epoch, "seq": 4]])["recovered"]?.bool == true)
        }
    }

    @Test("T7: private messages take the right to publish, reach who has join there, and are read by who has history")
    func directs() async throws {
        try await TokenCluster.use { cluster in
            let names = [newUser("a"), newUser("b")]
            let room = "dm:\(names[0]):\(names[1])"
            let mute = try await cluster.enter(names[0], rooms: #"{"dm:*":["join"]}"#)
            let deaf = try await cluster.enter(names[0], rooms: #"{"dm:*":["publish","history"]}"#)
            let full = try await cluster.enter(names[1], to: 1)
            expectError(
                try await mute.ask(["type": "direct", "to": .string(names[1]), "text": "x"]), 116, "forbidden")
            expectError(try await mute.ask("history", room), 116, "forbidden")
            let sent = try await full.ask(["type": "direct", "to": .string(names[0]), "text": "psst"])
            #expect(sent["type"]?.string == "ack" && sent["seq"]?.int == 1)
            _ = try await mute.hears("psst", in: room)
            let answer = try await deaf.ask(["type": "direct", "to": .string(names[1]), "text": "back"])
            #expect(answer["type"]?.string == "ack")
            _ = try await mute.hears("back", in: room)
            #expect(try await deaf.ask("history", room)["messages"]?.array?.count == 2)
            #expect(deaf.messages(in: room).isEmpty)

            // Who comes back without history hears that something was missed, and nothing of it.
            let token = try TokenCluster.token(names[0], rooms: #"{"dm:*":["join"]}"#)
            let back = try await cluster.open("/ws?resume=1", at: cluster.nodes[1])
            back.send([
                "type": "auth", "token": .string(token),
                "directs": ["since": full.welcome["ts"] ?? 0, "rooms": []],
            ])
            _ = try await back.next("welcome")
            let gap = try await back.next("gap", room: room)
            #expect(gap["from"]?.int == 1 && gap["to"]?.int == 2)
            _ = try await full.ask(["type": "direct", "to": .string(names[0]), "text": "now"])
            #expect(try await back.next("message", room: room)["text"]?.string == "now")
        }
    }

    @Test("T9: a private room has one name: any other spelling of it is refused wherever a room is named")
    func canonicalNames() async throws {
        try await TokenCluster.use { cluster in
            let session = try await cluster.enter("bob-\(UInt32.random(in: 0...99999))")
            let wrong = [
                "dm:\(session.user):alice", "dm:%61lice:\(session.user)", "dm:alice", "dm:alice:\(session.user):x",
            ]
            for room in wrong {
                for type in ["join", "message", "typing", "presence", "history", "leave"] {
                    expectError(try await session.ask(type, room), 108, "invalid_room")
                }
                let since: JSON = ["epoch": "e", "seq": 1]
                expectError(
                    try await session.ask([
                        "type": "auth", "directs": ["since": 1, "rooms": [["room": .string(room), "since": since]]],
                    ]), 108, "invalid_room")
                let output = try await MartletProgram.run(
                    ["admin", "publish", room, "x"], environment: cluster.environment)
                #expect(output.exit != .status(0), "\(room)")
            }
            expectError(try await session.ask("join", "dm:alice:\(session.user)"), 108, "invalid_room")
        }
    }

    @Test("T7: a namespace that nobody declared is an error wherever it is named, also for an operator")
    func unknownNamespace() async throws {
        try await TokenCluster.use { cluster in
            let session = try await cluster.enter(newUser(), rooms: #"{"*":["join","publish","presence","history"]}"#)
            for type in ["join", "message", "typing", "presence", "history"] {
                expectError(try await session.ask(type, "nowhere:x"), 119, "unknown_namespace")
            }
            let named = try await cluster.open("/ws", at: cluster.nodes[0])
            named.send([
                "type": "auth", "token": .string(try TokenCluster.token(newUser())), "rooms": [["room": "nowhere:x"]],
            ])
            expectError(try await named.next("error", room: "nowhere:x"), 119, "unknown_namespace")
            let output = try await MartletProgram.run(
                ["admin", "publish", "nowhere:x", "hi", "--create"], environment: cluster.environment)
            #expect(output.exit != .status(0) && output.errorText.contains("nowhere"))
        }
    }

    @Test("a namespace bounds the size of a message and the rate of a session in one room")
    func bounds() async throws {
        try await TokenCluster.use { cluster in
            let session = try await cluster.enter(newUser())
            let rooms = (1...2).map { _ in "small:\(newRoom())" }
            for room in rooms { try await session.join(room) }
            expectError(
                try await session.ask(["type": "message", "room": .string(rooms[0]), "text": "over twenty bytes of it"]
                ),
                104, "too_large")
            for number in 1...6 {
                session.client.send([
                    "type": "message", "room": .string(rooms[0]), "text": "hi", "id": .string("\(number)"),
                ])
            }
            let refused = try await session.client.next("error", room: rooms[0])
            expectError(refused, 103, "rate_limited")
            #expect((1...1000).contains(refused["retry_ms"]?.int ?? 0))
            try await session.say("hi", in: rooms[1])
        }
    }

    @Test("T21: who goes on over a namespace's rate is closed like one over the session's own")
    func floodOfNamespace() async throws {
        try await TokenCluster.use { cluster in
            let session = try await cluster.enter(newUser())
            let room = "small:\(newRoom())"
            try await session.join(room)
            for number in 0..<400 {
                session.client.send([
                    "type": "message", "room": .string(room), "text": "hi", "id": .string("\(number)"),
                ])
            }
            let closed = try await session.client.closed()
            #expect(closed.code == 4101 && closed.reason.contains("limit"), "\(closed)")
            #expect(session.client.heard.current.all.filter { $0["code"]?.int == 103 }.count == 240)
        }
    }

    @Test("without tokens the namespaces decide alone")
    func withoutTokens() async throws {
        let options = Cluster.Options(nodes: 1, configuration: TokenCluster.configuration)
        try await Machine.with(options) { cluster in
            let session = try await cluster.connect("alice", to: 0)
            try await session.join("news:x")
            expectError(try await session.ask("message", "news:x"), 116, "forbidden")
            expectError(try await session.ask("presence", "news:x"), 116, "forbidden")
            #expect(try await session.ask("history", "news:x")["type"]?.string == "history")
        }
    }
}

@Suite("The life of a token on a connection, on a node", .patience)
struct TokenLifeTests {
    @Test("T7: a new token that lost a right takes it at once, on the open connection; one that gained it gives it")
    func renewal() async throws {
        try await TokenCluster.use { cluster in
            let (gone, quiet, dropped) = (newRoom("gone"), newRoom("quiet"), newRoom("dropped"))
            let user = newUser()
            let watcher = try await cluster.enter(newUser(), to: 1)
            let session = try await cluster.enter(user)
            for room in [gone, quiet, dropped] {
                try await watcher.join(room)
                try await session.join(room)
                try await watcher.sees("joined", user, in: room)
            }
            let less = try TokenCluster.token(user, rooms: #"{"\#(gone)":["history"],"\#(quiet)":["join"]}"#, age: 50)
            let welcome = try await session.renew(less)
            #expect(welcome["type"]?.string == "welcome" && welcome["session"] == session.welcome["session"])
            #expect(welcome["secret"] == nil)
            for room in [gone, dropped] {
                #expect(try await session.client.next("left", room: room)["reason"]?.string != nil)
            }
            let emptied = try await session.client.next("the empty list") {
                $0["type"]?.string == "presence" && $0["room"]?.string == quiet
                    && $0["members"]?.array?.isEmpty == true
            }
            #expect(emptied["count"]?.int == 0)
            for room in [gone, dropped] {
                try await watcher.sees("left", user, in: room)
                expectError(try await session.ask("message", room), 111, "not_in_room")
                expectError(try await session.ask("join", room), 116, "forbidden")
            }
            for type in ["message", "history", "presence"] {
                expectError(try await session.ask(type, quiet), 116, "forbidden")
            }
            let events = session.presenceEvents(of: quiet).count
            let third = try await cluster.enter(newUser(), to: 1)
            try await third.join(quiet)
            try await watcher.sees("joined", third.user, in: quiet)
            try await watcher.say("said", in: quiet)
            _ = try await session.hears("said", in: quiet)
            #expect(session.presenceEvents(of: quiet).count == events)

            #expect(try await session.renew(TokenCluster.token(user, age: 40))["type"]?.string == "welcome")
            let list = try await session.client.next("the list") {
                $0["type"]?.string == "presence" && $0["room"]?.string == quiet && $0["members"]?.array?.count == 3
            }
            #expect(list["count"]?.int == 3)
            try await third.leave(quiet)
            try await session.sees("left", third.user, in: quiet)
            try await session.say("again", in: quiet)
        }
    }

    @Test("T7: a join under way is answered by the token that stands then, and one whose right is gone by an error")
    func renewalDuringJoin() async throws {
        try await TokenCluster.use { cluster in
            let (user, kept, lost) = (newUser(), newRoom("kept"), newRoom("lost"))
            let talker = try await cluster.enter(newUser())
            let joined = try await talker.join(kept)
            try await talker.join(lost)
            for number in 1...3 { try await talker.say("said \(number)", in: kept) }
            let session = try await cluster.enter(user)
            // No join is answered before the token is another.
            try await cluster.redis.command("CLIENT", "PAUSE", "1000", "ALL")
            let since: JSON = ["epoch": joined["epoch"] ?? "", "seq": 0]
            session.client.send(["type": "join", "room": .string(kept), "since": since, "id": "kept"])
            session.client.send(["type": "join", "room": .string(lost), "id": "lost"])
            let welcome = try await session.renew(TokenCluster.token(user, rooms: #"{"\#(kept)":["join"]}"#, age: 50))
            #expect(welcome["type"]?.string == "welcome")
            let answer = try await session.client.next("joined", room: kept, id: "kept")
            #expect(answer["recovered"]?.bool == false && answer["members"] == nil && answer["count"] == nil)
            _ = try await session.client.next("gap", room: kept)
            expectError(try await session.client.next("error", room: lost, id: "lost"), 111, "not_in_room")
            expectError(try await session.ask("join", lost), 116, "forbidden")
            try await talker.say("live", in: kept)
            _ = try await session.hears("live", in: kept)
            let frames = session.client.heard.current.all
            #expect(!frames.contains { $0["text"]?.string?.hasPrefix("said") == true || $0["type"] == "history" })
            #expect(frames.contains { $0["type"] == "left" && $0["room"]?.string == lost })
        }
    }

    @Test("T7: presence and history that were asked for are answered by the token that stands then")
    func renewalDuringQuestions() async throws {
        try await TokenCluster.use { cluster in
            let (user, room) = (newUser(), newRoom())
            let talker = try await cluster.enter(newUser())
            try await talker.join(room)
            try await talker.say("secret", in: room)
            for actions in [#"{"\#(room)":["join"]}"#, "{}"] {
                let session = try await cluster.enter(user)
                try await session.join(room)
                let heard = session.client.heard.current.all.count
                try await cluster.redis.command("CLIENT", "PAUSE", "1000", "ALL")
                for kind in ["presence", "history"] {
                    session.client.send(["type": .string(kind), "room": .string(room), "id": .string(kind)])
                }
                let welcome = try await session.renew(TokenCluster.token(user, rooms: actions, age: 50))
                #expect(welcome["type"]?.string == "welcome")
                for kind in ["presence", "history"] {
                    expectError(try await session.client.next("error", room: room, id: kind), 116, "forbidden")
                }
                let frames = session.client.heard.current.all.dropFirst(heard)
                #expect(!frames.contains { $0["type"] == "history" || $0["members"]?.array?.isEmpty == false })
            }
        }
    }

    @Test("T7: a join is answered whenever a new token takes the room")
    func renewalAboutJoin() async throws {
        try await TokenCluster.use { cluster in
            for number in 0..<40 {
                let (user, room) = (newUser(), newRoom())
                let session = try await cluster.enter(user)
                session.client.send(["type": "join", "room": .string(room), "id": "j"])
                // Of the way there and back each part.
                try await Task.sleep(for: .microseconds(50 * number))
                session.client.send([
                    "type": "auth", "token": .string(try TokenCluster.token(user, rooms: "{}", age: 50)), "id": "a",
                ])
                let answer = try await session.client.next("an answer to the join") { $0["id"]?.string == "j" }
                #expect(
                    answer["type"]?.string == "joined" || answer["code"]?.int == 111 || answer["code"]?.int == 116,
                    "\(answer.text)")
                _ = try await session.client.next("welcome", id: "a")
                session.client.close()
            }
        }
    }

    @Test("T3: a token that is older, over, spoiled or another user's changes nothing")
    func badRenewal() async throws {
        try await TokenCluster.use { cluster in
            let user = newUser()
            let room = newRoom()
            let session = try await cluster.enter(user, rooms: #"{"\#(room)":["join","publish"]}"#)
            try await session.join(room)
            let bad: [(String, Int64, String)] = [
                (try TokenCluster.token(user, rooms: "{}", age: 600), 115, "authentication_failed"),
                (try TokenCluster.token(user, rooms: "{}", lasts: -31), 115, "authentication_failed"),
                (try TokenCluster.token(user, rooms: "{}") + "A", 115, "authentication_failed"),
                (try TokenCluster.token(newUser(), rooms: "{}"), 107, "identity_conflict"),
            ]
            for (token, code, reason) in bad {
                expectError(try await session.renew(token), code, reason)
                try await session.say("still here", in: room)
            }
            // Who says no token again hears who it is.
            #expect(try await session.ask(["type": "auth"])["user"]?.string == user)
        }
    }

    @Test(
        "T3: a connection ends with its token, keeping its place; with a renewed one, or one that was told in time, it goes on"
    )
    func expiry() async throws {
        try await TokenCluster.use { cluster in
            let rooms = [newRoom("kept"), newRoom("lost")]
            let (user, other) = (newUser(), newUser())
            let watcher = try await cluster.enter(newUser(), to: 1)
            // Clocks may differ by 30 s, which a connection lives longer than its token.
            let ends = try await cluster.enter(user, lasts: -22)
            let renews = try await cluster.enter(other, lasts: -22)
            for room in rooms {
                try await watcher.join(room)
                try await ends.join(room)
                try await watcher.sees("joined", user, in: room)
            }
            for session in [ends, renews] {
                #expect(try await session.client.next("token_expiring")["expires_in_ms"]?.int == 0)
            }
            #expect(try await renews.renew(TokenCluster.token(other))["type"]?.string == "welcome")
            #expect(try await ends.client.closed().code == 4003)
            #expect(try await renews.ask(["type": "ping"])["type"]?.string == "pong")

            let token = try TokenCluster.token(user, rooms: #"{"\#(rooms[0])":["join"],"\#(rooms[1])":["history"]}"#)
            let back = try await cluster.open("/ws?resume=1&token=\(token)", at: cluster.nodes[1])
            back.send([
                "type": "auth",
                "resume": ["session": ends.welcome["session"] ?? "", "secret": ends.welcome["secret"] ?? ""],
            ])
            #expect(try await back.next("welcome")["resumed"]?.bool == true)
            #expect(try await back.next("joined", room: rooms[0])["members"] == nil)
            _ = try await back.next("left", room: rooms[1])
            try await watcher.sees("left", user, in: rooms[1])
            #expect(watcher.presenceCounts("left", of: rooms[0]).isEmpty)
            #expect(try await cluster.sessionsInRedis(of: rooms[1]).count == 1)
        }
    }

    @Test("it is told a fifth of the token's life before its end")
    func notice() async throws {
        try await TokenCluster.use { cluster in
            // A fifth is left.
            let session = try await cluster.enter(newUser(), age: 160, lasts: 40)
            let notice = try await session.client.next("token_expiring")
            #expect((10_000...40_000).contains(notice["expires_in_ms"]?.int ?? 0))
        }
    }
}
