import CLinux
import Glibc

/// The connections of one poller's thread, by slot: 0, 1, 2 … A slot can be used again once its connection has ended.
struct Wire {
    enum Phase {
        case unused
        /// TCP is not established yet.
        case connecting
        /// TCP is established, TLS is not yet.
        case securing
        /// The request of the handshake is sent, its answer not whole.
        case upgrading
        case open
        /// We sent a close frame.
        case closing
    }

    struct Failure {
        let slot: Int
        let reason: String
    }

    private struct Connection {
        var socket: Int32 = -1
        var tls: TLSStream?
        var phase = Phase.unused
        var user = ""
        var target = 0
        /// What came of a head or a frame whose rest has not come yet.
        var partial: [UInt8] = []
    }

    private let epoll: Int32
    private let targets: [Target]
    private var connections: [Connection] = []
    private var opened = Int.random(in: 0..<1024)
    private var writer = FrameWriter()
    private var failures: [Failure] = []

    init(epoll: Int32, targets: [Target]) {
        self.epoll = epoll
        self.targets = targets
    }

    func phase(of slot: Int) -> Phase { connections[slot].phase }

    /// Begins a handshake; how it ends the driver is told.
    /// - Parameters:
    ///   - target: which of the endpoints, over their count.
    ///   - user: who connects, for servers that run without authentication.
    mutating func open(_ slot: Int, to target: Int, user: String) {
        while connections.count <= slot { connections.append(Connection()) }
        let target = target % targets.count
        opened += 1
        let socket = targets[target].connect(opened)
        guard socket >= 0 else { return failed(slot, "cannot connect") }
        connections[slot] = Connection(socket: socket, phase: .connecting, user: user, target: target)
        var event = epoll_event()
        event.events = UInt32(EPOLLOUT.rawValue)
        event.data.u64 = UInt64(slot)
        epoll_ctl(epoll, EPOLL_CTL_ADD, socket, &event)
    }

    /// Sends one message or several, made with ``append(_:to:)``.
    mutating func send(_ frames: [UInt8], on slot: Int) {
        do {
            try sendAll(frames, to: connections[slot].socket, through: connections[slot].tls)
        } catch {
            failures.append(Failure(slot: slot, reason: error.description))
        }
    }

    mutating func send(text: [UInt8], on slot: Int) {
        var frame: [UInt8] = []
        append(text, to: &frame)
        send(frame, on: slot)
    }

    mutating func append(_ text: [UInt8], to frames: inout [UInt8]) {
        writer.text(text, to: &frames)
    }

    /// Begins to close with 1000; the driver is told when the server has hung up too.
    mutating func close(_ slot: Int) {
        guard connections[slot].phase == .open else { return }
        connections[slot].phase = .closing
        send(writer.close(1000), on: slot)
    }

    /// Says goodbye on all that are open, and closes all.
    mutating func closeAll() {
        let goodbye = writer.close(1000)
        for slot in connections.indices where connections[slot].socket >= 0 {
            if connections[slot].phase == .open {
                let (socket, tls) = (connections[slot].socket, connections[slot].tls)
                goodbye.withUnsafeBytes { _ = try? sendOnce($0, to: socket, through: tls) }
            }
            forget(slot, resets: false)
        }
    }

    // MARK: What the poller calls.

    mutating func takeFailures() -> [Failure] {
        defer { failures.removeAll() }
        return failures
    }

    mutating func pong(_ payload: UnsafeRawBufferPointer, on slot: Int) {
        send(writer.pong(payload), on: slot)
    }

    enum Received {
        /// - Parameter isLast: the socket has no more now.
        case bytes(Int, isLast: Bool)
        case nothing
        case ended(String)
    }

    mutating func receive(_ slot: Int, into buffer: UnsafeMutableRawBufferPointer) -> Received {
        guard let tls = connections[slot].tls else {
            let n = recv(connections[slot].socket, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
            if n > 0 { return .bytes(n, isLast: n < buffer.count) }
            if n < 0 && errno == EAGAIN { return .nothing }
            return .ended(n == 0 ? "end of stream" : String(cString: strerror(errno)))
        }
        do throws(LoadError) {
            switch try tls.read(into: buffer) {
            case .bytes(let count): return .bytes(count, isLast: false)
            case .nothing: return .nothing
            case .ended: return .ended("end of stream")
            }
        } catch {
            return .ended(error.description)
        }
    }

    /// Something happened to a connection that is not upgraded yet.
    mutating func advance(_ slot: Int) {
        do throws(LoadError) {
            if connections[slot].phase == .connecting { try connected(slot) }
            if let tls = connections[slot].tls {
                guard try tls.handshake() else { return }
            }
        } catch {
            failures.append(Failure(slot: slot, reason: error.description))
            return
        }
        connections[slot].phase = .upgrading
        send(targets[connections[slot].target].request(user: connections[slot].user), on: slot)
        watch(slot, EPOLLIN.rawValue)
    }

    private mutating func connected(_ slot: Int) throws(LoadError) {
        let socket = connections[slot].socket
        var length = socklen_t(MemoryLayout<Int32>.size)
        var reason: Int32 = 0
        getsockopt(socket, SOL_SOCKET, SO_ERROR, &reason, &length)
        errno = reason
        guard reason == 0 else { throw .system("cannot connect") }
        let target = targets[connections[slot].target]
        guard let context = target.tls else { return }
        connections[slot].tls = try TLSStream(context, to: target.endpoint.host, on: socket)
        connections[slot].phase = .securing
        watch(slot, EPOLLIN.rawValue | EPOLLOUT.rawValue)
    }

    /// Edge-triggered: the kernel need not ask the socket again after it has been read to its end.
    private func watch(_ slot: Int, _ events: UInt32) {
        var event = epoll_event()
        event.events = events | EPOLLRDHUP.rawValue | EPOLLET.rawValue
        event.data.u64 = UInt64(slot)
        epoll_ctl(epoll, EPOLL_CTL_MOD, connections[slot].socket, &event)
    }

    /// - Returns: how many of these bytes are the head of the answer that opened the connection; nil when it is not whole,
    ///   or not the one that was due.
    mutating func upgraded(_ slot: Int, by bytes: UnsafeRawBufferPointer) -> Int? {
        let endpoint = targets[connections[slot].target].endpoint
        do throws(LoadError) {
            guard let (status, count) = try responseHead(bytes) else { return nil }
            guard status == 101 else {
                let hint = status == 503 ? " (lift its limit with MARTLET_LIMIT_UPGRADES_PER_SECOND=0)" : ""
                throw LoadError("\(endpoint.authority)\(endpoint.target) answered \(status) where 101 was due\(hint)")
            }
            connections[slot].phase = .open
            return count
        } catch {
            failures.append(Failure(slot: slot, reason: error.description))
            return nil
        }
    }

    func hasPartial(_ slot: Int) -> Bool { !connections[slot].partial.isEmpty }

    /// What was kept of this connection, with what came now behind it.
    mutating func takePartial(_ slot: Int, with bytes: UnsafeRawBufferPointer) -> [UInt8] {
        var whole = connections[slot].partial
        connections[slot].partial = []
        whole.append(contentsOf: bytes)
        return whole
    }

    mutating func keepPartial(_ slot: Int, _ bytes: UnsafeRawBufferPointer.SubSequence) {
        if !bytes.isEmpty { connections[slot].partial.append(contentsOf: bytes) }
    }

    /// - Parameter resets: leaves no TIME_WAIT behind, for when the server has hung up already.
    mutating func forget(_ slot: Int, resets: Bool) {
        guard connections[slot].socket >= 0 else { return }
        if resets {
            var option = linger(l_onoff: 1, l_linger: 0)
            let size = socklen_t(MemoryLayout<linger>.size)
            setsockopt(connections[slot].socket, SOL_SOCKET, SO_LINGER, &option, size)
        }
        Glibc.close(connections[slot].socket)
        connections[slot] = Connection()
    }

    private mutating func failed(_ slot: Int, _ what: String) {
        failures.append(Failure(slot: slot, reason: LoadError.system(what).description))
    }
}
