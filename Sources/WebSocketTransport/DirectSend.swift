import Glibc
import NIOCore

/// What one connection has accepted for sending and the kernel has not taken. See the proof below.
struct SendQueue {
    /// The socket, while `send(2)` may be called on it; -1 before the handshake ended, and for ever once the connection
    /// is being closed, has failed, or is not a plain TCP socket.
    var socket: CInt = -1
    /// Bytes that NIO was given, in at most one write at a time, until its promise is completed.
    var inFlight = 0
    /// Whole frames behind what is in flight.
    var waiting = ByteBuffer()
    /// In the loop's list of connections to flush.
    var isListed = false
    /// TLS stands between this connection and the socket.
    var isSecure = false
    /// Within a write that TLS passes on to the socket at once: nobody may be told of anything now.
    var isWriting = false

    var queuedBytes: Int { inFlight + waiting.readableBytes }
}

// Sending straight from the loop
// ==============================
//
// `send(2)` on the connection's own socket, past NIO, costs what the kernel charges and nothing more; NIO takes over only
// for what the socket would not take. This file is the only one that knows the file descriptor. How it is got:
// `ChannelPipeline.SynchronousOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self)`, NIO's public door
// to it (accepting sockets ourselves would lose NIO's accept path and gain nothing). Two things must be proved.
//
// A. Bytes leave in the order of the calls, each frame whole.
//
//    1. There is one place for bytes that the kernel has not taken: first `inFlight`, one write inside NIO, then `waiting`.
//    2. `transmit` is the only caller of `send(2)`, and requires `inFlight == 0` and that `waiting` was taken out (its
//       bytes are the ones being sent). So `send(2)` never overtakes NIO.
//    3. What the socket did not take of it is given to NIO at once (`handOver`), which writes it at the end of the tick; from
//       then on `inFlight > 0` and everything is appended to `waiting`. A frame that was cut is thus always in `inFlight`,
//       and `waiting` begins at a frame, which is why it may be thrown away when the queue overflows.
//    4. When NIO has written all, the promise's success callback hands `waiting` to NIO again, or leaves `inFlight == 0`.
//    5. The 101 (for a client: the request) is the first write and goes through NIO, as does every HTTP response before
//       it, so nothing is sent directly before those bytes are in the kernel.
//    6. `phase` lets nothing be appended behind a Close frame (RFC 6455 section 5.5.1).
//
// B. No byte goes to a socket that is not this connection's any more.
//
//    The number of a closed descriptor is given to the next accept(2) or open(2) of any thread. So `socket` must be -1
//    before `close(2)` can have happened and any code of ours runs. Everything here runs on the connection's loop, and
//    `close(2)` is called by NIO alone, in `BaseSocketChannel.close0`, on that loop. Its callers:
//
//    1. Our own close: `closeTransport` and `halfClose` are the only ones, and set -1 first.
//    2. End of file, a read error, a reset, a failed write, the loop's shutdown: NIO calls `close0` itself. `close0` calls
//       nothing of ours until `close(2)` is done; then it fails pending write promises (`writeFailed` sets -1 first and does
//       nothing else), then fires errors (`errorCaught`, the same), then completes promises of connect and close (connect
//       is long over; nobody else holds the channel, so the only close promises are nil), then `channelInactive`, which
//       sets -1 first. Handlers are removed in a later task of the loop (`handlerRemoved` sets -1 too).
//
//    In between nothing of ours can run: this handler is the only one in the pipeline, the loop is one thread, and `close0`
//    is one call on it. The delegate, other connections' fan-out and timers all run before or after that call, and after it
//    `socket` is -1.
//
//    Checked against swift-nio 2.101.2.
//
//    A descriptor that NIO has closed is therefore never passed to `send(2)`. One more rule keeps it so: callbacks of
//    promises never send directly. `writeFailed` may run inside `close0`; a success callback may run inside NIO's flush,
//    and gives what waits to NIO.
//
// Under TLS there is no direct sending: `socket` is -1 for ever. So that a healthy reader is not taken for a slow one, what
// is sent is tried at once all the same: `handOver` has NIO write within the call, which takes the place of `send(2)` in A.
// A write that fails there has NIO read what the peer sent and then close the channel, all inside the call: what is read is
// thrown away, and `ended` tells the delegate in a task of its own, so a caller in the middle of a fan-out sees nothing change
// under it.
//
// Errors of `send(2)` are noted (-1, phase `lost`) and acted on later, and NIO writes in a task of its own: a caller in the
// middle of a fan-out never sees its member list changed under it by a `webSocketClosed`.
extension WebSocketConnection {
    /// Already framed bytes, whole frames only, usually one buffer shared by many connections (server side only: a
    /// client must mask). Frames that `send` left for the end of the tick go first.
    package func sendFrames(_ bytes: UnsafeRawBufferPointer) {
        assertOnLoop()
        guard phase == .open, bytes.count > 0 else { return }
        if queue.queuedBytes == 0 {
            transmit(bytes)
        } else {
            appendWaiting { $0.writeBytes(bytes) }
            flush()
        }
        checkBudget()
    }

    /// Hands everything sent so far to the kernel, or to NIO where the socket is full. Without it that happens at the end
    /// of the read burst or of the loop's tick.
    package func flush() {
        assertOnLoop()
        guard queue.inFlight == 0, queue.waiting.readableBytes > 0, phase.maySendBytes else { return drainedIfEmpty() }
        var bytes = ByteBuffer()
        swap(&bytes, &queue.waiting)
        if queue.socket >= 0 {
            let taken = bytes.withUnsafeReadableBytes { sendNow($0) }
            guard let taken else { return }
            if taken == bytes.readableBytes {
                loop.returnOutputBuffer(&bytes)
                return drainedIfEmpty()
            }
            bytes.moveReaderIndex(forwardBy: taken)
        }
        handOver(&bytes)
    }

    /// Gives `body` the buffer of waiting frames to append to.
    func appendWaiting(_ body: (inout ByteBuffer) -> Void) {
        if queue.waiting.storageCapacity == 0 { queue.waiting = loop.takeOutputBuffer() }
        body(&queue.waiting)
    }

    /// The last HTTP bytes of the connection (a server's 101), through NIO; finds the socket for what follows.
    func sendHandshake(_ bytes: ByteBuffer) {
        var bytes = bytes
        handOver(&bytes)
        findSocket()
    }

    /// From now on the connection may send directly.
    func findSocket() {
        guard !queue.isSecure, let pipeline = context?.pipeline, phase != .closed else { return }
        let socket = try? pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) { $0 }
        queue.socket = (socket ?? nil) ?? -1
    }

    /// Ends the TCP connection now. Bytes that NIO still holds are lost.
    func closeTransport() {
        queue.socket = -1
        context?.close(promise: nil)
        // TLS says goodbye first, and would still pass on what comes meanwhile.
        if queue.isSecure { ended() }
    }

    /// Ends our direction once NIO has written what it holds; the peer's goes on.
    func halfClose() {
        queue.socket = -1
        context?.close(mode: .output, promise: nil)
    }

    // MARK: The only ways out

    private func transmit(_ bytes: UnsafeRawBufferPointer) {
        var taken = 0
        if queue.socket >= 0 {
            guard let count = sendNow(bytes) else { return }
            taken = count
        }
        guard taken < bytes.count else { return }
        var rest = loop.takeOutputBuffer()
        rest.writeBytes(UnsafeRawBufferPointer(rebasing: bytes.dropFirst(taken)))
        handOver(&rest)
    }

    /// How many bytes the kernel took; nil when the connection is lost.
    private func sendNow(_ bytes: UnsafeRawBufferPointer) -> Int? {
        while true {
            let count = Glibc.send(queue.socket, bytes.baseAddress, bytes.count, sendFlags)
            if count >= 0 { return count }
            switch errno {
            case EINTR: continue
            case EAGAIN: return 0
            default:
                queue.socket = -1
                lose()
                return nil
            }
        }
    }

    /// Requires that nothing is in flight. NIO writes at the end of the tick: a write that fails ends the connection at once.
    /// Under TLS it writes now.
    private func handOver(_ bytes: inout ByteBuffer) {
        guard let context else { return }
        queue.inFlight = bytes.readableBytes
        guard !queue.isSecure else { return writeThroughTLS(&bytes, context) }
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { result in
            switch result {
            case .success: self.writeSucceeded()
            case .failure: self.writeFailed()
            }
        }
        context.write(NIOAny(bytes), promise: promise)
        flushLater()
    }

    /// Without a promise, of which TLS would make two for each delivery: `watchWrites` has the channel writable only while
    /// nothing waits in it.
    private func writeThroughTLS(_ bytes: inout ByteBuffer, _ context: ChannelHandlerContext) {
        queue.isWriting = true
        TLSRecords.writeAndFlush(bytes, to: context, promise: nil)
        queue.isWriting = false
        loop.returnOutputBuffer(&bytes)
        if context.channel.isWritable { writeSucceeded() }
    }

    /// Under TLS, before anything is sent.
    func watchWrites(_ context: ChannelHandlerContext) {
        let mark = ChannelOptions.Types.WriteBufferWaterMark(low: 1, high: 1)
        try? context.channel.syncOptions?.setOption(.writeBufferWaterMark, value: mark)
    }

    /// To be called when the channel's writability has changed.
    func checkWritten() {
        guard queue.isSecure, !queue.isWriting, queue.inFlight > 0, context?.channel.isWritable == true else { return }
        writeSucceeded()
    }

    private func writeSucceeded() {
        queue.inFlight = 0
        checkCaughtUp()
        guard phase.maySendBytes, queue.waiting.readableBytes > 0 else { return drainedIfEmpty() }
        guard !queue.isSecure else { return flushLater() }
        var bytes = ByteBuffer()
        swap(&bytes, &queue.waiting)
        handOver(&bytes)
    }

    private func writeFailed() {
        queue.socket = -1
        queue.inFlight = 0
        queue.waiting = ByteBuffer()
    }
}

private let sendFlags = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)
