import NIOCore
import NIOHTTP1
import TLSClient

/// Sends the opening handshake, checks the answer, and makes way for a `WebSocketConnection`.
///
/// Reads the answer's head itself rather than with NIO's HTTP decoder, which hands over the bytes behind it only in a later
/// task of the loop: a server that accepts, sends a Close frame and goes would be seen as a connection that just broke.
final class ClientHandshake: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    typealias DelegateFactory = @Sendable (WebSocketConnection) -> any WebSocketDelegate

    private let endpoint: WebSocketURL
    private let headers: HTTPHeaders
    private let subprotocols: [String]
    private let limits: SharedLimits
    private let deadline: NIODeadline
    private let loop: LoopContext
    private let delegate: DelegateFactory
    private let key: String
    private var promise: EventLoopPromise<WebSocketConnection>?
    private var received = ByteBuffer()
    /// The head of a refusal whose body is still coming.
    private var refusal: ResponseHead?
    private var context: ChannelHandlerContext?
    var deadlineRow: Int32 = -1

    init(
        endpoint: WebSocketURL,
        headers: HTTPHeaders,
        subprotocols: [String],
        limits: SharedLimits,
        deadline: NIODeadline,
        loop: LoopContext,
        delegate: @escaping DelegateFactory,
        promise: EventLoopPromise<WebSocketConnection>
    ) {
        self.endpoint = endpoint
        self.headers = headers
        self.subprotocols = subprotocols
        self.limits = limits
        self.deadline = deadline
        self.loop = loop
        self.delegate = delegate
        self.promise = promise
        var generator = SystemRandomNumberGenerator()
        self.key = WebSocketHandshake.base64((0..<16).map { _ in UInt8.random(in: 0...255, using: &generator) })
    }

    private func request() -> ByteBuffer {
        var buffer = ByteBuffer()
        buffer.writeString("GET \(endpoint.target) HTTP/1.1\r\n")
        buffer.writeHeader("Host", endpoint.authority)
        buffer.writeHeader("Upgrade", "websocket")
        buffer.writeHeader("Connection", "Upgrade")
        buffer.writeHeader("Sec-WebSocket-Key", key)
        buffer.writeHeader("Sec-WebSocket-Version", "13")
        if !subprotocols.isEmpty { buffer.writeHeader("Sec-WebSocket-Protocol", subprotocols.joined(separator: ", ")) }
        // As a page of that server would, so that a server need not allow who sends none. By https even where the handshake
        // goes without TLS: such a page may connect in either way.
        if !headers.contains(name: "origin") { buffer.writeHeader("Origin", "https://\(endpoint.authority)") }
        let own: Set<String> = [
            "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol",
            "content-length", "transfer-encoding", "host",
        ]
        for header in headers where !own.contains(header.name.lowercased()) {
            buffer.writeHeader(header.name, header.value)
        }
        buffer.writeString("\r\n")
        return buffer
    }

    private func received(_ bytes: inout ByteBuffer, _ context: ChannelHandlerContext) {
        guard refusal == nil else {
            received.writeBuffer(&bytes)
            return finishRefusal(atEnd: false, context)
        }
        received.writeBuffer(&bytes)
        do throws(WebSocketClientError) {
            guard let head = try ResponseHead.read(from: &received) else {
                guard received.readableBytes <= limits.values.maximumHeadBytes else {
                    throw .bad("the head of the answer is too large")
                }
                return
            }
            guard head.status.code == 101 else {
                refusal = head
                return finishRefusal(atEnd: false, context)
            }
            try check(head)
            succeed(head, context)
        } catch {
            fail(error, context)
        }
    }

    /// RFC 6455 section 4.1, the server's response.
    private func check(_ head: ResponseHead) throws(WebSocketClientError) {
        guard head.headers.lists("websocket", in: "upgrade"), head.headers.lists("upgrade", in: "connection") else {
            throw .bad("101 without `Upgrade: websocket`")
        }
        guard head.headers["sec-websocket-accept"] == [WebSocketHandshake.accept(for: key) ?? ""] else {
            throw .bad("wrong Sec-WebSocket-Accept")
        }
        guard head.headers["sec-websocket-extensions"].isEmpty else { throw .bad("an extension nobody asked for") }
        let chosen = head.headers["sec-websocket-protocol"]
        guard chosen.count <= 1, chosen.allSatisfy(subprotocols.contains) else {
            throw .bad("a subprotocol nobody asked for")
        }
    }

    private func succeed(_ head: ResponseHead, _ context: ChannelHandlerContext) {
        guard let promise else { return }
        self.promise = nil
        loop.clearDeadline(for: self)
        let connection = WebSocketConnection(
            role: .client,
            loop: loop,
            limits: limits,
            server: nil,
            subprotocol: head.headers.first(name: "sec-websocket-protocol"),
            isSecure: endpoint.isSecure
        )
        let pipeline = context.pipeline
        do {
            try pipeline.syncOperations.addHandler(connection, position: .after(self))
            let allocator = endpoint.isSecure ? SharedReadAllocator.forTLS : .forWebSocket(loop)
            try context.channel.syncOptions?.setOption(.recvAllocator, value: allocator)
        } catch {
            context.close(promise: nil)
            return promise.fail(WebSocketClientError(code: .connectFailed, message: "the connection was closed"))
        }
        pipeline.syncOperations.removeHandler(self, promise: nil)
        connection.findSocket()
        connection.attach(delegate(connection))
        promise.succeed(connection)
        if received.readableBytes > 0 {
            pipeline.syncOperations.fireChannelRead(NIOAny(received))
            pipeline.syncOperations.fireChannelReadComplete()
        }
        received = ByteBuffer()
    }

    private func finishRefusal(atEnd: Bool, _ context: ChannelHandlerContext) {
        guard let head = refusal else { return }
        let limit = 64 * 1024
        guard let body = head.body(in: received, atEnd: atEnd, limit: limit) else { return }
        let response = HTTPResponse(status: head.status, headers: head.headers, body: body)
        let message = "\(endpoint.authority) answered \(head.status.code) \(head.status.reasonPhrase)"
        fail(WebSocketClientError(code: .refused, message: message, response: response), context)
    }

    private func fail(_ error: WebSocketClientError, _ context: ChannelHandlerContext) {
        loop.clearDeadline(for: self)
        promise?.fail(error)
        promise = nil
        context.close(promise: nil)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        loop.clearDeadline(for: self)
    }

    func channelActive(context: ChannelHandlerContext) {
        loop.setDeadline(max(deadline - .now(), .zero), for: self)
        context.writeAndFlush(wrapOutboundOut(request()), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard promise != nil else { return }
        var bytes = unwrapInboundIn(data)
        received(&bytes, context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        finishRefusal(atEnd: true, context)
        fail(.bad("the server closed the connection before it answered"), context)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let message =
            error is TLSFailure
            ? "can't connect to \(endpoint.authority): \(error)"
            : "\(endpoint.authority) broke the connection: \(error)"
        fail(WebSocketClientError(code: .connectFailed, message: message), context)
    }
}

extension ClientHandshake: DeadlineTarget {
    func deadlineExpired() {
        guard let context else { return }
        let message = "\(endpoint.authority) did not finish the handshake in time"
        fail(WebSocketClientError(code: .timedOut, message: message), context)
    }
}

extension WebSocketClientError {
    static func bad(_ message: String) -> WebSocketClientError {
        WebSocketClientError(code: .badHandshake, message: "bad WebSocket handshake: \(message)")
    }
}
