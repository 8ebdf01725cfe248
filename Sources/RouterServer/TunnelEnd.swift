import Glibc
import NIOCore
import NIOPosix
import WebSocketTransport

/// One end of a tunnel: all that stands in the pipeline of a proxied connection once the node has accepted the upgrade.
/// What it reads the other end writes, byte for byte.
///
/// 1. Back-pressure: it reads only while the other end's queue is below its high-water mark.
/// 2. Half-close: the end of input here becomes the end of output there, behind all that was read; the other direction
///    goes on. When nothing moves for `halfCloseIdle` after that, both ends are closed.
/// 3. When this end is lost the other is closed, behind all that was read here.
///
/// Bytes go straight to the socket with send(2) while nothing is queued in NIO for it; what the socket does not take goes
/// through NIO, and everything behind it too until that is written. That keeps the order, since `queued` counts every
/// write that NIO was given and has not finished, the answer to the upgrade and all before it included.
///
/// Under TLS there is no sending past it (`socket` stays -1): one write at a time goes to TLS, and what comes meanwhile waits
/// here, since TLS spends a whole buffer on each. The first is encrypted, and tried on the socket, within the call.
///
/// A descriptor's number is given to the next accept(2) of any thread, so `socket` must be -1 before NIO has closed it and
/// code that sends can run. Both ends are on one loop, and `send` is only called by the other end's `channelRead`. NIO closes a descriptor either in our own `close`, before which we set -1, or by itself in one call of
/// `BaseSocketChannel.close0` on this loop, which afterwards fails queued writes (`wrote` sends nothing), fires the error
/// (ignored) and fires `channelInactive`, which sets -1. No `channelRead` of the other end can come in between. The same
/// holds for `RouterCore.closeAll`, the only other holder of the channel: its close runs as a task of this loop, or out of
/// one, as one call of `close0`; and it gives no promise that could run anything in between.
///
/// Checked against swift-nio 2.101.2.
final class TunnelEnd: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var context: ChannelHandlerContext?
    /// nil once this end or the other is gone.
    private var other: TunnelEnd?
    private let buffers: TunnelBuffers
    private let halfCloseIdle: TimeAmount

    private let isSecure: Bool
    private let traffic: ProxiedTraffic?
    private let side: Side
    private var socket: CInt = -1
    private var queued = 0
    /// Under TLS, behind what is queued.
    private var waiting = ByteBuffer()
    private var channelIsWritable = true
    private var readIsHeld = false
    private var reads: UInt = 0
    private var inputEnded = false
    private var outputEnded = false
    private var isClosing = false

    /// Has to be added to a pipeline of the loop, then started with another.
    ///
    /// - Parameters:
    ///   - isSecure: TLS stands in that pipeline.
    ///   - traffic: of the connection to the node; both ends count what they read, and the node's tells its end.
    init(
        on eventLoop: any EventLoop, halfCloseIdle: TimeAmount, isSecure: Bool, counting traffic: ProxiedTraffic? = nil,
        as side: Side = .client
    ) {
        buffers = TunnelBuffers.current(on: eventLoop)
        self.halfCloseIdle = halfCloseIdle
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
    static func start(_ one: TunnelEnd, _ its: Beginning, _ two: TunnelEnd, _ others: Beginning) {
        one.other = two
        two.other = one
        one.begin(its.first)
        two.begin(others.first)
        if its.inputEnded { one.endOfInput() }
        if others.inputEnded { two.endOfInput() }
        one.context?.read()
        two.context?.read()
    }

    private func begin(_ first: ByteBuffer) {
        guard let context else { return lost() }
        write(first, context)
        channelIsWritable = context.channel.isWritable
        // What is read under TLS is TLS's, which gives no buffer back.
        guard !isSecure else { return }
        let descriptor = try? context.pipeline.syncOperations
            .withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { $0 }
        socket = (descriptor ?? nil) ?? -1
        let allocator = TunnelReadAllocator(buffers: buffers)
        try? context.channel.syncOptions?.setOption(.recvAllocator, value: allocator)
    }

    // MARK: Reading here

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        reads &+= 1
        count(buffer.readableBytes)
        other?.send(buffer)
        if !isSecure { buffers.put(buffer) }
    }

    private func count(_ bytes: Int) {
        switch side {
        case .client: traffic?.sent(bytes)
        case .node: traffic?.received(bytes)
        }
    }

    func read(context: ChannelHandlerContext) {
        if other?.isWritable ?? true {
            context.read()
        } else {
            readIsHeld = true
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { endOfInput() }
    }

    private func endOfInput() {
        guard !inputEnded, let other else { return }
        inputEnded = true
        other.endOutput()
        if !other.inputEnded { watchHalfClosed() }
    }

    private func watchHalfClosed() {
        guard let context, let other else { return }
        let seen = (reads, other.reads)
        context.eventLoop.assumeIsolated().scheduleTask(in: halfCloseIdle) {
            guard let other = self.other else { return }
            if seen == (self.reads, other.reads) {
                self.closeWhenWritten()
                other.closeWhenWritten()
            } else {
                self.watchHalfClosed()
            }
        }
    }

    // MARK: Writing here

    private func send(_ buffer: ByteBuffer) {
        guard !outputEnded, !isClosing, let context else { return }
        guard !isSecure else { return sendSecurely(buffer, context) }
        var taken = 0
        if queued == 0, socket >= 0 {
            taken = buffer.withUnsafeReadableBytes { bytes in
                Glibc.send(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if taken == buffer.readableBytes { return }
            // An error is met again by NIO, which then closes the channel.
            taken = max(taken, 0)
        }
        // A copy, since the buffer is used for the loop's next read.
        write(ByteBuffer(bytes: buffer.readableBytesView.dropFirst(taken)), context)
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

    private func sendSecurely(_ buffer: ByteBuffer, _ context: ChannelHandlerContext) {
        if queued == 0, waiting.readableBytes == 0 {
            write(buffer, context)
        } else {
            waiting.writeImmutableBuffer(buffer)
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
        guard queued == 0 else { return }
        if waiting.readableBytes > 0 {
            context?.eventLoop.assumeIsolated().execute { if self.queued == 0 { self.writeWaiting() } }
        } else if isClosing {
            context?.close(promise: nil)
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
        socket = -1
        writeWaiting()
        // With its input closed NIO would turn the half-close into a close and drop what is queued.
        if inputEnded {
            closeWhenWritten()
        } else {
            context?.close(mode: .output, promise: nil)
        }
    }

    private func closeWhenWritten() {
        guard !isClosing, let context else { return }
        isClosing = true
        socket = -1
        writeWaiting()
        if queued == 0 {
            context.close(promise: nil)
            return
        }
        context.eventLoop.assumeIsolated().scheduleTask(in: .seconds(5)) { self.context?.close(promise: nil) }
    }

    // MARK: The end

    func channelInactive(context: ChannelHandlerContext) {
        lost()
        context.fireChannelInactive()
    }

    private func lost() {
        socket = -1
        if side == .node { traffic?.closed() }
        context = nil
        waiting = ByteBuffer()
        guard let other else { return }
        self.other = nil
        other.other = nil
        other.closeWhenWritten()
    }

    /// NIO closes the channel itself when the error is one of the connection.
    func errorCaught(context: ChannelHandlerContext, error: any Error) {}

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { self.context = context }
    }

    func handlerRemoved(context: ChannelHandlerContext) { lost() }
}

/// The buffer that all tunnels of a loop read into in turn, so that an idle one owns none.
///
/// `@unchecked Sendable`: found only by code on its loop's thread, and used by channels of that loop.
final class TunnelBuffers: @unchecked Sendable {
    private static let perThread = ThreadSpecificVariable<TunnelBuffers>()
    private static let capacity = 64 * 1024
    private var buffer: ByteBuffer?

    static func current(on eventLoop: any EventLoop) -> TunnelBuffers {
        eventLoop.assertInEventLoop()
        if let current = perThread.currentValue { return current }
        let new = TunnelBuffers()
        perThread.currentValue = new
        return new
    }

    /// Given away while in use: NIO then is the only owner and does not copy.
    func take(_ allocator: ByteBufferAllocator) -> ByteBuffer {
        guard var buffer else { return allocator.buffer(capacity: Self.capacity) }
        self.buffer = nil
        buffer.clear()
        return buffer
    }

    /// Frames of NIO below on the stack may still refer to it; they are gone before the next read.
    func put(_ buffer: ByteBuffer) {
        if buffer.storageCapacity == Self.capacity { self.buffer = buffer }
    }
}

/// Keeps NIO from holding a receive buffer for each idle channel: it holds on to the first one that an allocator makes,
/// hence 16 bytes for that (with `maxMessagesPerRead` 1), and asks for a new one each time that `record` says true.
struct FirstReadAllocator: RecvByteBufferAllocator {
    private var hasRead = false

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: hasRead ? 8192 : 16) }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        hasRead = true
        return true
    }
}

private struct TunnelReadAllocator: RecvByteBufferAllocator {
    let buffers: TunnelBuffers

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { buffers.take(allocator) }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool { true }
}
