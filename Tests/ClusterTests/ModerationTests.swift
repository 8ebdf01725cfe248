import Foundation
import TestSupport
import Testing
import TokenAuth

/// What operators order, on real nodes. Users, rooms and addresses of each test are its own, so most share a cluster.
@Suite("Orders of operators hold in the whole cluster")
struct ModerationTests {
    /// Behind a proxy on this machine, which each node trusts.
    private func from(_ address: String) -> TestClient.Options {
        var options = TestClient.Options()
        options.headers = [("X-Forwarded-For", address)]
        return options
    }

    private func newAddress() -> String {
        "10.\((0..<3).map { _ in String(UInt8.random(in: 1...250)) }.joined(separator: "."))"
    }

    /// Every node turns the connection away, now or as soon as it has heard.
    private func expectBanned(
        _ cluster: Cluster, _ user: String, _ options: TestClient.Options = .init(), reason: String = "banned",
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        for node in cluster.nodes {
            let error = try await poll(within: .seconds(10), "\(node.name) to turn \(user) away") {
                try await cluster.turnsAway(user, at: node, options: options)
            }
            #expect(error.code == 120 && error.reason == "banned", sourceLocation: sourceLocation)
            #expect(error.closed == .init(code: 4203, reason: reason), sourceLocation: sourceLocation)
        }
    }

    private func expectWelcome(_ cluster: Cluster, _ user: String, _ options: TestClient.Options = .init()) async throws
    {
        for index in cluster.nodes.indices {
            try await poll(within: .seconds(10), "node \(index) to take \(user)") { () async throws -> Void? in
                try await cluster.turnsAway(user, at: cluster.nodes[index], options: options) == nil ? () : nil
            }
        }
    }

    private func refusal(_ body: () async throws -> Void) async throws -> Refusal {
        do { try await body() } catch let refusal as Refusal { return refusal }
        throw TimedOut("it was not refused")
    }

    @Test(
        "T8: a banned user is closed on every node with the reason, kept out of every node, and let in when it is lifted"
    )
    func user() async throws {
        try await SharedCluster.use { cluster in
            let (bob, room) = (newUser("bob"), newRoom())
            var sessions: [Session] = []
            for index in 0..<3 { sessions.append(try await cluster.connect(bob, to: index)) }
            let watcher = try await cluster.connect(newUser("watcher"), to: 0)
            for session in sessions + [watcher] { try await session.join(room) }
            let order = try await cluster.admin("ban", bob, "--reason", "no more of this", "--by", "root")
            #expect(order["name"]?.string == bob)
            for session in sessions {
                let closed = try await session.client.closed()
                #expect(closed == .init(code: 4203, reason: "no more of this"))
                let error = session.client.heard.current.all.first { $0["type"]?.string == "error" }
                #expect(error == nil, "the close says it")
            }
            try await watcher.sees("left", bob, in: room)
            try await expectBanned(cluster, bob, reason: "no more of this")
            for node in cluster.nodes {
                let line = try await node.logged("the order") { $0["order"]?.string == "ban user * \(bob)" }
                #expect(line["by"]?.string == "root" && line["reason"]?.string == "no more of this")
            }
            let bans = try await cluster.admin("bans").array ?? []
            #expect(bans.contains { $0["name"]?.string == bob && $0["kind"]?.string == "ban" })
            _ = try await cluster.admin("unban", bob)
            try await expectWelcome(cluster, bob)
        }
    }

    @Test("T8: a banned user who says who they are in the first message hears why, and is closed")
    func auth() async throws {
        try await SharedCluster.use { cluster in
            let bob = newUser("bob")
            let waiting = try await cluster.open("/ws", at: cluster.nodes[1])
            _ = try await cluster.admin("ban", bob, "--reason", "enough")
            try await expectBanned(cluster, bob, reason: "enough")
            waiting.send(["type": "auth", "user": .string(bob), "id": "a"])
            let error = try await waiting.next("error")
            #expect(error["code"]?.int == 120 && error["reason"]?.string == "banned" && error["retry_ms"] == nil)
            #expect(error["message"]?.string == "you are banned: enough")
            #expect(try await waiting.closed() == .init(code: 4203, reason: "enough"))
        }
    }

    @Test("T8: a banned address or block is closed and kept out, whoever it is, and nobody beside it")
    func address() async throws {
        try await SharedCluster.use { cluster in
            let address = newAddress()
            let block = address.split(separator: ".").prefix(3).joined(separator: ".") + ".0/24"
            let inside = try await cluster.connect(newUser(), to: 0, options: from(address))
            let nobody = try await cluster.open("/ws", at: cluster.nodes[1], options: from(address))
            let outside = try await cluster.connect(newUser(), to: 0, options: from("192.0.2.1"))
            _ = try await cluster.admin("ban", "--address", block)
            #expect(try await inside.client.closed() == .init(code: 4203, reason: "banned"))
            #expect(try await nobody.closed().code == 4203, "before it says who it is")
            try await expectBanned(cluster, newUser(), from(address))
            try await outside.client.roundTrip()
            _ = try await cluster.admin("unban", "--address", block)
            try await expectWelcome(cluster, newUser(), from(address))
        }
    }

    @Test("T8: a kicked address is closed, and may come back")
    func kickedAddress() async throws {
        try await SharedCluster.use { cluster in
            let address = newAddress()
            let there = try await cluster.connect(newUser(), to: 2, options: from(address))
            _ = try await cluster.admin("kick", "--address", address, "--reason", "out")
            #expect(try await there.client.closed() == .init(code: 4200, reason: "out"))
            try await expectWelcome(cluster, newUser(), from(address))
        }
    }

    @Test("T8: a user who is banned from a room is put out of it and kept out, and is elsewhere as before")
    func room() async throws {
        try await SharedCluster.use { cluster in
            let (bob, room, other) = (newUser("bob"), newRoom(), newRoom("other"))
            let sessions = [try await cluster.connect(bob, to: 0), try await cluster.connect(bob, to: 1)]
            let watcher = try await cluster.connect(newUser("watcher"), to: 2)
            for session in sessions + [watcher] {
                try await session.join(room)
                try await session.join(other)
            }
            _ = try await cluster.admin("ban", bob, "--room", room, "--reason", "off topic")
            for session in sessions {
                #expect(try await session.client.next("left", room: room)["reason"]?.string == "off topic")
                let refusal = try await refusal { try await session.join(room) }
                #expect(refusal.code == 120)
                #expect(try await self.refusal { try await session.say("x", in: room) }.code == 111)
                try await session.say("still here", in: other)
            }
            try await watcher.sees("left", bob, in: room)
            #expect(try await watcher.users(of: other).contains(bob))
            _ = try await cluster.admin("unban", bob, "--room", room)
            for session in sessions {
                try await poll(within: .seconds(10), "the room to be open again") { () async throws -> Void? in
                    do { _ = try await session.join(room) } catch is Refusal { return nil }
                    return ()
                }
            }
        }
    }

    @Test("T8: a user who is banned from a private room neither speaks, hears nor reads there, nor catches up on it")
    func privateRoom() async throws {
        try await SharedCluster.use { cluster in
            let bob = try await cluster.connect(newUser("bob"), to: 0)
            let eve = try await cluster.connect(newUser("eve"), to: 1)
            let carol = try await cluster.connect(newUser("carol"), to: 1)
            @Sendable func say(_ text: String, from sender: Session, to recipient: Session) async throws -> JSON {
                let id = "\(UInt64.random(in: 0...UInt64.max))"
                sender.client.send([
                    "type": "direct", "to": .string(recipient.user), "text": .string(text), "id": .string(id),
                ])
                return try await sender.client.next("an answer") { $0["id"]?.string == id }
            }
            let room = try #require(try await say("before", from: eve, to: bob)["room"]?.string)
            _ = try await bob.client.next("before") { $0["text"]?.string == "before" }
            _ = try await cluster.admin("ban", bob.user, "--room", room)
            _ = try await poll(within: .seconds(10), "the ban") {
                try await say("answer", from: bob, to: eve)["code"]?.int == 120 ? () : nil
            }
            #expect(try await say("unheard", from: eve, to: bob)["type"] == "ack")
            _ = try await say("heard", from: carol, to: bob)
            _ = try await bob.client.next("heard") { $0["text"]?.string == "heard" }
            bob.client.send(["type": "history", "room": .string(room), "id": "h"])
            #expect(try await bob.client.next("error", id: "h")["code"]?.int == 120)
            let back = try await cluster.open("/ws?user=\(bob.user)&resume=1", at: cluster.nodes[0])
            let since = try #require(bob.welcome["ts"])
            back.send(["type": "auth", "directs": ["since": since, "rooms": .array([])]])
            _ = try await back.next("heard, again") { $0["text"]?.string == "heard" }
            _ = try await say("live", from: carol, to: bob)
            _ = try await back.next("live") { $0["text"]?.string == "live" }
            for client in [bob.client, back] {
                #expect(!client.heard.current.all.contains { $0["text"]?.string == "unheard" })
            }
        }
    }

    @Test("T8: a muted user hears and is not heard, in rooms and in private, until it ends by itself")
    func mute() async throws {
        try await SharedCluster.use { cluster in
            let (bob, room, free) = (newUser("bob"), newRoom(), newRoom("free"))
            let session = try await cluster.connect(bob, to: 0)
            let watcher = try await cluster.connect(newUser("watcher"), to: 1)
            for session in [session, watcher] {
                try await session.join(room)
                try await session.join(free)
            }
            _ = try await cluster.admin("mute", bob, "--room", room, "--reason", "calm down")
            @Sendable func isMuted(in room: String) async throws -> Refusal? {
                do { try await session.say("said", in: room) } catch let refusal as Refusal { return refusal }
                return nil
            }
            let refused = try await poll(within: .seconds(10), "the mute") { try await isMuted(in: room) }
            #expect(refused.code == 121 && refused.reason == "muted")
            #expect(refused.error["message"]?.string == "you are muted in \(room): calm down")
            #expect(refused.error["retry_ms"] == nil, "a client would say it behind the mute by itself")
            #expect(try await isMuted(in: free) == nil)
            try await watcher.say("heard", in: room)
            _ = try await session.hears("heard", in: room)

            _ = try await cluster.admin("mute", bob, "--for", "3s")
            _ = try await poll(within: .seconds(10), "the mute everywhere") { try await isMuted(in: free) }
            session.client.send(["type": "direct", "to": .string(watcher.user), "text": "psst", "id": "d"])
            #expect(try await session.client.next("error", id: "d")["code"]?.int == 121)
            session.client.send(["type": "typing", "room": .string(free), "typing": true, "id": "t"])
            #expect(try await session.client.next("error", id: "t")["code"]?.int == 121)
            try await poll(within: .seconds(10), "its end") { try await isMuted(in: free) == nil ? () : nil }
            #expect(try await isMuted(in: room) != nil, "the room's own has no end")
            _ = try await cluster.admin("unmute", bob, "--room", room)
            try await poll(within: .seconds(10), "the end of the room's") {
                try await isMuted(in: room) == nil ? () : nil
            }
            let said = watcher.client.heard.current.all.filter { $0["from"]?.string == bob && $0["type"] == "typing" }
            #expect(said.isEmpty)
        }
    }

    @Test("T8: what a muted user says of themselves, by info or status, is told to nobody, everywhere or in that room")
    func mutedInfo() async throws {
        try await SharedCluster.use { cluster in
            let (eve, bob, room, free) = (newUser("eve"), newUser("bob"), newRoom(), newRoom("free"))
            let watcher = try await cluster.connect(newUser("watcher"), to: 1)
            for room in [room, free] { try await watcher.join(room) }
            _ = try await cluster.admin("mute", eve)
            _ = try await cluster.admin("mute", bob, "--room", room)
            for user in [eve, bob] {
                _ = try await cluster.nodes[0].logged("the order") {
                    $0["order"]?.string?.hasSuffix(" \(user)") == true
                }
            }
            func enter(_ user: String, status: String = "busy") async throws -> Session {
                let client = try await cluster.open("/ws", at: cluster.nodes[0])
                client.send([
                    "type": "auth", "user": .string(user), "info": ["name": "BUY NOW"],
                    "status": .string(status),
                ])
                let session = Session(user: user, client: client, welcome: try await client.next("welcome"))
                for room in [room, free] { try await session.join(room) }
                return session
            }
            let sessions = [try await enter(eve), try await enter(bob)]
            for (user, place, isTold) in [
                (eve, room, false), (eve, free, false), (bob, room, false), (bob, free, true),
            ] {
                let event = try await watcher.sees("joined", user, in: place)
                let member = event["joined"]?.array?.first { $0["user"]?.string == user }
                #expect((member?["info"]?["name"]?.string != nil) == isTold, "\(user) in \(place)")
                let all = try await watcher.presence(of: place)["members"]?.array
                let listed = all?.first { $0["user"]?.string == user }
                #expect((listed?["info"]?["name"]?.string != nil) == isTold, "\(user) in \(place)")
                #expect((listed?["status"]?.string == "busy") == (user == bob))
            }
            sessions[0].client.send(["type": "status", "status": "away", "id": "s"])
            #expect(try await sessions[0].client.next("error", id: "s")["code"]?.int == 121)
            // To hide says nothing.
            for session in sessions where session.user == eve {
                session.client.send(["type": "status", "status": "invisible", "id": "h"])
                _ = try await session.client.next("ack", id: "h")
                try await watcher.sees("left", eve, in: room)
                let hidden = try await enter(eve, status: "invisible")
                let members = try await watcher.presence(of: room)["members"]?.array
                #expect(members?.contains { $0["user"]?.string == eve } == false)
                try await hidden.client.roundTrip()
            }
        }
    }

    @Test("T8: a banned session is closed, and its user may come with another")
    func session() async throws {
        try await SharedCluster.use { cluster in
            let bob = newUser("bob")
            let (one, other) = (try await cluster.connect(bob, to: 0), try await cluster.connect(bob, to: 1))
            _ = try await cluster.admin("ban", "--session", one.id)
            #expect(try await one.client.closed().code == 4203)
            try await other.client.roundTrip()
            let kicked = try await cluster.admin("kick", "--session", other.id)
            #expect(kicked["user"]?.string == bob && kicked["remaining"]?.array?.isEmpty == true)
            #expect(try await other.client.closed().code == 4200)
            try await expectWelcome(cluster, bob)
        }
    }

    @Test(
        "T8: every token of a user until now is revoked, also of an issuer whose clock is ahead: who has one is closed with 4201, a later one is good",
        arguments: [0, 20] as [Int64])
    func revoked(secondsAhead: Int64) async throws {
        let secret = "a secret of the tests, long enough for all"
        let environment = ["MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": secret]
        try await Machine.with(Cluster.Options(nodes: 2, environment: environment)) { cluster in
            @Sendable func token(ahead: Int64) throws -> String {
                let now = Int64(Date().timeIntervalSince1970)
                return try TokenMinter(secret: Array(secret.utf8)).mint(
                    subject: "bob", issuedAt: now + ahead, expiresAt: now + 3600)
            }
            let old = try token(ahead: secondsAhead)
            let client = try await cluster.open("/ws?token=\(old)", at: cluster.nodes[0])
            _ = try await client.next("welcome")
            _ = try await cluster.admin("revoke", "--user", "bob")
            #expect(try await client.closed() == .init(code: 4201, reason: "the token was revoked"))
            for node in cluster.nodes {
                let answer = try await poll(within: .seconds(10), "\(node.name) to refuse it") {
                    () async throws -> HTTPAnswer? in
                    do {
                        try await cluster.open("/ws?token=\(old)", at: node).close()
                        return nil
                    } catch let refused as TestClient.Refused {
                        return refused.answer
                    }
                }
                #expect(answer.status == 401)
                #expect(try answer.json()["error"]?["reason"]?.string == "authentication_failed")
            }
            // Issued 31 s after the order by its own word: good, and here already now.
            try await poll(within: .seconds(10), "a token of a later second") { () async throws -> Void? in
                do {
                    let client = try await cluster.open("/ws?token=\(try token(ahead: 30))", at: cluster.nodes[1])
                    _ = try await client.next("welcome")
                    return ()
                } catch is TestClient.Refused {
                    return nil
                }
            }
        }
    }

    @Test("T8: an order holds with the word of it: no node waits until it reads the orders again")
    func word() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            _ = try await cluster.admin("ban", "eve")
            let bob = [try await cluster.connect("bob", to: 0), try await cluster.connect("bob", to: 1)]
            for node in cluster.nodes { _ = try await node.logged("the first") { $0["order"]?.string != nil } }
            let version = try #require(
                try await cluster.redis.command("HGET", cluster.key("{orders}"), "version").string)
            let moment = try #require(version.split(separator: "-").first.flatMap { Int64($0) })
            // Redis does not hold it: whoever reads the orders finds none of it.
            try await cluster.redis.command(
                "PUBLISH", cluster.key("control"),
                "order \(version) \(moment + 1)-1\nban user * bob\n\(moment) 0\nroot\nheard")
            for session in bob { #expect(try await session.client.closed() == .init(code: 4203, reason: "heard")) }
        }
    }

    @Test("T3, T8: a token is revoked or banned by its name, and another of the same user is as good as before")
    func tokenByName() async throws {
        let secret = ["MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": "a secret of the tests, long enough for all"]
        try await Machine.with(Cluster.Options(nodes: 2, environment: secret)) { cluster in
            var clients: [TestClient] = []
            for (index, name) in ["one", "two", "three"].enumerated() {
                let minted = try await MartletProgram.run(["token", "mint", "bob", "--id", name], environment: secret)
                let token = minted.text.split(separator: "\n")[0]
                clients.append(try await cluster.open("/ws?token=\(token)", at: cluster.nodes[index % 2]))
                _ = try await clients[index].next("welcome")
            }
            _ = try await cluster.admin("revoke", "one")
            #expect(try await clients[0].closed() == .init(code: 4201, reason: "the token was revoked"))
            _ = try await cluster.admin("ban", "--token", "two", "--reason", "shared")
            #expect(try await clients[1].closed() == .init(code: 4203, reason: "shared"))
            try await clients[2].roundTrip()
        }
    }

    @Test("T3, T8: a renewal by a revoked token is the error 115 and changes nothing; by a banned one it ends")
    func renewal() async throws {
        let secret = ["MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": "a secret of the tests, long enough for all"]
        try await Machine.with(Cluster.Options(nodes: 1, environment: secret)) { cluster in
            var tokens: [String] = []
            for name in ["one", "two", "three"] {
                let minted = try await MartletProgram.run(["token", "mint", "bob", "--id", name], environment: secret)
                tokens.append(String(minted.text.split(separator: "\n")[0]))
            }
            let bob = try await cluster.open("/ws?token=\(tokens[0])", at: cluster.nodes[0])
            let other = try await cluster.open("/ws?token=\(tokens[2])", at: cluster.nodes[0])
            for client in [bob, other] { _ = try await client.next("welcome") }
            _ = try await cluster.admin("revoke", "two")
            _ = try await cluster.admin("ban", "--token", "three", "--reason", "shared")
            // By which the node has heard the one before, too.
            #expect(try await other.closed().code == 4203)
            bob.send(["type": "auth", "token": .string(tokens[1]), "id": "2"])
            let error = try await bob.next("error")
            #expect(error["code"]?.int == 115 && error["id"]?.string == "2")
            #expect(error["message"]?.string == "the token was revoked")
            try await bob.roundTrip()
            bob.send(["type": "auth", "token": .string(tokens[0]), "id": "1"])
            #expect(try await bob.next("welcome")["id"]?.string == "1")
            bob.send(["type": "auth", "token": .string(tokens[2]), "id": "3"])
            #expect(try await bob.closed() == .init(code: 4203, reason: "shared"))
        }
    }

    @Test("T8: who is connected with a kicked token is closed and may come back, and nobody else of that user goes")
    func kickedToken() async throws {
        let secret = ["MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": "a secret of the tests, long enough for all"]
        try await Machine.with(Cluster.Options(nodes: 2, environment: secret)) { cluster in
            var tokens: [String] = []
            for name in ["one", "two"] {
                let minted = try await MartletProgram.run(["token", "mint", "bob", "--id", name], environment: secret)
                tokens.append(String(minted.text.split(separator: "\n")[0]))
            }
            func enter(_ token: Int, _ node: Int, _ options: TestClient.Options = .init()) async throws -> TestClient {
                let path = "/ws?token=\(tokens[token])"
                let client = try await cluster.open(path, at: cluster.nodes[node], options: options)
                _ = try await client.next("welcome")
                return client
            }
            let (one, two) = ([try await enter(0, 0), try await enter(0, 1)], try await enter(1, 0))
            _ = try await cluster.admin("kick", "--token", "one", "--reason", "out")
            for client in one { #expect(try await client.closed() == .init(code: 4200, reason: "out")) }
            try await two.roundTrip()
            let address = newAddress()
            let (back, there) = (try await enter(0, 0), try await enter(0, 1, from(address)))
            _ = try await cluster.admin("revoke", "--address", address)
            #expect(try await there.closed() == .init(code: 4201, reason: "the token was revoked"))
            for client in [back, two] { try await client.roundTrip() }
            let refused = await #expect(throws: TestClient.Refused.self) { _ = try await enter(1, 1, from(address)) }
            #expect(refused?.answer.status == 401)
        }
    }
}
