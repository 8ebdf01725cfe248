import Glibc
import TestSupport
import Testing

/// What the operator sees and does: `martlet admin`, logs, metrics.
@Suite("The operator")
struct OperatorTests {
    @Test("admin nodes and presence: the documented fields")
    func nodesAndPresence() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let user = newUser()
            let sessions = [try await cluster.connect(user, to: 0), try await cluster.connect(user, to: 1)]
            for session in sessions { try await session.join(room) }

            let nodes = try await cluster.admin("nodes").array ?? []
            #expect(nodes.count == 3)
            for (node, process) in zip(nodes.sorted { $0.text < $1.text }, cluster.nodes) {
                #expect(node["node"]?.string?.hasPrefix("node-") == true)
                #expect(nodes.contains { $0["address"]?.string == "127.0.0.1:\(process.port)" })
                #expect(node["state"]?.string == "ready")
                #expect((1...10_000).contains(node["lease_ms"]?.int ?? 0), "\(node.text)")
                #expect(node["sessions"]?.int != nil && node["rooms"]?.int != nil)
            }
            let presence = try await cluster.admin("presence", room)
            #expect(presence["room"]?.string == room)
            #expect(presence["count"]?.int == 1)
            let listed = try #require(presence["users"]?.array?.first)
            #expect(listed["user"]?.string == user)
            #expect(
                Set(listed["sessions"]?.array?.compactMap { $0["session"]?.string } ?? []) == Set(sessions.map(\.id))
            )
            #expect(Set(listed["sessions"]?.array?.compactMap { $0["node"]?.string } ?? []).count == 2)
            #expect(listed["sessions"]?.array?.allSatisfy { $0["joined_at"] != nil } == true)
        }
    }

    @Test("admin publish, history, user, rooms: what they say is what the clients see")
    func publishAndHistory() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let session = try await cluster.connect(newUser(), to: 0)
            try await session.join(room)
            _ = try await cluster.admin("publish", room, "from the operator")
            let message = try await session.hears("from the operator", in: room)
            #expect(message["seq"]?.int == 1)
            try await session.say("answer", in: room)
            let history = try await cluster.admin("history", room)
            #expect(history.text.contains("from the operator") && history.text.contains("answer"))
            #expect(try await cluster.admin("user", session.user).text.contains(session.id))
            #expect(try await cluster.admin("rooms").text.contains(room))
            #expect(try await cluster.admin("room", room).text.contains(room))
            #expect(try await cluster.admin("sessions").text.contains(session.id))
            _ = try await cluster.admin("stats")
        }
    }

    @Test(
        "admin: 1 for what is not there, with one sentence",
        arguments: [
            ["user", "nobody-of-that-name"], ["room", "no-such-room"], ["presence", "no-such-room"],
            ["drain", "no-such-node"], ["history", "no-such-room"],
        ]
    )
    func notFound(arguments: [String]) async throws {
        try await SharedCluster.use { cluster in
            let output = try await MartletProgram.run(
                ["admin"] + arguments,
                environment: ["MARTLET_REDIS_URL": cluster.redis.url, "MARTLET_REDIS_PREFIX": cluster.prefix]
            )
            #expect(output.exit == .status(1), "\(output.text) \(output.errorText)")
            #expect(output.standardErrorLines.count == 1, "\(output.errorText)")
            #expect(output.errorText.hasPrefix("martlet: "))
            #expect(output.text.isEmpty)
        }
    }

    @Test("admin kick ends a user's sessions everywhere, of a room only the membership")
    func kick() async throws {
        try await SharedCluster.use { cluster in
            let (room, other) = (newRoom(), newRoom())
            let user = newUser("unwanted")
            let sessions = [try await cluster.connect(user, to: 0), try await cluster.connect(user, to: 1)]
            let watcher = try await cluster.connect(newUser("watcher"), to: 2)
            for session in sessions + [watcher] {
                try await session.join(room)
                try await session.join(other)
            }
            let output = try await MartletProgram.run(
                ["admin", "kick", user, "--room", room, "--reason", "enough for today"],
                environment: ["MARTLET_REDIS_URL": cluster.redis.url, "MARTLET_REDIS_PREFIX": cluster.prefix]
            )
            #expect(output.exit == .status(0), "\(output.errorText)")
            for session in sessions {
                let left = try await session.client.next("left", room: room)
                #expect(left["reason"]?.string == "enough for today")
            }
            try await watcher.sees("left", user, in: room)
            try await watcher.say("still in the other", in: other)
            for session in sessions { _ = try await session.hears("still in the other", in: other) }

            let all = try await MartletProgram.run(
                ["admin", "kick", user],
                environment: ["MARTLET_REDIS_URL": cluster.redis.url, "MARTLET_REDIS_PREFIX": cluster.prefix]
            )
            #expect(all.exit == .status(0), "\(all.errorText)")
            for session in sessions {
                let closed = try await session.client.closed()
                #expect(closed.code == 4200, "do not reconnect: \(closed)")
                #expect(!closed.reason.isEmpty)
            }
            try await watcher.sees("left", user, in: other)
            #expect(watcher.presenceCounts("left", of: other) == [user: 1])
        }
    }

    @Test("admin drain: the node says reconnect, ends with 0, and the list no longer has it ready")
    func drain() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, environment: ["MARTLET_DRAIN_SECONDS": "5"])) { cluster in
            let session = try await cluster.connect("alice", to: 0)
            let output = try await MartletProgram.run(
                ["admin", "drain", "node-a"],
                environment: ["MARTLET_REDIS_URL": cluster.redis.url, "MARTLET_REDIS_PREFIX": cluster.prefix]
            )
            #expect(output.exit == .status(0), "\(output.errorText)")
            _ = try await session.client.next("reconnect")
            #expect((4000...4099).contains(try await session.client.closed().code))
            #expect(try await cluster.nodes[0].process?.waitForExit(within: .seconds(10)) == .status(0))
            let nodes = try await cluster.admin("nodes").array ?? []
            #expect(!nodes.contains { $0["node"]?.string?.hasPrefix("node-a") == true && $0["state"] == "ready" })
            #expect(nodes.contains { $0["node"]?.string?.hasPrefix("node-b") == true && $0["state"] == "ready" })
        }
    }

    @Test("one JSON log line for each connect and disconnect, with all that finds it again")
    func logs() async throws {
        try await SharedCluster.use { cluster in
            let node = cluster.nodes[0]
            let user = newUser()
            let session = try await cluster.connect(user, to: 0)
            for _ in 0..<2 { try await session.join(newRoom()) }
            let id = session.id
            let connect = try await node.logged("the connect") { $0["session"]?.string == id }
            for key in ["ts", "level", "msg", "user", "node", "rooms", "request_id"] {
                #expect(connect[key] != nil, "\(key) in \(connect.text)")
            }
            #expect(connect["user"]?.string == user)
            session.client.close(code: 4711, reason: "enough")
            try await session.client.closed()
            let disconnect = try await node.logged("the disconnect") {
                $0["session"]?.string == id && $0["code"] != nil
            }
            for key in ["ts", "level", "msg", "user", "node", "request_id", "reason"] {
                #expect(disconnect[key] != nil, "\(key) in \(disconnect.text)")
            }
            #expect(disconnect["user"]?.string == user)
            #expect(number(disconnect["code"]) == 4711)
            #expect(number(disconnect["rooms"]) == 2)
            #expect(disconnect["reason"]?.string == "enough")
            #expect(disconnect["request_id"] == connect["request_id"])
            #expect(node.log.filter { $0["session"]?.string == id }.count == 2, "one line each")
            #expect(cluster.nodes.allSatisfy { $0.logViolations.isEmpty }, "\(node.logViolations)")
        }
    }

    @Test("a request id is the trusted proxy's, or the router's: the same in the lines of router and node", .patience)
    func requestID() async throws {
        let environment = ["MARTLET_LOG_LEVEL": "debug", "MARTLET_TRUSTED_PROXIES": "127.0.0.1"]
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1, environment: environment)) { cluster in
            let (node, router) = (cluster.nodes[0], cluster.routers[0])
            var options = TestClient.Options()
            for (source, isTrusted) in [(UInt8(1), true), (9, false)] {
                options.source = source
                for process in [node, router] {
                    let given = "request-\(UInt32.random(in: 0...UInt32.max))"
                    options.headers = [("X-Request-ID", given)]
                    let session = try await cluster.connect(newUser(), to: process, options: options)
                    let line = try await node.logged("the connect") { $0["session"]?.string == session.id }
                    let id = try #require(line["request_id"]?.string)
                    #expect((id == given) == isTrusted, "\(process.name)")
                    guard process.name == router.name else { continue }
                    _ = try await router.logged("the handover") {
                        $0["msg"]?.string == "handed over" && $0["request_id"]?.string == id
                    }
                }
            }
            #expect(try await router.get("/no/such/page").status == 404)
            let line = try await router.logged("the request") { $0["path"]?.string == "/no/such/page" }
            let id = try #require(line["request_id"]?.string)
            let own = try await node.logged("the request") { $0["request_id"]?.string == id }
            #expect(own["msg"]?.string == "request" && own["status"]?.int == 404)
            options.headers = []
            let refused = try await refusal { _ = try await cluster.open("/nowhere", at: router, options: options) }
            #expect(refused.status == 404)
            let tried = try await router.logged("the upgrade") { $0["path"]?.string == "/nowhere" }
            let seen = try await node.logged("the refusal") { $0["request_id"] == tried["request_id"] }
            #expect(seen["msg"]?.string == "upgrade refused" && seen["client"]?.string == "127.0.0.9")
        }
    }

    @Test("T29: healthz, readyz and metrics answer on each node; the page and its script come without outside requests")
    func endpoints() async throws {
        try await SharedCluster.use { cluster in
            for node in cluster.nodes {
                #expect(try await node.get("/healthz").status == 200)
                #expect(try await node.get("/readyz").status == 200)
                #expect(try await node.internals("/healthz").status == 200)
                #expect(try await node.internals("/readyz").status == 200)
                #expect(try await node.get("/metrics").status == 404)
                let metrics = try await node.internals("/metrics")
                #expect(metrics.status == 200)
                #expect(metrics["content-type"]?.hasPrefix("text/plain") == true)
                for line in metrics.text.split(separator: "\n") where !line.hasPrefix("#") {
                    let words = line.split(separator: " ")
                    #expect(words.count >= 2 && words.last.flatMap { Double($0) } != nil, "\(line)")
                    #expect(line.hasPrefix("martlet_") || line.hasPrefix("process_"), "\(line)")
                }
                let page = try await node.get("/")
                #expect(page.status == 200)
                #expect(!page.text.contains("http://") || !page.text.contains("src=\"http"))
                #expect(try await node.get("/martlet.js")["content-type"]?.contains("javascript") == true)
                let head = try await HTTPAnswer.of("HEAD", "/healthz", port: node.port)
                #expect(head.status == 200 && head.body.isEmpty)
            }
        }
    }

    private func number(_ value: JSON?) -> Int64? { value?.int ?? value?.string.flatMap { Int64($0) } }
}
