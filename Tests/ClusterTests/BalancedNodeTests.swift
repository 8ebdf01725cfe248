import TestSupport
import Testing

/// Nodes whose connections begin with a header of the PROXY protocol, as behind a balancer that speaks TCP.
@Suite("Nodes that read the PROXY protocol", .patience)
struct BalancedNodeTests {
    private func start(
        _ role: ClusterProcess.Role, _ name: String, in cluster: Cluster, _ settings: [String: String]
    ) async throws -> ClusterProcess {
        let port = try FreePort.next()
        let own = [
            "MARTLET_PORT": String(port), "MARTLET_NODE_NAME": name, "MARTLET_TRUSTED_PROXIES": "127.0.0.1",
        ]
        let process = ClusterProcess(
            role, name: name, port: port, internalPort: try FreePort.next(),
            environment: cluster.environment.merging(own) { $1 }.merging(settings) { $1 })
        try await process.start()
        _ = try await poll(within: .seconds(30), "\(name) to be ready") {
            try await process.internals("/readyz").status == 200 ? true : nil
        }
        return process
    }

    @Test(
        "have it of routers that write it: address and request id are the router's, and so with TLS between them",
        arguments: [false, true])
    func routers(tls: Bool) async throws {
        try await Machine.with(Cluster.Options(nodes: 0)) { cluster in
            var (nodeTLS, routerTLS): ([String: String], [String: String]) = ([:], [:])
            let certificates = try await Certificates()
            if tls {
                let pair = try await certificates.issue("node")
                nodeTLS = ["MARTLET_TLS_CERT": pair.certificate, "MARTLET_TLS_KEY": pair.key]
                routerTLS = ["MARTLET_NODE_TLS_CA": certificates.authority]
            }
            let node = try await start(
                .node, "node", in: cluster, nodeTLS.merging(["MARTLET_NODE_PROXY_PROTOCOL": "on"]) { $1 })
            let writes = ["MARTLET_NODE_PROXY_PROTOCOL": "on", "MARTLET_HANDOVER": "off"]
            let router = try await start(.router, "router", in: cluster, routerTLS.merging(writes) { $1 })
            var options = TestClient.Options()
            options.source = 9
            let user = newUser()
            let session = try await cluster.connect(user, to: router, options: options)
            try await session.join(newRoom())
            let connect = try await node.logged("the connect") { $0["session"]?.string == session.id }
            #expect(connect["address"]?.string == "127.0.0.9")
            let upgrade = try await router.logged("the upgrade") { $0["msg"]?.string == "upgrade" }
            #expect(upgrade["request_id"] == connect["request_id"])
            for _ in 0..<3 { #expect(try await router.get("/healthz").status == 200) }

            let metrics = try await poll(within: .seconds(30), "checks, which have the header, too") {
                let text = try await router.internals("/metrics").text
                let checks = text.split(separator: "\n").first { $0.hasPrefix("martlet_router_checks_total{") }
                return checks.map { !$0.hasSuffix(" 0") } ?? false ? text : nil
            }
            #expect(metrics.contains("\nmartlet_router_check_failures_total{node=\"node\"} 0\n"))

            // A router that writes none is closed, and so says that it has no node.
            let bare = try await start(
                .router, "bare", in: cluster, routerTLS.merging(["MARTLET_HANDOVER": "off"]) { $1 })
            #expect(try await bare.get("/healthz").status >= 502)
            let closed = try await node.logged("a connection without a header") {
                $0["msg"] == "a connection of a trusted proxy has no header of the PROXY protocol and was closed"
            }
            #expect(closed["level"] == "warning" && closed["client"] == "127.0.0.1", "\(closed.text)")
            // What is handed over has no beginning of its own.
            if !tls {
                let giving = try await start(.router, "giving", in: cluster, [:])
                let given = try await cluster.connect(newUser(), to: giving, options: options)
                let line = try await node.logged("the connect") { $0["session"]?.string == given.id }
                #expect(line["address"]?.string == "127.0.0.9")
                await giving.kill()
            }
            session.client.close()
            for process in [bare, router, node] { await process.kill() }
        }
    }
}
