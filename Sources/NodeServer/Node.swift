import ChatCore
import ClusterState
package import Logging
import NIOCore
package import NIOPosix
package import RedisClient
import Synchronization
import Telemetry
import WebSocketTransport

/// One node process: sockets on every loop, one hub, one lease. Keeps nothing that must outlive it.
package final class Node: Sendable {
    let configuration: NodeConfiguration
    private let group: MultiThreadedEventLoopGroup
    let logger: Logger
    let redis: RedisClient
    let hub: Hub
    let shards: [Shard]
    let server: HTTPServer
    let internalServer: HTTPServer
    let handovers: HandoverReceiver?
    let guards: NodeGuards
    let control: NIOLoopBound<NodeControl>
    let events: AsyncStream<Event>
    let tell: AsyncStream<Event>.Continuation
    /// The ports that were bound.
    package let port: Int
    package var internalPort: Int { internalServer.localAddress?.port ?? configuration.internalPort }

    /// Connects to Redis, registers and listens. Succeeds when clients can come.
    ///
    /// - Parameter redis: started; its loop becomes the hub's.
    /// - Throws: what ``HTTPServer`` throws when the port cannot be bound.
    package static func start(
        _ configuration: NodeConfiguration, redis: RedisClient, group: MultiThreadedEventLoopGroup, logger: Logger
    ) async throws -> Node {
        var generator = SystemRandomNumberGenerator()
        let hub = Hub(configuration: configuration, redis: redis, logger: logger, seed: generator.next())
        let guards = NodeGuards(configuration, logger: logger)
        let shards = group.makeIterator().enumerated().map { index, loop in
            Shard(
                index: index, eventLoop: loop, hub: hub, configuration: configuration, guards: guards, logger: logger,
                seed: generator.next())
        }
        let routes = NodeRoutes(hub: hub, shards: shards, configuration: configuration, guards: guards)
        var limits = WebSocketLimits()
        limits.maximumMessageBytes = configuration.limits.messageBytes
        limits.maximumQueuedBytes = configuration.limits.outboundBytes
        limits.allowsCompression = configuration.compression
        let internalServer = try await HTTPServer.startInternal(
            host: configuration.internalHost, port: configuration.internalPort, group: group,
            onAcceptFailure: guards.cannotAccept, paths: routes.internalPaths
        ).get()
        let log = RequestLog(logger: logger)
        let server = try await HTTPServer.start(
            host: configuration.host, port: configuration.port, group: group, limits: limits,
            trustedProxies: configuration.trustedProxies, readsProxyProtocol: configuration.readsProxyProtocol,
            gate: guards.gate, tls: configuration.tls,
            onUnreadable: guards.cannotRead,
            onAcceptFailure: guards.cannotAccept,
            onRequest: { request, loop in log.following(routes.respond(to: request, on: loop), to: request) },
            onUpgrade: { request, loop in log.following(routes.upgrade(request, on: loop), on: request) }
        ).get()
        for shard in shards {
            try await shard.eventLoop.submit { shard.start() }.get()
        }
        configuration.keySource?.start(on: group.next(), logger: logger)
        let port = server.localAddress?.port ?? configuration.port
        let advertised = configuration.advertise ?? "\(configuration.host):\(port)"
        let handovers = configuration.handoverReceiver(at: advertised, logger: logger) { bytes in
            guard !guards.isDraining.load(ordering: .relaxed), hub.moderation.isRead,
                let admission = server.admitAdopted()
            else { return nil }
            return { server.adopt($0, saying: ByteBuffer(bytes: bytes), as: admission) }
        }
        let (events, tell) = AsyncStream.makeStream(of: Event.self)
        let control = try await hub.eventLoop.submit {
            hub.start(shards: shards)
            let control = NodeControl(
                configuration: configuration, hub: hub, guards: guards, address: advertised, logger: logger,
                onEvent: { tell.yield($0) })
            control.start()
            return NIOLoopBound(control, eventLoop: hub.eventLoop)
        }.get()
        routes.started(control)
        return Node(
            configuration: configuration, group: group, logger: logger, redis: redis, hub: hub, shards: shards,
            server: server, internalServer: internalServer, handovers: handovers, guards: guards,
            control: control, events: events, tell: tell, port: port)
    }

    private init(
        configuration: NodeConfiguration, group: MultiThreadedEventLoopGroup, logger: Logger, redis: RedisClient,
        hub: Hub, shards: [Shard], server: HTTPServer, internalServer: HTTPServer, handovers: HandoverReceiver?,
        guards: NodeGuards, control: NIOLoopBound<NodeControl>, events: AsyncStream<Event>,
        tell: AsyncStream<Event>.Continuation, port: Int
    ) {
        self.configuration = configuration
        self.group = group
        self.logger = logger
        self.redis = redis
        self.hub = hub
        self.shards = shards
        self.server = server
        self.internalServer = internalServer
        self.handovers = handovers
        self.guards = guards
        self.control = control
        (self.events, self.tell) = (events, tell)
        self.port = port
    }
}

extension NodeConfiguration {
    /// Where a node without TLS trusts proxies of its own machine: nil otherwise, and where the address cannot be had.
    fileprivate func handoverReceiver(
        at address: String, logger: Logger, take: @escaping HandoverReceiver.Taker
    ) -> HandoverReceiver? {
        guard handoverLines > 0, tls == nil, trustedProxies.contains(.loopback) else { return nil }
        // Who is refused comes again every 5 s.
        let refusals = ThrottledLine(
            .warning, "routers of this host have more loops than may hand over to this node; it proxies for the rest",
            seconds: 600, logger: logger)
        return HandoverReceiver(
            address: address, mostLines: handoverLines, refused: { refusals.say(["most": .stringConvertible($0)]) },
            take: take)
    }
}
