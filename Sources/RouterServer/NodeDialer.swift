import NIOCore
import NIOPosix
import TLSClient
import WebSocketTransport

/// How a router opens connections to nodes, for its clients and for its checks alike. With TLS the handshake is still to come
/// when one is open (`NodeConnection.whenSecure`).
struct NodeDialer: Sendable {
    let headLimit: Int
    var tls: FollowedFiles<TLSClient, TLSFailure>?
    /// nil: the kernel chooses.
    var sources: NodeSources?
    var writesProxyProtocol = false
    let trouble: OwnTrouble

    /// From the next source; where that has no port left, or is not this machine's any more, from the one behind it.
    ///
    /// - Parameters:
    ///   - header: of the PROXY protocol.
    ///   - time: for each source; one that has no port or is lost takes none of it.
    func dial(
        _ node: RoutedNode, on eventLoop: any EventLoop, saying header: ByteBuffer?, within time: TimeAmount
    ) -> EventLoopFuture<any Channel> {
        dial(node, on: eventLoop, from: sources?.next(), saying: header, within: time)
    }

    private func dial(
        _ node: RoutedNode, on eventLoop: any EventLoop, from source: NodeSources.Turn?, saying header: ByteBuffer?,
        within time: TimeAmount
    ) -> EventLoopFuture<any Channel> {
        let connecting = connect(node, on: eventLoop, from: source, saying: header, within: time)
        guard let next = source?.after else { return connecting }
        return connecting.flatMapError { error in
            let lost = ConnectFailure.lostSource(error)
            if let lost { trouble.lostSource(lost) }
            guard lost != nil || ConnectFailure.isOutOfPorts(error) else { return eventLoop.makeFailedFuture(error) }
            return dial(node, on: eventLoop, from: next, saying: header, within: time)
        }
    }

    private func connect(
        _ node: RoutedNode, on eventLoop: any EventLoop, from source: NodeSources.Turn?, saying header: ByteBuffer?,
        within time: TimeAmount
    ) -> EventLoopFuture<any Channel> {
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(time)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.maxMessagesPerRead, value: 1)
            .channelOption(.recvAllocator, value: FirstReadAllocator())
            .channelInitializer { [headLimit, tls] channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
                        try TCPKeepAlive.ofTunnels.set(on: $0)
                        try source?.bind($0)
                    }
                    try tls?.value.secure(channel, host: node.host)
                    try pipeline.addHandler(NodeConnection(headLimit: headLimit, address: node.address))
                    if let header { try pipeline.addHandler(ProxyProtocolWriter(header), position: .first) }
                }
            }
        let address = try? SocketAddress(ipAddress: node.host, port: node.port)
        return address.map { bootstrap.connect(to: $0) } ?? bootstrap.connect(host: node.host, port: node.port)
    }
}

extension NodeDialer {
    init(_ configuration: RouterConfiguration, trouble: OwnTrouble) {
        self.init(
            headLimit: configuration.limits.headBytes, tls: configuration.nodeTLS, sources: configuration.nodeSources,
            writesProxyProtocol: configuration.writesProxyProtocol, trouble: trouble)
    }
}
