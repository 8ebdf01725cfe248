package import NIOCore

/// One WebSocket after its handshake, server or client side: the only channel handler of its pipeline.
///
/// 1. Decodes what the peer sends and tells the delegate (`FrameDecoder` holds the rules).
/// 2. Sends frames in the order of the calls (`DirectSend.swift`).
/// 3. Runs the closing handshake, and ends the connection at the latest `closeTimeout` after its start.
/// 4. Bounds what waits for a slow peer.
///
/// Confined to its event loop: every method and property but `eventLoop` is used on it. `@unchecked Sendable` so that a
/// reference may travel through futures and closures back to that loop; `assertInEventLoop` guards the rest.
package final class WebSocketConnection: ChannelInboundHandler, @unchecked Sendable {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    enum Phase: UInt8 {
        /// Frames go both ways. To every other phase.
        case open
        /// `send(2)` failed; what the peer sent before is still read, until NIO sees the end. To `closed`.
        case lost
        /// Our Close frame is queued or sent, the peer's has not come. To `closed`, `ending`, `failing`.
        case closing
        /// Both Close frames are there: ends when ours is written (a client waits for the server to do so). To `closed`.
        case ending
        /// The peer broke the protocol: our Close frame is queued or sent, and input is thrown away, so that the peer
        /// reads the Close frame rather than a reset. To `closed`.
        case failing
        /// No transport. Final.
        case closed

        var maySendBytes: Bool {
            switch self {
            case .open, .closing, .ending, .failing: true
            case .lost, .closed: false
            }
        }
    }

    /// Held until it was told `webSocketClosed`; nil after that.
    package var delegate: (any WebSocketDelegate)?
    package var eventLoop: any EventLoop { loop.eventLoop }
    /// Server: as the handshake's `HTTPRequest` has it. Client: `unspecified`.
    package let clientAddress: IPAddress
    /// What the handshake agreed on.
    package let subprotocol: String?
    /// Of the bytes that the peer keeps of a compressed message, the logarithm to base 2; 0: there is no compression.
    private let windowBits: UInt8
    private let role: FrameDecoder.Role
    private(set) var phase = Phase.open
    private var isReading = false
    private var deliveredInBurst = false
    private var halfClosed = false
    /// More than half of `maximumQueuedBytes` waits: what the peer can do without is better not sent. The delegate is told
    /// `webSocketCaughtUp` when that is over.
    package private(set) var isBehind = false
    var deadlineRow: Int32 = -1
    var serverRow: Int32 = -1
    /// When bytes last came from the peer.
    package private(set) var lastReadTime = NIODeadline.now()

    let loop: LoopContext
    private let limits: SharedLimits
    private var server: ServerLoop?
    /// `nil` while it is at rest: most connections are, between reads.
    private var busyDecoder: Box<FrameDecoder>?
    private(set) var context: ChannelHandlerContext?
    var queue = SendQueue()
    /// What the delegate will be told.
    private var closing: Box<(code: UInt16, reason: String)>?

    private final class Box<Value> {
        var value: Value
        init(_ value: Value) { self.value = value }
    }

    init(
        role: FrameDecoder.Role,
        loop: LoopContext,
        limits: SharedLimits,
        server: ServerLoop?,
        subprotocol: String?,
        deflate: DeflateAgreement? = nil,
        clientAddress: IPAddress = .unspecified,
        isSecure: Bool = false
    ) {
        self.role = role
        self.loop = loop
        self.limits = limits
        self.server = server
        self.subprotocol = subprotocol
        self.clientAddress = clientAddress
        self.windowBits = deflate?.serverWindowBits ?? 0
        queue.isSecure = isSecure
    }

    /// Gives the connection its delegate; should it have ended meanwhile, the delegate hears so at once.
    func attach(_ delegate: any WebSocketDelegate) {
        guard phase != .closed else {
            return delegate.webSocketClosed(self, code: end.code, reason: end.reason)
        }
        self.delegate = delegate
    }

    // MARK: Sending

    /// Frames `text` (which must be UTF-8) and sends it with all else of this tick. Does nothing once closing.
    package func send(text: ByteBuffer) {
        enqueue(.text, text)
    }

    package func send(binary: ByteBuffer) {
        enqueue(.binary, binary)
    }

    /// An empty Ping; the answer is told to the delegate.
    package func ping() {
        enqueue(.ping, ByteBuffer())
    }

    /// Starts the closing handshake behind everything sent so far; does nothing when it has begun. A code that may not
    /// stand on the wire (1005, 1006, …) makes an empty Close frame. `reason` is cut to 123 bytes.
    package func close(code: UInt16, reason: String) {
        assertOnLoop()
        guard phase == .open else { return }
        beginClosing(.closing, code: code, reason: reason)
    }

    /// Ends the TCP connection without a closing handshake; the delegate is told 1006, or what a closing handshake
    /// already settled.
    package func abort() {
        assertOnLoop()
        closeTransport()
    }

    /// Accepted for sending and not yet taken by the kernel.
    package var queuedBytes: Int { queue.queuedBytes }

    /// A hint for producers: the connection is open and less than 64 KiB wait.
    package var isWritable: Bool { phase == .open && queue.queuedBytes < 64 * 1024 }

    /// Neither side has begun to close.
    package var isOpen: Bool { phase == .open }

    private func enqueue(_ opcode: WebSocketFrame.Opcode, _ payload: ByteBuffer) {
        assertOnLoop()
        guard phase == .open else { return }
        appendFrame(opcode, payload)
        if queue.inFlight == 0 && queue.waiting.readableBytes >= 64 * 1024 {
            flush()
        } else if !isReading {
            flushLater()
        }
        checkBudget()
    }

    private func appendFrame(_ opcode: WebSocketFrame.Opcode, _ payload: ByteBuffer) {
        appendWaiting { buffer in
            payload.withUnsafeReadableBytes { bytes in
                switch role {
                case .server where bytes.count <= compressibleBytes && !opcode.isControl:
                    if loop.compressor?.append(bytes, opcode: opcode, to: &buffer) != true {
                        WebSocketFrame.append(bytes, opcode: opcode, to: &buffer)
                    }
                case .server: WebSocketFrame.append(bytes, opcode: opcode, to: &buffer)
                case .client:
                    WebSocketFrame.append(bytes, opcode: opcode, masking: loop.nextMaskingKey(), to: &buffer)
                }
            }
        }
    }

    /// What is longer does not fit into the peer's window, and goes as it is.
    private var compressibleBytes: Int {
        switch Int(windowBits) {
        case 0: 0
        case DeflateAgreement.maximumWindowBits...: .max
        case let bits: 1 << bits
        }
    }

    /// Frames of a ``FrameCompressor`` may be sent with ``sendFrames(_:)``, whatever their size.
    package var takesCompressedFrames: Bool { compressibleBytes == .max }

    func flushLater() {
        guard !queue.isListed else { return }
        queue.isListed = true
        loop.flushLater(self)
    }

    func flushAtEndOfTick() {
        queue.isListed = false
        if queue.inFlight > 0 { context?.flush() }
        flush()
    }

    func assertOnLoop() { loop.eventLoop.assertInEventLoop() }

    // MARK: Closing

    private func beginClosing(_ next: Phase, code: UInt16, reason: String) {
        closing = Box((code, reason))
        appendFrame(.close, WebSocketFrame.closePayload(code: code, reason: reason))
        phase = next
        loop.setDeadline(limits.values.closeTimeout, for: self)
        flush()
    }

    /// Notes a connection for which much waits, and closes one for which too much does. What NIO may have begun to write
    /// must end, the rest is dropped.
    func checkBudget() {
        let most = limits.values.maximumQueuedBytes
        guard phase == .open, queue.queuedBytes > (isBehind ? most : most / 2) else { return }
        let unwritten = unwrittenBytes()
        if unwritten > most / 2 { isBehind = true }
        guard unwritten > most else { return }
        queue.waiting.clear()
        beginClosing(.closing, code: WebSocketCloseCode.slowConsumer, reason: "slow, resume")
    }

    /// Something that waited is gone. Tells the delegate in a task of its own: this may run inside a write of NIO.
    func checkCaughtUp() {
        guard isBehind, queue.queuedBytes <= limits.values.maximumQueuedBytes / 2 else { return }
        isBehind = false
        loop.eventLoop.execute {
            if self.phase == .open, !self.isBehind { self.delegate?.webSocketCaughtUp(self) }
        }
    }

    /// `queuedBytes` without what NIO has written of the write in flight.
    private func unwrittenBytes() -> Int {
        guard queue.inFlight > 0, queue.socket >= 0 || queue.isSecure else { return queue.queuedBytes }
        let inNIO = try? context?.channel.syncOptions?.getOption(.bufferedWritableBytes)
        return (inNIO ?? queue.inFlight) + queue.waiting.readableBytes
    }

    /// Nothing waits any more: the next step of a connection that is on its way out.
    func drainedIfEmpty() {
        guard queue.queuedBytes == 0 else { return }
        checkCaughtUp()
        switch phase {
        case .ending where role == .server:
            loop.eventLoop.execute { self.closeTransport() }
        case .failing where !halfClosed:
            halfClosed = true
            loop.eventLoop.execute { self.halfClose() }
        case .open, .lost, .closing, .ending, .failing, .closed: break
        }
    }

    /// `send(2)` failed. NIO is about to see why; should it not, the deadline ends the connection.
    func lose() {
        guard phase != .closed else { return }
        phase = .lost
        queue.waiting = ByteBuffer()
        loop.setDeadline(.zero, for: self)
    }

    private func peerClosed(code: UInt16, reason: String) {
        switch phase {
        case .open:
            beginClosing(.ending, code: code, reason: reason)
        case .closing:
            phase = .ending
            drainedIfEmpty()
        case .lost:
            closing = Box((code, reason))
        case .ending, .failing, .closed: break
        }
    }

    private func fail(_ failure: WebSocketFailure) {
        switch phase {
        case .open:
            server?.settings.gate?.note(.badFrame, of: clientAddress)
            beginClosing(.failing, code: failure.code, reason: failure.reason.description)
        case .closing:
            phase = .failing
            drainedIfEmpty()
        case .lost, .ending, .failing, .closed: break
        }
    }

    private var end: (code: UInt16, reason: String) { closing?.value ?? (WebSocketCloseCode.abnormal, "") }

    func ended() {
        queue.socket = -1
        guard phase != .closed else { return }
        phase = .closed
        queue.inFlight = 0
        queue.waiting = ByteBuffer()
        loop.clearDeadline(for: self)
        server?.remove(self)
        server?.settings.gate?.ended(clientAddress, as: .serve)
        server = nil
        if queue.isWriting { loop.eventLoop.execute { self.tellEnd() } } else { tellEnd() }
    }

    private func tellEnd() {
        let delegate = delegate
        self.delegate = nil
        delegate?.webSocketClosed(self, code: end.code, reason: end.reason)
    }

    // MARK: ChannelInboundHandler

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if queue.isSecure { watchWrites(context) }
    }

    package func handlerRemoved(context: ChannelHandlerContext) {
        ended()
        self.context = nil
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !queue.isWriting else { return }
        let buffer = Self.unwrapInboundIn(data)
        lastReadTime = .now()
        isReading = true
        var decoder = takeDecoder()
        var hadMessage = false
        buffer.withUnsafeReadableBytes { bytes in
            var input = bytes
            frames: while readsFrames {
                let action = decoder.next(&input, scratch: &loop.scratch)
                switch action {
                case .needsMoreBytes: break frames
                case .text, .binary, .compressed: hadMessage = true
                case .ping, .pong, .close, .fail: break
                }
                act(on: action)
            }
        }
        if !decoder.isAtRest { busyDecoder = Box(decoder) }
        watch(isMidway: !decoder.isAtRest, hadMessage: hadMessage)
        if !queue.isSecure { loop.returnReadBuffer(buffer) }
    }

    /// A client's message that has begun must end in time.
    private func watch(isMidway: Bool, hadMessage: Bool) {
        guard phase == .open, role == .server else { return }
        if deadlineRow >= 0, hadMessage || !isMidway { loop.clearDeadline(for: self) }
        if isMidway, deadlineRow < 0 { loop.setDeadline(limits.values.messageTimeout, for: self) }
    }

    private func takeDecoder() -> FrameDecoder {
        guard let busy = busyDecoder else {
            return FrameDecoder(
                role: role, allowsCompression: windowBits != 0,
                maximumMessageBytes: limits.values.maximumMessageBytes)
        }
        busyDecoder = nil
        return busy.value
    }

    private var readsFrames: Bool {
        switch phase {
        case .open, .lost, .closing: true
        case .ending, .failing, .closed: false
        }
    }

    private func act(on action: FrameDecoder.Action) {
        let delivers = phase != .closing
        switch action {
        case .text(let text) where delivers:
            deliveredInBurst = true
            delegate?.webSocket(self, receivedText: text)
        case .binary(let bytes) where delivers:
            deliveredInBurst = true
            delegate?.webSocket(self, receivedBinary: bytes)
        case .compressed(let payload, let isText) where delivers:
            expand(payload, isText: isText)
        case .ping(let payload) where phase == .open:
            appendFrame(.pong, payload)
            delegate?.webSocketReceivedPing(self)
            if !isReading { flushLater() }
            checkBudget()
        case .pong where delivers:
            delegate?.webSocketReceivedPong(self)
        case .close(let code, let reason):
            peerClosed(code: code, reason: reason)
        case .fail(let failure):
            fail(failure)
        case .text, .binary, .compressed, .ping, .pong, .needsMoreBytes: break
        }
    }

    private func expand(_ payload: ByteBuffer, isText: Bool) {
        guard let inflater = loop.inflater else { return fail(.outOfMemory) }
        var message = ByteBuffer()
        swap(&message, &loop.expanded)
        do throws(WebSocketFailure) {
            try inflater.expand(payload, limit: limits.values.maximumMessageBytes, into: &message)
            if isText, !UTF8Validator.isValid(message) { throw .invalidUTF8 }
        } catch {
            return fail(error)
        }
        act(on: isText ? .text(message) : .binary(message))
        if message.storageCapacity <= LoopContext.readBufferBytes { loop.expanded = message }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        guard !queue.isWriting else { return }
        if deliveredInBurst {
            deliveredInBurst = false
            delegate?.webSocketReadComplete(self)
        }
        isReading = false
        flush()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        ended()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) { checkWritten() }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        closeTransport()
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ChannelShouldQuiesceEvent {
            close(code: WebSocketCloseCode.goingAway, reason: "going away")
        }
    }
}

extension WebSocketConnection: DeadlineTarget, ServerConnection {
    func deadlineExpired() {
        if phase == .open { fail(.messageTimeout) } else { closeTransport() }
    }

    func serverIsClosing() { close(code: WebSocketCloseCode.goingAway, reason: "going away") }
}

/// One copy of the limits for all connections of a server or client.
final class SharedLimits: Sendable {
    let values: WebSocketLimits
    init(_ values: WebSocketLimits) { self.values = values }
}
