import ArgumentParser
import ClusterState
import Glibc
import Logging
import NIOCore
import NIOPosix
import RedisClient
import RouterServer
import TLSClient
import Telemetry
import WebSocketTransport

/// `martlet router`: what clients connect to; any number of them give the same answers.
struct RouterCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "router",
        abstract: "Run one router: it keeps each user, token or key to one node.",
        discussion: """
            /_router/healthz answers 200 while it lives, /locate?key=K tells the node of a key and where clients reach it \
            without a router; everything else goes to a node. On the internal port, /nodes lists the nodes as it sees them \
            (with ?key=K also their order for that key, and why), beside /metrics, /healthz and /readyz.
            """
    )

    @OptionGroup var redis: RedisOptions
    @OptionGroup var server: ServerOptions

    func run() async throws {
        if let descriptor = server.exitWithDescriptor { ParentWatch.start(fd: descriptor) }
        let settings = try Settings.read(flags: redis.flags.merging(server.flags) { $1 })
        Logs.start(level: settings.logLevel)
        let logger = Logger(label: "martlet.router")
        settings.warn(logger)
        for warning in Self.warnings(settings) { logger.warning("\(warning)") }
        let port = settings.port ?? 8080
        var configuration = RouterConfiguration(
            host: settings.host,
            port: port,
            affinityKey: RouterConfiguration.affinityKey(secret: settings.secret ?? ""),
            trustedProxies: TrustedProxies(settings.trustedProxies ?? [])
        )
        configuration.affinity = settings.balance.affinity
        configuration.bound = settings.balance.bound
        configuration.slowStart = settings.balance.slowStart
        configuration.origins.rules = settings.limits.origins
        configuration.limits.upgradesPerSecond = settings.limitUpgradesPerSecond
        configuration.readsProxyProtocol = settings.proxyProtocol == .on
        configuration.handsOver = settings.handover == .on
        configuration.tls = try settings.serverTLS()
        configuration.nodeTLS = try settings.nodeTLS()
        configuration.writesProxyProtocol = settings.nodeProxyProtocol == .on
        configuration.nodeSources = try settings.nodeSourceAddresses()
        configuration.gate.address = settings.limits.address
        Descriptors.raiseLimit()
        let idle = Descriptors.forIdleNodeConnections
        // The rest is for a check of each node, and for what hands connections over to nodes of this host.
        configuration.limits.keptConnections = idle / 2 / System.coreCount
        Descriptors.limit(&configuration.gate, settings.limits.connections, each: 2, besides: idle)
        let socket: ListeningSocket?
        do {
            socket = try ListeningSocket.passed()
        } catch {
            throw Failure(.usage, error.description)
        }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: System.coreCount)
        let client = try await RedisStart.connect(settings, scripts: ClusterScripts.all, on: group, logger: logger)
        let directory = RedisNodeDirectory(
            client: client,
            keys: ClusterKeys(prefix: settings.redisPrefix),
            logger: logger
        )
        let startedAt = WallClock.milliseconds()
        let router: Router
        do {
            router = try Router.start(
                configuration, directory: directory, socket: socket, group: group, logger: logger)
        } catch {
            throw RouterCommand.listenFailure(error, host: settings.host, port: port)
        }
        let internalServer: HTTPServer
        let internalPort = settings.internalPort(besides: port)
        do {
            internalServer = try await router.serveInternally(
                host: settings.internalHost, port: internalPort, group: group
            ).get()
        } catch {
            throw Listening.failure(error, internalPort: internalPort)
        }
        let openPort = router.localAddress?.port ?? port
        let openInternalPort = internalServer.localAddress?.port ?? internalPort
        let address = "\(socket?.localAddress?.ipAddress ?? settings.host):\(openPort)"
        let internalAddress = "\(settings.internalHost):\(openInternalPort)"
        logger.notice(
            "listening",
            metadata: [
                "address": "\(address)", "socket": .string(socket == nil ? "own" : "passed"),
                "internal": "\(internalAddress)",
            ])
        // Several routers may have a socket that is passed; the internal port is one's own.
        let ownPort = socket == nil ? openPort : openInternalPort
        let registration = RouterRegistration(
            of: router,
            as: RouterFigures(
                name: HostName.name(port: ownPort) ?? "router-\(ownPort)", address: address,
                internalAddress: internalAddress, version: Version.current, startedAt: startedAt),
            client: client, keys: ClusterKeys(prefix: settings.redisPrefix), logger: logger)
        registration.start()
        let follower = FileFollower.start(
            [
                FollowedTLS(configuration.tls) { $0.certificates },
                FollowedTLS(configuration.nodeTLS) { [$0.certificate].compactMap(\.self) },
            ], logger: logger)
        await Self.untilTold(follower)
        logger.notice(
            "draining",
            metadata: [
                "connections": .stringConvertible(router.openConnections),
                "seconds": .stringConvertible(settings.drain.nanoseconds / 1_000_000_000),
            ]
        )
        registration.beginDraining()
        try await router.drain(within: settings.drain).get()
        try await registration.end().get()
        _ = try? await internalServer.close().get()
        try? await client.close().get()
    }

    /// SIGTERM or SIGINT.
    private static func untilTold(_ follower: FileFollower) async {
        let (signals, continuation) = AsyncStream.makeStream(of: Void.self)
        Signals.handle([SIGTERM, SIGINT, SIGHUP]) { signal in
            if signal == SIGHUP { follower.reload() } else { continuation.yield() }
        }
        for await _ in signals { return }
    }

    /// What is set, or is not, and is hardly meant so.
    static func warnings(_ settings: Settings) -> [String] {
        var warnings: [String] = []
        if settings.secret == nil {
            warnings.append("MARTLET_SECRET is not set: who knows Martlet can choose keys that all meet on one node.")
        }
        if settings.proxyProtocol == .on, settings.trustedProxies?.isEmpty ?? true {
            warnings.append(
                "MARTLET_PROXY_PROTOCOL is on, and does nothing: MARTLET_TRUSTED_PROXIES names no load balancer whose"
                    + " headers count.")
        }
        return warnings
    }

    static func listenFailure(_ error: any Error, host: String, port: Int) -> Failure {
        let reason: String
        switch error {
        case let error as IOError where error.errnoCode == EADDRINUSE:
            return Failure(.failed, "port \(port) is in use: choose another with --port or MARTLET_PORT")
        case let error as IOError: reason = String(cString: strerror(error.errnoCode))
        case let error as SocketAddressError.UnknownHost: reason = error.errorDescription
        default: reason = "\(error)"
        }
        return Failure(
            .failed,
            "the router cannot listen on \(host) port \(port) (\(reason)): choose others with --host and --port"
        )
    }
}

enum Descriptors {
    /// What the limit leaves for connections: kept back are descriptors for Redis, the log, each loop's own, and for
    /// connections that are refused.
    ///
    /// - Parameters:
    ///   - configured: 0: as many as there can be.
    ///   - each: descriptors a connection takes.
    ///   - besides: kept back, too.
    static func limit(_ gate: inout GateLimits, _ configured: Int, each: Int, besides: Int = 0) {
        guard let total else {
            gate.connections = configured
            return
        }
        gate.refusedAtOnce = min(64, 8 + total / 64)
        let kept = 32 + 3 * System.coreCount + gate.refusedAtOnce + besides
        let most = max(1, (total - kept) / each)
        gate.connections = configured == 0 ? most : min(configured, most)
    }

    /// How many a router has for connections to nodes that no client of it has.
    static var forIdleNodeConnections: Int { min((total ?? 16_384) / 16, 8192) }

    /// How many loops of routers a node takes connections from: of its descriptors that is at most one in sixteen.
    static var handoverLines: Int { min((total ?? 16_384) / 16 / HandoverReceiver.descriptorsOfLine, 256) }

    /// The soft limit; nil when nobody knows.
    private static var total: Int? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        return Int(clamping: limit.rlim_cur)
    }

    /// Lifts the soft limit to the hard one. A connection takes one descriptor at a node and two at a router; the soft
    /// limit of a shell is often 1024.
    static func raiseLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}
