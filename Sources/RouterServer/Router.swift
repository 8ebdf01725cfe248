import Glibc
package import Logging
package import NIOCore
import NIOPosix
import WebSocketTransport

/// A reverse proxy that keeps each affinity key to one node.
///
/// 1. Listens, and gives every connection a `ClientConnection` on its loop.
/// 2. Follows the `NodeDirectory`, and goes on with the last list it told.
/// 3. Drains: takes nothing new, ends what is idle, and lets tunnels go on for as long as it is told.
package final class Router: Sendable {
    let core: RouterCore
    private let directory: any NodeDirectory
    private let listener: any Channel

    /// Listens once the future succeeds. It fails with the `IOError` of bind(2) when it cannot.
    package static func start(
        _ configuration: RouterConfiguration,
        directory: any NodeDirectory,
        group: any EventLoopGroup,
        logger: Logger
    ) -> EventLoopFuture<Router> {
        let core = RouterCore(configuration: configuration, logger: logger)
        return ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptBackoff())
                }
            }
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelOption(TCPKeepAlive.idle, value: 30)
            .childChannelOption(TCPKeepAlive.interval, value: 10)
            .childChannelOption(TCPKeepAlive.probes, value: 3)
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.recvAllocator, value: FirstReadAllocator())
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let peer = channel.remoteAddress?.ipAddress.flatMap({ IPAddress($0) }), core.add(channel)
                    else { throw ChannelError.ioOnClosedChannel }
                    channel.closeFuture.whenComplete { _ in core.remove(channel) }
                    try channel.pipeline.syncOperations.addHandler(ClientConnection(core: core, peer: peer))
                    try core.configuration.tls?.secure(server: channel)
                }
            }
            .bind(host: configuration.host, port: configuration.port)
            .map { listener in
                directory.start { core.update($0) }
                return Router(core: core, directory: directory, listener: listener)
            }
    }

    private init(core: RouterCore, directory: any NodeDirectory, listener: any Channel) {
        self.core = core
        self.directory = directory
        self.listener = listener
    }

    package var localAddress: SocketAddress? { listener.localAddress }

    /// Connections of clients, tunnels included.
    package var openConnections: Int { core.openConnections }

    package var nodes: [RoutedNode] { core.nodes.nodes }

    /// Ends the router: succeeds when the last connection has ended by itself, or was closed after `time`.
    package func drain(within time: TimeAmount) -> EventLoopFuture<Void> {
        let core = core
        let directory = directory
        let loop = listener.eventLoop
        listener.close(promise: nil)
        return listener.closeFuture.flatMap {
            let ended = core.drain(on: loop)
            let deadline = loop.scheduleTask(in: time) { core.closeAll() }
            return ended.flatMap {
                deadline.cancel()
                return directory.stop()
            }
        }
    }
}

/// tcp(7): a peer whose host is gone is noticed after a minute of silence, also where nobody speaks.
enum TCPKeepAlive {
    static let idle = option(TCP_KEEPIDLE)
    static let interval = option(TCP_KEEPINTVL)
    static let probes = option(TCP_KEEPCNT)

    private static func option(_ name: CInt) -> ChannelOptions.Types.SocketOption {
        ChannelOptions.Types.SocketOption(level: .tcp, name: NIOBSDSocket.Option(rawValue: name))
    }
}
