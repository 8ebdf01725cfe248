import Logging
import NIOCore
import WebSocketTransport

/// The router's end of a client's connection while HTTP is spoken.
///
/// 1. Reads one head at a time, with a limit and a deadline; refuses what is not plainly HTTP/1.1. While answers pile
///    up that the client does not read, it takes no further request off it.
/// 2. Sends each request to a node (`ClientConnection+Exchange.swift`), and reads on only as fast as the node takes it.
/// 3. Gives way to a tunnel when a node accepts an upgrade (`ClientConnection+Tunnel.swift`).
/// 4. Where clients speak TLS, has it end here; the time for the first head is that for the handshake, too.
/// 5. After the last answer ends its own direction and waits a little for the client to end the other, so that bytes
///    still on their way do not reset the connection under the answer.
final class ClientConnection: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum State {
        /// Between requests, or in a head.
        case head(HeadScanner)
        case exchange(Exchange)
        /// A node has accepted an upgrade; what the client sends is kept for the tunnel. To `lingering`, `ended`.
        case upgraded(Exchange, NodeConnection)
        /// The last answer is written; what still comes is thrown away.
        case lingering
        /// Closed, or a tunnel's.
        case ended
    }

    let core: RouterCore
    /// The other end of the connection, or, where that is a load balancer which says so (PROXY protocol), whom it took it from.
    private(set) var peer: IPAddress
    private let accepted: IPAddress
    let end: ConnectionEnd
    /// As that load balancer says: the client speaks TLS with it, and what it calls the connection.
    private var isSecureAtBalancer = false
    private var connectionID: String?
    private(set) var context: ChannelHandlerContext?
    var state: State
    var inbound = ByteBuffer()
    var inputEnded = false
    private var timer: Scheduled<Void>?
    private var servesRequests = 0
    private var headHasBegun = false
    private var readIsHeld = false
    private var isProcessing = false
    private var processAgain = false
    private var awaitsHandshake: Bool
    /// When a tunnel that it becomes is to end.
    private(set) var drainsAt: NIODeadline?

    var limits: RouterLimits { core.configuration.limits }
    /// The client speaks TLS, with this router or with the load balancer.
    var isSecure: Bool { core.configuration.tls != nil || isSecureAtBalancer }

    /// What every request but the question for health is answered with.
    private let gateRefusal: GateRefusal?

    init(
        core: RouterCore, peer: IPAddress, admission: ConnectionGate.Admission = .serve,
        end: ConnectionEnd = ConnectionEnd()
    ) {
        self.core = core
        self.end = end
        if case .refuse(let refusal) = admission { gateRefusal = refusal } else { gateRefusal = nil }
        (self.peer, accepted) = (peer, peer)
        awaitsHandshake = core.configuration.tls != nil
        state = .head(HeadScanner(limit: core.configuration.limits.headBytes))
    }

    // MARK: Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        setTimer(gateRefusal == nil ? limits.headTime : .seconds(2)) { $0.headIsLate() }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        timer?.cancel()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        if inbound.readableBytes == 0 { inbound = buffer } else { inbound.writeBuffer(&buffer) }
        process()
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case ChannelEvent.inputClosed:
            inputEnded = true
            process()
        case ChannelEvent.outputClosed:
            if case .lingering = state { setTimer(limits.lingerTime) { $0.close() } }
        case let drain as RouterCore.Drain:
            drainsAt = .now() + drain.time
            // Who has connected and not yet asked is answered: to them a connection that ends is one that was refused.
            if case .head = state, !headHasBegun, servesRequests > 0 { close() }
        case ProxyProtocol.Header.client(let address, let isSecure, let id):
            (peer, isSecureAtBalancer) = (address, isSecure)
            connectionID = id.flatMap { HTTPRequest.isRequestID($0) ? $0 : nil }
        case let malformed as ProxyProtocol.Malformed:
            core.cannotRead(malformed, of: peer)
        case let event where awaitsHandshake && TLSRecords.isHandshakeCompleted(event):
            awaitsHandshake = false
        default:
            context.fireUserInboundEventTriggered(event)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        abandonExchange()
        abandonUpgrade()
        state = .ended
        timer?.cancel()
        context.fireChannelInactive()
    }

    /// NIO closes the channel itself when the error is one of the connection, TLS when it is one of its own.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if awaitsHandshake, let reason = TLSRecords.reason(of: error, on: context) { handshakeFailed(reason) }
    }

    /// Told once: closing fails again.
    private func handshakeFailed(_ reason: String) {
        awaitsHandshake = false
        core.logger.debug("no TLS handshake", metadata: ["reason": "\(reason)", "client": "\(peer)"])
    }

    func read(context: ChannelHandlerContext) {
        if wantsBytes { context.read() } else { readIsHeld = true }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        switch state {
        case .exchange(let exchange):
            exchange.lastProgress = .now()
            exchange.node?.clientIsWritable = isWritable
        case .head:
            process()
            resumeReading()
        case .upgraded, .lingering, .ended:
            break
        }
    }

    // MARK: Requests

    /// What was read goes where it belongs, as far as that takes it. Called from within itself it only sees to it that
    /// the outer call does another round, so that a thousand requests in one read need no deep stack.
    func process() {
        processAgain = true
        guard !isProcessing else { return }
        isProcessing = true
        defer { isProcessing = false }
        while processAgain {
            processAgain = false
            processOnce()
        }
    }

    private func processOnce() {
        while true {
            switch state {
            case .head(var scanner):
                guard isWritable else { return }
                do throws(HTTPFault) {
                    guard let bytes = try scanner.scan(&inbound) else {
                        state = .head(scanner)
                        headIsIncomplete()
                        return
                    }
                    try begin(try HTTPSyntax.request(bytes))
                } catch {
                    refuse(.refusal(of: error))
                }
            case .exchange(let exchange):
                pumpRequestBody(exchange)
                guard case .exchange = state else { continue }
                return
            case .upgraded:
                return
            case .lingering, .ended:
                inbound = ByteBuffer()
                return
            }
        }
    }

    private func headIsIncomplete() {
        // Nothing more can come; what was under way has been answered all the same.
        if inputEnded { return linger() }
        if inbound.readableBytes == 0 {
            inbound = ByteBuffer()
        } else if !headHasBegun {
            headHasBegun = true
            // The first head's time runs since the connection began.
            if servesRequests > 0 { setTimer(limits.headTime) { $0.headIsLate() } }
        }
        resumeReading()
    }

    private func headIsLate() {
        guard case .head = state else { return }
        if awaitsHandshake { handshakeFailed("the client took too long") }
        if inbound.readableBytes > 0, isWritable { refuse(.headTimeout) } else { close() }
    }

    private func begin(_ head: RequestHead) throws(HTTPFault) {
        var generator = SystemRandomNumberGenerator()
        let request = try ProxiedRequest(
            head,
            peer: peer,
            trusted: core.configuration.trustedProxies,
            newID: connectionID ?? Hexadecimal.text((generator.next(), generator.next())),
            affinity: core.configuration.affinity,
            subject: core.configuration.subject
        )
        servesRequests += 1
        headHasBegun = false
        let closes = !request.keepsAlive || core.isDraining
        if let own = RouterEndpoints.answer(to: request) {
            answer(own, to: request, closes: closes || request.body != .none || request.isUpgrade)
            return
        }
        if let refusal = refusal(of: request) {
            core.log(request, status: refusal.status, node: nil, started: .now())
            return answer(refusal, to: request, closes: true)
        }
        if request.path == RouterEndpoints.locate { return locate(request) }
        let (nodes, pick) =
            request.isUpgrade
            ? core.pick(for: request.affinity.value) : (core.order(for: request.affinity.value), nil)
        let exchange = Exchange(request: request, nodes: nodes, pick: pick, closes: closes, now: .now())
        state = .exchange(exchange)
        watchProgress(of: exchange)
        perform(exchange.attempt.start(), exchange)
    }

    private func refusal(of request: ProxiedRequest) -> RouterResponse? {
        if let gateRefusal { return .refusal(gateRefusal) }
        guard request.isUpgrade || request.path == RouterEndpoints.locate else { return nil }
        let (gate, peer, client) = (core.gate, accepted, request.client)
        if let refusal = gate.handshake(of: client, through: peer) { return .refusal(refusal) }
        if client != peer { end.add { gate.left(client, through: peer) } }
        // Last, so that who is over a limit of their own takes nobody's turn.
        return core.upgrades.take().map { .tooManyUpgrades(retryAfter: $0) }
    }

    // MARK: Own answers and ends

    /// Answers something that is no request of which we could know where it ends.
    private func refuse(_ response: RouterResponse) {
        core.answers.add(isUpgrade: false, status: response.status)
        core.logger.info(
            "refused",
            metadata: ["status": .stringConvertible(response.status), "client": "\(peer)"]
        )
        core.gate.note(.badHandshake, of: peer)
        write(response.bytes(id: nil, closes: true))
        linger()
    }

    func answer(_ response: RouterResponse, to request: ProxiedRequest, closes: Bool) {
        write(response.bytes(id: request.id, closes: closes, withBody: request.head.method != "HEAD"))
        context?.flush()
        if closes { linger() } else { awaitNextRequest() }
    }

    func awaitNextRequest() {
        if core.isDraining { return linger() }
        state = .head(HeadScanner(limit: limits.headBytes))
        headHasBegun = false
        setTimer(limits.keepAliveTime) { $0.headIsLate() }
    }

    func linger() {
        guard let context else { return }
        state = .lingering
        inbound = ByteBuffer()
        setTimer(limits.exchangeIdle) { $0.close() }
        if inputEnded {
            // With its input closed NIO would turn a half-close into a close and drop what is queued.
            let written = context.eventLoop.makePromise(of: Void.self)
            written.futureResult.assumeIsolated().whenComplete { _ in self.close() }
            context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: written)
        } else {
            context.flush()
            context.close(mode: .output, promise: nil)
            resumeReading()
        }
    }

    func close() {
        abandonExchange()
        abandonUpgrade()
        state = .ended
        context?.close(promise: nil)
    }

    private func abandonExchange() {
        guard case .exchange(let exchange) = state else { return }
        state = .ended
        giveBack(exchange)
        if exchange.answerHasBegun {
            log(exchange, status: exchange.status, isCut: true)
        } else {
            log(exchange, status: RouterCore.clientWent, isCut: true)
        }
        let node = exchange.node
        exchange.node = nil
        node?.abandon()
    }

    // MARK: Pieces

    /// What the client has not taken is below the high-water mark.
    var isWritable: Bool { context?.channel.isWritable ?? true }

    func write(_ buffer: ByteBuffer) {
        context?.write(wrapOutboundOut(buffer), promise: nil)
    }

    private var wantsBytes: Bool {
        switch state {
        case .head: isWritable
        case .lingering: true
        case .exchange(let exchange): exchange.takesRequestBytes
        case .upgraded, .ended: false
        }
    }

    func resumeReading() {
        guard readIsHeld, wantsBytes else { return }
        readIsHeld = false
        context?.read()
    }

    /// One timer at a time; a new one replaces the last.
    func setTimer(_ time: TimeAmount, _ action: @escaping (ClientConnection) -> Void) {
        timer?.cancel()
        timer = context?.eventLoop.assumeIsolated().scheduleTask(in: time) { [weak self] in
            if let self { action(self) }
        }
    }

    func clearTimer() {
        timer?.cancel()
        timer = nil
    }
}
