import Glibc
import Logging
import Synchronization

/// Takes log lines from any thread without ever waiting, and writes them on a thread of its own: a reader of them that
/// stands still stops neither an event loop nor the node's lease.
///
/// 1. A line is one `write(2)`, so lines of several processes on one pipe do not mix below PIPE_BUF.
/// 2. Lines come out in the order in which they went in.
/// 3. What does not fit into the queue is dropped and counted, and the count is said in a line once there is room again.
package final class LogWriter: Sendable {
    private struct Queue {
        var lines: [[UInt8]] = []
        /// With those that the thread took and has not written yet.
        var count = 0
        var bytes = 0
        var dropped = 0
    }

    private let descriptor: Int32
    private let maximumLines: Int
    private let maximumBytes: Int
    private let clock: @Sendable () -> Int64
    private let droppedLine: (@Sendable (Int) -> [UInt8])?
    private let readerIsGone: @Sendable () -> Void
    private let queue = Mutex(Queue())
    /// A `sem_t` does not move and is made for several threads; it is never freed, as the writer lives as long as the process.
    private nonisolated(unsafe) let hasLines: UnsafeMutablePointer<sem_t>

    /// - Parameters:
    ///   - droppedLine: the line, with its newline, that says how many were dropped; by default a JSON log line.
    ///   - readerIsGone: called on the writer's thread at each line for which nobody holds the reading end any more.
    package init(
        descriptor: Int32 = STDERR_FILENO, maximumLines: Int = 10_000, maximumBytes: Int = 4 * 1024 * 1024,
        clock: @escaping @Sendable () -> Int64 = { WallClock.milliseconds() },
        droppedLine: (@Sendable (Int) -> [UInt8])? = nil,
        readerIsGone: @escaping @Sendable () -> Void = {}
    ) {
        self.descriptor = descriptor
        self.maximumLines = maximumLines
        self.maximumBytes = maximumBytes
        self.clock = clock
        self.droppedLine = droppedLine
        self.readerIsGone = readerIsGone
        hasLines = .allocate(capacity: 1)
        sem_init(hasLines, 0, 0)
    }

    /// - Parameter line: with its newline.
    package func write(_ line: [UInt8]) {
        let mustWake = queue.withLock { queue in
            guard queue.count < maximumLines, queue.bytes + line.count <= maximumBytes else {
                queue.dropped += 1
                return false
            }
            queue.lines.append(line)
            queue.count += 1
            queue.bytes += line.count
            return queue.lines.count == 1
        }
        if mustWake { sem_post(hasLines) }
    }

    /// Writes what comes, for ever: the body of the writer's own thread.
    package func run() -> Never {
        while true {
            while sem_wait(hasLines) != 0 {}
            while let (lines, dropped) = take() {
                for line in lines {
                    put(line)
                    queue.withLock { queue in
                        queue.count -= 1
                        queue.bytes -= line.count
                    }
                }
                if dropped > 0 {
                    put(
                        droppedLine?(dropped)
                            ?? JSONLogHandler.line(
                                at: clock(), level: .warning, message: "log lines were dropped",
                                metadata: ["count": .stringConvertible(dropped)]))
                    queue.withLock { $0.count -= 1 }
                }
            }
        }
    }

    /// Waits until all that was given before is written.
    ///
    /// - Parameter milliseconds: not longer than this, for who reads stderr may stand still.
    package func flush(milliseconds: Int = 1000) {
        let deadline = clock() + Int64(milliseconds)
        while queue.withLock({ $0.count + $0.dropped > 0 }), clock() < deadline { usleep(1000) }
    }

    private func take() -> (lines: [[UInt8]], dropped: Int)? {
        queue.withLock { queue in
            guard !queue.lines.isEmpty || queue.dropped > 0 else { return nil }
            let taken = (queue.lines, queue.dropped)
            // The line that says the number counts as one that is not written yet.
            if queue.dropped > 0 { queue.count += 1 }
            queue.lines = []
            queue.dropped = 0
            return taken
        }
    }

    /// Goes on only after an interruption or a short write; what the descriptor takes no more is lost.
    private func put(_ line: [UInt8]) {
        line.withUnsafeBytes { bytes in
            var rest = bytes
            while let base = rest.baseAddress, !rest.isEmpty {
                let count = Glibc.write(descriptor, base, rest.count)
                if count >= 0 {
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                } else if errno == EAGAIN {
                    var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = poll(&poller, 1, -1)
                } else if errno != EINTR {
                    if errno == EPIPE { readerIsGone() }
                    return
                }
            }
        }
    }
}
