import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

extension NodeFigures {
    static func of(
        _ address: String = "127.0.0.1:8081", draining: Bool = false, startedAt: Int64 = 1,
        ending: NodeFigures.Ending = .no, order: DrainOrder? = nil
    ) -> NodeFigures {
        NodeFigures(
            address: address, version: "1.0", sessions: 3, rooms: 2, draining: draining, startedAt: startedAt,
            ending: ending, order: order)
    }
}

extension ClusterFixture {
    func register(_ name: String, lease: TimeAmount = .seconds(60)) async throws -> Incarnation {
        try await nodes.register(name: name, figures: .of(), lease: lease).get()
    }

    func heartbeat(
        _ incarnation: Incarnation, draining: Bool = false, ending: NodeFigures.Ending = .no,
        lease: TimeAmount = .seconds(60)
    ) async throws
        -> Beat
    {
        switch try await nodes.heartbeat(incarnation, figures: .of(draining: draining, ending: ending), lease: lease)
            .get()
        {
        case .held(let order, _): .held(drainRequested: order?.mustDrain == true)
        case .dead: .dead
        }
    }

    /// A ``HeartbeatResult`` without the time in it.
    enum Beat: Equatable {
        case held(drainRequested: Bool)
        case dead
    }

    /// Lets the lease of a node run out without waiting for it.
    func lapse(_ incarnation: Incarnation) async throws {
        try await command("HSET", keys.node(incarnation), "lease", "1000")
    }
}

@Suite("A node's lease")
struct NodeLeaseTests {
    @Test("registering gives a number that rises, and is announced")
    func register() async throws {
        try await ClusterFixture.run { cluster in
            let heard = try await cluster.heard(on: cluster.keys.controlChannel) {
                let registered = try await [cluster.register("node-a"), cluster.register("node-b")]
                #expect(registered.map(\.description) == ["node-a.1", "node-b.2"])
            }
            #expect(heard == ["up node-a.1", "up node-b.2"])
            let list = try await cluster.nodes.list().get()
            #expect(list.map(\.incarnation.description) == ["node-a.1", "node-b.2"])
            #expect(list.first?.figures == .of())
            #expect(list.map(\.state) == [.ready, .ready])
            #expect(list.allSatisfy { (1...60_000).contains($0.leaseMs) })
        }
    }

    @Test(
        "weight and URL for clients stand there from the start, follow each heartbeat, and have a default for older nodes"
    )
    func weightAndURL() async throws {
        try await ClusterFixture.run { cluster in
            var figures = NodeFigures.of()
            (figures.weight, figures.url) = (250, "wss://a.example.com/ws")
            let node = try await cluster.nodes.register(name: "node-a", figures: figures, lease: .seconds(60)).get()
            #expect(try await cluster.nodes.list().get().first?.figures == figures)
            (figures.weight, figures.url) = (1, nil)
            _ = try await cluster.nodes.heartbeat(node, figures: figures, lease: .seconds(60)).get()
            let told = try #require(try await cluster.nodes.list().get().first)
            #expect(told.figures == figures)
            #expect((0...30_000).contains(told.figuresAgeMs))
            #expect(told.ageMs.map { (0...30_000).contains($0) } == true)
            // Half a minute ago, and then as a node that says none of it.
            try await cluster.command("HINCRBY", cluster.keys.node(node), "told", "-30000")
            let old = try #require(try await cluster.nodes.list().get().first)
            #expect((30_000...60_000).contains(old.figuresAgeMs))
            try await cluster.command("HDEL", cluster.keys.node(node), "told", "weight", "url", "registered")
            let older = try #require(try await cluster.nodes.list().get().first)
            #expect(older.figures.weight == 100 && older.figures.url == nil && older.figuresAgeMs == 0)
            #expect(older.ageMs == nil)
            for nonsense in ["0", "1001", "x", "-5"] {
                try await cluster.command("HSET", cluster.keys.node(node), "weight", nonsense, "told", nonsense)
                #expect(try await cluster.nodes.list().get().first?.figures.weight == 100)
            }
        }
    }

    @Test("a name that could not stand in a key is refused", arguments: ["", "a b", "a{b", "日本"])
    func badName(name: String) async throws {
        try await ClusterFixture.run { cluster in
            let error = await #expect(throws: ClusterStateError.self) { try await cluster.register(name) }
            #expect(error?.code == .invalidNodeName)
            let keys = try await cluster.everyKey()
            #expect(keys == [])
        }
    }

    @Test("T27: registering a name fences the life before it, and no other node")
    func registerFences() async throws {
        try await ClusterFixture.run { cluster in
            let (first, other) = try await (cluster.register("node-a"), cluster.register("node-b"))
            var second: Incarnation?
            let heard = try await cluster.heard(on: cluster.keys.controlChannel) {
                second = try await cluster.register("node-a")
            }
            #expect(heard == ["down node-a.1", "up node-a.3"])
            #expect(try await cluster.heartbeat(first) == .dead)
            #expect(try await cluster.heartbeat(other) == .held(drainRequested: false))
            #expect(try await cluster.heartbeat(#require(second)) == .held(drainRequested: false))
        }
    }

    @Test("a node that Redis forgot may get the number again that it had: it lives, and is told of once")
    func sameNumber() async throws {
        try await ClusterFixture.run { cluster in
            let first = try await cluster.register("node-a")
            for key in try await cluster.everyKey() {
                try await cluster.command("DEL", "\(cluster.keys.prefix):\(key)")
            }
            let heard = try await cluster.heard(on: cluster.keys.controlChannel) {
                let again = try await cluster.nodes.register(
                    name: "node-a", figures: .of(), lease: .seconds(60), after: first
                ).get()
                #expect(again == first)
            }
            #expect(heard == ["up node-a.1"])
            #expect(try await cluster.heartbeat(first) == .held(drainRequested: false))
        }
    }

    @Test("G4: a lease that is past and that nobody swept is renewed")
    func lapsedRenews() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            try await cluster.lapse(node)
            let lapsed = try await cluster.nodes.list().get()
            #expect(lapsed.map(\.state) == [.ready], "only a sweeper says dead")
            #expect(lapsed.allSatisfy { $0.leaseMs < 0 })
            #expect(try await cluster.heartbeat(node) == .held(drainRequested: false))
            #expect(try await cluster.nodes.list().get().allSatisfy { $0.leaseMs > 0 })
        }
    }

    @Test("a heartbeat says when the lease ends by Redis's clock")
    func leaseEnd() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            let before = try await cluster.redisTime()
            let result = try await cluster.nodes.heartbeat(node, figures: .of(), lease: .seconds(60)).get()
            let after = try await cluster.redisTime()
            guard case .held(_, let leaseEnd) = result else { throw Unexpected([]) }
            #expect((before + 60_000...after + 60_000).contains(leaseEnd))
            #expect(try await cluster.command("HGET", cluster.keys.node(node), "lease").int == leaseEnd)
        }
    }

    @Test("a later process of the same name is found; another node, a dead one and the process itself are not")
    func successor() async throws {
        try await ClusterFixture.run { cluster in
            func register(_ name: String, startedAt: Int64) async throws -> Incarnation {
                try await cluster.nodes.register(
                    name: name, figures: .of(startedAt: startedAt), lease: .seconds(60)
                ).get()
            }
            func successor(of incarnation: Incarnation) async throws -> Incarnation? {
                try await cluster.nodes.successor(of: incarnation, startedAt: 1).get()?.incarnation
            }
            let first = try await register("node-a", startedAt: 1)
            #expect(try await successor(of: first) == nil)
            _ = try await register("node-b", startedAt: 2)
            _ = try await register("node-a", startedAt: 1)
            #expect(try await successor(of: first) == nil, "the same process, whose answer was lost")
            let twin = try await register("node-a", startedAt: 2)
            #expect(try await successor(of: first) == twin)
            #expect(try await successor(of: twin) == nil)
            try await cluster.lapse(twin)
            #expect(try await successor(of: first) == nil, "it ended without a word")
        }
    }

    @Test("a heartbeat of a node that Redis does not know, or that another process now is, is that of a dead one")
    func unknown() async throws {
        try await ClusterFixture.run { cluster in
            #expect(try await cluster.heartbeat(incarnation("node-a.9")) == .dead)
            let node = try await cluster.register("node-a")
            let other = try await cluster.nodes.heartbeat(
                node, figures: .of(startedAt: 2), lease: .seconds(60)
            ).get()
            #expect(other == .dead)
            #expect(try await cluster.nodes.list().get().count == 1)
        }
    }

    @Test("a number that is taken, as after a restore of an old copy, is passed over")
    func takenNumber() async throws {
        try await ClusterFixture.run { cluster in
            _ = try await cluster.register("node-a")
            try await cluster.command("DEL", cluster.keys.incarnationCounter)
            #expect(try await cluster.register("node-a") == incarnation("node-a.2"))
        }
    }

    @Test("an order to drain is written first, published second, and answered by the node")
    func drain() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            let heard = try await cluster.heard(on: cluster.keys.controlChannel) {
                let isAsked = try await cluster.nodes.requestDrain(node).get()
                #expect(isAsked)
                #expect(try await cluster.nodes.list().get().map(\.state) == [.draining])
                #expect(try await cluster.heartbeat(node) == .held(drainRequested: true))
                #expect(try await cluster.heartbeat(node, draining: true) == .held(drainRequested: true))
                #expect(try await cluster.heartbeat(node, draining: true) == .held(drainRequested: true))
            }
            #expect(heard == ["drain node-a.1", "draining node-a.1"])
            #expect(try await !cluster.nodes.requestDrain(incarnation("node-a.9")).get())
        }
    }

    @Test("an order to drain is taken back: the node is ready, and says so once")
    func undrain() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            #expect(try await cluster.nodes.takeBackDrain(node).get() == .wasNotOrdered)
            _ = try await cluster.nodes.requestDrain(node).get()
            _ = try await cluster.heartbeat(node, draining: true)
            let heard = try await cluster.heard(on: cluster.keys.controlChannel) {
                let result = try await cluster.nodes.takeBackDrain(node).get()
                #expect(result == .takenBack)
                #expect(try await cluster.heartbeat(node, draining: true) == .held(drainRequested: false))
                #expect(try await cluster.nodes.list().get().map(\.state) == [.draining], "until it has heard it")
                for _ in 0..<2 { #expect(try await cluster.heartbeat(node) == .held(drainRequested: false)) }
                #expect(try await cluster.nodes.list().get().map(\.state) == [.ready])
            }
            #expect(heard == ["undrain node-a.1", "up node-a.1"])
            #expect(try await cluster.nodes.takeBackDrain(incarnation("node-a.9")).get() == .isDead)
            // As versions wrote it that do not know of taking back.
            try await cluster.command("HDEL", cluster.keys.node(node), "ending")
            _ = try await cluster.nodes.requestDrain(node).get()
            #expect(try await cluster.nodes.takeBackDrain(node).get() == .isUnable)
            #expect(try await cluster.command("HGET", cluster.keys.node(node), "drain").int == 1)
        }
    }

    @Test("taking back and ending meet in Redis: whichever comes first holds")
    func undrainOrEnd() async throws {
        try await ClusterFixture.run { cluster in
            let (nodes, a) = (cluster.nodes, try await cluster.register("node-a"))
            _ = try await nodes.requestDrain(a).get()
            _ = try await cluster.heartbeat(a, draining: true)
            let answer = try await cluster.heartbeat(a, draining: true, ending: .unlessTakenBack)
            #expect(answer == .held(drainRequested: true), "it ends")
            #expect(try await nodes.takeBackDrain(a).get() == .isEnding)

            let b = try await cluster.register("node-b")
            _ = try await nodes.requestDrain(b).get()
            #expect(try await nodes.takeBackDrain(b).get() == .takenBack)
            let other = try await cluster.heartbeat(b, draining: true, ending: .unlessTakenBack)
            #expect(other == .held(drainRequested: false), "it stays")
            #expect(try await nodes.takeBackDrain(b).get() == .wasNotOrdered)

            // Of a signal nobody takes anything back.
            _ = try await cluster.heartbeat(b, draining: true, ending: .yes)
            #expect(try await nodes.takeBackDrain(b).get() == .isEnding)
        }
    }

    @Test("a clean end leaves nothing of the node, and what it forgot to leave is left for it")
    func deregister() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            let m = try membership("s1", "alice", on: "node-a.1")
            #expect(try await cluster.sessions.open(record("s1", "alice", on: node), secret: nil).get() != nil)
            #expect(try await cluster.nodes.addRoom(node, m.room).get())
            _ = try await cluster.rooms.join(m).get()
            let control = try await cluster.heard(on: cluster.keys.controlChannel) {
                let heard = try await cluster.heard(on: cluster.keys.roomChannel(m.room)) {
                    try await cluster.nodes.deregister(node).get()
                }
                #expect(heard.map(presence) == [#"pv 2 count 0 -{"user":"alice"}"#])
            }
            #expect(control == ["down node-a.1"])
            #expect(try await cluster.nodes.list().get() == [])
            #expect(try await cluster.everyKey() == ["incarnation", "{r:general}:meta", "{r:general}:dead"])
            #expect(try await cluster.heartbeat(node) == .dead)
            try await cluster.nodes.deregister(node).get()
        }
    }

    @Test("what a live node owns is indexed; a dead one owns nothing new")
    func indexes() async throws {
        try await ClusterFixture.run { cluster in
            let (nodes, keys) = (cluster.nodes, cluster.keys)
            let node = try await cluster.register("node-a")
            let (s, alice) = try (session("s1"), user("al:ice"))
            #expect(try await nodes.addRoom(node, room()).get())
            let first = SessionRecord(session: s, user: alice, owner: node)
            #expect(try await cluster.sessions.open(first, secret: nil).get() != nil)
            #expect(try await nodes.rooms(of: node).get() == [room()])
            #expect(try await nodes.sessions(of: node).get().map(\.0) == [s])
            #expect(try await nodes.sessions(of: node).get().map(\.1) == [alice])
            #expect(try await nodes.sessions(ofUser: alice).get().map(\.1) == [node])
            #expect(try await cluster.command("HGET", keys.session(s), "owner").string == "node-a.1")

            // Another owner, and the first one's late goodbye.
            let second = try await cluster.register("node-b")
            let next = SessionRecord(session: s, user: alice, owner: second, generation: 2)
            #expect(try await cluster.sessions.open(next, secret: nil).get() != nil)
            #expect(try await cluster.sessions.open(first, secret: nil).get() == nil)
            #expect(try await !cluster.sessions.end(first).get())
            #expect(try await nodes.sessions(of: node).get().isEmpty)
            #expect(try await nodes.sessions(ofUser: alice).get().map(\.1) == [second])
            #expect(try await cluster.sessions.end(next).get())
            try await nodes.removeRoom(node, room()).get()
            #expect(try await cluster.everyKey() == ["nodes", "incarnation", "{i:node-a.1}", "{i:node-b.2}"])

            _ = try await cluster.register("node-a")
            #expect(try await !nodes.addRoom(node, room()).get())
            #expect(try await cluster.sessions.open(first, secret: nil).get() == nil)
            #expect(try await !nodes.addRoom(incarnation("nobody.1"), room()).get())
            #expect(try await nodes.rooms(of: node).get() == [])
        }
    }

    @Test("many rooms and sessions are read in pages")
    func pages() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            let rooms = try (1...1500).map { try room("room\($0)") }
            try await inPortions(of: 100, rooms) { cluster.nodes.addRoom(node, $0) }
            #expect(try await Set(cluster.nodes.rooms(of: node).get()) == Set(rooms))
        }
    }

    @Test("a kick is heard on the user's channel")
    func kick() async throws {
        try await ClusterFixture.run { cluster in
            let heard = try await cluster.heard(on: cluster.keys.userChannel(user("b:ob"))) {
                try await cluster.nodes.kick(user: user("b:ob"), room: room(), reason: "be kind").get()
                try await cluster.nodes.kick(user: user("b:ob"), room: nil, reason: "").get()
            }
            #expect(heard == ["Kgeneral\nbe kind", "K*\n"])
        }
    }
}
