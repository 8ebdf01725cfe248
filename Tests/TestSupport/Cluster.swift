import Foundation
import Glibc
import Synchronization

/// A whole cluster of real processes: a private redis-server, nodes, routers. Ports are free ones, the Redis prefix is
/// its own, and all children end with the test process.
package final class Cluster: Sendable {
    package struct Options: Sendable {
        package var nodes = 3
        package var routers = 0
        package var isDurable = false
        package var environment: [String: String] = [:]

        package init(nodes: Int = 3, routers: Int = 0, isDurable: Bool = false, environment: [String: String] = [:]) {
            (self.nodes, self.routers, self.isDurable, self.environment) = (nodes, routers, isDurable, environment)
        }
    }

    package struct ClientSawViolations: Error, CustomStringConvertible {
        package let description: String
    }

    package let redis: ClusterRedis
    package let prefix: String
    package let nodes: [ClusterProcess]
    package let routers: [ClusterProcess]
    /// What each process of this cluster was given, but for name and port.
    package let environment: [String: String]
    private let clients = Mutex<[(name: String, client: TestClient)]>([])

    private init(options: Options, redis: ClusterRedis) throws {
        let prefix = "test-\(UInt32.random(in: 0...UInt32.max))"
        let environment = [
            "MARTLET_REDIS_URL": redis.url, "MARTLET_REDIS_PREFIX": prefix, "MARTLET_HOST": "127.0.0.1",
            "MARTLET_AUTH": "none", "MARTLET_SECRET": "a secret of the tests, long enough for all",
        ].merging(options.environment) { $1 }
        func processes(_ role: ClusterProcess.Role, _ names: [String]) throws -> [ClusterProcess] {
            try names.map { name in
                let port = try FreePort.next()
                var own = ["MARTLET_PORT": String(port)]
                if role == .node { own["MARTLET_NODE_NAME"] = name }
                return ClusterProcess(role, name: name, port: port, environment: environment.merging(own) { $1 })
            }
        }
        self.redis = redis
        self.prefix = prefix
        self.environment = environment
        nodes = try processes(.node, (0..<options.nodes).map { "node-\("abcdefghij".dropFirst($0).prefix(1))" })
        routers = try processes(.router, (0..<options.routers).map { "router-\($0 + 1)" })
    }

    /// Starts all and waits until each says that it is ready, and each router until it knows every node.
    package static func start(_ options: Options) async throws -> Cluster {
        let cluster = try Cluster(options: options, redis: try await ClusterRedis.start(isDurable: options.isDurable))
        do {
            for process in cluster.nodes + cluster.routers { try await process.start() }
            for process in cluster.nodes + cluster.routers { try await process.waitUntilReady() }
            for router in cluster.routers {
                _ = try await poll(within: .seconds(10), "\(router.name) to know every node") {
                    let text = try await router.get("/_router/nodes").text
                    return cluster.nodes.allSatisfy { text.contains($0.name) } ? true : nil
                }
            }
        } catch {
            await cluster.stop()
            throw error
        }
        return cluster
    }

    /// A cluster for one test, ended whatever becomes of it.
    ///
    /// - Throws: also ``ClientSawViolations``: no test may pass while a server breaks the WebSocket protocol.
    package static func with(
        _ options: Options = Options(),
        _ body: @Sendable (Cluster) async throws -> Void
    ) async throws {
        let cluster = try await start(options)
        do {
            try await body(cluster)
            try cluster.checkClients()
        } catch {
            cluster.saveLogs()
            await cluster.stop()
            throw error
        }
        cluster.saveLogs()
        await cluster.stop()
    }

    package func stop() async {
        for client in clients.withLock({ $0 }) { client.client.abort() }
        for process in nodes + routers { process.process?.send(SIGKILL) }
        for process in nodes + routers { await process.kill() }
        await redis.stop()
    }

    /// - Throws: ``ClientSawViolations`` when a server broke RFC 6455 or sent something that is no JSON message.
    package func checkClients() throws {
        let violations = clients.withLock { clients in
            let violations = clients.flatMap { name, client in client.violations.map { "\(name): \($0)" } }
            // Reported once: on a cluster that tests share, only the test that finds it fails.
            clients.removeAll { !$0.client.violations.isEmpty }
            return violations
        }
        guard violations.isEmpty else { throw ClientSawViolations(description: violations.joined(separator: "; ")) }
    }

    /// Into the folder that MARTLET_TEST_LOGS names, if it is set.
    private func saveLogs() {
        guard let folder = ProcessInfo.processInfo.environment["MARTLET_TEST_LOGS"] else { return }
        for process in nodes + routers {
            let text = process.process?.output.current.errorText ?? ""
            try? text.write(toFile: "\(folder)/\(prefix)-\(process.name).log", atomically: false, encoding: .utf8)
        }
    }

    // MARK: Clients

    /// A bare connection; nothing is read or said but the handshake.
    package func open(
        _ path: String,
        at process: ClusterProcess,
        options: TestClient.Options = TestClient.Options()
    ) async throws -> TestClient {
        let client = try await TestClient.connect(port: process.port, path: path, options: options)
        clients.withLock { $0.append(("\(process.name)\(path)", client)) }
        return client
    }

    /// A session: connected, named and welcomed.
    package func connect(
        _ user: String,
        to process: ClusterProcess,
        client instance: String? = nil,
        options: TestClient.Options = TestClient.Options()
    ) async throws -> Session {
        var path = "/ws?user=\(Session.percentEncoded(user))"
        if let instance { path += "&client=\(instance)" }
        let client = try await open(path, at: process, options: options)
        let welcome = try await client.next("welcome")
        return Session(user: user, client: client, welcome: welcome)
    }

    package func connect(
        _ user: String,
        to index: Int,
        client instance: String? = nil,
        options: TestClient.Options = TestClient.Options()
    ) async throws -> Session {
        try await connect(user, to: nodes[index], client: instance, options: options)
    }

    // MARK: What Redis and the operator see

    package func key(_ rest: String) -> String { "\(prefix):\(rest)" }

    /// `martlet admin … --json`, parsed.
    ///
    /// - Throws: ``TimedOut`` with what it said when it does not exit with 0.
    package func admin(_ arguments: String...) async throws -> JSON {
        let output = try await MartletProgram.run(
            ["admin"] + arguments + ["--json"],
            environment: ["MARTLET_REDIS_URL": redis.url, "MARTLET_REDIS_PREFIX": prefix]
        )
        guard output.exit == .status(0) else {
            throw TimedOut("admin \(arguments) ended with \(String(describing: output.exit)): \(output.errorText)")
        }
        return try JSON(parsing: output.text)
    }

    /// The sessions of a room as Redis has them: session → its value.
    package func sessionsInRedis(of room: String) async throws -> [String: String] {
        try await redis.command("HGETALL", key("{r:\(room)}:sessions")).dictionary
    }

    package func usersInRedis(of room: String) async throws -> Set<String> {
        Set(try await redis.command("HKEYS", key("{r:\(room)}:users")).strings)
    }
}
