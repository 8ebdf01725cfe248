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
        /// The text of a configuration file for all processes.
        package var configuration: String?
        /// Clients are told the nodes' own addresses (`MARTLET_NODE_URL`).
        package var nodesHaveURLs = false
        /// `appendfsync` of a durable Redis.
        package var redisSync = "always"
        /// A ``FaultProxy`` before each router, before each node, or between each node and Redis.
        package var proxies: Set<ProxyPlace> = []
        /// What the proxies before Redis replace, see ``FaultProxy/start(to:on:mark:words:seed:)``.
        package var words: [String: String] = [:]
        /// What is said on connections to Redis that are `.marked`.
        package var redisMark = "SUBSCRIBE"
        /// Further arguments of redis-server.
        package var redisArguments: [String] = []

        package init(
            nodes: Int = 3, routers: Int = 0, isDurable: Bool = false, environment: [String: String] = [:],
            configuration: String? = nil, proxies: Set<ProxyPlace> = []
        ) {
            (self.nodes, self.routers, self.isDurable, self.environment) = (nodes, routers, isDurable, environment)
            self.configuration = configuration
            self.proxies = proxies
        }
    }

    package enum ProxyPlace: Sendable {
        case routers
        /// Marked are those of clients whose instance begins with `slow`.
        case nodes
        /// Marked are the subscriptions, unless the options say otherwise.
        case redis
    }

    /// In the order of the nodes and routers; empty where the options asked for none.
    package struct Proxies: Sendable {
        package fileprivate(set) var routers: [FaultProxy] = []
        package fileprivate(set) var nodes: [FaultProxy] = []
        package fileprivate(set) var redis: [FaultProxy] = []
        /// Of all routers.
        package fileprivate(set) var routersToRedis: FaultProxy?

        package var all: [FaultProxy] { routers + nodes + redis + (routersToRedis.map { [$0] } ?? []) }
    }

    package struct ClientSawViolations: Error, CustomStringConvertible {
        package let description: String
    }

    package let redis: ClusterRedis
    package let prefix: String
    package let nodes: [ClusterProcess]
    package let routers: [ClusterProcess]
    package let proxies: Proxies
    /// What each process of this cluster was given, but for name, port and what a proxy stands before.
    package let environment: [String: String]
    private let clients = Mutex<[(name: String, client: TestClient)]>([])

    private init(options: Options, redis: ClusterRedis, prefix: String) async throws {
        var environment = [
            "MARTLET_REDIS_URL": redis.url, "MARTLET_REDIS_PREFIX": prefix, "MARTLET_HOST": "127.0.0.1",
            // Who goes away leaves at once, except in the tests of coming back.
            "MARTLET_RESUME_GRACE_SECONDS": "0", "MARTLET_AUTH": "none",
            "MARTLET_SECRET": "a secret of the tests, long enough for all", "MARTLET_INTERNAL_PORT": "0",
            // Who comes back serves its keys at once.
            "MARTLET_SLOW_START_SECONDS": "0",
            // All clients of the tests have one address, and send no Origin.
            "MARTLET_LIMIT_ADDRESS_CONNECTIONS": "0", "MARTLET_LIMIT_ADDRESS_HANDSHAKES_PER_SECOND": "0",
            "MARTLET_LIMIT_ADDRESS_FAILURES": "0", "MARTLET_ORIGIN_MISSING": "allow",
            "MARTLET_LIMIT_BYTES_PER_SECOND": "0", "MARTLET_LIMIT_USER_MESSAGES_PER_SECOND": "0",
            "MARTLET_LIMIT_SESSIONS_PER_USER": "0",
        ].merging(options.environment) { $1 }
        if let configuration = options.configuration {
            let path = try TemporaryDirectory.make("configuration") + "/martlet.json"
            try configuration.write(toFile: path, atomically: false, encoding: .utf8)
            environment["MARTLET_CONFIG"] = path
        }
        let names = (0..<options.nodes).map { "node-\("abcdefghij".dropFirst($0).prefix(1))" }
        let ports = try names.map { _ in try FreePort.next() }
        let routerPorts = try (0..<options.routers).map { _ in try FreePort.next() }
        var proxies = Proxies()
        if options.proxies.contains(.routers) {
            for port in routerPorts { proxies.routers.append(try await .start(to: port)) }
        }
        if options.proxies.contains(.nodes) {
            for port in ports {
                proxies.nodes.append(try await .start(to: port, mark: "client=slow", isNarrow: true))
            }
        }
        if options.proxies.contains(.redis) {
            for _ in names {
                proxies.redis.append(try await .start(to: redis.port, mark: options.redisMark, words: options.words))
            }
            proxies.routersToRedis = try await .start(to: redis.port)
        }
        self.redis = redis
        self.prefix = prefix
        self.proxies = proxies
        self.environment = environment
        nodes = try names.indices.map { index in
            var own = ["MARTLET_PORT": String(ports[index]), "MARTLET_NODE_NAME": names[index]]
            if options.nodesHaveURLs { own["MARTLET_NODE_URL"] = "ws://127.0.0.1:\(ports[index])/ws" }
            if let proxy = proxies.nodes.dropFirst(index).first {
                own["MARTLET_ADVERTISE"] = "127.0.0.1:\(proxy.port)"
                // What was handed over would not pass through the proxy.
                own["MARTLET_HANDOVER"] = "off"
            }
            if let proxy = proxies.redis.dropFirst(index).first {
                own["MARTLET_REDIS_URL"] = redis.url(of: .node, through: proxy.port)
            }
            return ClusterProcess(
                .node, name: names[index], port: ports[index], internalPort: try FreePort.next(),
                environment: environment.merging(own) { $1 })
        }
        routers = try routerPorts.indices.map { index in
            var own = ["MARTLET_PORT": String(routerPorts[index])]
            if options.environment["MARTLET_REDIS_URL"] == nil {
                own["MARTLET_REDIS_URL"] = redis.url(of: .router, through: proxies.routersToRedis?.port ?? redis.port)
            }
            return ClusterProcess(
                .router, name: "router-\(index + 1)", port: routerPorts[index], internalPort: try FreePort.next(),
                environment: environment.merging(own) { $1 })
        }
    }

    /// Starts all and waits until each says that it is ready, and each router until it knows every node.
    package static func start(_ options: Options) async throws -> Cluster {
        let prefix = "test-\(UInt32.random(in: 0...UInt32.max))"
        let redis = try await ClusterRedis.start(
            isDurable: options.isDurable, sync: options.redisSync, prefix: prefix, arguments: options.redisArguments)
        let cluster = try await Cluster(options: options, redis: redis, prefix: prefix)
        do {
            for process in cluster.nodes + cluster.routers { try await process.start() }
            for process in cluster.nodes + cluster.routers { try await process.waitUntilReady() }
            for router in cluster.routers {
                _ = try await poll(within: .seconds(10), "\(router.name) to know every node") {
                    let text = try await router.internals("/nodes").text
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
            try await cluster.checkAccess()
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
        for proxy in proxies.all { await proxy.stop() }
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

    /// - Throws: ``TimedOut`` when Redis refused something that a user of ``RedisAccess`` may not do. A Redis that is gone
    ///   has nothing to say.
    package func checkAccess() async throws {
        guard let log = try? await redis.command("ACL", "LOG") else { return }
        if case .array(let entries) = log, !entries.isEmpty { throw TimedOut("Redis refused: \(log)") }
    }

    /// Into the folder that MARTLET_TEST_LOGS names, if it is set.
    package func saveLogs() {
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
        try await open(path, port: process.port, options: options)
    }

    /// The same at something that stands before the cluster.
    package func open(
        _ path: String,
        port: Int,
        options: TestClient.Options = TestClient.Options()
    ) async throws -> TestClient {
        let client = try await TestClient.connect(port: port, path: path, options: options)
        clients.withLock { $0.append(("port \(port), \(path)", client)) }
        return client
    }

    /// A session: connected, named and welcomed.
    package func connect(
        _ user: String,
        to process: ClusterProcess,
        client instance: String? = nil,
        options: TestClient.Options = TestClient.Options()
    ) async throws -> Session {
        try await connect(user, port: process.port, client: instance, options: options)
    }

    package func connect(
        _ user: String,
        port: Int,
        client instance: String? = nil,
        options: TestClient.Options = TestClient.Options()
    ) async throws -> Session {
        var path = "/ws?user=\(Session.percentEncoded(user))"
        if let instance { path += "&client=\(instance)" }
        let client = try await open(path, port: port, options: options)
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
            environment: environment
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
