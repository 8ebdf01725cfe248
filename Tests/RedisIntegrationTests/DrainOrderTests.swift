import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

extension ClusterFixture {
    /// The order that holds after a heartbeat of a node that knows `order`.
    func order(of node: Incarnation, knowing order: DrainOrder?, draining: Bool = false) async throws -> DrainOrder? {
        let figures = NodeFigures.of(draining: draining, order: order)
        let result = try await nodes.heartbeat(node, figures: figures, lease: .seconds(60)).get()
        guard case .held(let held, _) = result else { throw Unexpected([]) }
        return held
    }

    /// As a Redis has it that took over from another without its latest writes.
    func forget(_ node: Incarnation, toHave former: DrainOrder? = nil) async throws {
        guard let former else {
            try await command("HDEL", keys.node(node), "drain", "ordered")
            return
        }
        try await command(
            "HSET", keys.node(node), "drain", former.mustDrain ? "1" : "0", "ordered", String(former.given))
    }
}

@Suite("An order to drain")
struct DrainOrderTests {
    @Test("has the time of Redis's clock, and is later than the one before")
    func times() async throws {
        try await ClusterFixture.run { cluster in
            let node = try await cluster.register("node-a")
            #expect(try await cluster.order(of: node, knowing: nil) == nil, "nobody ordered anything")
            let before = try await cluster.redisTime()
            #expect(try await cluster.nodes.requestDrain(node).get())
            let first = try #require(try await cluster.order(of: node, knowing: nil))
            let after = try await cluster.redisTime()
            #expect(first.mustDrain && (before...after).contains(first.given))
            // As after a failover to a Redis whose clock is behind.
            let late = String(after + 100_000)
            try await cluster.command("HSET", cluster.keys.node(node), "ordered", late)
            #expect(try await cluster.nodes.takeBackDrain(node).get() == .takenBack)
            let second = DrainOrder(mustDrain: false, given: after + 100_001)
            #expect(try await cluster.order(of: node, knowing: first) == second)
            #expect(try await cluster.nodes.requestDrain(node).get())
            let third = DrainOrder(mustDrain: true, given: after + 100_002)
            #expect(try await cluster.order(of: node, knowing: second) == third)
        }
    }

    @Test("that Redis forgot is written again by the node that knows it, to drain as well as not to")
    func forgotten() async throws {
        try await ClusterFixture.run { cluster in
            let (node, nodes) = (try await cluster.register("node-a"), cluster.nodes)
            _ = try await nodes.requestDrain(node).get()
            let first = try #require(try await cluster.order(of: node, knowing: nil))
            try await cluster.forget(node)
            #expect(try await cluster.order(of: node, knowing: first, draining: true) == first)
            #expect(try await nodes.list().get().map(\.state) == [.draining])
            #expect(try await cluster.order(of: node, knowing: nil) == first, "it stands in Redis again")

            _ = try await nodes.takeBackDrain(node).get()
            let second = try #require(try await cluster.order(of: node, knowing: first))
            try await cluster.forget(node, toHave: first)
            #expect(try await cluster.order(of: node, knowing: second) == second)
            #expect(try await nodes.list().get().map(\.state) == [.ready])

            _ = try await nodes.requestDrain(node).get()
            let third = try #require(try await cluster.order(of: node, knowing: second))
            try await cluster.forget(node, toHave: second)
            #expect(try await cluster.order(of: node, knowing: third) == third)

            // Of what the node knows and Redis does not, a drain ends the node all the same.
            try await cluster.forget(node)
            let ending = NodeFigures.of(draining: true, ending: .unlessTakenBack, order: third)
            _ = try await nodes.heartbeat(node, figures: ending, lease: .seconds(60)).get()
            #expect(try await nodes.takeBackDrain(node).get() == .isEnding)
        }
    }

    @Test("that was given since holds against what the node knows")
    func givenSince() async throws {
        try await ClusterFixture.run { cluster in
            let (node, nodes) = (try await cluster.register("node-a"), cluster.nodes)
            _ = try await nodes.requestDrain(node).get()
            let drain = try #require(try await cluster.order(of: node, knowing: nil))
            // Redis forgot it, and before the node says it again the operator takes it back.
            _ = try await cluster.order(of: node, knowing: drain, draining: true)
            try await cluster.forget(node)
            #expect(try await nodes.takeBackDrain(node).get() == .takenBack, "it drains, so somebody asked it to")
            #expect(try await cluster.order(of: node, knowing: drain, draining: true)?.mustDrain == false)
        }
    }

    @Test("of a version that writes no time holds, until the next")
    func withoutTime() async throws {
        try await ClusterFixture.run { cluster in
            let (node, nodes) = (try await cluster.register("node-a"), cluster.nodes)
            let key = cluster.keys.node(node)
            try await cluster.command("HSET", key, "drain", "1")
            let drain = DrainOrder(mustDrain: true, given: 0)
            #expect(try await cluster.order(of: node, knowing: nil) == drain)
            try await cluster.forget(node)
            #expect(try await cluster.order(of: node, knowing: drain) == drain, "forgotten, and written again")
            #expect(try await nodes.takeBackDrain(node).get() == .takenBack)
            let undrain = try #require(try await cluster.order(of: node, knowing: drain))
            #expect(!undrain.mustDrain && undrain.given > 0)
            // It leaves the time as it is.
            try await cluster.command("HSET", key, "drain", "1")
            #expect(try await cluster.order(of: node, knowing: undrain)?.mustDrain == true)
        }
    }

    @Test("goes with the node to its next incarnation, and stands there from the start")
    func registered() async throws {
        try await ClusterFixture.run { cluster in
            for mustDrain in [true, false] {
                let order = DrainOrder(mustDrain: mustDrain, given: 1000)
                let node = try await cluster.nodes.register(
                    name: "node-a", figures: .of(draining: mustDrain, order: order), lease: .seconds(60)
                ).get()
                #expect(try await cluster.order(of: node, knowing: nil, draining: mustDrain) == order)
            }
        }
    }

    /// What the next incarnation of a node has whose last one, which is dead, was given `orders` while the node knew `known`.
    private func inherited(
        _ orders: [Bool], knowing known: DrainOrder? = nil, as startedAt: Int64 = 1,
        _ prepare: (ClusterFixture, Incarnation) async throws -> Void = { _, _ in }
    ) async throws -> (order: DrainOrder?, last: DrainOrder?, state: NodeRecord.State?) {
        var inherited: (order: DrainOrder?, last: DrainOrder?, state: NodeRecord.State?)
        try await ClusterFixture.run { cluster in
            let (node, other) = try await (cluster.register("node-a"), cluster.register("node-b"))
            var last: DrainOrder?
            for mustDrain in orders {
                if mustDrain {
                    #expect(try await cluster.nodes.requestDrain(node).get())
                } else {
                    _ = try await cluster.nodes.takeBackDrain(node).get()
                }
                last = try await cluster.nodes.order(of: node, startedAt: 1).get()
            }
            try await cluster.lapse(node)
            let reports = try await cluster.nodes.sweepLapsed(by: other, notAfter: .max).get()
            #expect(reports.map(\.incarnation) == [node])
            #expect(try await !cluster.nodes.requestDrain(node).get(), "a dead one takes no orders")
            #expect(try await cluster.nodes.takeBackDrain(node).get() == .isDead)
            try await prepare(cluster, node)
            let figures = NodeFigures.of(draining: known?.mustDrain == true, startedAt: startedAt, order: known)
            let next = try await cluster.nodes.register(
                name: "node-a", figures: figures, lease: .seconds(60), after: node
            ).get()
            let record = try await cluster.nodes.list().get().first { $0.incarnation == next }
            let order = try await cluster.nodes.order(of: next, startedAt: startedAt).get()
            inherited = (order, last, record?.state)
        }
        return inherited
    }

    @Test("that a node did not hear before it was declared dead is its next incarnation's, also where the hint is gone")
    func inherited() async throws {
        for hides in [false, true] {
            let drained = try await inherited([true]) { cluster, node in
                if hides { try await cluster.command("HDEL", cluster.keys.nodes, node.description) }
            }
            #expect(drained.order != nil && drained.order == drained.last && drained.state == .draining)
        }
        let known = DrainOrder(mustDrain: true, given: 1000)
        let undrained = try await inherited([true, false], knowing: known)
        #expect(undrained.order?.mustDrain == false && undrained.order == undrained.last)
    }

    @Test("that the node knows stays where Redis has none that is later")
    func remembered() async throws {
        let known = DrainOrder(mustDrain: true, given: 1000)
        let forgotten = try await inherited([false], knowing: known) { cluster, node in
            try await cluster.command("DEL", cluster.keys.node(node))
        }
        #expect(forgotten.order == known && forgotten.state == .draining)
        let latest = DrainOrder(mustDrain: true, given: .max / 2)
        #expect(try await inherited([true, false], knowing: latest).order == latest)
        #expect(try await inherited([], knowing: known).order == known)
    }

    @Test("is that of one process: one that is started anew under the name takes clients")
    func startedAnew() async throws {
        let next = try await inherited([true], as: 2)
        #expect(next.order == nil && next.state == .ready)
    }
}
