import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import TestSupport
import Testing
import WebSocketTransport

/// Keys that `martlet token keygen` made, and tokens of theirs.
private struct KeyFolder {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "martlet-keys-\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }

    /// - Returns: the JWK Set of the public half.
    func make(_ name: String, _ algorithm: String) async throws -> String {
        let output = try await MartletProgram.run(
            ["token", "keygen", "--alg", algorithm, "--kid", name, "--out", "\(path)/\(name)"])
        try #require(output.exit == .status(0), "\(output.errorText)")
        return output.text
    }

    func token(_ user: String, key: String, _ arguments: String...) async throws -> String {
        let output = try await MartletProgram.run(["token", "mint", user, "--key", "\(path)/\(key)"] + arguments)
        try #require(output.exit == .status(0), "\(output.errorText)")
        return output.text.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

/// An issuer's address for its keys.
private final class KeyServer: Sendable {
    let port: Int
    private let body = Mutex("")
    private let count = Mutex(0)
    private let running = Mutex<HTTPServer?>(nil)

    init() throws { port = try FreePort.next() }

    var url: String { "http://127.0.0.1:\(port)/keys" }
    var requests: Int { count.withLock { $0 } }

    func publish(_ json: String) { body.withLock { $0 = json } }

    func start() async throws {
        let server = try await HTTPServer.start(
            host: "127.0.0.1", port: port, group: MultiThreadedEventLoopGroup.singleton,
            onRequest: { [self] _, loop in
                count.withLock { $0 += 1 }
                let text = body.withLock { $0 }
                return loop.makeSucceededFuture(
                    HTTPResponse(status: .ok, contentType: "application/jwk-set+json", body: text))
            },
            onUpgrade: { _, _ in .refuse(HTTPResponse(status: .notFound, contentType: "text/plain", body: "")) }
        ).get()
        running.withLock { $0 = server }
    }

    func stop() async throws {
        let server = running.withLock { server in
            defer { server = nil }
            return server
        }
        try await server?.close().get()
    }
}

private let upgrade = [
    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]

private func knock(_ token: String, at node: ClusterProcess) async throws -> HTTPAnswer {
    try await HTTPAnswer.of("GET", "/ws", port: node.port, headers: upgrade + [("Authorization", "Bearer \(token)")])
}

/// Asks again as long as it is told to.
private func enters(_ token: String, at node: ClusterProcess) async throws {
    _ = try await poll(within: .seconds(40), "\(node.name) to take a token") { () -> Bool? in
        let answer = try await knock(token, at: node)
        if answer.status == 503 { return nil }
        try #require(answer.status == 101, "\(answer.text)")
        return true
    }
}

@Suite("Tokens at a node")
struct TokenTests {
    @Test(
        "T4: keys of a JWKS address: fetched late, rotated, gone on with in an outage; no flood of unknown names fetches more, and it counts"
    )
    func jwks() async throws {
        let folder = try KeyFolder()
        defer { folder.remove() }
        let server = try KeyServer()
        server.publish(try await folder.make("first", "ES256"))
        let first = try await folder.token("alice", key: "first")
        let second = try await folder.make("second", "RS256")
        let rotated = try await folder.token("bob", key: "second")
        let options = Cluster.Options(
            nodes: 1, environment: ["MARTLET_AUTH": "token", "MARTLET_TOKEN_JWKS_URL": server.url])
        try await Cluster.with(options) { cluster in
            let node = cluster.nodes[0]
            // The issuer is down: the node is ready, and asks who comes to come again.
            let early = try await knock(first, at: node)
            #expect(early.status == 503 && early["retry-after"] == "1")
            #expect(try early.json()["error"]?["reason"]?.string == "unavailable")
            let waiting = try await cluster.open("/ws", at: node)
            waiting.send(["type": "auth", "token": .string(first), "id": "1"])
            let error = try await waiting.next("error")
            #expect(error["code"]?.int == 113 && error["retry_ms"]?.int ?? 0 > 0)
            try await server.start()
            try await enters(first, at: node)
            // Unknown names, each another one: one fetch, not five hundred.
            let before = server.requests
            let unknown = try await folder.token("mallory", key: "second", "--kid", "KID")
            for index in 0..<500 {
                let parts = unknown.split(separator: ".")
                let header = Data("{\"alg\":\"RS256\",\"kid\":\"k\(index)\"}".utf8).base64EncodedString()
                    .replacingOccurrences(of: "=", with: "")
                let answer = try await knock("\(header).\(parts[1]).\(parts[2])", at: node)
                #expect(answer.status == 503 || answer.status == 401)
            }
            #expect(server.requests <= before + 2)
            // Each counts as a bad token of its address, though it is told to come again.
            #expect(
                try await node.internals("/metrics").text.contains("\nmartlet_anomaly_total{cause=\"bad_token\"} 500\n")
            )
            // A new key is found by its name; the old one goes with the answer that no longer has it.
            server.publish(second)
            try await enters(rotated, at: node)
            #expect(try await knock(first, at: node).status != 101)
            try await server.stop()
            try await enters(rotated, at: node)
            #expect(try await node.internals("/metrics").text.contains("\nmartlet_jwks_keys 1\n"))
        }
        try await server.stop()
    }

    @Test(
        "T4: martlet token verify takes a JWK Set without a key that can be used as a node does: others may fit, and what lacks is said"
    )
    func verifiesWithEmptySet() async throws {
        let folder = try KeyFolder()
        defer { folder.remove() }
        let own = try await folder.make("own", "ES256")
        let server = try KeyServer()
        server.publish(#"{"keys":[{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}]}"#)
        try await server.start()
        let token = try await folder.token("alice", key: "own")
        var environment = ["MARTLET_TOKEN_JWKS_URL": server.url]
        let refused = try await MartletProgram.run(["token", "verify", token], environment: environment)
        #expect(refused.exit == .status(1))
        #expect(
            refused.errorText.hasPrefix(
                "martlet: no key is known by the token's kid, and MARTLET_TOKEN_JWKS_URL publishes no key that can be used (key 1 is neither"
            ), "\(refused.errorText)")
        try own.write(toFile: folder.path + "/own.json", atomically: true, encoding: .utf8)
        environment["MARTLET_TOKEN_KEYS"] = folder.path + "/own.json"
        let good = try await MartletProgram.run(["token", "verify", token], environment: environment)
        #expect(good.exit == .status(0), "\(good.errorText)")
        server.publish("{")
        let outage = try await MartletProgram.run(["token", "verify", token], environment: environment)
        #expect(outage.errorText == "martlet: MARTLET_TOKEN_JWKS_URL is no JWK Set" && outage.exit == .status(1))
        try await server.stop()
    }

    @Test("keys of files are read anew when they change and on SIGHUP; a file that cannot be used changes nothing")
    func files() async throws {
        let folder = try KeyFolder()
        defer { folder.remove() }
        let one = try await folder.make("one", "EdDSA")
        let two = try await folder.make("two", "EdDSA")
        let path = folder.path + "/public.json"
        try one.write(toFile: path, atomically: true, encoding: .utf8)
        let tokens = (try await folder.token("alice", key: "one"), try await folder.token("alice", key: "two"))
        let options = Cluster.Options(nodes: 1, environment: ["MARTLET_AUTH": "token", "MARTLET_TOKEN_KEYS": path])
        try await Cluster.with(options) { cluster in
            let node = cluster.nodes[0]
            #expect(try await knock(tokens.0, at: node).status == 101)
            let refused = try await knock(tokens.1, at: node)
            #expect(refused.status == 401 && refused["www-authenticate"]?.hasPrefix("Bearer") == true)
            try "{\"keys\":[]}".write(toFile: path, atomically: true, encoding: .utf8)
            node.process?.send(SIGHUP)
            _ = try await node.logged("that the file is bad") {
                $0["msg"]?.string == "token keys stay as they were"
            }
            #expect(try await knock(tokens.0, at: node).status == 101)
            try two.write(toFile: path, atomically: true, encoding: .utf8)
            _ = try await poll(within: .seconds(20), "the new key") {
                try await knock(tokens.1, at: node).status == 101 ? true : nil
            }
            #expect(try await knock(tokens.0, at: node).status == 401)
        }
    }

    @Test("T3: no token, in whatever way it came, is in a log or in the metrics, at level trace")
    func logs() async throws {
        let secret = "a secret of this test, long enough for all"
        let options = Cluster.Options(
            nodes: 1, routers: 1,
            environment: [
                "MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": secret, "MARTLET_LOG_LEVEL": "trace",
            ])
        let minted = try await MartletProgram.run(
            ["token", "mint", "alice", "--id", "a-name"], environment: ["MARTLET_TOKEN_SECRET": secret])
        let token = minted.text.trimmingCharacters(in: .whitespacesAndNewlines)
        try await Cluster.with(options) { cluster in
            for process in [cluster.routers[0], cluster.nodes[0]] {
                let client = try await cluster.open("/ws?token=\(token)", at: process)
                _ = try await client.next("welcome")
                client.send(["type": "message", "room": "nowhere", "token": .string(token), "text": "x", "id": "1"])
                _ = try await client.next("error")
                let late = try await cluster.open("/ws", at: process)
                late.send(["type": "auth", "token": .string(token)])
                _ = try await late.next("welcome")
                let bad = try await cluster.open("/ws", at: process)
                bad.send(["type": "auth", "token": .string(token + "x")])
                _ = try await bad.next("error")
                bad.send(text: "{\"type\":\"auth\",\"token\":\"\(token)")
                let target = "http://127.0.0.1:\(process.port)/ws?token=\(token)"
                let requests: [(String, String, [(String, String)])] = [
                    ("GET", "/ws?token=\(token)x", upgrade), ("GET", "/nothing?token=\(token)", []),
                    ("GET", target, upgrade), ("GET", "/ws?token=\(token)", []), ("POST", "/?token=\(token)", []),
                    ("GET", "/", [("Referer", target), ("Cookie", "token=\(token)")]),
                    ("GET", "/ws?user=%zz&token=\(token)", upgrade), ("B@D", "/?token=\(token)", []),
                    ("GET", "/%zz?token=\(token)", []), ("GET", "/metrics?token=\(token)", []),
                    ("GET", "/ws", upgrade + [("Authorization", "Bearer \(token)x")]),
                    ("GET", "/ws?token=\(token)#\(token)", upgrade), ("GET", "/\u{1}?token=\(token)", upgrade),
                    ("GET", "/readyz", [("Bad Header", token)]), ("GET", "/ws?client=%00&token=\(token)", upgrade),
                ]
                for (method, path, headers) in requests {
                    _ = try? await HTTPAnswer.of(method, path, port: process.port, headers: headers, timeout: 2)
                }
                _ = try? await process.internals("/metrics?token=\(token)")
                client.abort()
                late.abort()
            }
            await cluster.redis.stop()
            _ = try? await cluster.nodes[0].logged("that Redis is gone") {
                $0["msg"]?.string?.contains("Redis") == true
            }
            let parts = token.split(separator: ".").map(String.init)
            for process in [cluster.routers[0], cluster.nodes[0]] {
                let text = process.process?.output.current.errorText ?? ""
                #expect(text.contains("\"level\""))
                for part in parts.dropFirst() + [secret] {
                    #expect(!text.contains(part), "\(process.name) logs a token")
                }
            }
        }
    }
}
