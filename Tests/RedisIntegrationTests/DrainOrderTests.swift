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
}
