import Glibc
package import Logging
package import NIOCore
import NIOPosix
package import WebSocketTransport

/// A reverse proxy that keeps each affinity key to one node.
///
/// 1. Listens, and gives every connection a `ClientConnection` on its loop.
/// 2. Follows the `NodeDirectory`, and goes on with the last list it told.
/// 3. Checks the nodes' health.
/// 4. Drains: takes nothing new, answers what was accepted, ends what is idle, and ends tunnels evenly over the time that it
///    is told, so that clients come elsewhere one by one. A socket that was passed to it stays open with those who have it, too.
package final class Router: Sendable {
    let core: RouterCore
    private let directory: any NodeDirectory
    private let acceptor: Acceptor
    private let checker: HealthChecker?
    /// The nodes are known, or need not be waited for.
    private let isReady: EventLoopPromise<Void>

    /// Without the nodes connections are taken all the same after so long, and answered 503.
    private static let firstListTime = TimeAmount.seconds(5)

    /// Listens at once, or throws the `IOError` of bind(2). Connections wait in the socket's queue until the directory told
    /// the nodes.
    ///
    /// - Parameter socket: what was passed to the process; nil: the configuration's host and port.
    package static func start(
        _ configuration: RouterConfiguration,
        directory: any NodeDirectory,
        socket: ListeningSocket? = nil,
        group: any EventLoopGroup,
        logger: Logger
    ) throws -> Router {
        let threads = group.makeIterator().reduce(0) { count, _ in count + 1 }
        let tunnels = try TunnelLoops(count: threads, times: configuration.limits.tunnels)
        let core = RouterCore(configuration: configuration, tunnels: tunnels, logger: logger)
        do {
            let socket = try socket ?? .bind(host: configuration.host, port: configuration.port)
            return try start(core, directory: directory, socket: socket, group: group)
        } catch {
            tunnels.stop()
            throw error
        }
    }

    private static func start(
        _ core: RouterCore, directory: any NodeDirectory, socket: ListeningSocket, group: any EventLoopGroup
    ) throws -> Router {
        let configuration = core.configuration
        // Who comes before the nodes are known would be told that there are none.
        let loop = group.any()
        let isReady = loop.makePromise(of: Void.self)
        let patience = loop.scheduleTask(in: firstListTime) { isReady.succeed() }
        isReady.futureResult.whenComplete { _ in patience.cancel() }
        let checker = configuration.checks.map { times in
            HealthChecker(on: group.next(), times: times, dialer: core.dialer) { core.checked($0, $1) }
        }
        let acceptor = try Acceptor.start(
            on: socket, keepAlive: .ofTunnels, after: isReady.futureResult, group: group, onFailure: core.cannotAccept,
            admit: { peer in
                let admission = core.gate.accepted(peer)
                if case .drop = admission { return nil }
                return admission
            },
            serve: { try core.serve($0, from: $1, as: $2) })
        directory.start { nodes in
            core.update(nodes)
            checker?.follow(nodes)
            isReady.succeed()
        }
        return Router(core: core, directory: directory, acceptor: acceptor, checker: checker, isReady: isReady)
    }

    private init(
        core: RouterCore, directory: any NodeDirectory, acceptor: Acceptor, checker: HealthChecker?,
        isReady: EventLoopPromise<Void>
    ) {
        self.isReady = isReady
        self.core = core
        self.checker = checker
        self.directory = directory
        self.acceptor = acceptor
    }

    package var localAddress: SocketAddress? { acceptor.localAddress }

    /// Connections of clients, tunnels included.
    package var openConnections: Int { core.openConnections }

    package var nodes: [RoutedNode] { core.nodes.nodes }

    /// Ends the router: succeeds when the last connection has ended by itself, or was closed after `time`.
    package func drain(within time: TimeAmount) -> EventLoopFuture<Void> {
        let core = core
        let (directory, checker) = (directory, checker)
        isReady.succeed()
        let closed = acceptor.stop()
        let loop = closed.eventLoop
        return closed.flatMap {
            let ended = core.drain(within: time, on: loop)
            let deadline = loop.scheduleTask(in: time) { core.closeAll() }
            return ended.flatMap {
                deadline.cancel()
                checker?.stop()
                core.tunnels?.stop()
                return directory.stop()
            }
        }
    }
}

extension TCPKeepAlive {
    /// A peer whose host is gone is noticed after a minute of silence, also where nobody speaks.
    static let ofTunnels = TCPKeepAlive(idle: 30, interval: 10, probes: 3)
}
