import Foundation
import TestSupport
import TestTLS
import Testing

/// Real nodes and routers that speak TLS.
@Suite("TLS of the servers")
struct TLSTests {
    /// Nodes and a router with their own settings beside the cluster, ended with the test.
    private final class Servers: Sendable {
        let cluster: Cluster
        let certificates: Certificates

        init(_ cluster: Cluster) async throws {
            self.cluster = cluster
            certificates = try await Certificates()
        }

        func start(
            _ role: ClusterProcess.Role, _ name: String, _ settings: [String: String]
        ) async throws -> ClusterProcess {
            let port = try FreePort.next()
            var own = ["MARTLET_PORT": String(port)]
            if role == .node { own["MARTLET_NODE_NAME"] = name }
            let environment = cluster.environment.merging(own) { $1 }.merging(settings) { $1 }
            let process = ClusterProcess(
                role, name: name, port: port, internalPort: try FreePort.next(), environment: environment)
            try await process.start()
            _ = try await process.logged("that it listens", within: .seconds(30)) { $0["msg"]?.string == "listening" }
            return process
        }

        /// - Parameter host: whose certificate the server must have.
        func connect(
            _ process: ClusterProcess, _ pair: Certificates.Pair? = nil, host: String = "localhost"
        ) throws -> TLSSocket {
            var options = TLSSocket.Options(authority: certificates.authority)
            options.host = host
            options.pair = pair
            return try TLSSocket(port: process.port, options)
        }

        /// The status of a GET.
        func status(
            _ process: ClusterProcess, _ path: String, _ pair: Certificates.Pair? = nil, host: String = "localhost"
        ) -> Int? {
            guard let socket = try? connect(process, pair, host: host) else { return nil }
            socket.send("GET \(path) HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n")
            return socket.receiveResponse().head.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        }

        func waitUntil(_ status: Int, _ process: ClusterProcess, _ path: String = "/readyz") async throws {
            _ = try await poll(within: .seconds(20), "\(process.name) to answer \(status)") {
                self.status(process, path) == status ? true : nil
            }
        }

        func chat(_ process: ClusterProcess, as user: String) throws -> Chat {
            let socket = try connect(process)
            #expect(socket.openWebSocket("/ws?user=\(user)").hasPrefix("HTTP/1.1 101 "))
            let chat = Chat(socket: socket)
            try chat.hears("welcome")
            return chat
        }
    }

    private struct Chat {
        let socket: TLSSocket

        /// Passes over everything before a message of that type.
        @discardableResult
        func hears(_ type: String) throws -> JSON {
            while let frame = socket.receiveFrame() {
                guard frame.first & 0x0F == 1 else { continue }
                let message = try JSON(parsing: frame.payload[...])
                if message["type"]?.string == type { return message }
            }
            throw TimedOut("no \(type) came")
        }

        func says(_ text: String, in room: String) {
            socket.sendText(
                #"{"type":"message","room":"\#(room)","text":"\#(text)","id":"\#(UInt32.random(in: 0 ... .max))"}"#)
        }
    }

    private func pair(_ pair: Certificates.Pair, _ prefix: String = "MARTLET_TLS") -> [String: String] {
        ["\(prefix)_CERT": pair.certificate, "\(prefix)_KEY": pair.key]
    }

    @Test("chat through a router that speaks TLS, whose certificate is replaced under the open connection", .patience)
    func reload() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let servers = try await Servers(cluster)
            let files = try await servers.certificates.issue("router")
            let router = try await servers.start(.router, "secure", pair(files))
            try await servers.waitUntil(200, router)
            let room = newRoom()
            let alice = try servers.chat(router, as: newUser())
            let bob = try servers.chat(router, as: newUser())
            for chat in [alice, bob] {
                chat.socket.sendText(#"{"type":"join","room":"\#(room)"}"#)
                try chat.hears("joined")
            }
            alice.says("one", in: room)
            #expect(try bob.hears("message")["text"]?.string == "one")

            try await servers.certificates.issue("router")
            _ = try await router.logged("the new files") { $0["msg"]?.string?.hasPrefix("TLS files loaded") == true }
            let carol = try servers.connect(router)
            #expect(carol.certificate != alice.socket.certificate)

            try "no key".write(toFile: files.key, atomically: true, encoding: .utf8)
            _ = try await router.logged("that they are broken") { line in
                line["level"]?.string == "error" && line["error"]?.string?.contains(files.key) == true
            }
            #expect(try servers.connect(router).certificate == carol.certificate)

            let third = try await servers.certificates.issue("third")
            // Without a change that the clock of the file system could show too coarsely: the signal does not ask.
            try FileManager.default.removeItem(atPath: files.certificate)
            try FileManager.default.copyItem(atPath: third.certificate, toPath: files.certificate)
            try FileManager.default.removeItem(atPath: files.key)
            try FileManager.default.copyItem(atPath: third.key, toPath: files.key)
            router.process?.send(SIGHUP)
            _ = try await poll(within: .seconds(10), "the third certificate") {
                try servers.connect(router).certificate == carol.certificate ? nil : true
            }

            bob.says("two", in: room)
            #expect(try alice.hears("message")["text"]?.string == "two", "open connections went on")
            await router.kill()
        }
    }

    @Test(
        "T6: a node that speaks TLS: versions from 1.2 on, HSTS, both kinds of wrong client end without harm",
        .patience
    )
    func node() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let servers = try await Servers(cluster)
            let files = try await servers.certificates.issue("node")
            let node = try await servers.start(
                .node, "secure", pair(files).merging(["MARTLET_LOG_LEVEL": "debug"]) { $1 })
            try await servers.waitUntil(200, node)
            var options = TLSSocket.Options(authority: servers.certificates.authority)
            options.version = .tls11
            #expect(throws: TLSSocket.Failure.self) { try TLSSocket(port: node.port, options) }
            options.version = .tls12
            #expect(try TLSSocket(port: node.port, options).version == "TLSv1.2")

            let metrics = try await node.internals("/metrics").text
            #expect(metrics.contains("\nmartlet_tls_certificate_expiry_seconds{file=\"\(files.certificate)\"} "))

            let page = try servers.connect(node)
            page.send("GET / HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n")
            #expect(page.receiveHead().contains("\r\nStrict-Transport-Security: max-age=31536000\r\n"))
            let overPlain = try await cluster.nodes[0].get("/")
            #expect(overPlain["strict-transport-security"] == nil)

            await #expect(throws: (any Error).self) { try await HTTPAnswer.of("GET", "/", port: node.port) }
            _ = try await node.logged("the plain client") { line in
                line["reason"]?.string == "no TLS handshake: the client speaks plain HTTP"
            }
            #expect(throws: TLSSocket.Failure.self) { try servers.connect(cluster.nodes[0]) }

            let trust = ["--cacert", servers.certificates.authority]
            let url = "https://localhost:\(node.port)/readyz"
            #expect(try await MartletProgram.run(["healthcheck", url] + trust).exit == .status(0))
            #expect(try await MartletProgram.run(["healthcheck", url, "--insecure"]).exit == .status(0))
            let untrusted = try await MartletProgram.run(["healthcheck", url])
            #expect(untrusted.exit == .status(1) && untrusted.errorText.contains("not trusted"))
            await node.kill()
        }
    }

    @Test("T6, T30: router and nodes know each other by their certificates, and refuse all others", .patience)
    func mutual() async throws {
        try await Machine.with(Cluster.Options(nodes: 0), weight: 2) { cluster in
            let servers = try await Servers(cluster)
            let certificates = servers.certificates
            let routerPair = try await certificates.issue("router")
            let foreign = try await Certificates().issue("router")
            let nodePair = try await certificates.issue("node", names: ["DNS:nodes.internal"])
            let asks = ["MARTLET_TLS_CLIENT_CA": certificates.authority]
            let node = try await servers.start(
                .node, "node", pair(nodePair).merging(asks) { $1 }.merging(["MARTLET_LOG_LEVEL": "debug"]) { $1 })
            for client in [nil, foreign] {
                #expect(servers.status(node, "/healthz", client, host: "nodes.internal") == nil)
            }
            #expect(servers.status(node, "/healthz", routerPair, host: "nodes.internal") == 200)
            _ = try await node.logged("who shows none") { line in
                line["reason"]?.string == "no TLS handshake: peer did not return a certificate"
            }

            let trusts = ["MARTLET_NODE_TLS_CA": certificates.authority, "MARTLET_NODE_TLS_NAME": "nodes.internal"]
            let own = pair(routerPair)
            let known = trusts.merging(pair(routerPair, "MARTLET_NODE_TLS")) { $1 }
            let router = try await servers.start(.router, "known", own.merging(known) { $1 })
            try await servers.waitUntil(200, router)
            let alice = try servers.chat(router, as: newUser())
            let room = newRoom()
            alice.socket.sendText(#"{"type":"join","room":"\#(room)"}"#)
            try alice.hears("joined")
            alice.says(String(repeating: "x", count: 60_000), in: room)
            try alice.hears("ack")

            let metrics = try await router.internals("/metrics").text
            #expect(metrics.contains("\nmartlet_tls_certificate_expiry_seconds{file=\"\(routerPair.certificate)\"} "))

            _ = try await poll(within: .seconds(30), "checks, which speak TLS, too") {
                let lines = try await router.internals("/metrics").text.split(separator: "\n")
                return lines.contains { $0.hasPrefix("martlet_router_checks_total{") && !$0.hasSuffix(" 0") }
                    ? true : nil
            }
            let checked = try await router.internals("/metrics").text
            #expect(checked.contains("\nmartlet_router_check_failures_total{node=\"node\"} 0\n"))

            let nameless = own.merging(known.filter { $0.key != "MARTLET_NODE_TLS_NAME" }) { $1 }
            let stranger = own.merging(trusts) { $1 }
            let foreignCA = try await Certificates().authority
            let distrusting = own.merging(known) { $1 }.merging(["MARTLET_NODE_TLS_CA": foreignCA]) { $1 }
            let refusals: [(String, [String: String], String)] = [
                ("nameless", nameless, "the server's certificate does not name 127.0.0.1"),
                ("stranger", stranger, "the server asks for a client certificate"),
                ("distrusting", distrusting, "the server's certificate is of no authority that is trusted here"),
            ]
            for (name, settings, reason) in refusals {
                let refused = try await servers.start(.router, name, settings)
                _ = try await poll(within: .seconds(20), "\(name) to find the node, and fail") {
                    (servers.status(refused, "/healthz") ?? 0) >= 502 ? true : nil
                }
                _ = try await refused.logged("why") { line in
                    line["msg"]?.string == "TLS with a node fails" && line["reason"]?.string?.contains(reason) == true
                }
                await refused.kill()
            }
            for process in [node, router] { await process.kill() }
        }
    }

    @Test("T6: a node whose certificate has expired gets no clients", .patience)
    func expired() async throws {
        try await Machine.with(Cluster.Options(nodes: 0)) { cluster in
            let servers = try await Servers(cluster)
            let old = try await servers.certificates.issue("node", isExpired: true)
            let node = try await servers.start(.node, "node", pair(old))
            _ = try await node.logged("that it has expired") { $0["msg"]?.string == "a TLS certificate has expired" }
            let own = try await pair(servers.certificates.issue("router"))
            let router = try await servers.start(
                .router, "router", own.merging(["MARTLET_NODE_TLS_CA": servers.certificates.authority]) { $1 })
            _ = try await poll(within: .seconds(20), "the router to find the node, and fail") {
                servers.status(router, "/healthz") == 503 ? true : nil
            }
            _ = try await router.logged("why") { $0["reason"]?.string == "the server's certificate has expired" }

            // A new one under the same name is enough.
            try await servers.certificates.issue("node")
            try await servers.waitUntil(200, router, "/healthz")
            for process in [node, router] { await process.kill() }
        }
    }

    @Test("SIGHUP ends no node that has nothing to read again")
    func nothingToReload() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            cluster.nodes[0].process?.send(SIGHUP)
            _ = try await cluster.nodes[0].logged("that there is nothing") { line in
                line["msg"]?.string == "there is no file that is read again while the process runs"
            }
            #expect(try await cluster.nodes[0].get("/readyz").status == 200)
        }
    }

    @Test("SIGHUP ends no node and no router that still waits for Redis: it holds until they are there")
    func reloadWhileItStarts() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            let processes = [cluster.nodes[0], cluster.routers[0]]
            for process in processes { await process.kill() }
            await cluster.redis.kill()
            for process in processes {
                try await process.start()
                _ = try await process.logged("that it waits") { $0["msg"]?.string == "waiting for Redis" }
                process.process?.send(SIGHUP)
            }
            try await cluster.redis.startAgain()
            for process in processes {
                _ = try await process.logged("that it was told") { line in
                    line["msg"]?.string == "there is no file that is read again while the process runs"
                }
                try await process.waitUntilReady()
            }
        }
    }

    @Test("what cannot be used at the start is one sentence that names setting and file")
    func badStarts() async throws {
        let certificates = try await Certificates()
        let good = try await certificates.issue("server")
        let other = try await certificates.issue("other")
        let authority = certificates.authority
        let cases: [(String, [String: String], [String])] = [
            ("node", ["MARTLET_TLS_CERT": good.certificate], ["MARTLET_TLS_CERT is set, which needs MARTLET_TLS_KEY"]),
            ("router", ["MARTLET_TLS_KEY": good.key], ["MARTLET_TLS_KEY is set, which needs MARTLET_TLS_CERT"]),
            ("node", ["MARTLET_TLS_CLIENT_CA": authority], ["MARTLET_TLS_CLIENT_CA is set, which needs"]),
            (
                "router", ["MARTLET_NODE_TLS_NAME": "nodes"],
                ["MARTLET_NODE_TLS_NAME is set, which needs MARTLET_NODE_TLS_CA"]
            ),
            (
                "router", ["MARTLET_NODE_TLS_NAME": "10.0.0.1"],
                ["MARTLET_NODE_TLS_NAME is", "must be a host name, no address"]
            ),
            ("router", ["MARTLET_NODE_TLS_CA": "/nowhere"], ["MARTLET_NODE_TLS_CA", "/nowhere cannot be read"]),
            (
                "node", ["MARTLET_TLS_CERT": "/nowhere", "MARTLET_TLS_KEY": good.key],
                ["MARTLET_TLS_CERT", "/nowhere cannot be read: No such file or directory"]
            ),
            (
                "router", ["MARTLET_TLS_CERT": good.certificate, "MARTLET_TLS_KEY": other.key],
                ["the key in \(other.key) is not that of the certificate in \(good.certificate)"]
            ),
            (
                "router",
                ["MARTLET_TLS_CERT": "\(good.certificate), \(other.certificate)", "MARTLET_TLS_KEY": good.key],
                ["MARTLET_TLS_CERT names 2 and MARTLET_TLS_KEY 1: each certificate has a key"]
            ),
            ("node", pair(good).merging(["MARTLET_TLS_CLIENT_CA": good.key]) { $1 }, ["holds no certificate in PEM"]),
        ]
        for (command, settings, parts) in cases {
            let base = ["MARTLET_AUTH": "none", "MARTLET_REDIS_URL": "redis://127.0.0.1:1"]
            let output = try await MartletProgram.run([command], environment: base.merging(settings) { $1 })
            #expect(output.exit == .status(2), "\(output.errorText)")
            let sentence = output.standardErrorLines.first { $0.hasPrefix("martlet: ") } ?? ""
            for part in parts { #expect(sentence.contains(part), "\(output.errorText)") }
        }
    }
}
