import TestSupport
import Testing

/// Clients that lose their connection and come back to their place, here or elsewhere.
@Suite("Sessions that go on")
struct ResumeTests {
    private func cluster(
        grace: Int, nodes: Int = 2, _ more: [String: String] = [:], _ body: @Sendable (Cluster) async throws -> Void
    ) async throws {
        let environment = ["MARTLET_RESUME_GRACE_SECONDS": String(grace)].merging(more) { $1 }
        try await Machine.with(Cluster.Options(nodes: nodes, environment: environment), body)
    }

    @Test("G2 G4: back within the grace on another node: same session, its rooms, what was missed; nobody saw it go")
    func elsewhere() async throws {
        try await cluster(grace: 30) { cluster in
            let rooms = [newRoom("one"), newRoom("two")]
            let watcher = try await cluster.connect("watcher", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            for room in rooms { try await watcher.join(room) }
            try await alice.join(rooms[1])
            try await watcher.say("before", in: rooms[0])
            let joined = try await alice.join(rooms[0])
            #expect(alice.welcome["grace_ms"]?.int == 30_000)
            alice.client.abort()
            try await watcher.say("missed", in: rooms[0])
            #expect(try await watcher.users(of: rooms[0]) == ["alice", "watcher"])

            let back = try await cluster.resume(alice, on: 1, rooms: [(rooms[0], joined)])
            #expect(back.welcome["resumed"]?.bool == true)
            #expect(back.id == alice.id)
            #expect(back.welcome["secret"] != alice.welcome["secret"], "it rotates")
            #expect(try await back.client.next("joined", room: rooms[0])["recovered"]?.bool == true)
            _ = try await back.hears("missed", in: rooms[0])
            #expect(back.messages(in: rooms[0]).count == 1)
            _ = try await back.client.next("joined", room: rooms[1])
            try await back.say("here again", in: rooms[1])
            _ = try await watcher.hears("here again", in: rooms[1])
            for room in rooms { #expect(watcher.presenceCounts("left", of: room).isEmpty) }
            try await back.leave(rooms[1])
            try await watcher.sees("left", "alice", in: rooms[1])
            #expect(try await cluster.sessionsInRedis(of: rooms[1]).count == 1)
        }
    }

    @Test("G4: on the same node too, also while the old connection is still there: that one is closed with 4202")
    func attached() async throws {
        try await cluster(grace: 30) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            let first = try await cluster.connect("alice", to: 0)
            let joined = try await first.join(room)
            let second = try await cluster.resume(first, on: 0, rooms: [(room, joined)])
            #expect(second.welcome["resumed"]?.bool == true && second.id == first.id)
            #expect(try await first.client.closed().code == 4202)
            _ = try await second.client.next("joined", room: room)
            let third = try await cluster.resume(second, on: 1, rooms: [(room, joined)])
            #expect(third.id == first.id)
            #expect(try await second.client.closed().code == 4202)
            _ = try await third.client.next("joined", room: room)
            try await watcher.say("once", in: room)
            _ = try await third.hears("once", in: room)
            #expect(try await watcher.users(of: room) == ["alice", "watcher"])
            #expect(watcher.presenceCounts("left", of: room).isEmpty)
            #expect(watcher.presenceCounts("joined", of: room) == ["alice": 1])
            third.client.close()
            try await watcher.sees("left", "alice", in: room)
        }
    }

    @Test("G4: who does not come back leaves when the grace is over, once; who says goodbye leaves at once")
    func notBack() async throws {
        try await cluster(grace: 2) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            for user in ["lost", "done"] { try await cluster.connect(user, to: 0).join(room) }
            let lost = try await cluster.connect("late", to: 0)
            let joined = try await lost.join(room)
            lost.client.abort()
            let start = ContinuousClock.now
            try await watcher.sees("left", "late", in: room)
            #expect(start.duration(to: .now) > .milliseconds(1500))
            let back = try await cluster.resume(lost, on: 1, rooms: [(room, joined)])
            #expect(back.welcome["resumed"] == nil && back.id != lost.id, "too late: another session")
            _ = try await back.client.next("joined", room: room)
            try await watcher.sees("joined", "late", in: room)
            #expect(watcher.presenceCounts("left", of: room) == ["late": 1])
        }
    }

    @Test("G4, T5: another's secret, another user, a guessed one: a new session, and the old one stays untouched")
    func stolen() async throws {
        try await cluster(grace: 30) { cluster in
            let room = newRoom()
            let alice = try await cluster.connect("alice", to: 0)
            try await alice.join(room)
            let mallory = try await cluster.connect("mallory", to: 1)
            for (user, session, secret) in [
                ("mallory", alice.id, alice.welcome["secret"]?.string ?? ""),
                ("alice", alice.id, mallory.welcome["secret"]?.string ?? ""),
                ("alice", alice.id, "short"),
                ("alice", mallory.id, alice.welcome["secret"]?.string ?? ""),
            ] {
                let thief = try await cluster.resume(user: user, session: session, secret: secret, on: 1, rooms: [])
                #expect(thief.welcome["resumed"] == nil)
                #expect(![alice.id, mallory.id].contains(thief.id))
            }
            try await alice.say("still mine", in: room)
        }
    }

    @Test("G4: a resume whose answer was lost can be tried again with the secret before, until the new one was used")
    func brokenHalfway() async throws {
        try await cluster(grace: 30) { cluster in
            let room = newRoom()
            let alice = try await cluster.connect("alice", to: 0)
            let joined = try await alice.join(room)
            alice.client.abort()
            let unheard = try await cluster.resume(alice, on: 1, rooms: [(room, joined)])
            unheard.client.abort()
            let again = try await cluster.resume(alice, on: 0, rooms: [(room, joined)])
            #expect(again.welcome["resumed"]?.bool == true && again.id == alice.id)
            // A word on the new connection, and the secret before is good no more.
            again.client.send(["type": "ping"])
            try await poll(within: .seconds(5), "the secret before to go") {
                try await cluster.redis.command("HEXISTS", cluster.key("{s:\(alice.id)}"), "previous").int == 0
                    ? () : nil
            }
            let replay = try await cluster.resume(alice, on: 1, rooms: [])
            #expect(replay.welcome["resumed"] == nil)
            try await again.client.roundTrip()
        }
    }

    @Test("G4: of two nodes that take up one session at the same time one has it, and the other closes its client")
    func atOnce() async throws {
        try await cluster(grace: 30) { cluster in
            let room = newRoom()
            for round in 0..<12 {
                let alice = try await cluster.connect("alice", to: round % 2)
                let joined = try await alice.join(room)
                alice.client.abort()
                async let one = cluster.resume(alice, on: 0, rooms: [(room, joined)])
                async let other = cluster.resume(alice, on: 1, rooms: [(room, joined)])
                // The one that lost may be closed before its welcome.
                let both = [try? await one, try? await other].compactMap { $0 }.filter { $0.id == alice.id }
                let owner = try await poll(within: .seconds(10), "one of two to be closed") {
                    var open: [Session] = []
                    for session in both {
                        guard let end = try? await session.client.closed(within: .milliseconds(20)) else {
                            open.append(session)
                            continue
                        }
                        #expect(end.code == 4202)
                    }
                    return open.count == 1 ? open[0] : nil
                }
                try await owner.say("round \(round)", in: room)
                owner.client.close()
            }
        }
    }

    @Test("G4: a killed node's sessions are kept by a survivor for the grace, and go on wherever their clients come")
    func killedNode() async throws {
        try await cluster(grace: 20, nodes: 3, ["MARTLET_LEASE_SECONDS": "3"]) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            let soon = try await cluster.connect("soon", to: 2)
            let late = try await cluster.connect("late", to: 2)
            let never = try await cluster.connect("never", to: 2)
            for session in [soon, late, never] { try await session.join(room) }
            let joined = try await never.join(room)
            await cluster.nodes[2].kill()

            let back = try await cluster.resume(soon, on: 0, rooms: [(room, joined)])
            #expect(back.welcome["resumed"]?.bool == true, "also before anybody knows that the node is dead")
            _ = try await back.client.next("joined", room: room)
            // The node is swept, and its sessions stand on a survivor.
            try await poll(within: .seconds(20), "the sweep") {
                try await !cluster.sessionsInRedis(of: room).values.contains { $0.hasPrefix("node-c.") } ? () : nil
            }
            #expect(try await watcher.users(of: room) == ["late", "never", "soon", "watcher"])
            let again = try await cluster.resume(late, on: 1, rooms: [(room, joined)])
            #expect(again.welcome["resumed"]?.bool == true)
            _ = try await again.client.next("joined", room: room)
            try await watcher.sees("left", "never", in: room, within: .seconds(30))
            #expect(watcher.presenceCounts("left", of: room) == ["never": 1])
            try await watcher.say("to all", in: room)
            for session in [back, again] { _ = try await session.hears("to all", in: room) }
        }
    }

    @Test(
        "G4, T27: a node that wakes up after its sessions went on elsewhere neither removes them nor answers for them"
    )
    func wakesUp() async throws {
        try await cluster(grace: 30, nodes: 3, ["MARTLET_LEASE_SECONDS": "2"]) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            let moves = try await cluster.connect("moves", to: 0)
            let stays = try await cluster.connect("stays", to: 0)
            let joined = try await moves.join(room)
            try await stays.join(room)
            cluster.nodes[0].pause()
            let back = try await cluster.resume(moves, on: 2, rooms: [(room, joined)])
            _ = try await back.client.next("joined", room: room)
            try await poll(within: .seconds(20), "the sweep") {
                try await !cluster.sessionsInRedis(of: room).values.contains { $0.hasPrefix("node-a.") } ? () : nil
            }
            cluster.nodes[0].resume()
            #expect(try await moves.client.closed(within: .seconds(20)).code == 4202)
            // Who stayed connected to it is there again, without having gone.
            try await poll(within: .seconds(20), "node-a has its client again") {
                try await cluster.sessionsInRedis(of: room).values.contains { $0.hasPrefix("node-a.") } ? () : nil
            }
            try await watcher.say("to all", in: room)
            for session in [back, stays] { _ = try await session.hears("to all", in: room, within: .seconds(20)) }
            try await stays.say("from the one that slept", in: room)
            _ = try await watcher.hears("from the one that slept", in: room)
            #expect(try await watcher.users(of: room) == ["moves", "stays", "watcher"])
            #expect(watcher.presenceCounts("left", of: room).isEmpty)
            try await stays.leave(room)
            try await watcher.sees("left", "stays", in: room)
        }
    }

    @Test(
        "G4 G6: a node that drains passes its sessions on: its clients go on elsewhere, those who stay away leave later"
    )
    func drain() async throws {
        try await cluster(grace: 6, nodes: 2, ["MARTLET_DRAIN_SECONDS": "4"]) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            let returns = try await cluster.connect("returns", to: 0)
            let away = try await cluster.connect("away", to: 0)
            let joined = try await returns.join(room)
            try await away.join(room)
            cluster.nodes[0].terminate()
            #expect(try await returns.client.closed().code == 4000)
            let back = try await cluster.resume(returns, on: 1, rooms: [(room, joined)])
            #expect(back.welcome["resumed"]?.bool == true)
            try await watcher.sees("left", "away", in: room, within: .seconds(30))
            #expect(watcher.presenceCounts("left", of: room) == ["away": 1])
            #expect(try await watcher.users(of: room) == ["returns", "watcher"])
        }
    }

    @Test("G4: a session that a node took over, though it never got the answer, is kept there and ends there")
    func lostAnswer() async throws {
        try await cluster(grace: 6, ["MARTLET_LEASE_SECONDS": "60"]) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            let returns = try await cluster.connect("returns", to: 1)
            let away = try await cluster.connect("away", to: 1)
            let joined = try await returns.join(room)
            try await away.join(room)
            let names = try await cluster.redis.command("HKEYS", cluster.key("nodes")).strings
            let owner = try #require(names.first { $0.hasPrefix("node-a.") })
            for session in [returns, away] {
                session.client.abort()
                try await poll(within: .seconds(5), "it is without a connection") {
                    try await cluster.redis.command("HEXISTS", cluster.key("{s:\(session.id)}"), "until").int == 1
                        ? () : nil
                }
                // As the script of a resume leaves it.
                try await cluster.redis.command("HSET", cluster.key("{i:\(owner)}:sessions"), session.id, session.user)
                let key = cluster.key("{s:\(session.id)}")
                try await cluster.redis.command("HDEL", key, "until")
                try await cluster.redis.command("PERSIST", key)
                try await cluster.redis.command("HSET", key, "owner", owner, "generation", "5")
            }
            // The node that lost the answer looks into its index when it has Redis again.
            try await cluster.redis.command("CLIENT", "KILL", "TYPE", "normal")
            try await poll(within: .seconds(10), "node-a to have them") { () -> Void? in
                for session in [returns, away] {
                    let until = try await cluster.redis.command("HEXISTS", cluster.key("{s:\(session.id)}"), "until")
                    if until.int != 1 { return nil }
                }
                return ()
            }
            // Its own connection to Redis was cut too: until it has another it refuses for now.
            let back = try await poll(within: .seconds(5), "node-b to take it") {
                try? await cluster.resume(returns, on: 1, rooms: [(room, joined)])
            }
            #expect(back.welcome["resumed"]?.bool == true && back.id == returns.id)
            try await watcher.sees("left", "away", in: room, within: .seconds(20))
            #expect(watcher.presenceCounts("left", of: room) == ["away": 1])
            #expect(try await watcher.users(of: room) == ["returns", "watcher"])
        }
    }

    @Test("a kick ends a session that has no connection at the moment")
    func kicked() async throws {
        try await cluster(grace: 60) { cluster in
            let room = newRoom()
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            let alice = try await cluster.connect("alice", to: 0)
            try await alice.join(room)
            alice.client.abort()
            try await poll(within: .seconds(20), "it is without a connection") {
                try await cluster.redis.command("HEXISTS", cluster.key("{s:\(alice.id)}"), "until").int == 1 ? () : nil
            }
            let output = try await MartletProgram.run(
                ["admin", "kick", "alice"],
                environment: ["MARTLET_REDIS_URL": cluster.redis.url, "MARTLET_REDIS_PREFIX": cluster.prefix])
            #expect(output.exit == .status(0), "\(output.errorText)")
            try await watcher.sees("left", "alice", in: room)
            // Who comes back for it hears of the kick; a new session is nobody's who was kicked.
            let back = try await cluster.open("/ws?user=alice&resume=1", at: cluster.nodes[1])
            back.send([
                "type": "auth",
                "resume": ["session": .string(alice.id), "secret": alice.welcome["secret"] ?? .null],
            ])
            #expect(try await back.closed().code == 4200)
            _ = try await cluster.connect("alice", to: 1)
        }
    }
}

extension Cluster {
    /// Comes back with what the welcome gave; each room with a message or `joined` that says where the client was.
    func resume(_ session: Session, on node: Int, rooms: [(String, JSON)]) async throws -> Session {
        try await resume(session, port: nodes[node].port, rooms: rooms)
    }

    func resume(_ session: Session, port: Int, rooms: [(String, JSON)]) async throws -> Session {
        try await resume(
            user: session.user, session: session.id, secret: session.welcome["secret"]?.string ?? "", port: port,
            rooms: rooms)
    }

    func resume(
        user: String, session: String, secret: String, on node: Int, rooms: [(String, JSON)]
    ) async throws -> Session {
        try await resume(user: user, session: session, secret: secret, port: nodes[node].port, rooms: rooms)
    }

    func resume(
        user: String, session: String, secret: String, port: Int, rooms: [(String, JSON)]
    ) async throws -> Session {
        let client = try await open("/ws?user=\(Session.percentEncoded(user))&resume=1", port: port)
        var auth: [String: JSON] = [
            "type": "auth", "resume": ["session": .string(session), "secret": .string(secret)],
        ]
        let since = rooms.map { room, position -> JSON in
            guard let seq = position["seq"], let epoch = position["epoch"] else { return ["room": .string(room)] }
            return ["room": .string(room), "since": ["seq": seq, "epoch": epoch]]
        }
        if !since.isEmpty { auth["rooms"] = .array(since) }
        client.send(.object(auth))
        return Session(user: user, client: client, welcome: try await client.next("welcome"))
    }
}
