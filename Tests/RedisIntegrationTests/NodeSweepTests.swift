import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

extension ClusterFixture {
    /// A session of a node in some rooms, with everything that a node writes for it.
    func enter(_ sessionName: String, _ userName: String, on node: Incarnation, rooms names: String...) async throws {
        _ = try await sessions.open(record(sessionName, userName, on: node), secret: nil).get()
        for name in names {
            _ = try await nodes.addRoom(node, room(name)).get()
            _ = try await rooms.join(
                membership(sessionName, userName, on: node.description, room: name)
            ).get()
        }
    }

    func sweep(by me: Incarnation) async throws -> [SweepReport] {
        try await nodes.sweepLapsed(by: me, notAfter: .max).get()
    }
}

@Suite("The sweep of a dead node")
struct NodeSweepTests {
    @Test("touches nobody whose lease holds")
    func live() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            try await cluster.enter("s1", "alice", on: b, rooms: "general")
            #expect(try await cluster.sweep(by: a) == [])
            #expect(try await cluster.heartbeat(b) == .held(drainRequested: false))
        }
    }

    @Test(
        "G4, T27: that Redis runs only after the sweeper's own lease declares nobody dead, and still sweeps who was dead"
    )
    func tooLate() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b, c) = try await (
                cluster.register("node-a"), cluster.register("node-b"), cluster.register("node-c")
            )
            try await cluster.lapse(b)
            try await cluster.lapse(c)
            _ = try await cluster.nodes.claim(c, by: nil, force: true)
            let now = try await cluster.redisTime()
            let reports = try await cluster.nodes.sweepLapsed(by: a, notAfter: now - 1).get()
            #expect(reports.map(\.incarnation) == [c])
            #expect(try await cluster.heartbeat(b) == .held(drainRequested: false), "Redis stood still, not node-b")
            try await cluster.lapse(b)
            #expect(
                try await cluster.nodes.sweepLapsed(by: a, notAfter: now + 60_000).get().map(\.incarnation) == [b])
        }
    }

    @Test("G4: that fails for one node is reported, and the others are swept")
    func failing() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b, c, d) = try await (
                cluster.register("node-a"), cluster.register("node-b"), cluster.register("node-c"),
                cluster.register("node-d")
            )
            for node in [b, c, d] { try await cluster.lapse(node) }
            // Neither of these two is what any version of this wrote.
            try await cluster.command("SET", cluster.keys.nodeRooms(b), "x")
            try await cluster.command("SET", cluster.keys.node(c), "x")
            let reports = try await cluster.sweep(by: a).sorted { $0.incarnation < $1.incarnation }
            #expect(reports.map(\.incarnation) == [b, c, d])
            #expect(reports.map(\.isComplete) == [false, false, true])
            #expect(reports.map { $0.failure?.contains("WRONGTYPE") } == [true, true, nil])
        }
    }

    @Test("G4: takes the dead node's sessions out of every room, says each leave, and leaves the living alone")
    func sweep() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            try await cluster.enter("s1", "alice", on: a, rooms: "general")
            try await cluster.enter("s2", "bob", on: b, rooms: "general", "other")
            try await cluster.enter("s3", "alice", on: b, rooms: "general")
            try await cluster.lapse(b)
            var other: [String] = []
            let control = try await cluster.heard(on: cluster.keys.controlChannel) {
                let general = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                    other = try await cluster.heard(on: cluster.keys.roomChannel(room("other"))) {
                        let reports = try await cluster.sweep(by: a)
                        #expect(reports.map(\.incarnation) == [b])
                        #expect(reports.map(\.rooms) == [2])
                        #expect(reports.map(\.memberships) == [3])
                        #expect(reports.map(\.sessions) == [2])
                        #expect(reports.map(\.isComplete) == [true])
                    }
                }
                #expect(general.map(presence) == [#"pv 3 count 1 -{"user":"bob"}"#], "alice is still there, on node-a")
            }
            #expect(other.map(presence) == [#"pv 2 count 0 -{"user":"bob"}"#])
            #expect(control == ["down node-b.2"])
            #expect(try await cluster.rooms.members(room: room()).get().map(\.session) == [session("s1")])
            #expect(try await cluster.nodes.sessions(ofUser: user("bob")).get().isEmpty)
            #expect(
                try await cluster.everyKey() == [
                    "nodes", "incarnation", "{i:node-a.1}", "{i:node-a.1}:rooms", "{i:node-a.1}:sessions",
                    "{i:node-b.2}", "{u:alice}:sessions", "{s:\(session("s1"))}",
                    "{r:general}:meta", "{r:general}:sessions", "{r:general}:users", "{r:general}:on:node-a.1",
                    "{r:general}:dead", "{r:other}:meta", "{r:other}:dead",
                ])
            #expect(try await cluster.sweep(by: a) == [], "once")
        }
    }

    @Test("T27: fences the dead node, for good in the cluster and for a day in the room")
    func fence() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            try await cluster.enter("s2", "bob", on: b, rooms: "general")
            try await cluster.lapse(b)
            _ = try await cluster.sweep(by: a)
            #expect(try await cluster.heartbeat(b) == .dead)
            #expect(try await !cluster.nodes.addRoom(b, room()).get())
            #expect(try await cluster.rooms.join(membership("s2", "bob", on: "node-b.2")).get().refusal == .dead)
            #expect(try await cluster.rooms.head(room: room()).get()?.count == 0)
            for key in try [cluster.keys.roomDead(room()), cluster.keys.node(b)] {
                let ttl = try await cluster.command("TTL", key).int ?? 0
                #expect((86_000...86_400).contains(ttl))
            }
            // As a new incarnation it is welcome.
            let again = try await cluster.register("node-b")
            #expect(try await cluster.nodes.addRoom(again, room()).get())
            #expect(try await cluster.rooms.join(membership("s2", "bob", on: again.description)).get().refusal == nil)
        }
    }

    @Test("does not take a session that moved to another node")
    func movedSession() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            try await cluster.enter("s1", "alice", on: b, rooms: "general")
            // It moves, and the old node has not tidied its index when it dies.
            _ = try await cluster.sessions.open(record("s1", "alice", on: a, generation: 2), secret: nil).get()
            _ = try await cluster.rooms.join(membership("s1", "alice", on: a.description, generation: 2)).get()
            try await cluster.lapse(b)
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let reports = try await cluster.sweep(by: a)
                #expect(reports.map(\.memberships) == [0])
            }
            #expect(heard == [])
            #expect(try await cluster.nodes.sessions(ofUser: user("alice")).get().map(\.1) == [a])
            #expect(
                try await cluster.command("HGET", cluster.keys.session(session("s1")), "owner").string == "node-a.1")
        }
    }

    @Test("G4: of 620 sessions in one room goes in chunks of 100, each leave said once, by one of two sweepers")
    func chunksAndTwoSweepers() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b, c) = try await (
                cluster.register("node-a"), cluster.register("node-b"), cluster.register("node-c")
            )
            let all = try (1...620).map { try membership("s\($0)", "user\($0)", on: c.description) }
            _ = try await cluster.nodes.addRoom(c, room()).get()
            try await inPortions(of: 100, all) { m in
                let record = SessionRecord(session: m.session, user: m.user, owner: c)
                return cluster.sessions.open(record, secret: nil).flatMap { _ in cluster.rooms.join(m) }
            }
            try await cluster.lapse(c)
            let other = try await cluster.second()
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                async let one = cluster.sweep(by: a)
                async let two = other.sweep(by: b)
                let reports = try await one + two
                #expect(reports.count == 1, "one sweeps, the other sees that it does")
                #expect(reports.map(\.memberships) == [620])
                #expect(reports.map(\.sessions) == [620])
            }
            let leaves = heard.map { $0.split(separator: "\n").filter { $0.hasPrefix("-") } }
            #expect(leaves.map(\.count) == Array(repeating: 100, count: 6) + [20])
            #expect(Set(leaves.flatMap(\.self)).count == 620)
            #expect(heard.last?.hasPrefix("P1240 0 ") == true)
            try await other.redis.close().get()
        }
    }

    @Test("G4: is finished by another when the sweeper dies midway, and still each leave is said once")
    func sweeperDies() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b, c) = try await (
                cluster.register("node-a"), cluster.register("node-b"), cluster.register("node-c")
            )
            for index in 1...3 { try await cluster.enter("s\(index)", "user\(index)", on: c, rooms: "one", "two") }
            try await cluster.lapse(c)
            var two: [String] = []
            let one = try await cluster.heard(on: cluster.keys.roomChannel(room("one"))) {
                two = try await cluster.heard(on: cluster.keys.roomChannel(room("two"))) {
                    // node-a claims the sweep, sweeps one room, and is not heard of again.
                    #expect(try await cluster.nodes.claim(c, by: a, force: false) == .claimed)
                    #expect(try await cluster.rooms.sweep(c, from: room("one")).get().removed == 3)
                    #expect(try await cluster.sweep(by: b) == [], "its claim holds for a moment")
                    try await cluster.command("HSET", cluster.keys.node(c), "claim", "1000")
                    let reports = try await cluster.sweep(by: b)
                    #expect(reports.map(\.memberships) == [3])
                    #expect(reports.map(\.isComplete) == [true])
                    // And now it wakes up.
                    #expect(try await cluster.nodes.claim(c, by: a, force: false) == .swept)
                    #expect(try await cluster.rooms.sweep(c, from: room("two")).get().removed == 0)
                }
            }
            #expect(one.map { $0.split(separator: "\n").count } == [4])
            #expect(two.map { $0.split(separator: "\n").count } == [4])
        }
    }

    @Test("a node that another declared dead is swept also when it had not lapsed: its name registered anew")
    func replaced() async throws {
        try await ClusterFixture.run { cluster in
            let a = try await cluster.register("node-a")
            try await cluster.enter("s1", "alice", on: a, rooms: "general")
            let again = try await cluster.register("node-a")
            #expect(try await cluster.sweep(by: again).map(\.memberships) == [1])
            #expect(try await cluster.nodes.list().get().map(\.state) == [.dead, .ready])
            _ = try await cluster.sweep(by: again)
            #expect(try await cluster.nodes.list().get().map(\.incarnation) == [again], "its next life took its place")
        }
    }

    @Test("the hint forgets what Redis does not know, and what was swept ten minutes ago")
    func hint() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            try await cluster.command("HSET", cluster.keys.nodes, "ghost.99", "x", "not an incarnation", "x")
            try await cluster.lapse(b)
            #expect(try await cluster.sweep(by: a).map(\.incarnation) == [b])
            #expect(try await cluster.nodes.list().get().map(\.state) == [.ready, .dead])
            #expect(try await cluster.command("HEXISTS", cluster.keys.nodes, "ghost.99").int == 0)
            try await cluster.command("HSET", cluster.keys.node(b), "swept", "1000")
            _ = try await cluster.sweep(by: a)
            #expect(try await cluster.nodes.list().get().map(\.incarnation) == [a])
            // A hint that was lost is back with the next heartbeat.
            try await cluster.command("DEL", cluster.keys.nodes)
            #expect(try await cluster.nodes.list().get() == [])
            _ = try await cluster.heartbeat(a)
            #expect(try await cluster.nodes.list().get().map(\.incarnation) == [a])
        }
    }

    @Test("goes on when Redis is full, as heartbeats and leaves do; a publish and a join say that it is")
    func outOfMemory() async throws {
        let server = try RedisServerProcess(configuration: ["maxmemory-policy noeviction"])
        try await ClusterFixture.run(on: server) { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            try await cluster.enter("s1", "alice", on: a, rooms: "general")
            try await cluster.enter("s2", "bob", on: b, rooms: "general")
            try await cluster.enter("s3", "carol", on: a, rooms: "general")
            try await cluster.command("CONFIG", "SET", "maxmemory", "1")

            let publish = await #expect(throws: RedisError.self) { try await cluster.publish(publication("1")) }
            #expect(publish?.isOutOfMemory == true)
            #expect(publish?.outcomeIsUnknown == false)
            let join = await #expect(throws: RedisError.self) {
                try await cluster.rooms.join(membership("s4", "dave")).get()
            }
            #expect(join?.isOutOfMemory == true)
            #expect(try await cluster.rooms.head(room: room()).get()?.seq == 0)

            #expect(try await cluster.heartbeat(a) == .held(drainRequested: false))
            #expect(try await cluster.rooms.leave(membership("s3", "carol", on: a.description)).get())
            #expect(try await cluster.sessions.end(record("s3", "carol", on: a)).get())
            #expect(try await cluster.nodes.requestDrain(b).get())
            #expect(try await cluster.nodes.list().get().count == 2)
            #expect(try await cluster.rooms.presence(room: room(), limit: 10).get().members.count == 2)
            // The sweep's time comes by itself here: HSET is refused.
            #expect(try await cluster.heartbeat(b, lease: .milliseconds(1)) == .held(drainRequested: true))
            var reports: [SweepReport] = []
            while reports.isEmpty { reports = try await cluster.sweep(by: a) }
            #expect(reports.map(\.memberships) == [1])
            #expect(reports.map(\.isComplete) == [true])
            #expect(try await cluster.register("node-b") == incarnation("node-b.3"))

            try await cluster.command("CONFIG", "SET", "maxmemory", "0")
            guard case .stored(1, _, _) = try await cluster.publish(publication("1"))[0] else { throw Unexpected([]) }
        }
    }
}
