import Glibc
import NIOCore

/// From a node's `101` on. The head goes out behind what the client is still to have; then both sockets leave their loops for a
/// ``TunnelSet``, or, where TLS is spoken with either side, a `TunnelHandler` takes the place of what spoke HTTP.
extension ClientConnection {
    func accept(_ exchange: Exchange, _ node: NodeConnection, _ head: ResponseHead) {
        guard let context else { return close() }
        setTimer(limits.exchangeIdle) { $0.close() }
        exchange.pick = nil
        exchange.node = nil
        log(exchange, status: 101)
        exchange.traffic?.whenClosed = core.logsEnd(
            of: exchange.request, node: exchange.attempt.current, started: exchange.started)
        node.waitsForTunnel()
        state = .upgraded(exchange, node)
        let head = head.headForClient(framing: .none, keepsLength: false, closes: false, cookie: cookie(for: exchange))
        let written = context.eventLoop.makePromise(of: Void.self)
        written.futureResult.assumeIsolated().whenComplete { result in
            guard case .upgraded(let current, let node) = self.state, current === exchange else { return }
            switch result {
            case .success: self.startTunnel(exchange, node)
            case .failure: self.close()
            }
        }
        context.writeAndFlush(wrapOutboundOut(head), promise: written)
    }

    func abandonUpgrade() {
        guard case .upgraded(let exchange, let node) = state else { return }
        state = .ended
        exchange.traffic?.closed()
        node.abandon()
    }

    private func startTunnel(_ exchange: Exchange, _ node: NodeConnection) {
        guard let context, let traffic = exchange.traffic else { return close() }
        guard let nodeContext = node.context, nodeContext.channel.isActive else {
            // It has said all that it will.
            write(node.takeOver())
            traffic.closed()
            return linger()
        }
        clearTimer()
        let (toClient, toNode) = (node.takeOver(), inbound)
        inbound = ByteBuffer()
        state = .ended
        traffic.sent(toNode.readableBytes)
        // Above the time after which a node that lives would have said something, or ended it.
        let idle = exchange.attempt.current?.silence.map { $0 * 2 }
        if let tunnels = core.tunnels, core.configuration.tls == nil, core.configuration.nodeTLS == nil,
            let sockets = Self.descriptors(context, nodeContext)
        {
            let (ended, end) = (traffic.goesOn(), end)
            end.movesToTunnel()
            context.close(promise: nil)
            nodeContext.close(promise: nil)
            return tunnels.add(
                Tunnel.Beginning(
                    client: sockets.client, node: sockets.node, toClient: Array(toClient.readableBytesView),
                    toNode: Array(toNode.readableBytesView), clientEnded: inputEnded, nodeEnded: node.inputEnded,
                    idle: idle, meter: traffic.meter
                ) { toNode, fromNode in
                    ended(toNode, fromNode)
                    end.ended()
                })
        }
        let times = limits.tunnels
        let client = TunnelHandler(
            times, idle: idle, isSecure: core.configuration.tls != nil, counting: traffic, as: .client)
        let server = TunnelHandler(
            times, idle: idle, isSecure: core.configuration.nodeTLS != nil, counting: traffic, as: .node)
        do {
            try context.pipeline.syncOperations.addHandler(client, position: .after(self))
            try nodeContext.pipeline.syncOperations.addHandler(server, position: .after(node))
        } catch {
            context.close(promise: nil)
            nodeContext.close(promise: nil)
            traffic.closed()
            return
        }
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
        nodeContext.pipeline.syncOperations.removeHandler(context: nodeContext, promise: nil)
        TunnelHandler.start(
            client,
            TunnelHandler.Beginning(first: toClient, inputEnded: inputEnded),
            server,
            TunnelHandler.Beginning(first: toNode, inputEnded: node.inputEnded)
        )
        if let drainsAt { client.end(at: drainsAt) }
    }

    /// The sockets once more, which stay open when NIO closes its own. nil where there are none, or no descriptor is left.
    private static func descriptors(
        _ client: ChannelHandlerContext, _ node: ChannelHandlerContext
    ) -> (client: CInt, node: CInt)? {
        func copy(_ context: ChannelHandlerContext) -> CInt? {
            let descriptor = context.descriptor.map { fcntl($0, F_DUPFD_CLOEXEC, 0) } ?? -1
            return descriptor >= 0 ? descriptor : nil
        }
        guard let client = copy(client) else { return nil }
        guard let node = copy(node) else {
            Glibc.close(client)
            return nil
        }
        return (client, node)
    }
}
