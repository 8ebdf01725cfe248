import NIOCore
import TLSClient
import WebSocketTransport

/// What a node's connection tells the client's; all on their common loop.
protocol NodeConnectionDelegate: AnyObject {
    /// An interim or final head; `101` hands the connection over, the delegate takes what follows with `takeOver`.
    func node(_ node: NodeConnection, answered head: ResponseHead)
    func node(_ node: NodeConnection, sent piece: BodyDecoder.Piece)
    /// End of a read burst: a good time to flush.
    func nodeReadComplete(_ node: NodeConnection)
    /// May be written to again.
    func nodeIsWritable(_ node: NodeConnection)
    /// The connection ended, or sent what is no HTTP, before the answer was complete. Once.
    func nodeBroke(_ node: NodeConnection)
}

/// The router's end of a connection to a node while HTTP is spoken: one request at a time, and one answer to each.
///
/// 1. Parses the answer's head strictly, and its body only as far as to know where it ends.
/// 2. Reads only while the client takes what is read (`clientIsWritable`).
/// 3. After a `101` keeps what comes until a tunnel takes over.
/// 4. Where TLS stands before it, tells when and how the handshake ended.
/// 5. May be kept for another request when the answer said nothing against it and ended where it should.
final class NodeConnection: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        case head(HeadScanner)
        case body(BodyDecoder)
        /// Answered in full, and the node waits for another request. To `head`, `ended`.
        case idle
        /// The answer was a `101`; what comes now is the tunnel's. To `ended`.
        case upgraded
        /// Answered, handed over, or given up.
        case ended
    }

    private weak var delegate: (any NodeConnectionDelegate)?
    private(set) var context: ChannelHandlerContext?
    private var state: State
    private var inbound = ByteBuffer()
    private let headLimit: Int
    /// The node's.
    let address: String
    private var method = ""
    private var keepsAlive = false
    private weak var keeper: KeptConnections?
    /// Another request had it before this one.
    private(set) var isReused = false
    /// A byte of the answer has come.
    private(set) var hasHeard = false
    private var traffic: ProxiedTraffic?
    private(set) var isWritable = true
    private(set) var inputEnded = false
    private var readIsHeld = false
    /// How the handshake of TLS ended, once it has.
    private var handshake: Result<Void, any Error>?
    private var whenSecure: ((Result<Void, any Error>) -> Void)?
    /// What TLS had against the connection, also after the handshake: only then does a node refuse a router's certificate.
    private(set) var tlsFailure: TLSFailure?
    var clientIsWritable = true {
        didSet {
            if clientIsWritable, readIsHeld {
                readIsHeld = false
                context?.read()
            }
        }
    }

    init(headLimit: Int, address: String) {
        self.headLimit = headLimit
        self.address = address
        state = .head(HeadScanner(limit: headLimit))
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        traffic?.closed()
    }

    /// Calls `tell` once, when the handshake has ended or `time` is over.
    func whenSecure(within time: TimeAmount, _ tell: @escaping (Result<Void, any Error>) -> Void) {
        if let handshake { return tell(handshake) }
        whenSecure = tell
        context?.eventLoop.assumeIsolated().scheduleTask(in: time) { [weak self] in
            self?.handshakeEnded(.failure(ChannelError.connectTimeout(time)))
        }
    }

    private func handshakeEnded(_ result: Result<Void, any Error>) {
        guard handshake == nil else { return }
        handshake = result
        let tell = whenSecure
        whenSecure = nil
        tell?(result)
    }

    /// Sends a request's head; from now on the delegate is told of the answer.
    ///
    /// - Parameters:
    ///   - keepsAlive: the head asks for it.
    ///   - traffic: what passes counts there, until `takeOver`.
    func begin(
        _ head: ByteBuffer, method: String, keepsAlive: Bool = false, delegate: any NodeConnectionDelegate,
        traffic: ProxiedTraffic? = nil
    ) {
        self.delegate = delegate
        self.method = method
        self.keepsAlive = keepsAlive
        self.traffic = traffic
        hasHeard = false
        if case .idle = state {
            isReused = true
            state = .head(HeadScanner(limit: headLimit))
        }
        guard let context else {
            traffic?.closed()
            return finish { $0.nodeBroke(self) }
        }
        traffic?.sent(head.readableBytes)
        isWritable = context.channel.isWritable
        context.writeAndFlush(wrapOutboundOut(head), promise: nil)
    }

    func write(_ buffer: ByteBuffer) {
        traffic?.sent(buffer.readableBytes)
        context?.write(wrapOutboundOut(buffer), promise: nil)
    }

    func flush() { context?.flush() }

    /// Its last answer was whole: another request may go over it.
    var isIdle: Bool { if case .idle = state { true } else { false } }

    func isKept(in keeper: KeptConnections) {
        self.keeper = keeper
        // The end of the connection has to be seen.
        clientIsWritable = true
    }

    func wasTaken() { keeper = nil }

    /// Ends the connection without a word to the delegate.
    func abandon() {
        state = .ended
        delegate = nil
        context?.close(promise: nil)
    }

    /// The delegate had the `101`, and is told no more.
    func waitsForTunnel() {
        state = .upgraded
        delegate = nil
        clientIsWritable = false
    }

    /// The bytes behind the head of a `101`; the traffic is the caller's from now on.
    func takeOver() -> ByteBuffer {
        state = .ended
        traffic = nil
        let rest = inbound
        inbound = ByteBuffer()
        return rest
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .ended = state { return }
        hasHeard = true
        var buffer = unwrapInboundIn(data)
        traffic?.received(buffer.readableBytes)
        if inbound.readableBytes == 0 { inbound = buffer } else { inbound.writeBuffer(&buffer) }
        process()
    }

    private func process() {
        do {
            while true {
                switch state {
                case .head(var scanner):
                    guard let bytes = try scanner.scan(&inbound) else {
                        state = .head(scanner)
                        return
                    }
                    let head = try HTTPSyntax.response(bytes)
                    if head.status == 101 {
                        delegate?.node(self, answered: head)
                        return
                    }
                    if head.status < 200 {
                        state = .head(HeadScanner(limit: headLimit))
                    } else {
                        let length = try head.bodyLength(answering: method)
                        keepsAlive = keepsAlive && head.keepsAlive && length != .untilClose
                        state = .body(BodyDecoder(length))
                    }
                    delegate?.node(self, answered: head)
                case .body(var body):
                    guard let piece = try body.next(&inbound) else {
                        if inputEnded, body.endOfInput() {
                            keepsAlive = false
                            answered()
                        } else {
                            state = .body(body)
                        }
                        if inbound.readableBytes == 0 { inbound = ByteBuffer() }
                        return
                    }
                    guard piece != .end else { return answered() }
                    state = .body(body)
                    delegate?.node(self, sent: piece)
                case .idle:
                    // Nobody asked for this.
                    return finish { $0.nodeBroke(self) }
                case .upgraded, .ended:
                    return
                }
            }
        } catch {
            finish { $0.nodeBroke(self) }
        }
    }

    /// The delegate keeps the connection where it may be kept, or ends it, before it does anything else.
    private func answered() {
        guard keepsAlive, !inputEnded, inbound.readableBytes == 0, isWritable, let delegate else {
            return finish { $0.node(self, sent: .end) }
        }
        state = .idle
        inbound = ByteBuffer()
        self.delegate = nil
        traffic?.closed()
        traffic = nil
        delegate.node(self, sent: .end)
    }

    private func finish(_ tell: (any NodeConnectionDelegate) -> Void) {
        state = .ended
        inbound = ByteBuffer()
        let delegate = delegate
        self.delegate = nil
        keeper?.lost(self)
        context?.close(promise: nil)
        if let delegate { tell(delegate) }
    }

    func channelReadComplete(context: ChannelHandlerContext) { delegate?.nodeReadComplete(self) }

    func read(context: ChannelHandlerContext) {
        if clientIsWritable { context.read() } else { readIsHeld = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        isWritable = context.channel.isWritable
        if isWritable { delegate?.nodeIsWritable(self) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if TLSRecords.isHandshakeCompleted(event) { return handshakeEnded(.success(())) }
        guard case .inputClosed? = event as? ChannelEvent else { return }
        inputEnded = true
        process()
        switch state {
        case .upgraded, .ended: return
        case .head, .body, .idle: break
        }
        // Without an answer, or in the middle of one. A 101 is complete and was handed over.
        finish { $0.nodeBroke(self) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        handshakeEnded(.failure(tlsFailure ?? TLSFailure("the connection was cut")))
        switch state {
        case .upgraded, .ended: return
        case .head, .body, .idle: break
        }
        finish { $0.nodeBroke(self) }
    }

    /// NIO closes the channel itself when the error is one of the connection, TLS when it is one of its own.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if tlsFailure == nil { tlsFailure = error as? TLSFailure }
    }
}
