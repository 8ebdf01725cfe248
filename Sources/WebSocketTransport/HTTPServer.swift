import Glibc
package import NIOCore
package import NIOHTTP1
import NIOPosix
import Synchronization

/// What the owner of a server answers to a valid opening handshake.
package enum UpgradeDecision {
    /// 101. `subprotocol` should be one that the client offered. `delegate` is called once on the connection's loop, after
    /// the 101 was queued: it may send at once. The connection holds what it returns until `webSocketClosed`.
    case accept(
        subprotocol: String? = nil,
        extraHeaders: HTTPHeaders = HTTPHeaders(),
        delegate: (WebSocketConnection) -> any WebSocketDelegate
    )
    /// Any other answer. The HTTP connection is closed behind it.
    case refuse(HTTPResponse)
}

/// A connection does not begin, or go on, with the protocol of the port; with the reason.
package enum Unreadable: Sendable, CustomStringConvertible {
    /// A trusted proxy's, which is to write a header of the PROXY protocol before anything else.
    case proxyHeader(String)
    case tls(String)
    case http(String)

    package var description: String {
        switch self {
        case .proxyHeader(let reason): reason
        case .tls(let reason): "no TLS handshake: \(reason)"
        case .http(let reason): "not HTTP/1.1: \(reason)"
        }
    }
}

package struct HTTPServerError: Error, CustomStringConvertible, Sendable {
    package enum Code: Sendable {
        /// Another socket listens there.
        case addressInUse
        /// The host is not one of this machine's, or its name is not known.
        case addressNotAvailable
        /// Ports below 1024 need a privilege.
        case permissionDenied
        case other
    }

    package let code: Code
    package let host: String
    package let port: Int
    package let cause: String

    package var description: String {
        switch code {
        case .addressInUse: "port \(port) on \(host) is in use"
        case .addressNotAvailable: "the address \(host) is not available on this machine"
        case .permissionDenied: "port \(port) on \(host) may not be opened by this user"
        case .other: "can't listen on \(host):\(port): \(cause)"
        }
    }
}

/// HTTP/1.1 and WebSocket on one port.
///
/// 1. Plain requests go to `onRequest`, opening handshakes that RFC 6455 allows to `onUpgrade`, each on the connection's
///    loop. Both closures get that loop, to make futures with. `onRequest` must complete its future; while it does not,
///    nothing bounds the connection.
/// 2. Everything else is answered here, as `HTTPResponse.error`: broken HTTP 400, a head too large 431, a body too large
///    413, a request that takes too long 408; on an upgrade request or on `webSocketPath` a method other than GET 405, a
///    missing upgrade 426, another version 426, a missing or bad key 400.
package struct HTTPServer: Sendable {
    private let core: ServerCore
    private let acceptor: Acceptor
    private let group: any EventLoopGroup
    private let gate: ConnectionGate?

    package typealias RequestHandler = @Sendable (HTTPRequest, any EventLoop) -> EventLoopFuture<HTTPResponse>
    /// What did not come, and whose connection it was.
    package typealias UnreadableHandler = @Sendable (Unreadable, IPAddress) -> Void
    package typealias UpgradeHandler = @Sendable (HTTPRequest, any EventLoop) -> UpgradeDecision

    /// Listens on `host` (a name, an IPv4 or IPv6 address) and `port` (0: any that is free). Fails with `HTTPServerError`.
    /// `webSocketPath` is the path where a request without `Upgrade` is told 426; handshakes on any path reach
    /// `onUpgrade`, which refuses those that it does not know. `trustedProxies` are those whose `X-Forwarded-For` says who
    /// the client is, and `X-Forwarded-Proto` whether it came through TLS. With `tls` the port speaks nothing but TLS.
    /// With `readsProxyProtocol` connections of trusted proxies begin with a header of the PROXY protocol.
    /// `onUnreadable` is told of each connection that ended because what came is not the protocol of the port, with the reason.
    /// `onAcceptFailure` is told, every 100 ms while it lasts, that connections wait and cannot be taken.
    /// `gate` decides which connections and handshakes are taken, and hears of those that are bad; of plain
    /// requests whose connection it refused the answer stands in the request.
    package static func start(
        host: String,
        port: Int,
        group: any EventLoopGroup,
        limits: WebSocketLimits = WebSocketLimits(),
        webSocketPath: String = "/ws",
        trustedProxies: TrustedProxies = TrustedProxies([]),
        readsProxyProtocol: Bool = false,
        gate: ConnectionGate? = nil,
        tls: TLSCredentials? = nil,
        onUnreadable: @escaping UnreadableHandler = { _, _ in },
        onAcceptFailure: @escaping Acceptor.FailureHandler = { _ in },
        onRequest: @escaping RequestHandler,
        onUpgrade: @escaping UpgradeHandler
    ) -> EventLoopFuture<HTTPServer> {
        let settings = ServerSettings(
            limits: SharedLimits(limits),
            webSocketPath: webSocketPath,
            trustedProxies: trustedProxies,
            readsProxyProtocol: readsProxyProtocol,
            gate: gate,
            tls: tls,
            onUnreadable: onUnreadable,
            onRequest: onRequest,
            onUpgrade: onUpgrade
        )
        let core = ServerCore(settings: settings, group: group)
        return group.any().makeCompletedFuture {
            do {
                let acceptor = try Acceptor.start(
                    on: try .bind(host: host, port: port), group: group, onFailure: onAcceptFailure,
                    admit: { peer in
                        guard let gate else { return .serve }
                        let admission = gate.accepted(peer)
                        if case .drop = admission { return nil }
                        return admission
                    },
                    serve: { try core.serve($0, from: $1, as: $2) })
                return HTTPServer(core: core, acceptor: acceptor, group: group, gate: gate)
            } catch {
                throw HTTPServerError(error, host: host, port: port)
            }
        }
    }

    /// Where it listens, or listened.
    package var localAddress: SocketAddress? { acceptor.localAddress }

    /// Whether a connection that another process accepted would be served: nil when the gate refuses it, and on a port that
    /// speaks TLS. Otherwise it counts from now on, and ``adopt(_:saying:as:)`` has to follow.
    package func admitAdopted() -> ConnectionGate.Admission? {
        guard !core.isSecure else { return nil }
        let admission = gate?.accepted(.loopback) ?? .serve
        guard case .serve = admission else {
            if case .refuse = admission { gate?.ended(.loopback, as: admission) }
            return nil
        }
        return admission
    }

    /// Serves a connection that another process accepted, as one of a proxy on this machine: what it wrote into the request's
    /// head holds where loopback is among the trusted proxies. Where it cannot be set up it is closed.
    ///
    /// - Parameters:
    ///   - connection: a socket that does not block; this server's.
    ///   - bytes: all that was read of it.
    package func adopt(_ connection: CInt, saying bytes: ByteBuffer, as admission: ConnectionGate.Admission) {
        let loop = group.next()
        ClientBootstrap(group: loop).channelInitializer { [core] channel in
            loop.makeCompletedFuture { try core.serve(channel, from: .loopback, as: admission, isAdopted: true) }
        }.withConnectedSocket(connection).whenSuccess { channel in
            // On the loop, before it can have read anything.
            channel.pipeline.fireChannelRead(bytes)
            channel.pipeline.fireChannelReadComplete()
        }
    }

    /// Closes the listening socket. Open WebSockets go on until they are closed, new ones are refused with 503; answers to
    /// HTTP requests close their connection. Succeeds when the port is free; may be called again.
    @discardableResult
    package func stopAccepting() -> EventLoopFuture<Void> {
        core.stopKeepingAlive()
        return acceptor.stop()
    }

    /// `stopAccepting`, then ends every connection: WebSockets with 1001, at the latest after `closeTimeout`. Succeeds when
    /// all are gone.
    @discardableResult
    package func close() -> EventLoopFuture<Void> {
        stopAccepting().flatMap { [core] in core.close() }
    }
}

extension HTTPServerError {
    init(_ error: any Error, host: String, port: Int) {
        let code: Code =
            switch error {
            case let error as IOError where error.errnoCode == EADDRINUSE: .addressInUse
            case let error as IOError where error.errnoCode == EADDRNOTAVAIL: .addressNotAvailable
            case let error as IOError where error.errnoCode == EACCES: .permissionDenied
            case is SocketAddressError, is SocketAddressError.UnknownHost: .addressNotAvailable
            default: .other
            }
        self.init(code: code, host: host, port: port, cause: "\(error)")
    }
}
