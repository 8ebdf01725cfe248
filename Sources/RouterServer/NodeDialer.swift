import NIOCore
import NIOPosix
import TLSClient
import WebSocketTransport

/// How a router opens connections to nodes, for its clients and for its checks alike. With TLS the handshake is still to come
/// when one is open (`NodeConnection.whenSecure`).
struct NodeDialer: Sendable {
    let headLimit: Int
    var tls: FollowedFiles<TLSClient, TLSFailure>?
    var sources: NodeSources?
    var writesProxyProtocol = false

    /// - Parameters:
    ///   - source: where it is dialled from; nil: the kernel chooses.
    ///   - header: of the PROXY protocol.
    func dial(
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

extension RouterConfiguration {
    var dialer: NodeDialer {
        NodeDialer(
            headLimit: limits.headBytes, tls: nodeTLS, sources: nodeSources, writesProxyProtocol: writesProxyProtocol)
    }
}
