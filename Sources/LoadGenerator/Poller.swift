import CLinux
import Glibc
import Synchronization

/// What a scenario does with its connections. Lives on one poller's thread.
protocol Driver: Sendable {
    /// Called once, before anything else.
    mutating func begin(_ wire: inout Wire)
    /// A text message.
    /// - Parameter now: monotonic nanoseconds when its bytes were read.
    mutating func received(_ message: Scan, on slot: Int, at now: UInt64, _ wire: inout Wire)
    /// All messages of one read have been handed over.
    mutating func finishedRead(on slot: Int, _ wire: inout Wire)
    /// A connection that we closed has ended, with the server's close frame.
    mutating func closed(_ slot: Int, _ wire: inout Wire)
    /// A connection could not begin, or ended without our asking.
    mutating func lost(_ slot: Int, because reason: String)
    /// All that was ready has been read, or the poller was rung, or the time has come that was asked for.
    /// - Returns: when to call this next at the latest, in monotonic nanoseconds.
    mutating func finishedBurst(_ wire: inout Wire) -> UInt64?
}

/// One thread with an epoll set, reading WebSocket connections as cheaply as the kernel allows: one receive buffer for all, one
/// `recv` a wake-up and connection. All that its connections and its driver know stays on that thread.
final class Poller<D: Driver>: Sendable {
    private struct Box {
        var isStopping = false
        var driver: D?
    }

    private let epoll: Int32
    private let wake: Int32
    private let targets: [Target]
    private let box: Mutex<Box>
    private let thread: Mutex<pthread_t?>

    /// Starts the thread.
    init(_ driver: D, targets: [Target]) throws(LoadError) {
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        wake = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard epoll >= 0 && wake >= 0 else { throw .system("no epoll set") }
        self.targets = targets
        box = Mutex(Box(driver: driver))
        thread = Mutex(nil)
        var event = epoll_event()
        event.events = UInt32(EPOLLIN.rawValue)
        event.data.u64 = UInt64.max
        epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event)
        var handle = pthread_t()
        let failure = pthread_create(
            &handle,
            nil,
            { context in
                guard let context else { return nil }
                Unmanaged<AnyPoller>.fromOpaque(context).takeRetainedValue().run()
                return nil
            },
            Unmanaged.passRetained(AnyPoller { [self] in run() }).toOpaque()
        )
        guard failure == 0 else { throw LoadError("no thread: \(String(cString: strerror(failure)))") }
        thread.withLock { $0 = handle }
    }

    /// Has ``Driver/finishedBurst(_:)`` called.
    func ring() {
        LoadGenerator.ring(wake)
    }

    /// Ends the thread, closes its connections and gives back the driver; nil if it was stopped before.
    func stop() -> D? {
        guard let handle = thread.withLock({ $0.take() }) else { return nil }
        box.withLock { $0.isStopping = true }
        ring()
        pthread_join(handle, nil)
        close(epoll)
        close(wake)
        return box.withLock { $0.driver.take() }
    }

    private func run() {
        guard var driver = box.withLock({ $0.driver.take() }) else { return }
        var wire = Wire(epoll: epoll, targets: targets)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 16)
        let events = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: 1024)
        defer {
            buffer.deallocate()
            events.deallocate()
        }
        driver.begin(&wire)
        // What failed at once is told before anything is waited for.
        var next = driver.finishedBurst(&wire)
        tellFailures(&driver, &wire)
        while !box.withLock({ $0.isStopping }) {
            let ready = wait(for: events, until: next)
            for index in 0..<max(0, ready) {
                if events[index].data.u64 == UInt64.max {
                    var drained: UInt64 = 0
                    read(wake, &drained, 8)
                } else {
                    handle(events[index], into: buffer, &driver, &wire)
                }
            }
            next = driver.finishedBurst(&wire)
            tellFailures(&driver, &wire)
        }
        wire.closeAll()
        box.withLock { [driver] in $0.driver = driver }
    }

    private func tellFailures(_ driver: inout D, _ wire: inout Wire) {
        for failure in wire.takeFailures() {
            wire.forget(failure.slot, resets: true)
            driver.lost(failure.slot, because: failure.reason)
        }
    }

    /// `epoll_wait` counts in milliseconds, `ppoll` in nanoseconds.
    private func wait(for events: UnsafeMutableBufferPointer<epoll_event>, until next: UInt64?) -> Int {
        guard let next else { return Int(epoll_wait(epoll, events.baseAddress, Int32(events.count), -1)) }
        let now = nanoseconds()
        if next > now {
            var polled = pollfd(fd: epoll, events: Int16(POLLIN), revents: 0)
            let left = Int(min(next - now, 1_000_000_000))
            var bound = timespec(tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000)
            if ppoll(&polled, 1, &bound, nil) <= 0 { return 0 }
        }
        return Int(epoll_wait(epoll, events.baseAddress, Int32(events.count), 0))
    }

    private func handle(
        _ event: epoll_event, into buffer: UnsafeMutableRawBufferPointer, _ driver: inout D, _ wire: inout Wire
    ) {
        let slot = Int(event.data.u64)
        switch wire.phase(of: slot) {
        case .unused: return
        case .connecting, .securing: return wire.advance(slot)
        case .upgrading, .open, .closing: break
        }
        // What is left behind the last bytes is the end of the stream alone, and that is said in the event.
        let isEnding = event.events & (EPOLLRDHUP.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0
        while wire.phase(of: slot) != .unused {
            switch wire.receive(slot, into: buffer) {
            case .bytes(let count, let isLast):
                let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                if wire.hasPartial(slot) {
                    wire.takePartial(slot, with: bytes).withUnsafeBytes { take($0, of: slot, &driver, &wire) }
                } else {
                    take(bytes, of: slot, &driver, &wire)
                }
                if isLast && !isEnding { return }
            case .nothing: return
            case .ended(let reason): return end(slot, because: reason, &driver, &wire)
            }
        }
    }

    private func take(_ bytes: UnsafeRawBufferPointer, of slot: Int, _ driver: inout D, _ wire: inout Wire) {
        let now = nanoseconds()
        var rest = bytes
        if wire.phase(of: slot) == .upgrading {
            guard let head = wire.upgraded(slot, by: bytes) else { return wire.keepPartial(slot, bytes[...]) }
            rest = UnsafeRawBufferPointer(rebasing: bytes[head...])
        }
        var frames = FrameCursor(rest)
        while let frame = frames.next() {
            switch frame.opcode {
            case 1: driver.received(Scan(payload: frame.payload), on: slot, at: now, &wire)
            case 9: wire.pong(frame.payload, on: slot)
            case 8:
                let code = frame.payload.prefix(2).reduce(0) { $0 << 8 | Int($1) }
                let reason = String(decoding: frame.payload.dropFirst(2), as: UTF8.self)
                return end(slot, because: "closed with \(code) \(reason)", &driver, &wire)
            default: break
            }
        }
        if let fault = frames.fault { return end(slot, because: fault, &driver, &wire) }
        wire.keepPartial(slot, rest[frames.position...])
        driver.finishedRead(on: slot, &wire)
    }

    private func end(_ slot: Int, because reason: String, _ driver: inout D, _ wire: inout Wire) {
        let wasClosing = wire.phase(of: slot) == .closing
        wire.forget(slot, resets: true)
        if wasClosing { driver.closed(slot, &wire) } else { driver.lost(slot, because: reason) }
    }
}

/// Wakes whoever waits for an eventfd.
func ring(_ descriptor: Int32) {
    var one: UInt64 = 1
    write(descriptor, &one, 8)
}

/// Carries a closure through `pthread_create`.
private final class AnyPoller: Sendable {
    let run: @Sendable () -> Void

    init(_ run: @escaping @Sendable () -> Void) {
        self.run = run
    }
}
