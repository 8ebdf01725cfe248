import NIOCore
import NIOHTTP1
import TLSClient

/// One accepted connection while it speaks HTTP/1.1, until it ends or becomes a `WebSocketConnection`.
///
/// 1. One request at a time: what is pipelined behind it waits, and reading stops until it is answered.
/// 2. Bounds the time and size of a request.
/// 3. Ends a connection so that the peer can read the last answer: our side is closed first, and what still comes is
///    thrown away until the peer closes, or `closeTimeout` after the answer was written.
final class HTTPServerConnection: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundIn = Never

    private enum Phase {
        /// Between requests. To `receiving`, `answering`, `lingering`.
        case idle
        /// A head came, its body is coming. To `answering`, `lingering`.
        case receiving(HTTPRequestHead, ByteBuffer)
        /// The application has the request, or its answer is being written. To `idle`, `lingering`, `upgraded`.
        case answering
        /// The last answer is written or being written; input is thrown away. To `closed`.
        case lingering
        /// A `WebSocketConnection` follows in the pipeline and gets everything. To `closed`.
        case upgraded
        case closed
    }

    let server: ServerLoop
    private let loop: LoopContext
    private let decoder: ByteToMessageHandler<HTTPRequestDecoder>
    private var phase = Phase.idle
    private var pipelined: [HTTPServerRequestPart] = []
    private var readIsDue = false
    /// A part came out of the decoder in the current read burst.
    private var burstHadPart = false
    private var requestTimerRuns = true
    private var closesAfterAnswer = false
    /// Nothing may be written yet.
    private var awaitsHandshake: Bool
    /// Bytes of a head came that is not complete.
    private var hasPartOfHead = false
    /// The other end of the connection.
    let accepted: IPAddress
    /// Where that is a load balancer which says so: whom it took the connection from.
    private var proxied = ProxyProtocol.Header.local
    var peer: IPAddress { if case .client(let address, _, _) = proxied { address } else { accepted } }
    private let isAdopted: Bool
    /// Until a `WebSocketConnection` has it.
    var admission: ConnectionGate.Admission?
    private var context: ChannelHandlerContext?
    var deadlineRow: Int32 = -1
    var serverRow: Int32 = -1

    private var limits: WebSocketLimits { server.settings.limits.values }

    private init(
        server: ServerLoop, loop: LoopContext, decoder: ByteToMessageHandler<HTTPRequestDecoder>, peer: IPAddress,
        admission: ConnectionGate.Admission, isAdopted: Bool
    ) {
        self.isAdopted = isAdopted
        self.server = server
        self.loop = loop
        self.decoder = decoder
        awaitsHandshake = server.settings.tls != nil
        accepted = peer
        self.admission = admission
    }

    static func install(
        on channel: any Channel, server: ServerLoop, peer: IPAddress, admission: ConnectionGate.Admission,
        readsProxyProtocol: Bool, isAdopted: Bool
    ) throws {
        let limits = server.settings.limits.values
        var decoding = NIOHTTPDecoderLimitConfiguration()
        decoding.maxHeaderFieldSize = limits.maximumHeadBytes
        decoding.maxHeaderListSize = limits.maximumHeadBytes
        let decoder = ByteToMessageHandler(
            HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: decoding),
            maximumBufferSize: 2 * limits.maximumHeadBytes
        )
        let loop = LoopContext.current(on: channel.eventLoop)
        let connection = HTTPServerConnection(
            server: server, loop: loop, decoder: decoder, peer: peer, admission: admission,
            isAdopted: isAdopted)
        do {
            try channel.syncOptions?.setOption(.maxMessagesPerRead, value: 1)
            try channel.syncOptions?.setOption(.recvAllocator, value: SharedReadAllocator.forHTTP)
            try channel.pipeline.syncOperations.addHandlers([decoder, connection])
            try server.settings.tls?.value.secure(channel)
            if readsProxyProtocol {
                try channel.pipeline.syncOperations.addHandler(ProxyProtocolReader(), position: .first)
            }
        } catch {
            connection.leaveGate()
            throw error
        }
    }

    // MARK: Requests

    private func receive(_ part: HTTPServerRequestPart, _ context: ChannelHandlerContext) {
        switch (phase, part) {
        case (.idle, .head(let head)):
            begin(head, context)
        case (.receiving(let head, var body), .body(let bytes)):
            guard body.readableBytes + bytes.readableBytes <= limits.maximumBodyBytes else {
                return refuse(bodyTooLarge, head, context)
            }
            phase = .answering
            body.writeImmutableBuffer(bytes)
            phase = .receiving(head, body)
        case (.receiving(let head, let body), .end):
            phase = .answering
            loop.clearDeadline(for: self)
            dispatch(head, body, context)
        case (.answering, _):
            pipelined.append(part)
            if pipelined.count > 1024 { context.close(promise: nil) }
        case (.idle, _), (.receiving, .head), (.lingering, _), (.upgraded, _), (.closed, _):
            break
        }
    }

    private func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        hasPartOfHead = false
        startRequestTimer()
        if head.version == .http1_1 && head.headers["host"].count != 1 {
            let message = "An HTTP/1.1 request has one `Host` header."
            note(.badHandshake, of: peer)
            return refuse(.error(.badRequest, reason: "bad_host", message: message), head, context)
        }
        if let length = head.headers.first(name: "content-length").flatMap(Int.init), length > limits.maximumBodyBytes {
            return refuse(bodyTooLarge, head, context)
        }
        phase = .receiving(head, ByteBuffer())
        if head.headers.lists("100-continue", in: "expect") && head.version == .http1_1 {
            context.writeAndFlush(NIOAny(ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n")), promise: nil)
        }
    }

    private var bodyTooLarge: HTTPResponse {
        let message = "The body of a request may have \(limits.maximumBodyBytes) bytes."
        return .error(.payloadTooLarge, reason: "body_too_large", message: message)
    }

    private func startRequestTimer() {
        guard !requestTimerRuns else { return }
        requestTimerRuns = true
        loop.setDeadline(limits.requestTimeout, for: self)
    }

    private func dispatch(_ head: HTTPRequestHead, _ body: ByteBuffer, _ context: ChannelHandlerContext) {
        guard let target = RequestTarget(head.uri) else {
            let message = "The request target has a broken percent-escape."
            return refuse(.error(.badRequest, reason: "bad_target", message: message), head, context)
        }
        let request = HTTPRequest(
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            body: body,
            clientAddress: client(of: head),
            isSecure: isSecure(head),
            isFromTrustedProxy: server.settings.trustedProxies.contains(peer),
            isAdopted: isAdopted,
            refusal: gateRefusal?.response,
            connectionID: connectionID
        )
        let asksForUpgrade = WebSocketHandshake.asksForUpgrade(head.headers)
        guard asksForUpgrade || target.path == server.settings.webSocketPath else {
            return answer(server.settings.onRequest(request, context.eventLoop), head, context)
        }
        if let refusal = gateRefusal?.response { return write(refusal, head, context) }
        guard !server.isStopping else {
            let message = "This server is stopping; connect again."
            return write(.error(.serviceUnavailable, reason: "stopping", message: message), head, context)
        }
        if let refusal = server.settings.gate?.handshake(of: request.clientAddress, through: accepted) {
            return write(refusal.response, head, context)
        }
        if let refusal = WebSocketHandshake.refusal(for: head) {
            server.settings.gate?.left(request.clientAddress, through: accepted)
            note(.badHandshake, of: request.clientAddress)
            return write(refusal, head, context)
        }
        switch server.settings.onUpgrade(request, context.eventLoop) {
        case .refuse(let response):
            server.settings.gate?.left(request.clientAddress, through: accepted)
            if let cause = AnomalyCause(refusedUpgrade: Int(response.status.code)) {
                note(cause, of: request.clientAddress)
            }
            write(response, head, context)
        case .accept(let subprotocol, let extraHeaders, let delegate):
            guard let accept = head.headers.first(name: "sec-websocket-key").flatMap(WebSocketHandshake.accept) else {
                server.settings.gate?.left(request.clientAddress, through: accepted)
                return write(.error(.internalServerError, reason: "internal", message: "SHA-1 failed."), head, context)
            }
            let deflate =
                limits.allowsCompression ? DeflateAgreement(offers: head.headers["sec-websocket-extensions"]) : nil
            let bytes = WebSocketHandshake.acceptance(
                accept: accept, subprotocol: subprotocol, deflate: deflate, extraHeaders: extraHeaders)
            upgrade(bytes, subprotocol, deflate, request.clientAddress, delegate, context)
        }
    }

    private var connectionID: String? { if case .client(_, _, let id) = proxied { id } else { nil } }

    private func isSecure(_ head: HTTPRequestHead) -> Bool {
        if server.settings.tls != nil { return true }
        if case .client(_, isSecure: true, _) = proxied { return true }
        guard let said = head.headers.first(name: "x-forwarded-proto") else { return false }
        return said.lowercased() == "https" && server.settings.trustedProxies.contains(peer)
    }

    private func client(of head: HTTPRequestHead) -> IPAddress {
        let chain = head.headers["x-forwarded-for"].flatMap { $0.split(separator: ",") }
        return server.settings.trustedProxies.client(of: peer, chain: chain)
    }

    private func answer(
        _ response: EventLoopFuture<HTTPResponse>,
        _ head: HTTPRequestHead,
        _ context: ChannelHandlerContext
    ) {
        response.hop(to: context.eventLoop).assumeIsolated().whenComplete { result in
            guard let context = self.context else { return }
            switch result {
            case .success(let response):
                self.write(response, head, context)
            case .failure:
                let message = "The request could not be answered."
                self.write(.error(.internalServerError, reason: "internal", message: message), head, context)
            }
        }
    }

    // MARK: Answers

    /// Answers a request that is not to be read to its end, and closes.
    private func refuse(_ response: HTTPResponse, _ head: HTTPRequestHead?, _ context: ChannelHandlerContext) {
        phase = .lingering
        loop.setDeadline(limits.keepAliveTimeout, for: self)
        pipelined = []
        writeAndClose(response, isHEAD: head?.method == .HEAD, context)
    }

    private func write(_ response: HTTPResponse, _ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard case .answering = phase else { return }
        guard keepsAlive(head, response) else { return refuse(response, head, context) }
        loop.setDeadline(limits.keepAliveTimeout, for: self)
        let bytes = response.serialized(forHEAD: head.method == .HEAD, keepAlive: true, date: server.date())
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenSuccess { self.finishedAnswer(context) }
        send(bytes, promise, context)
    }

    private func send(_ bytes: ByteBuffer, _ promise: EventLoopPromise<Void>?, _ context: ChannelHandlerContext) {
        guard server.settings.tls != nil else { return context.writeAndFlush(NIOAny(bytes), promise: promise) }
        TLSRecords.writeAndFlush(bytes, to: context, promise: promise)
    }

    /// llhttp stops parsing behind a request that offers an upgrade, so the connection can't go on.
    private func keepsAlive(_ head: HTTPRequestHead, _ response: HTTPResponse) -> Bool {
        let offersUpgrade = head.headers.contains(name: "upgrade") && head.headers.lists("upgrade", in: "connection")
        return head.isKeepAlive && head.version == .http1_1 && !offersUpgrade && head.method != .CONNECT
            && !server.isStopping && !closesAfterAnswer && !response.headers.lists("close", in: "connection")
    }

    private func finishedAnswer(_ context: ChannelHandlerContext) {
        guard case .answering = phase else { return }
        phase = .idle
        requestTimerRuns = false
        loop.setDeadline(limits.keepAliveTimeout, for: self)
        var parts: [HTTPServerRequestPart] = []
        swap(&parts, &pipelined)
        for part in parts { receive(part, context) }
        if readIsDue, mayRead {
            readIsDue = false
            context.read()
        }
        if server.isStopping, case .idle = phase { context.close(promise: nil) }
    }

    private func writeAndClose(_ response: HTTPResponse, isHEAD: Bool, _ context: ChannelHandlerContext) {
        let bytes = response.serialized(forHEAD: isHEAD, keepAlive: false, date: server.date())
        send(bytes, nil, context)
        context.close(mode: .output, promise: nil)
        resumeReading(context)
    }

    private func resumeReading(_ context: ChannelHandlerContext) {
        if readIsDue {
            readIsDue = false
            context.read()
        }
    }

    // MARK: Upgrade

    private func upgrade(
        _ acceptance: ByteBuffer,
        _ subprotocol: String?,
        _ deflate: DeflateAgreement?,
        _ client: IPAddress,
        _ delegate: (WebSocketConnection) -> any WebSocketDelegate,
        _ context: ChannelHandlerContext
    ) {
        let connection = WebSocketConnection(
            role: .server,
            loop: loop,
            limits: server.settings.limits,
            server: server,
            subprotocol: subprotocol,
            deflate: deflate,
            clientAddress: client,
            isSecure: server.settings.tls != nil
        )
        let pipeline = context.pipeline.syncOperations
        guard (try? pipeline.addHandler(connection, position: .after(self))) != nil else {
            return context.close(promise: nil)
        }
        phase = .upgraded
        admission = nil
        loop.clearDeadline(for: self)
        connection.sendHandshake(acceptance)
        connection.attach(delegate(connection))
        // Added before the other is removed: the server must not count as empty in between.
        if connection.phase != .closed { server.add(connection) }
        server.remove(self)
        let removed = context.eventLoop.makePromise(of: Void.self)
        removed.futureResult.assumeIsolated().whenSuccess { self.leave() }
        pipeline.removeHandler(decoder, promise: removed)
    }

    /// The decoder is gone, and has passed on what came behind the request.
    private func leave() {
        guard let context else { return }
        let allocator = server.settings.tls == nil ? SharedReadAllocator.forWebSocket(loop) : .forTLS
        try? context.channel.syncOptions?.setOption(.recvAllocator, value: allocator)
        context.fireChannelReadComplete()
        resumeReading(context)
        context.pipeline.syncOperations.removeHandler(self, promise: nil)
    }

    // MARK: ChannelDuplexHandler

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        server.add(self)
        loop.setDeadline(gateRefusal == nil ? limits.requestTimeout : .seconds(2), for: self)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        ended()
        self.context = nil
    }

    func channelInactive(context: ChannelHandlerContext) {
        ended()
        context.fireChannelInactive()
    }

    private func ended() {
        loop.clearDeadline(for: self)
        server.remove(self)
        phase = .closed
        pipelined = []
        leaveGate()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .upgraded = phase { return context.fireChannelRead(data) }
        burstHadPart = true
        receive(unwrapInboundIn(data), context)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        switch phase {
        case .upgraded: context.fireChannelReadComplete()
        case .idle where !burstHadPart:
            hasPartOfHead = true
            startRequestTimer()
        case .idle, .receiving, .answering, .lingering, .closed: break
        }
        burstHadPart = false
    }

    /// The last answer is written: from now on the peer has `closeTimeout` to close its side.
    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch phase {
        case .lingering:
            if case .outputClosed? = event as? ChannelEvent { loop.setDeadline(limits.closeTimeout, for: self) }
        case .upgraded:
            context.fireUserInboundEventTriggered(event)
        case .idle, .receiving, .answering, .closed:
            if event is ChannelShouldQuiesceEvent { serverIsClosing() }
            if let header = event as? ProxyProtocol.Header { proxied = header }
            if let malformed = event as? ProxyProtocol.Malformed { unreadable(.proxyHeader(malformed.reason), context) }
            if awaitsHandshake, TLSRecords.isHandshakeCompleted(event) { awaitsHandshake = false }
        }
    }

    private var mayRead: Bool {
        if case .answering = phase { false } else { true }
    }

    func read(context: ChannelHandlerContext) {
        if mayRead {
            context.read()
        } else {
            readIsDue = true
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if case .upgraded = phase { return context.fireErrorCaught(error) }
        guard let error = error as? HTTPParserError else {
            if awaitsHandshake, let reason = TLSRecords.reason(of: error, on: context) {
                handshakeFailed(reason, context)
            }
            return context.close(promise: nil)
        }
        switch phase {
        case .idle, .receiving:
            unreadable(.http("\(error)"), context)
            refuse(Self.response(to: error), nil, context)
        // The broken bytes stand behind a request that is still to be answered: its answer is the last.
        case .answering: closesAfterAnswer = true
        case .lingering, .upgraded, .closed: break
        }
    }

    /// Told once: closing fails again.
    private func handshakeFailed(_ reason: String, _ context: ChannelHandlerContext) {
        awaitsHandshake = false
        unreadable(.tls(reason), context)
    }

    private func unreadable(_ reason: Unreadable, _ context: ChannelHandlerContext) {
        note(.badHandshake, of: peer)
        server.settings.onUnreadable(reason, peer)
    }

    private static func response(to error: HTTPParserError) -> HTTPResponse {
        if error == .headerOverflow {
            let message = "The head of the request is too large."
            return .error(.requestHeaderFieldsTooLarge, reason: "head_too_large", message: message)
        }
        return .error(.badRequest, reason: "bad_request", message: "This is not HTTP/1.1: \(error).")
    }
}

extension HTTPServerConnection: DeadlineTarget, ServerConnection {
    func deadlineExpired() {
        guard let context else { return }
        switch phase {
        case .idle where awaitsHandshake:
            handshakeFailed("the client took too long", context)
            context.close(promise: nil)
        case .idle where requestTimerRuns, .receiving:
            // Who connects and says nothing may be a browser that wants to be quick later.
            if hasPartOfHead { note(.badHandshake, of: peer) }
            let message = "The request took too long to arrive."
            refuse(.error(.requestTimeout, reason: "request_timeout", message: message), nil, context)
        case .idle, .answering, .lingering, .upgraded, .closed:
            context.close(promise: nil)
        }
    }

    func serverIsClosing() {
        guard let context else { return }
        switch phase {
        case .idle, .lingering: context.close(promise: nil)
        case .receiving, .answering, .upgraded, .closed: break
        }
    }
}
