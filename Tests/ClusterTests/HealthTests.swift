import TestSupport
import Testing

/// Real routers that ask real nodes whether they are ready.
@Suite("Active checks", .patience)
struct HealthTests {
    private static let fails = "a node fails its checks and gets no new clients"
    private static let passes = "a node passes its checks again"

    /// Users whose keys lead to the node.
    private func users(_ count: Int, of node: ClusterProcess, by router: ClusterProcess) async throws -> [String] {
        var found: [String] = []
        for _ in 0..<500 where found.count < count {
            let user = newUser()
            let nodes = try await router.internals("/nodes?key=\(user)").json()
            if nodes["order"]?.array?.first?.string == node.name { found.append(user) }
        }
        return found
    }

    private func change(_ message: String, of node: ClusterProcess, at router: ClusterProcess) async throws -> JSON {
        let name = node.name
        return try await router.logged(message, within: .seconds(60)) {
            $0["msg"]?.string == message && $0["node"]?.string == name
        }
    }

    private func verdict(_ node: ClusterProcess, for user: String, at router: ClusterProcess) async throws -> String? {
        try await router.internals("/nodes?key=\(user)").json()["route"]?.array?
            .first { $0["node"]?.string == node.name }?["verdict"]?.string
    }

    @Test("a node that stands still gets nobody new, also where its lease lasts, and clients again when it goes on")
    func standsStill() async throws {
        // The lease outlasts the test: checks alone find the node.
        let environment = ["MARTLET_LEASE_SECONDS": "120"]
        try await Machine.with(Cluster.Options(nodes: 3, routers: 1, environment: environment)) { cluster in
            let (router, home) = (cluster.routers[0], cluster.nodes[0])
            let users = try await users(4, of: home, by: router)
            #expect(try await cluster.connect(users[0], to: router).node.hasPrefix(home.name))
            home.pause()
            defer { home.resume() }
            // Its socket takes connections all the same.
            #expect(try await change(Self.fails, of: home, at: router)["cause"]?.string == "silent")
            for user in users { #expect(try await !cluster.connect(user, to: router).node.hasPrefix(home.name)) }
            #expect(
                !router.log.contains { $0["msg"]?.string == "a node does not answer" },
                "no client had to wait until the node was given up")
            #expect(try await verdict(home, for: users[0], at: router) == "down")
            let metrics = try await router.internals("/metrics").text
            #expect(metrics.contains("\nmartlet_router_left_out{node=\"\(home.name)\",cause=\"check\"} 1\n"))
            #expect(
                metrics.contains("\nmartlet_router_left_out{node=\"\(cluster.nodes[1].name)\",cause=\"check\"} 0\n"))

            home.resume()
            _ = try await change(Self.passes, of: home, at: router)
            #expect(try await cluster.connect(users[1], to: router).node.hasPrefix(home.name))
        }
    }

    @Test("a node that alone does not hear Redis keeps its clients and gets nobody new; when none hears it, all serve")
    func notReady() async throws {
        let options = Cluster.Options(
            nodes: 2, routers: 1, environment: ["MARTLET_LEASE_SECONDS": "120"], proxies: [.redis])
        try await Machine.with(options) { cluster in
            let (router, home) = (cluster.routers[0], cluster.nodes[0])
            let users = try await users(3, of: home, by: router)
            let first = try await cluster.connect(users[0], to: router)
            #expect(first.node.hasPrefix(home.name))
            await cluster.proxies.redis[0].set(.blackHole)
            #expect(try await change(Self.fails, of: home, at: router)["cause"]?.string == "not_ready")
            #expect(try await cluster.connect(users[1], to: router).node.hasPrefix(cluster.nodes[1].name))
            #expect(first.client.isOpen)

            await cluster.proxies.redis[1].set(.blackHole)
            _ = try await change(Self.fails, of: cluster.nodes[1], at: router)
            #expect(try await verdict(home, for: users[2], at: router) == "picked")
            #expect(try await cluster.open("/ws?user=\(users[2])", at: router).isOpen)
            for proxy in cluster.proxies.redis {
                await proxy.heal()
                await proxy.cut()
            }
            for node in cluster.nodes { _ = try await change(Self.passes, of: node, at: router) }
            #expect(try await cluster.connect(users[2], to: router).node.hasPrefix(home.name))
        }
    }

    @Test("a node that is new to another takes a tenth of its keys, the same at each router, and admin says so")
    func slowStart() async throws {
        let environment = ["MARTLET_SLOW_START_SECONDS": "3600"]
        try await Machine.with(Cluster.Options(nodes: 2, routers: 2, environment: environment)) { cluster in
            let (old, new) = (cluster.nodes[0].name, cluster.nodes[1].name)
            @Sendable func verdicts(_ user: String, at router: ClusterProcess) async throws -> [String: String] {
                let route = try await router.internals("/nodes?key=\(user)").json()["route"]?.array ?? []
                return Dictionary(
                    uniqueKeysWithValues: route.map { ($0["node"]?.string ?? "", $0["verdict"]?.string ?? "") })
            }
            let users = (0..<60).map { _ in newUser() }
            for user in users {
                #expect(try await verdicts(user, at: cluster.routers[0]).values.sorted() == ["picked", "reserve"])
            }
            let incarnations = try await cluster.redis.command("HKEYS", cluster.key("nodes")).strings
            let first = try #require(incarnations.first { $0.hasPrefix("\(old).") })
            _ = try await cluster.redis.command(
                "HINCRBY", cluster.key("{i:\(first)}"), "registered", "-7200000")
            for router in cluster.routers {
                await router.kill()
                try await router.start()
                try await router.waitUntilReady()
                _ = try await poll(within: .seconds(20), "the router to know both nodes") {
                    try await verdicts(users[0], at: router).count == 2 ? true : nil
                }
            }
            var held = 0
            for user in users {
                let one = try await verdicts(user, at: cluster.routers[0])
                #expect(try await verdicts(user, at: cluster.routers[1]) == one)
                if one[new] == "slow_start" {
                    held += 1
                    #expect(one[old] == "picked")
                }
            }
            // Nine tenths of them; by chance a few less or more.
            #expect((40...60).contains(held))
            let user = try await users.asyncMap { ($0, try await verdicts($0, at: cluster.routers[0])) }
                .first { $0.1[new] == "slow_start" }?.0
            let told = try await cluster.admin("route", try #require(user))
            #expect(told["node"]?.string == old)
            #expect(
                told["order"]?.array?.first { $0["node"]?.string == new }?["verdict"]?.string == "slow_start")
        }
    }
}
