import Glibc
import TestSupport
import Testing

/// G7: a command line or an environment that is wrong ends the start with one sentence and its exit code.
@Suite("G7: bad starts")
struct BadStartTests {
    @Test(
        "G7: an unknown flag is exit 2",
        arguments: [
            ["node", "--no-such-flag"], ["router", "--no-such-flag"], ["admin", "nodes", "--no-such-flag"],
            ["dev", "--no-such-flag"], ["no-such-command"], ["admin", "no-such-verb"], ["node", "--port", "many"],
            ["admin", "presence"],
        ]
    )
    func unknownFlag(arguments: [String]) async throws {
        let output = try await MartletProgram.run(arguments)
        expectUsageError(output)
    }

    @Test(
        "G7: an unknown environment key is exit 2 and named, with the nearest known",
        arguments: [
            "node", "router",
        ]
    )
    func unknownKey(command: String) async throws {
        let output = try await MartletProgram.run(
            [command],
            environment: ["MARTLET_AUTH": "none", "MARTLET_REDIS_URI": "redis://127.0.0.1:1"]
        )
        expectUsageError(output, "MARTLET_REDIS_URI", "MARTLET_REDIS_URL")
    }

    @Test(
        "G7: a value that is out of range or no number is exit 2 and names its key",
        arguments: [
            ("MARTLET_PORT", "70000"), ("MARTLET_PORT", "http"), ("MARTLET_LEASE_SECONDS", "-1"),
            ("MARTLET_LIMIT_MESSAGES_PER_SECOND", "lots"), ("MARTLET_AUTH", "maybe"), ("MARTLET_LOG_LEVEL", "loud"),
        ]
    )
    func badValue(key: String, value: String) async throws {
        var environment = ["MARTLET_AUTH": "none", "MARTLET_REDIS_URL": "redis://127.0.0.1:1"]
        environment[key] = value
        let output = try await MartletProgram.run(["node"], environment: environment)
        expectUsageError(output, key)
    }

    @Test(
        "G7: a bad Redis URL is exit 2",
        arguments: [
            "http://127.0.0.1:6379", "127.0.0.1", "redis://127.0.0.1:port", "redis://", "redis://h/notanumber",
        ]
    )
    func badURL(url: String) async throws {
        for arguments in [["node"], ["router"], ["admin", "nodes"]] {
            let output = try await MartletProgram.run(
                arguments,
                environment: ["MARTLET_AUTH": "none", "MARTLET_REDIS_URL": url]
            )
            expectUsageError(output)
        }
    }

    @Test("a URL's password is not shown in any message")
    func password() async throws {
        let output = try await MartletProgram.run(
            ["node", "--redis-timeout", "1"],
            environment: ["MARTLET_AUTH": "none", "MARTLET_REDIS_URL": "redis://me:swordfish@127.0.0.1:1"]
        )
        #expect(output.exit == .status(3))
        #expect(!output.errorText.contains("swordfish"))
        #expect(!output.text.contains("swordfish"))
    }

    @Test(
        "G7: without Redis a node waits, says so, and ends with 3 after --redis-timeout",
        arguments: [
            "node", "router",
        ]
    )
    func noRedis(command: String) async throws {
        try await Machine.with {
            let port = try FreePort.next()
            let start = ContinuousClock.now
            let output = try await MartletProgram.run(
                [command, "--redis-timeout", "2"],
                environment: [
                    "MARTLET_AUTH": "none", "MARTLET_REDIS_URL": "redis://127.0.0.1:\(port)",
                    "MARTLET_PORT": String(try FreePort.next()),
                ]
            )
            #expect(output.exit == .status(3), "\(output.errorText)")
            #expect((.seconds(2) ... .seconds(8)).contains(start.duration(to: .now)))
            #expect(output.errorText.contains("127.0.0.1:\(port)"), "it names the address: \(output.errorText)")
            #expect(output.standardErrorLines.last?.hasPrefix("martlet: ") == true, "\(output.errorText)")
            #expect(output.standardErrorLines.count >= 2, "it said that it waits: \(output.errorText)")
        }
    }

    @Test("a Redis that comes while a node waits for it is used")
    func lateRedis() async throws {
        try await Machine.with {
            let redis = try await ClusterRedis.start()
            await redis.kill()
            let port = try FreePort.next()
            let node = ClusterProcess(
                .node,
                name: "late",
                port: port,
                environment: [
                    "MARTLET_AUTH": "none", "MARTLET_REDIS_URL": redis.url, "MARTLET_PORT": String(port),
                    "MARTLET_NODE_NAME": "late",
                ]
            )
            try await node.start()
            _ = try await node.process?.output.wait(within: .seconds(10), "a word about waiting") {
                $0.standardErrorLines.contains { $0.contains("\(redis.port)") } ? true : nil
            }
            try await redis.startAgain()
            try await node.waitUntilReady(within: .seconds(15))
            await node.kill()
            await redis.stop()
        }
    }

    @Test("the CLI ends with 3 when Redis cannot be reached")
    func adminWithoutRedis() async throws {
        let port = try FreePort.next()
        let output = try await MartletProgram.run(
            ["admin", "nodes", "--redis", "redis://127.0.0.1:\(port)"],
            environment: ["MARTLET_REDIS_TIMEOUT_SECONDS": "1"]
        )
        #expect(output.exit == .status(3))
        #expect(output.standardErrorLines.filter { $0.hasPrefix("martlet: ") }.count == 1, "\(output.errorText)")
        #expect(output.text.isEmpty)
    }

    @Test("a port in use is one sentence that names the port")
    func portInUse() async throws {
        try await SharedCluster.use { cluster in
            let port = cluster.nodes[0].port
            let output = try await MartletProgram.run(
                ["node"],
                environment: cluster.environment.merging([
                    "MARTLET_PORT": String(port), "MARTLET_NODE_NAME": "second",
                ]) { $1 }
            )
            #expect(output.exit == .status(1), "\(output.errorText)")
            let last = try #require(output.standardErrorLines.last)
            #expect(last.hasPrefix("martlet: ") && last.contains(String(port)), "\(output.errorText)")
            // What it had begun to register is not left behind as a node.
            let nodes = try await cluster.admin("nodes").array ?? []
            #expect(!nodes.contains { $0["node"]?.string?.hasPrefix("second") == true && $0["state"] == "ready" })
        }
    }

    @Test(
        "T29: an internal port in use is one sentence that names the port and its setting",
        arguments: ["node", "router"]
    )
    func internalPortInUse(command: String) async throws {
        try await SharedCluster.use { cluster in
            let taken = String(cluster.nodes[0].internalPort)
            let own = ["MARTLET_PORT": "0", "MARTLET_INTERNAL_PORT": taken, "MARTLET_NODE_NAME": "second"]
            let output = try await MartletProgram.run([command], environment: cluster.environment.merging(own) { $1 })
            #expect(output.exit == .status(1), "\(output.errorText)")
            let last = try #require(output.standardErrorLines.last)
            #expect(
                last
                    == "martlet: port \(taken) on 127.0.0.1 is in use; choose others with MARTLET_INTERNAL_HOST and MARTLET_INTERNAL_PORT"
            )
        }
    }

    @Test("MARTLET_AUTH=none is said loudly, and without it a nameless client is nobody")
    func authNone() async throws {
        try await SharedCluster.use { cluster in
            let line = try await cluster.nodes[0].logged("that auth is off") {
                ["warning", "warn", "error", "critical"].contains($0["level"]?.string)
                    && $0.text.contains("MARTLET_AUTH")
            }
            #expect(line["msg"]?.string?.isEmpty == false)
        }
    }

    private func expectUsageError(
        _ output: ChildProcess.Output,
        _ names: String...,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(output.exit == .status(2), "\(output.errorText)", sourceLocation: sourceLocation)
        let sentence = output.standardErrorLines.first { $0.hasPrefix("martlet: ") }
        #expect(sentence != nil, "\(output.errorText)", sourceLocation: sourceLocation)
        for name in names {
            #expect(output.errorText.contains(name), "\(output.errorText)", sourceLocation: sourceLocation)
        }
        #expect(output.text.isEmpty, "nothing on standard output: \(output.text)", sourceLocation: sourceLocation)
    }
}
