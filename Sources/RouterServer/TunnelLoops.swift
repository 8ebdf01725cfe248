import CLinux
import Glibc
import NIOCore
import NIOPosix
import Synchronization
import WebSocketTransport

/// Threads that have nothing to do but tunnels, each with a ``TunnelSet``, among which tunnels are spread in turn.
final class TunnelLoops: Sendable {
    private let loops: [TunnelLoop]
    private let next = Atomic(0)
    private let threads: NIOThreadPool

    init(count: Int, times: TunnelTimes) throws {
        threads = NIOThreadPool(numberOfThreads: count)
        var loops: [TunnelLoop] = []
        do {
            for _ in 0..<count { loops.append(try TunnelLoop()) }
        } catch {
            for loop in loops { loop.close() }
            throw error
        }
        self.loops = loops
        threads.start()
        for loop in loops { threads.submit { _ in loop.run(times) } }
    }

    func add(_ beginning: Tunnel.Beginning) {
        let number = next.add(1, ordering: .relaxed).newValue
        loops[number % loops.count].tell(.add(beginning))
    }

    /// As ``TunnelSet/endAll(within:)``.
    func endAll(within time: TimeAmount) {
        for (place, loop) in loops.enumerated() { loop.tell(.end(time, place: place, of: loops.count)) }
    }

    /// Ends what is left, and the threads; what is added later ends at once. May be called again.
    func stop() {
        for loop in loops { loop.tell(.stop) }
        threads.shutdownGracefully { _ in }
    }
}

/// One of the threads.
private final class TunnelLoop: Sendable {
    enum Order {
        case add(Tunnel.Beginning)
        case end(TimeAmount, place: Int, of: Int)
        case stop
    }

    private let epoll: CInt
    private let wake: CInt
    private let state = Mutex(State())

    private struct State {
        var orders: [Order] = []
        var isStopping = false
    }

    init() throws {
        let epoll = try SystemCall.check("epoll_create1", epoll_create1(Int32(EPOLL_CLOEXEC)))
        do {
            let wake = try SystemCall.check("eventfd", eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)))
            var event = epoll_event()
            event.events = UInt32(EPOLLIN.rawValue)
            try SystemCall.check("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event))
            (self.epoll, self.wake) = (epoll, wake)
        } catch {
            Glibc.close(epoll)
            throw error
        }
    }

    /// Instead of `run`.
    func close() {
        Glibc.close(epoll)
        Glibc.close(wake)
    }

    /// Once it was told to stop its descriptors may be others', and nothing is said any more.
    func tell(_ order: Order) {
        let isTold = state.withLock { state in
            guard !state.isStopping else { return false }
            if case .stop = order { state.isStopping = true }
            state.orders.append(order)
            var one: UInt64 = 1
            if state.orders.count == 1 { _ = write(wake, &one, 8) }
            return true
        }
        guard !isTold, case .add(let beginning) = order else { return }
        Glibc.close(beginning.client)
        Glibc.close(beginning.node)
        beginning.whenEnded(0, 0)
    }

    func run(_ times: TunnelTimes) {
        let tunnels = TunnelSet(times, epoll: epoll)
        while true {
            tunnels.turn()
            for order in take() {
                switch order {
                case .add(let beginning): tunnels.add(beginning)
                case .end(let time, let place, let sets): tunnels.endAll(within: time, place: place, of: sets)
                case .stop:
                    Glibc.close(wake)
                    return
                }
            }
        }
    }

    private func take() -> [Order] {
        state.withLock { state in
            guard !state.orders.isEmpty else { return [] }
            var count: UInt64 = 0
            _ = read(wake, &count, 8)
            defer { state.orders = [] }
            return state.orders
        }
    }
}
