import NIOCore

/// What a connection's handler tells its owner, on the event loop.
protocol RedisChannelHandlerDelegate: AnyObject {
    /// Bytes came; replies may follow.
    func channelHeard()
    /// One whole reply stands in the reader.
    func channelReceivedReply(_ reader: RedisReplyReader)
    /// The end of a burst of reads.
    func channelFinishedReading()
    /// Exactly once, unless `detach` was called before.
    func channelClosed(cause: String)
}

/// The one handler of a connection to Redis.
///
/// 1. Feeds what is read to hiredis and tells of each reply.
/// 2. Gathers what is written during a tick of the event loop into one write and flush.
/// 3. Ends the connection at the first byte that is not RESP.
///
/// Reads always go on: what Redis sends is never left in the socket, since Redis drops subscribers that read too
/// slowly.
final class RedisChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private var delegate: (any RedisChannelHandlerDelegate)?
    private let reader: RedisReplyReader?
    private var encoder = RESPEncoder()
    private var context: ChannelHandlerContext?
    private var isFlushScheduled = false
    private var isClosing = false
    private var cause = "Redis closed the connection"

    init(delegate: any RedisChannelHandlerDelegate) {
        self.delegate = delegate
        reader = RedisReplyReader()
    }

    /// False while the socket takes so little that bytes pile up over the channel's high water mark.
    var isWritable: Bool { !isClosing && context?.channel.isWritable == true }

    /// Encodes into the bytes that are flushed at the end of this tick.
    func write(_ encode: (inout RESPEncoder) -> Void) {
        encode(&encoder)
        scheduleFlush()
    }

    /// Ends the connection; nothing more is read, and the delegate hears of it with the first cause given.
    func close(cause: String) {
        guard !isClosing else { return }
        isClosing = true
        self.cause = cause
        context?.close(promise: nil)
    }

    /// Ends the connection without a word to the delegate.
    func detach() -> EventLoopFuture<Void>? {
        delegate = nil
        guard let context else { return nil }
        flush()
        isClosing = true
        context.close(promise: nil)
        return context.channel.closeFuture
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        // Also tells of a channel that was closed before the handler came; `channelInactive` would not.
        context.channel.closeFuture.assumeIsolated().whenComplete { _ in
            self.isClosing = true
            let delegate = self.delegate
            self.delegate = nil
            delegate?.channelClosed(cause: self.cause)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(cause: describeConnectionFailure(error))
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let delegate, !isClosing else { return }
        guard let reader else { return close(cause: "there is no memory for the replies of Redis") }
        delegate.channelHeard()
        let buffer = unwrapInboundIn(data)
        buffer.withUnsafeReadableBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty, !isClosing {
                let slice = rest.prefix(RedisReplyReader.sliceLength)
                rest = rest.dropFirst(slice.count)
                reader.feed(UnsafeRawBufferPointer(rebasing: slice))
                guard readReplies(from: reader) else { return }
            }
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        delegate?.channelFinishedReading()
        flush()
        context.fireChannelReadComplete()
    }

    /// False when nothing more can be read.
    private func readReplies(from reader: RedisReplyReader) -> Bool {
        while let delegate, !isClosing {
            switch reader.next() {
            case .reply:
                delegate.channelReceivedReply(reader)
            case .incomplete:
                return true
            case .malformed(let reason):
                close(cause: "Redis sent what is not a reply: \(reason)")
                return false
            }
        }
        return false
    }

    private func scheduleFlush() {
        guard !isFlushScheduled, let context else { return }
        isFlushScheduled = true
        context.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flush()
        }
    }

    private func flush() {
        guard !encoder.isEmpty, !isClosing, let context else { return }
        let bytes = encoder.take()
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
        encoder.reuse(bytes)
    }
}
