import NIOCore
import NIOPosix

/// What all connections of one event loop share, so that an idle connection need not own it.
///
/// 1. The read buffer and the scratch buffer for decoding.
/// 2. Small output buffers for the frames of a tick, and the list of connections to flush at its end.
/// 3. Deadlines, counted in ticks of 250 ms that a loop really ran: a loop that stood still (SIGSTOP, a paused machine)
///    wakes with as much time left as it had.
/// 4. Masking keys for clients.
/// 5. What compresses and expands messages, once a connection has agreed on it.
///
/// `@unchecked Sendable`: made on its loop, found only through that loop's thread or by connections of the loop, and
/// every method is called on the loop.
final class LoopContext: @unchecked Sendable {
    private static let perThread = ThreadSpecificVariable<LoopContext>()

    let eventLoop: any EventLoop
    /// For `FrameDecoder.next`.
    var scratch = ByteBuffer()
    /// For what a compressed message expands to.
    var expanded = ByteBuffer()
    /// `nil` where there is no memory: then messages go as they are, and what comes compressed cannot be read.
    private(set) lazy var compressor = FrameCompressor()
    private(set) lazy var inflater = MessageInflater()
    private var readBuffer: ByteBuffer?
    private var outputBuffers: [ByteBuffer] = []
    private var unflushed: [WebSocketConnection] = []
    private var deadlines = DeadlineTable()
    private var ticking: RepeatedTask?
    private var keys: [UInt32] = []

    private init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
    }

    /// The context of `eventLoop`; call on it.
    static func current(on eventLoop: any EventLoop) -> LoopContext {
        eventLoop.assertInEventLoop()
        if let context = perThread.currentValue, context.eventLoop === eventLoop { return context }
        let context = LoopContext(eventLoop: eventLoop)
        perThread.currentValue = context
        return context
    }

    // MARK: Buffers

    static let readBufferBytes = 64 * 1024

    /// An empty buffer that nobody else refers to; give it back with `returnReadBuffer`.
    func takeReadBuffer(_ allocator: ByteBufferAllocator) -> ByteBuffer {
        guard var buffer = readBuffer.take() else { return allocator.buffer(capacity: Self.readBufferBytes) }
        buffer.clear()
        return buffer
    }

    /// `buffer` may still be referred to by frames of NIO below us on the stack; they are gone before the next read.
    func returnReadBuffer(_ buffer: ByteBuffer) {
        if buffer.storageCapacity == Self.readBufferBytes { readBuffer = buffer }
    }

    func takeOutputBuffer() -> ByteBuffer {
        outputBuffers.popLast() ?? ByteBufferAllocator().buffer(capacity: 1024)
    }

    func returnOutputBuffer(_ buffer: inout ByteBuffer) {
        let empty = ByteBuffer()
        if outputBuffers.count < 64, (1...16384).contains(buffer.storageCapacity) {
            buffer.clear()
            outputBuffers.append(buffer)
        }
        buffer = empty
    }

    // MARK: Flushing at the end of a tick

    /// Flushes `connection` after the tasks that are already queued on the loop.
    func flushLater(_ connection: WebSocketConnection) {
        unflushed.append(connection)
        guard unflushed.count == 1 else { return }
        eventLoop.execute { self.flushAll() }
    }

    private func flushAll() {
        var connections: [WebSocketConnection] = []
        swap(&connections, &unflushed)
        for connection in connections { connection.flushAtEndOfTick() }
    }

    // MARK: Deadlines

    static let tick: TimeAmount = .milliseconds(250)

    /// Calls `target.deadlineExpired()` not before `time` from now, once; replaces the target's earlier deadline.
    func setDeadline(_ time: TimeAmount, for target: any DeadlineTarget) {
        let ticks = 1 + (time.nanoseconds + Self.tick.nanoseconds - 1) / Self.tick.nanoseconds
        deadlines.set(ticks: Int32(clamping: ticks), for: target)
        if ticking == nil {
            ticking = eventLoop.scheduleRepeatedTask(initialDelay: Self.tick, delay: Self.tick) { [weak self] _ in
                self?.runTick()
            }
        }
    }

    func clearDeadline(for target: any DeadlineTarget) {
        deadlines.clear(target)
    }

    private func runTick() {
        for target in deadlines.tick() { target.deadlineExpired() }
        if deadlines.isEmpty {
            ticking?.cancel()
            ticking = nil
        }
    }

    // MARK: Masking keys

    /// Unpredictable (RFC 6455 section 10.3): from the system's generator, fetched in batches.
    func nextMaskingKey() -> MaskingKey {
        if let key = keys.popLast() { return MaskingKey(word: key) }
        var generator = SystemRandomNumberGenerator()
        keys.reserveCapacity(256)
        for _ in 0..<128 {
            let word = generator.next()
            keys.append(UInt32(truncatingIfNeeded: word))
            keys.append(UInt32(truncatingIfNeeded: word >> 32))
        }
        return MaskingKey(word: UInt32(truncatingIfNeeded: generator.next()))
    }
}

extension Optional where Wrapped == ByteBuffer {
    fileprivate mutating func take() -> ByteBuffer? {
        let value = self
        self = nil
        return value
    }
}

/// Something with one deadline in its loop's `DeadlineTable`.
protocol DeadlineTarget: AnyObject {
    /// The table's own: its row, -1 when there is none.
    var deadlineRow: Int32 { get set }
    func deadlineExpired()
}

/// Deadlines in ticks. Setting and clearing is O(1); a tick visits every row.
struct DeadlineTable {
    private var rows: [(target: any DeadlineTarget, ticks: Int32)] = []

    var isEmpty: Bool { rows.isEmpty }

    mutating func set(ticks: Int32, for target: any DeadlineTarget) {
        if target.deadlineRow >= 0 {
            rows[Int(target.deadlineRow)].ticks = ticks
        } else {
            target.deadlineRow = Int32(rows.count)
            rows.append((target, ticks))
        }
    }

    mutating func clear(_ target: any DeadlineTarget) {
        let row = Int(target.deadlineRow)
        guard row >= 0 else { return }
        target.deadlineRow = -1
        let last = rows.removeLast()
        guard row < rows.count else { return }
        rows[row] = last
        last.target.deadlineRow = Int32(row)
    }

    /// One tick passed. Answers, and removes, the targets whose time is up.
    mutating func tick() -> [any DeadlineTarget] {
        var expired: [any DeadlineTarget] = []
        for index in rows.indices {
            rows[index].ticks -= 1
            if rows[index].ticks <= 0 { expired.append(rows[index].target) }
        }
        for target in expired { clear(target) }
        return expired
    }
}
