import Glibc
import TestSupport
import Testing

/// `martlet admin routers`: what routers say of themselves in Redis.
@Suite("The list of routers")
struct RouterListTests {
    private func routers(_ cluster: Cluster) async throws -> [JSON] { try await cluster.admin("routers").array ?? [] }

    private func poll(
        _ cluster: Cluster, _ what: String, until look: @escaping @Sendable ([JSON]) -> Bool
    ) async throws -> [JSON] {
        try await TestSupport.poll(within: .seconds(30), every: .milliseconds(250), what) {
            let list = try await routers(cluster)
            return look(list) ? list : nil
        }
    }

    @Test(
        "each router is listed with its clients and nodes; one that drains says so, and one that ends goes at once",
        .patience)
    func listed() async throws {
        let options = Cluster.Options(nodes: 2, routers: 2, environment: ["MARTLET_HANDOVER": "off"])
        try await Machine.with(options) { cluster in
            let (first, second) = (cluster.routers[0], cluster.routers[1])
            @Sendable func of(_ process: ClusterProcess, _ list: [JSON]) -> JSON? {
                list.first { $0["address"]?.string == "127.0.0.1:\(process.port)" }
            }
            let session = try await cluster.connect(newUser(), to: second)
            let list = try await poll(cluster, "both routers, one with a client") { list in
                list.count == 2 && of(second, list)?["connections"]?.int == 1
                    && list.allSatisfy { $0["nodes_ready"]?.int == 2 }
            }
            for process in [first, second] {
                let router = try #require(of(process, list))
                #expect(router["router"]?.string?.hasSuffix("-\(process.port)") == true)
                #expect(router["state"]?.string == "ready")
                #expect(router["nodes_known"]?.int == 2)
                #expect(router["ejected"]?.array?.isEmpty == true)
                #expect((1...10_000).contains(router["lease_ms"]?.int ?? 0))
            }
            #expect(of(second, list)?["requests"]?.int == 1 && of(first, list)?["requests"]?.int == 0)
            let table = try await MartletProgram.run(["admin", "routers"], environment: cluster.environment)
            #expect(table.text.hasPrefix("ROUTER ") && table.text.contains("2/2"))

            second.terminate()
            _ = try await poll(cluster, "the second to drain") { of(second, $0)?["state"]?.string == "draining" }
            session.client.abort()
            _ = try await second.process?.waitForExit(within: .seconds(30))
            #expect(try await routers(cluster).map { $0["address"]?.string } == ["127.0.0.1:\(first.port)"])
        }
    }

    @Test(
        "a router that may not list itself says so once and serves; one that lost Redis is listed when it is back",
        .patience)
    func refused() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            let router = cluster.routers[0]
            _ = try await poll(cluster, "the router") { $0.count == 1 }
            let own = "(+publish &\(cluster.prefix):control:probe:*)"
            try await cluster.redis.command("ACL", "SETUSER", "martlet-router", "clearselectors", own)
            @Sendable func isWarning(_ line: JSON) -> Bool {
                line["msg"]?.string?.hasPrefix("Redis does not list this router") == true
            }
            let warning = try await router.logged("that it is not listed", within: .seconds(30), where: isWarning)
            #expect(warning["error"]?.string?.contains("can't run this command") == true, "\(warning.text)")
            // Three tries later.
            _ = try await poll(cluster, "no router") { $0.isEmpty }
            #expect(router.log.filter(isWarning).count == 1)
            let session = try await cluster.connect(newUser(), to: router)
            _ = try await session.join(newRoom())
            session.client.abort()

            try await cluster.redis.command(
                "ACL", "SETUSER", "martlet-router", "(+hdel +hgetall +hset +pexpire ~\(cluster.prefix):routers)")
            _ = try await poll(cluster, "the router again") { $0.count == 1 }
            try await cluster.redis.command("ACL", "LOG", "RESET")
            await cluster.redis.kill()
            #expect(try await router.get("/").status == 200)
            try await cluster.redis.startAgain()
            _ = try await poll(cluster, "the router behind a Redis that forgot it") { $0.count == 1 }
            #expect(router.log.filter(isWarning).count == 1)
        }
    }
}
