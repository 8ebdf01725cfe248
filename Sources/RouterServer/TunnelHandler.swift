import NIOCore
import NIOPosix
import WebSocketTransport

/// One end of a tunnel of which one side or both speak TLS: all that stands in the pipeline, beside TLS, once the node has
/// accepted the upgrade. What it reads the other end writes, byte for byte. The rest go through a ``TunnelSet``, with the same
/// guarantees about back-pressure, half-close, lost ends and time.
///
/// One write at a time goes to NIO, and what comes meanwhile waits here, since TLS spends a whole buffer on each. The first is
/// encrypted, and tried on the socket, within the call.
final class TunnelHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var context: ChannelHandlerContext?
    /// nil once this end or the other is gone.
    private var other: TunnelHandler?
    private let times: TunnelTimes
    private let idle: TimeAmount?
    private let isSecure: Bool
    private let traffic: ProxiedTraffic?
    private let side: Side
    /// Writes that NIO was given and has not finished.
    private var queued = 0
    /// Behind what is queued.
    private var waiting = ByteBuffer()
    private var channelIsWritable = true
    private var readIsHeld = false
    /// When a byte was read, or the input ended.
    private var lastMoved = NIODeadline.uptimeNanoseconds(0)
    private var watching: Scheduled<Void>?
    private var ending: Scheduled<Void>?
    private var inputEnded = false
    /// Nothing more is taken to be written; the end goes out behind what is queued and waiting.
    private var outputEnded = false
    /// What is there still goes out, and what comes is thrown away, so that the kernel does not answer it with a reset, which
    /// would overtake what the other side has not read yet. Closed when the input ends, or its time is over.
    private var isEnding = false

    /// Has to be added to a pipeline, then started with another of the same loop.
    ///
    /// - Parameters:
    ///   - idle: after how long without a byte either way both end; nil: never.
    ///   - isSecure: TLS stands in that pipeline.
    ///   - traffic: of the connection to the node; both ends count what they read, and the node's tells its end.
    init(
        _ times: TunnelTimes, idle: TimeAmount?, isSecure: Bool, counting traffic: ProxiedTraffic? = nil,
        as side: Side = .client
    ) {
        (self.times, self.idle) = (times, idle)
        self.isSecure = isSecure
        (self.traffic, self.side) = (traffic, side)
    }

    enum Side { case client, node }

    /// What an end finds when it takes over.
    struct Beginning {
        /// Goes out there before anything the other end reads.
        let first: ByteBuffer
        /// The end of input was seen before this handler came.
        let inputEnded: Bool
    }

    /// Both are in their pipelines. An end of input is passed on once both have their first bytes, which it stands behind.
    static func start(_ one: TunnelHandler, _ its: Beginning, _ two: TunnelHandler, _ others: Beginning) {
        one.other = two
        two.other = one
        one.begin(its.first)
        two.begin(others.first)
        if its.inputEnded { one.endOfInput() }
        if others.inputEnded { two.endOfInput() }
        one.watch()
        one.context?.read()
        two.context?.read()
    }

    private func begin(_ first: ByteBuffer) {
        guard let context else { return lost() }
        channelIsWritable = context.channel.isWritable
        lastMoved = context.eventLoop.now
        if first.readableBytes > 0 { write(first, context) }
    }

    // MARK: Reading here

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isEnding else { return }
        let buffer = unwrapInboundIn(data)
        lastMoved = context.eventLoop.now
        count(buffer.readableBytes)
        other?.send(buffer)
    }

    private func count(_ bytes: Int) {
        switch side {
        case .client: traffic?.sent(bytes)
        case .node: traffic?.received(bytes)
        }
    }

    func read(context: ChannelHandlerContext) {
        if isEnding || other?.isWritable ?? true {
            context.read()
        } else {
            readIsHeld = true
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { return endOfInput() }
        guard let drain = event as? RouterCore.Drain else { return }
        end(at: context.eventLoop.now + drain.time)
    }

    /// With the other.
    func end(at time: NIODeadline) {
        guard !isEnding else { return }
        ending?.cancel()
        ending = at(time) { $0.finishBoth() }
    }

    private func at(_ time: NIODeadline, _ action: @escaping (TunnelHandler) -> Void) -> Scheduled<Void>? {
        context?.eventLoop.assumeIsolated().scheduleTask(deadline: time) { action(self) }
    }

    private func endOfInput() {
        guard !inputEnded else { return }
        inputEnded = true
        if isEnding { return closeWhenThrough() }
        guard let other else { return }
        if let context { lastMoved = context.eventLoop.now }
        other.endOutput()
        if !other.inputEnded { watch() }
        closeWhenThrough()
    }

    /// For the end whose input ends, and one of both from the beginning.
    private func watch() {
        guard let other else { return }
        let isHalfClosed = inputEnded || other.inputEnded
        guard let time = isHalfClosed ? times.halfClosed : idle else { return }
        watching?.cancel()
        watching = at(max(lastMoved, other.lastMoved) + time) { end in
            guard let context = end.context, let other = end.other else { return }
            // An end of input since then has a watch of its own.
            guard isHalfClosed || !(end.inputEnded || other.inputEnded) else { return }
            if max(end.lastMoved, other.lastMoved) + time <= context.eventLoop.now {
                end.finishBoth()
            } else {
                end.watch()
            }
        }
    }

    private func finishBoth() {
        finish()
        other?.finish()
    }

    // MARK: Writing here

    private func send(_ buffer: ByteBuffer) {
        guard !outputEnded, let context else { return }
        if queued == 0, waiting.readableBytes == 0 {
            write(buffer, context)
        } else {
            waiting.writeImmutableBuffer(buffer)
        }
    }

    private func write(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        queued += 1
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { _ in self.wrote() }
        if isSecure {
            TLSRecords.writeAndFlush(buffer, to: context, promise: promise)
        } else {
            context.writeAndFlush(wrapOutboundOut(buffer), promise: promise)
        }
    }

    private func writeWaiting() {
        guard waiting.readableBytes > 0, let context else { return }
        let buffer = waiting
        waiting = ByteBuffer()
        write(buffer, context)
        resumeOther()
    }

    /// May run inside a write of NIO, so what waits is written in a task of its own.
    private func wrote() {
        queued -= 1
        if isEnding, let context { lastMoved = context.eventLoop.now }
        guard queued == 0 else { return }
        if waiting.readableBytes > 0 {
            context?.eventLoop.assumeIsolated().execute { if self.queued == 0 { self.writeWaiting() } }
        } else if outputEnded {
            outputIsThrough()
        }
    }

    private var isWritable: Bool { channelIsWritable && waiting.readableBytes < Self.mostWaiting }

    private static let mostWaiting = 64 * 1024

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        channelIsWritable = context.channel.isWritable
        resumeOther()
    }

    private func resumeOther() {
        guard isWritable, let other, other.readIsHeld else { return }
        other.readIsHeld = false
        other.context?.read()
    }

    private func endOutput() {
        guard !outputEnded else { return }
        outputEnded = true
        if isWritten { outputIsThrough() }
    }

    private var isWritten: Bool { queued == 0 && waiting.readableBytes == 0 }

    /// Not before, since NIO and TLS close, and drop what is queued, when both directions end.
    private func outputIsThrough() {
        if inputEnded {
            context?.close(promise: nil)
        } else {
            context?.close(mode: .output, promise: nil)
        }
    }

    /// Both directions are over.
    private func closeWhenThrough() {
        if outputEnded, isWritten { context?.close(promise: nil) }
    }

    /// The output ends behind what is there; then it is closed when the input ends, or its time is over.
    private func finish() {
        guard !isEnding, let context else { return }
        isEnding = true
        watching?.cancel()
        lastMoved = context.eventLoop.now
        closeWhenLate()
        endOutput()
        guard readIsHeld else { return }
        readIsHeld = false
        self.context?.read()
    }

    /// Since something last went out.
    private func closeWhenLate() {
        ending?.cancel()
        ending = at(lastMoved + times.ending) { end in
            guard let context = end.context else { return }
            if end.lastMoved + end.times.ending <= context.eventLoop.now {
                context.close(promise: nil)
            } else {
                end.closeWhenLate()
            }
        }
    }

    // MARK: The end

    func channelInactive(context: ChannelHandlerContext) {
        lost()
        context.fireChannelInactive()
    }

    private func lost() {
        if side == .node { traffic?.closed() }
        context = nil
        waiting = ByteBuffer()
        watching?.cancel()
        ending?.cancel()
        guard let other else { return }
        self.other = nil
        other.other = nil
        other.finish()
    }

    /// NIO closes the channel itself when the error is one of the connection.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {}

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { self.context = context }
    }

    func handlerRemoved(context: ChannelHandlerContext) { lost() }
}
