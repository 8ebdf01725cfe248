import ChatCore
import ClusterState
package import Logging
import NIOCore
package import NIOPosix
package import RedisClient
import WebSocketTransport
import WireProtocol

/// One node process: sockets on every loop, one hub, one lease. Keeps nothing that must outlive it.
package final class Node: Sendable {
    private let configuration: NodeConfiguration
    private let group: MultiThreadedEventLoopGroup
    private let logger: Logger
    private let redis: RedisClient
    private let hub: Hub
    private let shards: [Shard]
    private let server: HTTPServer
    private let internalServer: HTTPServer
    private let handovers: HandoverReceiver?
    private let control: NIOLoopBound<NodeControl>
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
            paths: routes.internalPaths
        ).get()
        let log = RequestLog(logger: logger)
        let server = try await HTTPServer.start(
            host: configuration.host, port: configuration.port, group: group, limits: limits,
            trustedProxies: configuration.trustedProxies, readsProxyProtocol: configuration.readsProxyProtocol,
            gate: guards.gate, tls: configuration.tls,
            onUnreadable: { reason, client in
                logger.debug("unreadable", metadata: ["reason": "\(reason)", "client": "\(client)"])
            },
            onRequest: { request, loop in log.following(routes.respond(to: request, on: loop), to: request) },
            onUpgrade: { request, loop in log.following(routes.upgrade(request, on: loop), on: request) }
        ).get()
        for shard in shards {
            try await shard.eventLoop.submit { shard.start() }.get()
        }
        configuration.keySource?.start(on: group.next(), logger: logger)
        let port = server.localAddress?.port ?? configuration.port
        let advertised = configuration.advertise ?? "\(configuration.host):\(port)"
        let handovers = configuration.handoverReceiver(at: advertised) { connection, bytes in
            hub.moderation.isRead && server.adopt(connection, saying: ByteBuffer(bytes: bytes))
        }
        let control = try await hub.eventLoop.submit {
            hub.start(shards: shards)
            let control = NodeControl(
                configuration: configuration, hub: hub, guards: guards, address: advertised, logger: logger)
            control.start()
            return NIOLoopBound(control, eventLoop: hub.eventLoop)
        }.get()
        routes.started(control)
        return Node(
            configuration: configuration, group: group, logger: logger, redis: redis, hub: hub, shards: shards,
            server: server, internalServer: internalServer, handovers: handovers, control: control, port: port)
    }

    private init(
        configuration: NodeConfiguration, group: MultiThreadedEventLoopGroup, logger: Logger, redis: RedisClient,
        hub: Hub, shards: [Shard], server: HTTPServer, internalServer: HTTPServer, handovers: HandoverReceiver?,
        control: NIOLoopBound<NodeControl>, port: Int
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
        self.control = control
        self.port = port
    }

    /// Returns when an operator asks this node to drain (`martlet admin drain`).
    ///
    /// - Throws: ``NodeNameTaken`` when the node must end because another process has its name.
    package func drainRequested() async throws {
        try await hub.eventLoop.flatSubmit { self.control.value.drainRequested.futureResult }.get()
    }

    /// Takes no more clients (the port still answers `/healthz` and `/readyz`), sends every client away in its turn, removes what the node has in Redis, and ends,
    /// all within the drain deadline.
    package func drain() async {
        let deadline = NIODeadline.now() + configuration.drainDeadline
        logger.notice(
            "draining",
            metadata: [
                "deadline_s": "\(configuration.drainDeadline.nanoseconds / 1_000_000_000)",
                "clients_per_second": .stringConvertible(configuration.drainRate),
            ])
        // Routers then proxy, and hear the node's 503 themselves.
        handovers?.stop()
        _ = try? await hub.eventLoop.submit { self.control.value.beginDraining() }.get()
        let left = await sendAway()
        // What has not closed by then is closed with the process; the last second belongs to Redis.
        await wait(for: left, until: deadline - .seconds(1))
        await wait(
            for: hub.eventLoop.flatSubmit { self.control.value.end() },
            until: max(deadline, .now() + .milliseconds(500)))
        for shard in shards { try? await shard.eventLoop.submit { shard.stop() }.get() }
        _ = try? await server.close().get()
        _ = try? await internalServer.close().get()
        _ = try? await hub.eventLoop.flatSubmit { self.hub.stop() }.get()
        _ = try? await redis.close().get()
        logger.notice("ended")
    }

    /// Tells every client to go, one after the other, at the rate that is set or as much faster as the deadline asks.
    /// Succeeds when the last connection is closed.
    private func sendAway() async -> EventLoopFuture<Void> {
        let counts = shards.map { shard in shard.eventLoop.submit { shard.beginDraining() } }
        guard let counts = try? await EventLoopFuture.whenAllSucceed(counts, on: hub.eventLoop).get() else {
            return hub.eventLoop.makeSucceededVoidFuture()
        }
        let now = NIODeadline.now()
        let pace = DrainPace(
            clients: counts.reduce(0, +), perSecond: configuration.drainRate,
            patience: configuration.drainDeadline.nanoseconds - configuration.drainReserve.nanoseconds)
        let left = zip(shards, DrainPace.places(of: counts)).map { shard, places in
            let moments = places.map { now + .nanoseconds(pace.departure(of: $0)) }
            return shard.eventLoop.flatSubmit { shard.sendAway(at: moments) }
        }
        return EventLoopFuture.andAllComplete(left, on: hub.eventLoop)
    }

    private func wait(for future: EventLoopFuture<Void>, until deadline: NIODeadline) async {
        let promise = hub.eventLoop.makePromise(of: Void.self)
        let timeout = hub.eventLoop.scheduleTask(deadline: deadline) { promise.succeed(()) }
        future.hop(to: hub.eventLoop).whenComplete { _ in
            timeout.cancel()
            promise.succeed(())
        }
        try? await promise.futureResult.get()
    }
}

extension NodeConfiguration {
    /// Where a node without TLS trusts proxies of its own machine: nil otherwise, and where the address cannot be had.
    fileprivate func handoverReceiver(
        at address: String, take: @escaping HandoverReceiver.Taker
    ) -> HandoverReceiver? {
        guard takesHandovers, tls == nil, trustedProxies.contains(.loopback) else { return nil }
        return HandoverReceiver(address: address, take: take)
    }
}
