import CLinux
import Glibc
import NIOCore
import Synchronization

/// A client's WebSocket on its way through the router without TLS: two sockets, of which each is written what comes from the
/// other. In a ``TunnelSet``, and confined to its thread.
final class Tunnel {
    /// What a tunnel is made of; whoever gives it has no part in the descriptors any more.
    struct Beginning: Sendable {
        /// Connected, and not blocking.
        let client: CInt
        let node: CInt
        /// Read from the one already, and not yet written to the other.
        var toClient: [UInt8] = []
        var toNode: [UInt8] = []
        /// The end of input was seen; it stands behind these bytes.
        var clientEnded = false
        var nodeEnded = false
        /// After how long without a byte either way it ends; nil: never.
        var idle: TimeAmount?
        let meter: NodeMeter
        /// Called when both are closed, with what was read from the client and from the node.
        let whenEnded: @Sendable (_ toNode: Int, _ fromNode: Int) -> Void
    }

    /// It reads only while the other has nothing to write: that is the back-pressure, and bounds what is kept.
    final class End {
        let descriptor: CInt
        /// Set when the tunnel is made, which has both ends for as long as it lives.
        fileprivate unowned(unsafe) var owner: Tunnel?
        /// What the socket did not take, of one read at most.
        fileprivate var waiting: [UInt8]
        fileprivate var written = 0
        fileprivate var inputEnded = false
        /// It was closed both ways; what it sent before may still be there to be read.
        fileprivate var isGone = false
        /// Shut down, or it does not take bytes any more.
        fileprivate var outputEnded = false
        /// What epoll is told; nil: it is not in the set.
        fileprivate var interest: UInt32?
        fileprivate var bytesRead = 0

        fileprivate init(_ descriptor: CInt, waiting: [UInt8]) {
            self.descriptor = descriptor
            self.waiting = waiting
        }

        /// Never nil: only `Tunnel.init` makes an end, and sets its owner before anybody else has it.
        fileprivate var tunnel: Tunnel { owner.unsafelyUnwrapped }
        fileprivate var other: End { tunnel.client === self ? tunnel.node : tunnel.client }
        fileprivate var hasEnded: Bool { inputEnded || isGone }
        fileprivate var reads: Bool { !inputEnded && (other.waiting.isEmpty || tunnel.isEnding) }
    }

    let client: End
    let node: End
    fileprivate let meter: NodeMeter
    fileprivate let whenEnded: @Sendable (Int, Int) -> Void
    /// Its place in the set.
    fileprivate var index = 0
    fileprivate let idle: TimeAmount?
    /// When a byte was taken, or one end ended.
    fileprivate var lastMoved: NIODeadline
    /// What waits still goes out, and what comes is thrown away, so that the kernel does not answer it with a reset, which
    /// would overtake what the other side has not read yet.
    fileprivate var isEnding = false
    fileprivate var isClosed = false

    fileprivate init(_ beginning: Beginning, now: NIODeadline) {
        client = End(beginning.client, waiting: beginning.toClient)
        node = End(beginning.node, waiting: beginning.toNode)
        (client.inputEnded, node.inputEnded) = (beginning.clientEnded, beginning.nodeEnded)
        (idle, meter, whenEnded) = (beginning.idle, beginning.meter, beginning.whenEnded)
        lastMoved = now
        (client.owner, node.owner) = (self, self)
    }
}

/// Tunnels, and which of their sockets are ready. Confined to one thread.
///
/// 1. Writes what it reads, byte for byte, with one recv(2) and one send(2) a read; an idle tunnel owns no buffer.
/// 2. Back-pressure: an end is read only while the other has taken everything.
/// 3. Half-close: the end of input at one end becomes the end of output at the other, behind all that was read.
/// 4. When one end is lost, the other's output ends behind all that was read, and it is closed when it ends its own or its
///    time is over.
/// 5. Ends a tunnel in which nothing moves for too long.
///
/// epoll(7) holds each socket by an unretained reference to its `Tunnel.End`. That is safe since a tunnel stays in `tunnels`
/// until its descriptors are out of the set and closed, and then in `closed` until the events that epoll_wait(2) told before
/// that are through.
final class TunnelSet {
    private let epoll: CInt
    private let times: TunnelTimes
    private let clock: () -> NIODeadline
    private var now: NIODeadline
    private var tunnels: [Tunnel] = []
    private var closed: [Tunnel] = []
    private var nextSweep: NIODeadline
    private var pace: Pace?
    private var events = [epoll_event](repeating: epoll_event(), count: 256)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 64)

    private struct Pace {
        /// In the order of their times; those that ended by themselves are among them.
        var turns: ArraySlice<(at: NIODeadline, tunnel: Tunnel)>
        let end: NIODeadline
    }

    private static let input = UInt32(EPOLLIN.rawValue)
    private static let output = UInt32(EPOLLOUT.rawValue)
    private static let gone = UInt32(EPOLLHUP.rawValue) | UInt32(EPOLLERR.rawValue)
    private static let sending = Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)

    /// - Parameter epoll: a set of epoll(7), closed with this. Descriptors that others add to it, with 0 as data, end a turn.
    init(_ times: TunnelTimes, epoll: CInt, clock: @escaping () -> NIODeadline = { .now() }) {
        (self.times, self.epoll, self.clock, now) = (times, epoll, clock, clock())
        nextSweep = now + times.sweep
    }

    deinit {
        endAll()
        close(epoll)
        buffer.deallocate()
    }

    var count: Int { tunnels.count }

    func add(_ beginning: Tunnel.Beginning) {
        now = clock()
        if tunnels.isEmpty { nextSweep = now + times.sweep }
        let tunnel = Tunnel(beginning, now: now)
        tunnel.index = tunnels.count
        tunnels.append(tunnel)
        for end in [tunnel.client, tunnel.node] where !tunnel.isClosed {
            if end.waiting.isEmpty { outputIsThrough(end) } else { writeWaiting(end) }
        }
        for end in [tunnel.client, tunnel.node] where !tunnel.isClosed { watch(end) }
        if let pace, pace.end <= now { endAll() }
        closed.removeAll()
    }

    private func endAll() {
        while let last = tunnels.last { end(last) }
        closed.removeAll()
    }

    /// Ends those that are there one after the other, evenly over that time but for what the last then has for its end;
    /// those that come meanwhile are closed when it is over, and later ones at once.
    ///
    /// - Parameter place: among so many sets that do the same, so that they take turns.
    func endAll(within time: TimeAmount, place: Int = 0, of sets: Int = 1) {
        now = clock()
        let last = Double((time > times.ending * 2 ? time - times.ending : time).nanoseconds)
        let turns = tunnels.enumerated().map { number, tunnel in
            let share = Double(number * sets + place + 1) / Double(tunnels.count * sets)
            return (at: now + .nanoseconds(Int64(last * share)), tunnel: tunnel)
        }
        pace = Pace(turns: turns[...], end: now + time)
        if time <= .zero { endAll() }
    }

    /// Waits until a socket is ready, or something is due, and does all that is to be done.
    func turn() {
        let count = epoll_wait(epoll, &events, Int32(events.count), wait())
        now = clock()
        for event in events.prefix(max(0, Int(count))) {
            guard let pointer = UnsafeRawPointer(bitPattern: UInt(event.data.u64)) else { continue }
            ready(Unmanaged<Tunnel.End>.fromOpaque(pointer).takeUnretainedValue(), event.events)
        }
        keepPace()
        if now >= nextSweep { sweep() }
        closed.removeAll()
    }

    // MARK: What is due

    /// Milliseconds; -1 where nothing is.
    private func wait() -> Int32 {
        guard !tunnels.isEmpty else { return -1 }
        var due = nextSweep
        if let pace { due = min(due, pace.turns.first?.at ?? pace.end) }
        return Int32(clamping: max(0, ((due - clock()).nanoseconds + 999_999) / 1_000_000))
    }

    private func keepPace() {
        while let next = pace?.turns.first, next.at <= now {
            pace?.turns.removeFirst()
            finish(next.tunnel)
        }
        if let pace, pace.end <= now { endAll() }
    }

    private func sweep() {
        nextSweep = now + times.sweep
        for tunnel in tunnels {
            let still = now - tunnel.lastMoved
            guard still >= times.ending else { continue }
            if tunnel.isEnding {
                end(tunnel)
            } else if tunnel.client.hasEnded || tunnel.node.hasEnded {
                if still >= times.halfClosed { finish(tunnel) }
            } else if let most = tunnel.idle, still >= most {
                finish(tunnel)
            }
        }
    }

    // MARK: What is ready

    private func ready(_ end: Tunnel.End, _ events: UInt32) {
        guard !end.tunnel.isClosed else { return }
        if events & Self.output != 0 {
            writeWaiting(end)
            guard !end.tunnel.isClosed else { return }
        }
        guard events & (Self.input | Self.gone) != 0 else { return }
        if end.reads {
            read(end)
        } else if events & Self.gone != 0 {
            guard !end.inputEnded else { return lost(end) }
            // Told without being asked for, again and again.
            end.isGone = true
            end.tunnel.lastMoved = now
            unwatch(end)
        }
    }

    private func read(_ end: Tunnel.End) {
        let count = recv(end.descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
        if count > 0 {
            guard !end.tunnel.isEnding else { return }
            end.bytesRead += count
            let tunnel = end.tunnel
            if end === tunnel.client {
                tunnel.meter.toNode.add(count, ordering: .relaxed)
            } else {
                tunnel.meter.fromNode.add(count, ordering: .relaxed)
            }
            write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), to: end.other)
        } else if count == 0 {
            end.inputEnded = true
            end.tunnel.lastMoved = now
            if end.outputEnded, !end.other.inputEnded { return lost(end) }
            if end.other.waiting.isEmpty { outputIsThrough(end.other) }
            watch(end)
        } else if errno != EAGAIN, errno != EINTR {
            lost(end)
        }
    }

    /// Nothing waits there.
    private func write(_ bytes: UnsafeRawBufferPointer, to end: Tunnel.End) {
        guard !end.outputEnded else { return }
        end.tunnel.lastMoved = now
        let sent = send(end.descriptor, bytes.baseAddress, bytes.count, Self.sending)
        if sent == bytes.count { return }
        if sent < 0, errno != EAGAIN, errno != EINTR, errno != ENOBUFS { return outputBroke(end) }
        end.waiting = Array(bytes.dropFirst(max(0, sent)))
        end.written = 0
        watch(end)
        watch(end.other)
    }

    private func writeWaiting(_ end: Tunnel.End) {
        guard !end.waiting.isEmpty else { return }
        let sent = end.waiting.withUnsafeBytes { bytes in
            let left = UnsafeRawBufferPointer(rebasing: bytes[end.written...])
            return send(end.descriptor, left.baseAddress, left.count, Self.sending)
        }
        if sent < 0 {
            if errno != EAGAIN, errno != EINTR, errno != ENOBUFS { outputBroke(end) }
            return
        }
        end.tunnel.lastMoved = now
        end.written += sent
        guard end.written == end.waiting.count else { return }
        end.waiting = []
        outputIsThrough(end)
        guard !end.tunnel.isClosed else { return }
        watch(end)
        watch(end.other)
    }

    /// All that was read at the other end was written.
    private func outputIsThrough(_ end: Tunnel.End) {
        let tunnel = end.tunnel
        guard end.other.inputEnded || tunnel.isEnding else { return }
        if !end.outputEnded {
            end.outputEnded = true
            shutdown(end.descriptor, Int32(SHUT_WR))
        }
        if end.inputEnded, end.other.inputEnded, end.other.waiting.isEmpty { self.end(tunnel) }
    }

    /// What it sent before may still be there to be read; what comes for it is thrown away.
    private func outputBroke(_ end: Tunnel.End) {
        end.outputEnded = true
        end.waiting = []
        if end.inputEnded { return lost(end) }
        watch(end)
        watch(end.other)
    }

    private func lost(_ end: Tunnel.End) {
        end.inputEnded = true
        end.outputEnded = true
        end.waiting = []
        unwatch(end)
        finish(end.tunnel)
    }

    /// Both outputs end behind what waits for them; then it ends with both inputs, or when its time is over.
    private func finish(_ tunnel: Tunnel) {
        guard !tunnel.isClosed else { return }
        if !tunnel.isEnding {
            tunnel.isEnding = true
            tunnel.lastMoved = now
        }
        for end in [tunnel.client, tunnel.node] where !tunnel.isClosed && end.waiting.isEmpty { outputIsThrough(end) }
        for end in [tunnel.client, tunnel.node] { watch(end) }
    }

    private func end(_ tunnel: Tunnel) {
        guard !tunnel.isClosed else { return }
        tunnel.isClosed = true
        for end in [tunnel.client, tunnel.node] {
            unwatch(end)
            close(end.descriptor)
        }
        let last = tunnels.removeLast()
        if last !== tunnel {
            last.index = tunnel.index
            tunnels[last.index] = last
        }
        closed.append(tunnel)
        tunnel.whenEnded(tunnel.client.bytesRead, tunnel.node.bytesRead)
    }

    // MARK: What epoll is told

    private func watch(_ end: Tunnel.End) {
        guard !end.tunnel.isClosed else { return }
        // Nothing is to be done there any more, and epoll would tell of its end again and again.
        if end.inputEnded, end.outputEnded { return unwatch(end) }
        let wanted = (end.reads ? Self.input : 0) | (end.waiting.isEmpty ? 0 : Self.output)
        guard wanted != end.interest, !(wanted == 0 && end.interest == nil) else { return }
        var event = epoll_event()
        event.events = wanted
        event.data.u64 = UInt64(UInt(bitPattern: Unmanaged.passUnretained(end).toOpaque()))
        let done = epoll_ctl(epoll, end.interest == nil ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, end.descriptor, &event)
        end.interest = wanted
        // Out of memory, or of what epoll(7) lets a user watch: then nobody would hear of it again.
        if done != 0 { self.end(end.tunnel) }
    }

    private func unwatch(_ end: Tunnel.End) {
        guard end.interest != nil else { return }
        end.interest = nil
        var event = epoll_event()
        epoll_ctl(epoll, EPOLL_CTL_DEL, end.descriptor, &event)
    }
}
