import TestSupport
import Testing

/// Orders to drain that a node, or Redis, did not get.
@Suite("An order to drain a node", .patience)
struct DrainOrderTests {
    /// A Redis that follows another until the line between them stands still.
    private struct Standby {
        let redis: ClusterRedis
        let line: FaultProxy

        static func of(_ master: ClusterRedis, _ redis: ClusterRedis) async throws -> Standby {
            let line = try await FaultProxy.start(to: master.port)
            try await redis.follow(line.port)
            return Standby(redis: redis, line: line)
        }

        /// It gets nothing more.
        func fallBehind() async {
            var lag = Fault()
            lag.held = [.toClient]
            await line.set(lag)
        }

        /// It takes over as it is.
        func takeOver(of cluster: Cluster) async throws {
            try await redis.command("REPLICAOF", "NO", "ONE")
            await line.stop()
            for proxy in cluster.proxies.redis {
                await proxy.redirect(to: redis.port)
                await proxy.cut()
            }
        }
    }

    private func order(of node: String, in redis: ClusterRedis, _ cluster: Cluster) async throws -> [String] {
        try await redis.command("HMGET", cluster.key("{i:\(node)}"), "drain", "ordered").strings
    }

    @Test("outlives a failover that forgets it, and so does the one that takes it back")
    func failover() async throws {
        let options = Cluster.Options(
            nodes: 2, environment: ["MARTLET_DRAIN_SECONDS": "300", "MARTLET_DRAIN_RATE": "1"], proxies: [.redis])
        try await Machine.with(options) { cluster in
            let (node, first) = (cluster.nodes[0], cluster.redis)
            let second = try await ClusterRedis.start(prefix: cluster.prefix)
            do {
                for _ in 0..<120 { _ = try await cluster.connect(newUser(), to: node) }

                var standby = try await Standby.of(first, second)
                await standby.fallBehind()
                _ = try await cluster.admin("drain", "node-a")
                try await node.waitForReadiness(503, within: .seconds(20))
                let drain = try await order(of: "node-a.1", in: first, cluster)
                #expect(try await order(of: "node-a.1", in: second, cluster).isEmpty)
                try await standby.takeOver(of: cluster)
                _ = try await poll(within: .seconds(30), "the order to stand in Redis again") {
                    try await order(of: "node-a.1", in: second, cluster) == drain ? true : nil
                }
                #expect(await node.readiness() == 503)
                #expect(!node.log.contains { $0["msg"] == "taking clients again" })

                standby = try await Standby.of(second, first)
                await standby.fallBehind()
                let output = try await MartletProgram.run(
                    ["admin", "undrain", "node-a"],
                    environment: cluster.environment.merging(["MARTLET_REDIS_URL": second.url]) { $1 })
                #expect(output.exit == .status(0), "\(output.errorText)")
                try await node.waitForReadiness(200, within: .seconds(20))
                let undrain = try await order(of: "node-a.1", in: second, cluster)
                #expect(try await order(of: "node-a.1", in: first, cluster) == drain)
                try await standby.takeOver(of: cluster)
                _ = try await poll(within: .seconds(30), "the order to be taken back again") {
                    try await order(of: "node-a.1", in: first, cluster) == undrain ? true : nil
                }
                try await node.waitForReadiness(200, within: .seconds(20))
                #expect(node.log.count { $0["msg"] == "draining" } == 1)
            } catch {
                await second.stop()
                throw error
            }
            await second.stop()
        }
    }

    @Test("given while the node is cut off from Redis, and declared dead, is its next life's; a dead one takes none")
    func cutOff() async throws {
        let options = Cluster.Options(
            nodes: 2,
            environment: [
                "MARTLET_DRAIN_SECONDS": "300", "MARTLET_DRAIN_RATE": "1", "MARTLET_LEASE_SECONDS": "2",
            ], proxies: [.redis])
        try await Machine.with(options) { cluster in
            let (node, other, line) = (cluster.nodes[0], cluster.nodes[1], cluster.proxies.redis[0])
            for _ in 0..<120 { _ = try await cluster.connect(newUser(), to: node) }
            for (order, readiness) in [("drain", 503), ("undrain", 200)] {
                // Nobody declares the node dead before the order is given.
                other.pause()
                await line.refuse(true)
                await line.cut()
                let given = try await cluster.admin(order, "node-a")["incarnation"]?.string ?? ""
                let words = try await self.order(of: given, in: cluster.redis, cluster)
                #expect(words.first == (order == "drain" ? "1" : "0"))
                other.resume()
                _ = try await poll(within: .seconds(60), "\(given) to be dead") {
                    try await cluster.redis.command("HGET", cluster.key("{i:\(given)}"), "state").string == "dead"
                        ? true : nil
                }
                let refused = try await MartletProgram.run(
                    ["admin", order, "node-a"], environment: cluster.environment)
                #expect(refused.exit == .status(1))
                #expect(
                    refused.errorText.hasPrefix("martlet: node \(given) is dead and takes no orders"),
                    "\(refused.errorText)")
                await line.refuse(false)
                let registered = try await node.logged("its next life", within: .seconds(60)) {
                    $0["msg"] == "registered" && ($0["incarnation"]?.string ?? "") > given
                }
                let next = registered["incarnation"]?.string ?? ""
                #expect(try await self.order(of: next, in: cluster.redis, cluster) == words)
                try await node.waitForReadiness(readiness, within: .seconds(30))
                let said = order == "drain" ? "draining" : "taking clients again"
                _ = try await node.logged("what it does") { $0["msg"] == .string(said) }
            }
        }
    }
}
