import TestSupport
import Testing

/// Orders of operators through restarts, deafness, and the death of the node that should obey.
@Suite("Orders of operators outlive what fails")
struct ModerationTroubleTests {
    private func isBanned(_ user: String, _ cluster: Cluster, on node: Int) async throws -> Bool {
        try await cluster.turnsAway(user, at: cluster.nodes[node])?.closed.code == 4203
    }

    @Test(
        "T8: a ban holds after a restart of every node and after SIGKILL of Redis; no node lets anybody in before it knows"
    )
    func restarts() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, isDurable: true)) { cluster in
            _ = try await cluster.admin("ban", "bob")
            _ = try await cluster.admin("ban", "eve", "--for", "1h")
            for node in cluster.nodes { await node.kill() }
            for node in cluster.nodes { try await node.start() }
            for index in cluster.nodes.indices {
                // The first answer that is not "not yet" is the one that counts.
                try await poll(within: .seconds(30), "node \(index) to decide") { () async throws -> Void? in
                    do {
                        #expect(try await isBanned("bob", cluster, on: index), "node \(index) let bob in")
                        return ()
                    } catch {
                        return nil
                    }
                }
            }
            await cluster.redis.kill()
            try await cluster.redis.startAgain()
            for node in cluster.nodes { try await node.waitUntilReady() }
            for index in cluster.nodes.indices {
                for user in ["bob", "eve"] { #expect(try await isBanned(user, cluster, on: index)) }
            }
            #expect(try await cluster.admin("bans").array?.count == 2)
            #expect(try await cluster.admin("audit").array?.count == 2)
            let carol = try await cluster.connect("carol", to: 0)
            try await carol.client.roundTrip()
        }
    }

    @Test("T8: a node that was deaf when it was said obeys as soon as it hears again")
    func deaf() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let carol = try await cluster.connect("carol", to: 1)
            _ = try await cluster.admin("ban", "carol", "--for", "1h")
            #expect(try await carol.client.closed().code == 4203)
            cluster.nodes[1].pause()
            try await cluster.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            _ = try await cluster.admin("ban", "bob", "--reason", "missed")
            _ = try await cluster.admin("unban", "carol")
            cluster.nodes[1].resume()
            #expect(try await bob.client.closed(within: .seconds(20)) == .init(code: 4203, reason: "missed"))
            _ = try await cluster.connect("carol", to: 1)
            #expect(try await isBanned("bob", cluster, on: 1))
        }
    }

    @Test(
        "T8: what is sent behind an order to a node that stands still is refused as it wakes; the rest goes out in order"
    )
    func standstill() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 0)
            var sessions: [Session] = []
            for user in (0..<4).flatMap({ ["banned\($0)", "muted\($0)", "revoked\($0)"] }) + ["free"] {
                sessions.append(try await cluster.connect(user, to: 1))
            }
            for session in [watcher] + sessions { try await session.join(room) }
            cluster.nodes[1].pause()
            for session in sessions {
                switch session.user.dropLast() {
                case "banned": _ = try await cluster.admin("ban", session.user)
                case "muted": _ = try await cluster.admin("mute", session.user)
                case "revoked": _ = try await cluster.admin("revoke", "--session", session.id)
                default: break
                }
            }
            // What comes within a second of an order may go out.
            try await Task.sleep(for: .seconds(1))
            for number in 0..<3 {
                for session in sessions {
                    session.client.send([
                        "type": "message", "room": .string(room), "text": .string("\(session.user) \(number)"),
                        "id": .string("\(number)"),
                    ])
                }
            }
            cluster.nodes[1].resume()
            for session in sessions {
                switch session.user.dropLast() {
                case "banned": #expect(try await session.client.closed().code == 4203)
                case "muted":
                    for _ in 0..<3 { #expect(try await session.client.next("error")["code"]?.int == 121) }
                case "revoked": #expect(try await session.client.closed().code == 4201)
                default:
                    for number in 0..<3 {
                        #expect(try await session.client.next("ack")["id"]?.string == "\(number)")
                    }
                }
            }
            let last = try await cluster.connect("last", to: 1)
            try await last.join(room)
            try await last.say("the last", in: room)
            _ = try await watcher.hears("the last", in: room)
            let heard = watcher.client.heard.current.all.filter { $0["type"]?.string == "message" }
            #expect(heard.compactMap { $0["text"]?.string } == ["free 0", "free 1", "free 2", "the last"])
        }
    }

    @Test("what was said to a node that stands still goes out, though who said it is gone before it is read")
    func standstillAndGone() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 0)
            try await watcher.join(room)
            var sessions: [Session] = []
            for user in ["banned", "done", "gone"] {
                let session = try await cluster.connect(user, to: 1)
                try await session.join(room)
                sessions.append(session)
            }
            cluster.nodes[1].pause()
            _ = try await cluster.admin("ban", "banned")
            try await Task.sleep(for: .seconds(1))
            for session in sessions {
                session.client.send([
                    "type": "message", "room": .string(room), "text": .string("by \(session.user)"), "id": "1",
                ])
                session.client.close(code: session.user == "gone" ? 4000 : 1000)
            }
            cluster.nodes[1].resume()
            for user in ["done", "gone"] { _ = try await watcher.hears("by \(user)", in: room) }
            for user in ["banned", "done"] { try await watcher.sees("left", user, in: room) }
            #expect(!watcher.client.heard.current.all.contains { $0["text"]?.string == "by banned" })
        }
    }

    @Test("G5: a node that stood still, and finds a Redis that does not answer, answers publishes in time all the same")
    func standstillWithoutRedis() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let room = newRoom()
            let bob = try await cluster.connect("bob", to: 0)
            try await bob.join(room)
            cluster.redis.pause()
            cluster.nodes[0].pause()
            // So long that it reads the orders.
            try await Task.sleep(for: .seconds(1))
            bob.client.send(["type": "message", "room": .string(room), "text": "in vain", "id": "1"])
            cluster.nodes[0].resume()
            let error = try await bob.client.next("error", within: .seconds(5))
            #expect(error["reason"]?.string == "unavailable" && error["id"]?.string == "1")
            cluster.redis.resume()
            _ = try await poll(within: .seconds(20), "an ack") { try await bob.say("at last", in: room) }
        }
    }

    @Test("T8: a word that is lost on a subscription that seems well is found by the version, within seconds")
    func lostWord() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let bob = try await cluster.connect("bob", to: 0)
            // As the script writes it, and nothing is published.
            try await cluster.redis.command(
                "HSET", cluster.key("{orders}"), "ban user * bob", "1 0\nroot\nunheard", "version", "1-1")
            #expect(try await bob.client.closed(within: .seconds(20)) == .init(code: 4203, reason: "unheard"))
        }
    }

    @Test("a word that comes late does not bring back an order that was lifted since")
    func lateWord() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let (bob, eve) = (try await cluster.connect("bob", to: 0), try await cluster.connect("eve", to: 0))
            _ = try await cluster.admin("ban", "carol")
            try await poll(within: .seconds(10), "the version") {
                try await isBanned("carol", cluster, on: 0) ? () : nil
            }
            try await cluster.redis.command(
                "PUBLISH", cluster.key("control"), "order 1-0 1-1\nban user * bob\n1 0\nroot\nlifted since")
            _ = try await cluster.admin("ban", "eve")
            #expect(try await eve.client.closed().code == 4203)
            try await bob.client.roundTrip()
        }
    }

    @Test("T8: a Redis that forgot everything has no orders, and a ban that is said then holds")
    func forgotten() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            _ = try await cluster.admin("ban", "bob")
            try await poll(within: .seconds(10), "the ban") {
                try await isBanned("bob", cluster, on: 0) ? () : nil
            }
            try await cluster.redis.command("DEL", cluster.key("{orders}"))
            _ = try await cluster.admin("ban", "eve")
            try await poll(within: .seconds(20), "the end of the ban that is forgotten") {
                try await isBanned("bob", cluster, on: 0) ? nil : ()
            }
            #expect(try await isBanned("eve", cluster, on: 0))
        }
    }

    private let resuming = Cluster.Options(
        nodes: 2, environment: ["MARTLET_RESUME_GRACE_SECONDS": "60", "MARTLET_LEASE_SECONDS": "2"])

    @Test("T8: who is banned while away has no place to come back to, and is refused where they come")
    func detached() async throws {
        try await Machine.with(resuming) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            let bob = try await cluster.connect("bob", to: 0)
            for session in [watcher, bob] { try await session.join(room) }
            bob.client.abort()
            _ = try await cluster.admin("ban", "bob")
            try await watcher.sees("left", "bob", in: room)
            try await poll(within: .seconds(10), "the ban") {
                try await isBanned("bob", cluster, on: 1) ? () : nil
            }
        }
    }

    @Test("T8: a session whose client is away ends with the token or the address that it had, and another's stays")
    func detachedByToken() async throws {
        let secret = ["MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": "a secret of the tests, long enough for all"]
        var options = resuming
        options.environment.merge(secret) { $1 }
        try await Machine.with(options) { cluster in
            let room = newRoom()
            func enter(_ user: String, _ node: Int, from address: String = "192.0.2.1") async throws -> Session {
                let minted = try await MartletProgram.run(
                    ["token", "mint", user, "--id", "of-\(user)"], environment: secret)
                let token = minted.text.split(separator: "\n")[0]
                var options = TestClient.Options()
                options.headers = [("X-Forwarded-For", address)]
                let client = try await cluster.open("/ws?token=\(token)", at: cluster.nodes[node], options: options)
                let session = Session(user: user, client: client, welcome: try await client.next("welcome"))
                try await session.join(room)
                return session
            }
            func give(_ order: [String]) async throws {
                let output = try await MartletProgram.run(["admin"] + order, environment: cluster.environment)
                #expect(output.exit == .status(0), "\(output.errorText)")
            }
            let watcher = try await enter("watcher", 1)
            let other = try await enter("other", 0)
            other.client.abort()
            for (user, order) in [
                ("token", ["ban", "--token", "of-token"]), ("address", ["ban", "--address", "192.0.2.64/26"]),
                ("revoked", ["revoke", "of-revoked"]), ("all", ["revoke", "--user", "all"]),
                ("from", ["revoke", "--address", "192.0.2.64/27"]), ("kicked", ["kick", "--token", "of-kicked"]),
            ] {
                let isByAddress = order[1] == "--address"
                let session = try await enter(user, 0, from: isByAddress ? "192.0.2.65" : "192.0.2.1")
                session.client.abort()
                _ = try await poll(within: .seconds(10), "the end of the connection") {
                    let until = try await cluster.redis.command(
                        "HGET", cluster.key("{s:\(session.id)}"), "until")
                    return until.string
                }
                try await give(order)
                try await watcher.sees("left", user, in: room)
                if isByAddress { try await give(["un\(order[0])"] + order.dropFirst()) }
            }
            let left = try await cluster.sessionsInRedis(of: room)
            #expect(Set(left.keys) == [watcher.id, other.id])
        }
    }

    @Test("T8: who is banned from a room while away comes back to the others alone")
    func detachedFromRoom() async throws {
        try await Machine.with(resuming) { cluster in
            let (room, other) = (newRoom(), newRoom("other"))
            let watcher = try await cluster.connect("watcher", to: 1)
            let bob = try await cluster.connect("bob", to: 0)
            for session in [watcher, bob] {
                try await session.join(room)
                try await session.join(other)
            }
            bob.client.abort()
            _ = try await cluster.admin("ban", "bob", "--room", room)
            try await watcher.sees("left", "bob", in: room)
            let back = try await cluster.resume(bob, on: 1, rooms: [])
            #expect(back.welcome["resumed"]?.bool == true)
            _ = try await back.client.next("joined", room: other)
            #expect(
                back.client.heard.current.all.contains { $0["room"]?.string == room && $0["type"] == "joined" } == false
            )
            #expect(watcher.presenceCounts("left", of: other).isEmpty)
        }
    }

    @Test(
        "G4, T8: a kick and a ban of those whose node is dead at that moment hold: they leave with the sweep, nobody resumes"
    )
    func deadNode() async throws {
        try await Machine.with(resuming) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            let (bob, eve) = (try await cluster.connect("bob", to: 0), try await cluster.connect("eve", to: 0))
            let carol = try await cluster.connect("carol", to: 0)
            for session in [watcher, bob, eve, carol] { try await session.join(room) }
            await cluster.nodes[0].kill()
            let kick = try await MartletProgram.run(
                ["admin", "kick", "bob"],
                environment: ["MARTLET_REDIS_URL": cluster.redis.url, "MARTLET_REDIS_PREFIX": cluster.prefix])
            // Those that are swept meanwhile are gone.
            #expect([.status(0), .status(1)].contains(kick.exit), "\(kick.errorText)")
            _ = try await cluster.admin("ban", "eve")
            // Long before the grace is over.
            try await watcher.sees("left", "bob", in: room, within: .seconds(30))
            try await watcher.sees("left", "eve", in: room, within: .seconds(30))
            #expect(watcher.presenceCounts("left", of: room)["carol"] == nil)

            let client = try await cluster.open("/ws?user=bob&resume=1", at: cluster.nodes[1])
            client.send([
                "type": "auth",
                "resume": ["session": .string(bob.id), "secret": .string(bob.welcome["secret"]?.string ?? "")],
            ])
            #expect(try await client.closed() == .init(code: 4200, reason: "kicked by an operator"))
            #expect(!client.heard.current.all.contains { $0["type"] == "error" }, "nobody is banned")
            let back = try await cluster.resume(carol, on: 1, rooms: [])
            #expect(back.welcome["resumed"]?.bool == true)
            let anew = try await cluster.connect("bob", to: 1)
            try await anew.join(room)
        }
    }

    @Test("T8: nobody goes on with a session that is revoked, on no node, and its user comes with another")
    func revokedSession() async throws {
        try await Machine.with(resuming) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            let (here, away) = (try await cluster.connect("bob", to: 0), try await cluster.connect("bob", to: 0))
            for session in [watcher, here, away] { try await session.join(room) }
            away.client.abort()
            for session in [here, away] { _ = try await cluster.admin("revoke", "--session", session.id) }
            #expect(try await here.client.closed() == .init(code: 4201, reason: "the session was revoked"))
            // Long before the grace is over.
            try await watcher.sees("left", "bob", in: room)
            for (index, session) in [here, away].enumerated() {
                try await poll(within: .seconds(10), "node \(index) to refuse it") { () async throws -> Void? in
                    let client = try await cluster.open("/ws?user=bob&resume=1", at: cluster.nodes[index])
                    client.send([
                        "type": "auth",
                        "resume": [
                            "session": .string(session.id), "secret": .string(session.welcome["secret"]?.string ?? ""),
                        ],
                    ])
                    let first = try await client.next("an answer") {
                        ["welcome", "error"].contains($0["type"]?.string)
                    }
                    guard first["type"] == "error" else { return nil }
                    #expect(first["code"]?.int == 115 && first["message"]?.string == "the session was revoked")
                    #expect(try await client.closed().code == 4201)
                    return ()
                }
            }
            let anew = try await cluster.connect("bob", to: 1)
            try await anew.join(room)
        }
    }
}
