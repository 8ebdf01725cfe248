import CLinux
import Glibc
import Synchronization

/// What a scenario does with what its connections receive. Lives on one poller's thread.
protocol FrameSink: Sendable {
    /// A text message. What `send` is given leaves on the same connection.
    /// - Parameter now: monotonic nanoseconds when its bytes were read.
    mutating func received(_ message: Scan, on connection: Int, at now: UInt64, send: (_ text: [UInt8]) -> Void)
    /// The connection ended without our asking.
    mutating func lost(_ connection: Int, because reason: String)
    /// All that was ready has been read.
    mutating func finishedBurst()
}

/// One thread with an epoll set, reading WebSocket connections as cheaply as the kernel allows: one receive buffer for all, one
/// `recv` a wake-up and connection. All that its connections and its sink know stays on that thread.
final class Poller<Sink: FrameSink>: Sendable {
    private struct Inbox {
        var arrivals: [(socket: Int32, number: Int)] = []
        var isStopping = false
        var sink: Sink?
    }

    private struct Connection {
        let socket: Int32
        let number: Int
        var reader = FrameReader()
    }

    private let epoll: Int32
    private let wake: Int32
    private let inbox: Mutex<Inbox>
    private let thread: Mutex<pthread_t?>

    /// Starts the thread.
    init(sink: Sink) throws(LoadError) {
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        wake = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard epoll >= 0 && wake >= 0 else { throw .system("no epoll set") }
        inbox = Mutex(Inbox(sink: sink))
        thread = Mutex(nil)
        watch(wake, slot: Int.max)
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

    /// Hands over a connection after its `welcome`.
    func adopt(_ socket: Int32, number: Int) {
        inbox.withLock { $0.arrivals.append((socket, number)) }
        ring(wake)
    }

    /// Ends the thread, closes its connections and gives back the sink; nil if it was stopped before.
    func stop() -> Sink? {
        inbox.withLock { $0.isStopping = true }
        ring(wake)
        guard let handle = thread.withLock({ $0.take() }) else { return nil }
        pthread_join(handle, nil)
        close(epoll)
        close(wake)
        return inbox.withLock { $0.sink.take() }
    }

    private func watch(_ socket: Int32, slot: Int) {
        var event = epoll_event()
        event.events = UInt32(EPOLLIN.rawValue)
        event.data.u64 = UInt64(slot)
        epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event)
    }

    private func run() {
        guard var sink = inbox.withLock({ $0.sink.take() }) else { return }
        var connections: [Connection] = []
        var writer = FrameWriter()
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 17, alignment: 16)
        defer { buffer.deallocate() }
        var events = [epoll_event](repeating: epoll_event(), count: 1024)
        var isRunning = true
        while isRunning {
            let ready = epoll_wait(epoll, &events, Int32(events.count), -1)
            for event in events.prefix(Int(max(0, ready))) {
                if event.data.u64 == UInt64(Int.max) {
                    isRunning = takeIn(&connections)
                    continue
                }
                let slot = Int(event.data.u64)
                let n = recv(connections[slot].socket, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
                if n < 0 && (errno == EAGAIN || errno == EINTR) { continue }
                guard n > 0 else {
                    drop(connections[slot], &sink, because: n == 0 ? "end of stream" : String(cString: strerror(errno)))
                    continue
                }
                handle(UnsafeRawBufferPointer(rebasing: buffer[..<n]), &connections[slot], &sink, &writer)
            }
            sink.finishedBurst()
        }
        let goodbye = writer.close(1000)
        for connection in connections {
            _ = goodbye.withUnsafeBytes {
                send(connection.socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            }
            close(connection.socket)
        }
        inbox.withLock { [sink] in $0.sink = sink }
    }

    private func takeIn(_ connections: inout [Connection]) -> Bool {
        var drained: UInt64 = 0
        read(wake, &drained, 8)
        let (arrivals, isStopping) = inbox.withLock { inbox in
            defer { inbox.arrivals.removeAll() }
            return (inbox.arrivals, inbox.isStopping)
        }
        for arrival in arrivals {
            connections.append(Connection(socket: arrival.socket, number: arrival.number))
            watch(arrival.socket, slot: connections.count - 1)
        }
        return !isStopping
    }

    private func handle(
        _ bytes: UnsafeRawBufferPointer,
        _ connection: inout Connection,
        _ sink: inout Sink,
        _ writer: inout FrameWriter
    ) {
        let now = nanoseconds()
        let socket = connection.socket
        let number = connection.number
        var end: String?
        let fault = connection.reader.read(bytes) { frame in
            switch frame.opcode {
            case 1:
                sink.received(Scan(payload: frame.payload), on: number, at: now) { text in
                    try? sendAll(writer.text(text), to: socket)
                }
            case 9: try? sendAll(writer.pong(frame.payload), to: socket)
            case 8:
                let code = frame.payload.prefix(2).reduce(0) { $0 << 8 | Int($1) }
                end = "closed with \(code) \(String(decoding: frame.payload.dropFirst(2), as: UTF8.self))"
            default: break
            }
        }
        if let reason = end ?? fault { drop(connection, &sink, because: reason) }
    }

    /// The descriptor stays open until the end, so that its number cannot be another connection's.
    private func drop(_ connection: Connection, _ sink: inout Sink, because reason: String) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, connection.socket, nil)
        shutdown(connection.socket, Int32(SHUT_RDWR))
        sink.lost(connection.number, because: reason)
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
