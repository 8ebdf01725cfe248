import Glibc
import TestSupport
import Testing

/// Real routers before real nodes.
@Suite("The router")
struct RouterTests {
    @Test(
        "1,000 keys: one node each on both routers, spread within 20 %, and only a removed node's keys move",
        .patience
    )
    func sticky() async throws {
        try await Machine.with(Cluster.Options(nodes: 5, routers: 2), weight: 4) { cluster in
            let keys = (0..<1000).map { "key-\($0)" }
            let first = try await placement(of: keys, through: cluster.routers[0], cluster)
            let second = try await placement(of: keys, through: cluster.routers[1], cluster)
            #expect(first == second, "two routers agree")
            let spread = Dictionary(grouping: keys) { first[$0] ?? "-" }.mapValues(\.count)
            #expect(spread.count == 5)
            for (node, count) in spread { #expect((160...240).contains(count), "\(node) has \(count) of 1,000") }

            // A kill: the routers hear of it from nobody but the connection that is refused.
            await cluster.nodes[4].kill()
            let after = try await placement(of: keys, through: cluster.routers[0], cluster)
            let moved = keys.filter { after[$0] != first[$0] }
            #expect(Set(moved.map { first[$0] ?? "-" }) == [cluster.nodes[4].name], "only its own keys move")
            #expect(!after.values.contains(cluster.nodes[4].name))
            let heirs = Dictionary(grouping: moved) { after[$0] ?? "-" }
            #expect(heirs.count == 4, "they go to all that are left: \(heirs.mapValues(\.count))")

            // Back under its name: the keys come home.
            try await cluster.nodes[4].start()
            try await cluster.nodes[4].waitUntilReady()
            let sample = Array(keys.prefix(100))
            _ = try await poll(within: .seconds(20), every: .milliseconds(500), "the keys to come home") {
                let now = try await placement(of: sample, through: cluster.routers[1], cluster)
                return sample.allSatisfy { now[$0] == first[$0] } ? true : nil
            }
        }
    }

    @Test("no node: 503 with Retry-After and a numbered error; a node that comes serves", .patience)
    func noNode() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            let router = cluster.routers[0]
            await cluster.nodes[0].kill()
            let answers = [
                try await router.get("/"),
                try await refusal { _ = try await cluster.open("/ws?user=alice", at: router) },
            ]
            for answer in answers {
                #expect(answer.status == 503)
                #expect(Int(answer["retry-after"] ?? "").map { $0 > 0 } == true, "\(answer.headers)")
                #expect(try answer.json()["error"]?["code"]?.int == 503)
                #expect(try answer.json()["error"]?["message"]?.string?.isEmpty == false)
            }
            try await cluster.nodes[0].start()
            try await cluster.nodes[0].waitUntilReady()
            _ = try await poll(within: .seconds(15), "the router to find the node") {
                try await router.get("/healthz").status == 200 ? true : nil
            }
            let alice = try await cluster.connect("alice", to: router)
            #expect(alice.node.hasPrefix("node-a"))
        }
    }

    @Test("sessions through the router chat with sessions on the nodes, up to the largest message")
    func chat() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let router = cluster.routers[0]
            var sessions = [try await cluster.connect(newUser(), to: 0)]
            for _ in 0..<4 { sessions.append(try await cluster.connect(newUser(), to: router)) }
            for session in sessions { try await session.join(room) }
            for session in sessions {
                let text = "\(session.user) \(String(repeating: "ü", count: 25_000))"
                try await session.say(text, in: room)
                for other in sessions where other.user != session.user { _ = try await other.hears(text, in: room) }
            }
            sessions[1].client.close(code: 1000, reason: "done")
            #expect(try await sessions[1].client.closed().code == 1000, "the Close frame passes both ways")
        }
    }

    @Test("?user= keeps a user on one node; without a key the cookie does that came with the page")
    func affinity() async throws {
        try await SharedCluster.use { cluster in
            let router = cluster.routers[0]
            let user = newUser()
            let nodes = try await (0..<3).asyncMap { _ in try await cluster.connect(user, to: router).node }
            #expect(Set(nodes).count == 1)

            let cookie = try #require(try await router.get("/")["set-cookie"])
            #expect(cookie.hasPrefix("martlet_affinity="))
            var options = TestClient.Options()
            options.headers = [("Cookie", String(cookie.prefix { $0 != ";" }))]
            let served = try await (0..<3).asyncMap { _ in
                let client = try await cluster.open("/ws", at: router, options: options)
                client.send(["type": "auth", "user": .string(newUser())])
                return try await client.next("welcome")["node"]?.string
            }
            #expect(Set(served).count == 1)
        }
    }

    @Test("it says how it is and which nodes it knows")
    func introspection() async throws {
        try await SharedCluster.use { cluster in
            let router = cluster.routers[0]
            #expect(try await router.get("/_router/healthz").status == 200)
            #expect(try await router.get("/_router/nodes").status == 404)
            #expect(try await router.internals("/readyz").status == 200)
            #expect(try await router.internals("/metrics").text.contains("martlet_router_nodes{state=\"ready\"} 3\n"))
            let nodes = try await router.internals("/nodes")
            #expect(nodes.status == 200)
            for node in cluster.nodes { #expect(nodes.text.contains(node.name)) }
            _ = try nodes.json()
            let page = try await router.get("/")
            #expect(page.status == 200)
            #expect(page["content-type"]?.hasPrefix("text/html") == true)
            #expect(try await router.get("/no/such/page").status == 404)
            #expect(try await HTTPAnswer.of("HEAD", "/", port: router.port).body.isEmpty)
            // More requests of one key than the router has loops.
            for _ in 0..<8 { #expect(try await router.get("/?key=k").status == 200) }
            #expect(try await !router.internals("/metrics").text.contains("martlet_router_reuses_total 0\n"))
        }
    }

    /// Which node serves each key, by what its `welcome` says.
    private func placement(
        of keys: [String],
        through router: ClusterProcess,
        _ cluster: Cluster
    ) async throws -> [String: String] {
        try await withThrowingTaskGroup(of: [(String, String)].self) { group in
            let workers = 8
            for worker in 0..<workers {
                group.addTask {
                    var placed: [(String, String)] = []
                    for index in stride(from: worker, to: keys.count, by: workers) {
                        let key = keys[index]
                        let client = try await TestClient.connect(
                            port: router.port,
                            path: "/ws?user=\(key)-user&key=\(key)"
                        )
                        placed.append((key, try await client.next("welcome")["node"]?.string ?? "-"))
                        client.close()
                        client.abort()
                    }
                    return placed
                }
            }
            var all: [String: String] = [:]
            for try await placed in group { all.merge(placed) { $1 } }
            return all
        }
    }
}

/// The answer with which an upgrade was refused.
func refusal(_ open: () async throws -> Void) async throws -> HTTPAnswer {
    do {
        try await open()
    } catch let refused as TestClient.Refused {
        return refused.answer
    }
    throw TimedOut("the upgrade was not refused")
}

extension Sequence {
    func asyncMap<Result>(_ transform: (Element) async throws -> Result) async rethrows -> [Result] {
        var results: [Result] = []
        for element in self { results.append(try await transform(element)) }
        return results
    }
}
