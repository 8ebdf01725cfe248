import Glibc
package import NIOCore
package import NIOHTTP1
import NIOPosix
package import TLSClient

/// Why a client has no connection.
package struct WebSocketClientError: Error, CustomStringConvertible, Sendable {
    package enum Code: Sendable, Equatable {
        /// Not `ws://host[:port][/path][?query]`, nor the same with `wss`.
        case invalidURL
        /// No TCP connection, or no TLS over it.
        case connectFailed
        /// Nothing came to an end within `WebSocketLimits.connectTimeout`.
        case timedOut
        /// The server gave another answer than 101: see `response`.
        case refused
        /// The answer is not HTTP, or is a 101 that breaks RFC 6455 section 4.1.
        case badHandshake
    }

    package let code: Code
    package let message: String
    /// The server's answer when it refused; its body at most 64 KiB.
    package let response: HTTPResponse?

    package init(code: Code, message: String, response: HTTPResponse? = nil) {
        self.code = code
        self.message = message
        self.response = response
    }

    package var description: String { message }
}

/// The client side of the opening handshake.
package enum WebSocketClient {
    /// Connects to `url` (`ws://host[:port][/path][?query]`, with TLS `wss`). `delegate` is called once on `eventLoop`, after the handshake and
    /// before any message is delivered. Fails with `WebSocketClientError`, at the latest after `limits.connectTimeout`.
    /// `headers` are added to the request; those of the handshake itself can't be replaced. The files of `tls`, which is for
    /// `wss` alone, are read at each call.
    package static func connect(
        url: String,
        tls: TLSClientOptions = TLSClientOptions(),
        headers: HTTPHeaders = HTTPHeaders(),
        subprotocols: [String] = [],
        on eventLoop: any EventLoop,
        limits: WebSocketLimits = WebSocketLimits(),
        delegate: @escaping @Sendable (WebSocketConnection) -> any WebSocketDelegate
    ) -> EventLoopFuture<WebSocketConnection> {
        let endpoint: WebSocketURL
        do throws(WebSocketClientError) {
            endpoint = try WebSocketURL(url)
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
        let promise = eventLoop.makePromise(of: WebSocketConnection.self)
        let shared = SharedLimits(limits)
        let deadline = NIODeadline.now() + limits.connectTimeout
        secured(endpoint, tls, on: eventLoop).flatMap { secure in
            ClientBootstrap(group: eventLoop)
                .connectTimeout(limits.connectTimeout)
                .channelOption(.maxMessagesPerRead, value: 1)
                .channelOption(.recvAllocator, value: SharedReadAllocator.forHTTP)
                .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let handshake = ClientHandshake(
                            endpoint: endpoint,
                            headers: headers,
                            subprotocols: subprotocols,
                            limits: shared,
                            deadline: deadline,
                            loop: LoopContext.current(on: channel.eventLoop),
                            delegate: delegate,
                            promise: promise
                        )
                        try secure?.secure(channel, host: endpoint.host)
                        try channel.pipeline.syncOperations.addHandler(handshake)
                    }
                }
                .connect(host: endpoint.host, port: endpoint.port)
        }.whenFailure { error in
            promise.fail(Self.error(error, endpoint))
        }
        return promise.futureResult
    }

    /// nil for `ws`.
    private static func secured(
        _ endpoint: WebSocketURL, _ options: TLSClientOptions, on eventLoop: any EventLoop
    ) -> EventLoopFuture<TLSClient?> {
        guard endpoint.isSecure else { return eventLoop.makeSucceededFuture(nil) }
        return NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { try options.load() }
    }

    private static func error(_ error: any Error, _ endpoint: WebSocketURL) -> WebSocketClientError {
        let name = "\(endpoint.authority)"
        if let error = error as? WebSocketClientError { return error }
        if case .connectTimeout? = error as? ChannelError {
            return WebSocketClientError(code: .timedOut, message: "\(name) did not accept the connection in time")
        }
        if let failure = error as? NIOConnectionError {
            if let last = failure.connectionErrors.last?.error { return Self.error(last, endpoint) }
            let message = "the name of \(endpoint.host) is not known"
            return WebSocketClientError(code: .connectFailed, message: message)
        }
        if let failure = error as? IOError {
            let cause = String(cString: strerror(failure.errnoCode))
            return WebSocketClientError(code: .connectFailed, message: "can't connect to \(name): \(cause)")
        }
        return WebSocketClientError(code: .connectFailed, message: "can't connect to \(name): \(error)")
    }
}

/// A `ws` or `wss` URL, taken apart (RFC 6455 section 3).
package struct WebSocketURL: Sendable, Equatable {
    package let isSecure: Bool
    package let host: String
    package let port: Int
    /// Path and query as they go into the request line.
    package let target: String
    /// As it goes into the `Host` header.
    package let authority: String

    package init(_ url: String) throws(WebSocketClientError) {
        func invalid(_ why: String) -> WebSocketClientError {
            WebSocketClientError(code: .invalidURL, message: "\(url) is not a WebSocket address: \(why)")
        }
        guard let scheme = url.firstIndex(of: ":"), url[scheme...].hasPrefix("://") else {
            throw invalid("it does not start with ws:// or wss://")
        }
        switch url[..<scheme].lowercased() {
        case "ws": isSecure = false
        case "wss": isSecure = true
        default: throw invalid("it does not start with ws:// or wss://")
        }
        guard url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7F }) else { throw invalid("it has a blank in it") }
        let rest = url[url.index(scheme, offsetBy: 3)...]
        guard !rest.contains("#") else { throw invalid("it has a fragment") }
        let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        let authority = rest[..<end]
        guard !authority.contains("@") else { throw invalid("it has a user name") }
        var portText: Substring?
        if authority.hasPrefix("[") {
            guard let bracket = authority.firstIndex(of: "]") else { throw invalid("bad host") }
            host = String(authority[authority.index(after: authority.startIndex)..<bracket])
            let behind = authority[authority.index(after: bracket)...]
            guard behind.isEmpty || behind.hasPrefix(":") else { throw invalid("bad host") }
            portText = behind.isEmpty ? nil : behind.dropFirst()
        } else if let colon = authority.lastIndex(of: ":") {
            host = String(authority[..<colon])
            portText = authority[authority.index(after: colon)...]
        } else {
            host = String(authority)
        }
        guard !host.isEmpty else { throw invalid("it has no host") }
        guard let portText else {
            port = isSecure ? 443 : 80
            self.authority = String(authority)
            target = Self.target(rest[end...])
            return
        }
        guard let port = UInt16(portText), port > 0 else { throw invalid("bad port") }
        self.port = Int(port)
        self.authority = String(authority)
        target = Self.target(rest[end...])
    }

    private static func target(_ rest: Substring) -> String {
        rest.isEmpty ? "/" : rest.hasPrefix("?") ? "/\(rest)" : String(rest)
    }
}
