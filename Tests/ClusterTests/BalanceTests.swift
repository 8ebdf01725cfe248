import MartletClient
import TestSupport
import Testing

/// Real routers that pass by nodes which have enough.
@Suite("Bounded load", .patience)
struct BalanceTests {
    /// Users whose keys lead to one node first and another next, found by trying.
    private func users(_ count: Int, of router: ClusterProcess) async throws -> (users: [String], order: [String]) {
        var found: [[String]: [String]] = [:]
        for _ in 0..<2_000 {
            let user = newUser()
            let nodes = try await router.internals("/nodes?key=\(user)").json()
            let order = nodes["order"]?.array?.compactMap(\.string) ?? []
            found[order, default: []].append(user)
            if let users = found[order], users.count == count { return (users, order) }
        }
        throw TimedOut("no \(count) users with one order")
    }

    @Test("the fourth client of a node that may have three goes to the next in its order, and admin says why")
    func spills() async throws {
        let options = Cluster.Options(nodes: 3, routers: 1, environment: ["MARTLET_BALANCE_FLOOR": "3"])
        try await Machine.with(options) { cluster in
            let router = cluster.routers[0]
            let (users, order) = try await users(5, of: router)
            var sessions: [Session] = []
            for user in users.prefix(4) { sessions.append(try await cluster.connect(user, to: router)) }
            #expect(sessions.map { String($0.node.prefix { $0 != "." }) } == [order[0], order[0], order[0], order[1]])
            let metrics = try await router.internals("/metrics").text
            #expect(metrics.contains("\nmartlet_router_picks_total{node=\"\(order[0])\"} 3\n"))
            #expect(metrics.contains("\nmartlet_router_spills_total{node=\"\(order[0])\"} 1\n"))
            let own = try await router.internals("/nodes?key=\(users[4])").json()["route"]?.array
            #expect(own?.map { $0["verdict"]?.string } == ["at_bound", "picked", "reserve"])

            // Redis hears of the sessions with the nodes' next heartbeats.
            let told: JSON = try await poll(within: .seconds(20), "admin to see the node at its bound") {
                let route = try await cluster.admin("route", users[4])
                return route["order"]?.array?.first?["verdict"]?.string == "at_bound" ? .some(route) : Optional.none
            }
            #expect(told["node"]?.string == order[1])
            #expect(told["order"]?.array?.map { $0["node"]?.string } == order)
            #expect(told["order"]?.array?.first?["why"]?.string == "passed by: at its bound, 3 of 3 sessions")

            // Room again: the key comes home.
            for session in sessions.prefix(2) { session.client.close(code: 1000, reason: "done") }
            _ = try await poll(within: .seconds(20), "admin to see room again") {
                try await cluster.admin("route", users[4])["node"]?.string == order[0] ? true : nil
            }
            _ = try await poll(within: .seconds(20), "the router to see room again") {
                let nodes = try await router.internals("/nodes?key=\(users[4])").json()
                return nodes["route"]?.array?.first?["verdict"]?.string == "picked" ? true : nil
            }
            #expect(try await cluster.connect(users[4], to: router).node.hasPrefix(order[0]))
            withExtendedLifetime(sessions) {}
        }
    }

    private func online(_ client: MartletClient) async throws -> String {
        let states = client.states()
        client.connect()
        for await state in states { if case .online(let node, _) = state { return node } }
        throw TimedOut("the client ended before it was online")
    }

    @Test("a client that asks where its node is connects there without the router")
    func located() async throws {
        var options = Cluster.Options(nodes: 3, routers: 1)
        options.nodesHaveURLs = true
        try await Machine.with(options) { cluster in
            let router = cluster.routers[0]
            for _ in 0..<3 {
                let user = newUser()
                let located = try await router.get("/locate?user=\(user)").json()
                let node = try #require(cluster.nodes.first { $0.name == located["node"]?.string })
                #expect(located["url"]?.string == "ws://127.0.0.1:\(node.port)/ws")
                let client = try MartletClient(
                    url: "ws://127.0.0.1:\(router.port)/ws", credential: .user(user), locatesNode: true)
                #expect(try await online(client).hasPrefix(node.name))
                client.close()
            }
            let metrics = try await router.internals("/metrics").text
            #expect(metrics.contains("martlet_router_handovers_total 0\n"))
            #expect(!metrics.contains("martlet_router_upgrades_total"), "nobody came to the router for a WebSocket")
        }
    }

    @Test("a client whose node is not where it says comes through the router")
    func fallback() async throws {
        for url in ["ws://127.0.0.1:1/ws", ""] {
            let options = Cluster.Options(nodes: 1, routers: 1, environment: ["MARTLET_NODE_URL": url])
            try await Machine.with(options) { cluster in
                let client = try MartletClient(
                    url: "ws://127.0.0.1:\(cluster.routers[0].port)/ws", credential: .user(newUser()), locatesNode: true
                )
                #expect(try await online(client).hasPrefix(cluster.nodes[0].name))
                client.close()
                #expect(
                    try await cluster.routers[0].internals("/metrics").text.contains(
                        "martlet_router_handovers_total 1\n"))
            }
        }
    }

    @Test("members of a room meet on one node where rooms are keys, whoever they are")
    func rooms() async throws {
        let options = Cluster.Options(nodes: 3, routers: 2, environment: ["MARTLET_AFFINITY": "room,user"])
        try await Machine.with(options) { cluster in
            for _ in 0..<4 {
                let room = newRoom()
                var nodes: Set<String> = []
                for index in 0..<6 {
                    let path = "/ws?user=\(newUser())&room=\(room)"
                    let client = try await cluster.open(path, at: cluster.routers[index % 2])
                    nodes.insert(try await client.next("welcome")["node"]?.string ?? "")
                }
                #expect(nodes.count == 1)
                let told = try await cluster.admin("route", "--room", room)
                #expect(nodes.first?.hasPrefix(told["node"]?.string ?? "-") == true)
            }
        }
    }
}
