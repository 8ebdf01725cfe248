import Foundation
import Glibc
import TestSupport
import Testing

/// Where other users of the machine, readers of logs and readers of figures look, no secret stands.
@Suite("Secrets")
struct SecretsTests {
    private static let tokenSecret = "tokensecret-0123456789abcdef0123456789abcdef"
    private static let clusterSecret = "clustersecret-0123456789abcdef"
    private static let redisPassword = "redispassword-0123456789abcdef"

    private func expectNone(_ text: String, _ secrets: [String], _ place: String) {
        for secret in secrets { #expect(!text.contains(secret), "\(secret.prefix(12))… stands in \(place)") }
    }

    /// The login of `url` gets another password, which Redis takes too.
    private static func withPassword(_ url: String, _ redis: ClusterRedis) async throws -> String {
        try await redis.command("ACL", "SETUSER", "martlet", ">" + redisPassword)
        let host = try #require(url.split(separator: "@").last)
        return "redis://martlet:\(redisPassword)@\(host)"
    }

    @Test(
        "T28: neither command lines, logs at their loudest, figures, the node list nor admin tell a secret or a token"
    )
    func nowhere() async throws {
        var options = Cluster.Options(nodes: 2, routers: 1)
        options.environment = [
            "MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": Self.tokenSecret, "MARTLET_SECRET": Self.clusterSecret,
            "MARTLET_LOG_LEVEL": "trace",
        ]
        try await Machine.with(options) { cluster in
            let url = try await Self.withPassword(cluster.redis.url, cluster.redis)
            let environment = cluster.environment.merging(["MARTLET_REDIS_URL": url]) { $1 }
            // One more node, with all its secrets in files.
            let folder = try TemporaryDirectory.make("secrets")
            var own = environment.merging(["MARTLET_NODE_NAME": "node-z"]) { $1 }
            for (key, secret) in [("MARTLET_REDIS_URL", url), ("MARTLET_TOKEN_SECRET", Self.tokenSecret)] {
                try (secret + "\n").write(toFile: "\(folder)/\(key)", atomically: false, encoding: .utf8)
                chmod("\(folder)/\(key)", 0o600)
                own[key] = nil
                own["\(key)_FILE"] = "\(folder)/\(key)"
            }
            let port = try FreePort.next()
            own["MARTLET_PORT"] = String(port)
            let node = ClusterProcess(
                .node, name: "node-z", port: port, internalPort: try FreePort.next(), environment: own)
            try await node.start()
            do {
                try await node.waitUntilReady()
                try await expectQuiet(cluster, node, environment: environment)
            } catch {
                await node.kill()
                throw error
            }
            await node.kill()
        }
    }

    private func expectQuiet(_ cluster: Cluster, _ node: ClusterProcess, environment: [String: String]) async throws {
        let minted = try await MartletProgram.run(["token", "mint", "alice"], environment: environment)
        let token = try #require(minted.text.split(separator: "\n").first.map(String.init))
        let password = try #require(cluster.redis.url.split(separator: "@").first?.split(separator: ":").last)
        let secrets = [Self.tokenSecret, Self.clusterSecret, Self.redisPassword, String(password), token]
        let all = cluster.nodes + [node] + cluster.routers
        for process in all {
            let client = try await TestClient.connect(port: process.port, path: "/ws?token=\(token)")
            _ = try await client.next("welcome")
            client.send(["type": "join", "room": "r", "id": "1"])
            _ = try await client.next("joined")
            client.close()
            // Refused ones too: cut short, and signed by nobody.
            for bad in [String(token.dropLast(3)), token + "x"] {
                let upgrade = [
                    ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
                ]
                let answer = try await HTTPAnswer.of("GET", "/ws?token=\(bad)", port: process.port, headers: upgrade)
                #expect(answer.status == 401)
                expectNone(answer.text, secrets, "a refusal")
            }
        }
        for process in all {
            let pid = try #require(process.process?.pid)
            let line = try String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)
            #expect(line.contains(process.role.rawValue))
            expectNone(line, secrets, "the command line of \(process.name)")
            for path in process.role == .router ? ["/metrics", "/nodes", "/nodes?key=alice"] : ["/metrics", "/readyz"] {
                expectNone(try await process.internals(path).text, secrets, "\(path) of \(process.name)")
            }
        }
        for arguments in [["nodes"], ["rooms"], ["sessions"], ["stats"], ["user", "alice"]] {
            let output = try await MartletProgram.run(["admin"] + arguments + ["--json"], environment: environment)
            expectNone(output.text + output.errorText, secrets, "admin \(arguments)")
        }
        let shown = try await MartletProgram.run(["config", "show"], environment: environment)
        #expect(shown.text.contains("(\(Self.tokenSecret.utf8.count) bytes)"))
        expectNone(shown.text + shown.errorText, secrets, "config show")
        for process in all {
            let log = process.process?.output.current.errorText ?? ""
            #expect(log.contains("\"level\":\"info\""))
            expectNone(log, secrets, "the log of \(process.name)")
        }
    }

    @Test("T28: martlet dev hands secrets to its children by their environment alone, and shows none")
    func dev() async throws {
        let redis = try await ClusterRedis.start(prefix: "martlet")
        let url = try await Self.withPassword(redis.url, redis)
        let secrets = [Self.tokenSecret, Self.clusterSecret, Self.redisPassword]
        let dev = try await DevCommandTests.Dev.start(
            ["--nodes", "1", "--auth", "token", "--log-level", "trace"],
            environment: [
                "MARTLET_REDIS_URL": url, "MARTLET_TOKEN_SECRET": Self.tokenSecret,
                "MARTLET_SECRET": Self.clusterSecret,
            ])
        do {
            try await dev.says("Ctrl-C ends it all.")
            let children = Processes.descendants(of: dev.process.pid).map(\.pid)
            #expect(children.count == 2)
            for pid in children + [dev.process.pid] {
                expectNone(Processes.commandLine(pid).joined(separator: " "), secrets, "a command line")
            }
            let output = dev.process.output.current
            expectNone(output.text + output.errorText, secrets, "what dev says")
            #expect(output.text.contains("redis://martlet:***@"))
        } catch {
            await dev.end()
            await redis.stop()
            throw error
        }
        await dev.end()
        await redis.stop()
    }

    @Test("T28: a password on the command line is refused, and the sentence does not repeat it")
    func commandLine() async throws {
        for command in [["node"], ["router"], ["admin", "nodes"], ["dev"], ["config", "show"]] {
            let output = try await MartletProgram.run(
                command + ["--redis", "redis://me:\(Self.redisPassword)@127.0.0.1:1"])
            #expect(output.exit == .status(2), "\(command)")
            #expect(output.errorText.contains("MARTLET_REDIS_URL_FILE"), "\(output.errorText)")
            expectNone(output.text + output.errorText, [Self.redisPassword], "\(command)")
        }
    }
}
