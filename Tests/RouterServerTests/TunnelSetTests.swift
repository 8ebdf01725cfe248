import CLinux
import Glibc
import NIOCore
import Synchronization
import Testing

@testable import RouterServer

/// Sockets of Unix, that the test holds the far ends of, and a clock that it sets.
@Suite("Tunnels of a thread")
struct TunnelSetTests {
    private final class Ended: Sendable {
        private let list = Mutex<[[Int]]>([])
        func add(_ bytes: [Int]) { list.withLock { $0.append(bytes) } }
        var all: [[Int]] { list.withLock(\.self) }
    }

    private final class Clock {
        var now = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
    }

    private final class Bench {
        let wake: CInt = eventfd(1, Int32(EFD_CLOEXEC))
        let meter = NodeMeter()
        let ended = Ended()
        private let clock: Clock
        private(set) var set: TunnelSet
        private var open: [CInt] = []

        /// What is ready is done, and no turn waits: the bench's own event is always there.
        init(_ times: TunnelTimes = TunnelTimes()) {
            let epoll = epoll_create1(0)
            var event = epoll_event()
            event.events = UInt32(EPOLLIN.rawValue)
            epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event)
            let clock = Clock()
            self.clock = clock
            set = TunnelSet(times, epoll: epoll) { clock.now }
        }

        deinit {
            for descriptor in open + [wake] { Glibc.close(descriptor) }
        }

        /// The client's own end and the node's own end.
        func tunnel(_ change: (inout Tunnel.Beginning) -> Void = { _ in }) -> (client: CInt, node: CInt) {
            func pair() -> (CInt, CInt) {
                var pair: [CInt] = [0, 0]
                let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
                #expect(socketpair(AF_UNIX, kind, 0, &pair) == 0)
                return (pair[0], pair[1])
            }
            let (client, node) = (pair(), pair())
            var beginning = Tunnel.Beginning(client: client.1, node: node.1, meter: meter) { [ended] in
                ended.add([$0, $1])
            }
            change(&beginning)
            set.add(beginning)
            open += [client.0, node.0]
            return (client.0, node.0)
        }

        func close(_ descriptor: CInt) {
            open.removeAll { $0 == descriptor }
            Glibc.close(descriptor)
        }

        func turns() { for _ in 0..<4 { set.turn() } }

        func pass(_ time: TimeAmount) {
            clock.now = clock.now + time
            turns()
        }
    }

    private func send(_ bytes: [UInt8], _ descriptor: CInt) -> Int { write(descriptor, bytes, bytes.count) }

    private func send(_ text: String, _ descriptor: CInt) {
        #expect(send(Array(text.utf8), descriptor) == text.utf8.count)
    }

    /// What is there; nil at the end.
    private func receive(_ descriptor: CInt) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = read(descriptor, &bytes, bytes.count)
        return count > 0 ? Array(bytes[..<count]) : count == 0 ? nil : []
    }

    private func text(_ descriptor: CInt) -> String? { receive(descriptor).map { String(decoding: $0, as: UTF8.self) } }

    @Test("what stood between the handshake and the tunnel goes first, then everything, each way, and counts")
    func bytes() {
        let bench = Bench()
        let (client, node) = bench.tunnel {
            $0.toClient = Array("first ".utf8)
            $0.toNode = Array("early ".utf8)
        }
        send("frames", client)
        send("answer", node)
        bench.turns()
        #expect(text(client) == "first answer")
        #expect(text(node) == "early frames")
        #expect(bench.meter.toNode.load(ordering: .relaxed) == 6)
        #expect(bench.meter.fromNode.load(ordering: .relaxed) == 6)
        bench.close(client)
        bench.turns()
        #expect(bench.ended.all == [[6, 6]])
    }

    @Test("who does not read is written no more than the sockets hold and one read, and then gets all of it, in order")
    func backPressure() {
        let bench = Bench()
        let (client, node) = bench.tunnel()
        let chunk = (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 251) }
        var sent = 0
        // A Unix socket has room for some chunks; ten turns without one more mean that it is full.
        var still = 0
        while still < 10 {
            let count = send(chunk, client)
            if count > 0 { sent += count }
            still = count > 0 ? 0 : still + 1
            bench.set.turn()
        }
        #expect(sent < 4 << 20)
        send("the other way", node)
        bench.turns()
        #expect(text(client) == "the other way")
        var received = 0
        var isInOrder = true
        while let bytes = receive(node), received < sent {
            for (index, byte) in bytes.enumerated() where byte != chunk[(received + index) % chunk.count] {
                isInOrder = false
            }
            received += bytes.count
            bench.turns()
        }
        #expect(received == sent)
        #expect(isInOrder || sent % chunk.count != 0)
    }

    @Test("an end of input is passed on behind what was read, and the other direction goes on until its own")
    func halfClose() {
        let bench = Bench()
        let (client, node) = bench.tunnel { $0.toNode = Array("early ".utf8) }
        send("last", client)
        shutdown(client, Int32(SHUT_WR))
        bench.turns()
        #expect(text(node) == "early last")
        #expect(text(node) == nil)
        bench.pass(.seconds(20))
        send("late", node)
        bench.pass(.seconds(20))
        #expect(text(client) == "late")
        #expect(bench.set.count == 1)
        shutdown(node, Int32(SHUT_WR))
        bench.turns()
        #expect(text(client) == nil)
        #expect(bench.set.count == 0)
    }

    @Test("ends of input that were seen before pass on behind the bytes that were")
    func endedBefore() {
        let bench = Bench()
        let (client, node) = bench.tunnel {
            $0.toClient = Array("answer".utf8)
            $0.toNode = Array("early".utf8)
            ($0.clientEnded, $0.nodeEnded) = (true, true)
        }
        #expect(text(client) == "answer" && text(client) == nil)
        #expect(text(node) == "early" && text(node) == nil)
        #expect(bench.set.count == 0)
        #expect(bench.ended.all == [[0, 0]])
    }

    @Test("half closed and still for 30 s it ends; otherwise after the idle time alone, and never where there is none")
    func idle() {
        var times = TunnelTimes()
        times.idle = .seconds(90)
        let (bench, other) = (Bench(times), Bench())
        let (client, node) = bench.tunnel()
        _ = other.tunnel()
        for _ in 0..<5 {
            bench.pass(.seconds(80))
            send("x", node)
            bench.turns()
        }
        #expect(bench.set.count == 1)
        bench.pass(.seconds(89))
        #expect(bench.set.count == 1)
        bench.pass(.seconds(6))
        #expect(bench.set.count == 0)
        #expect(text(client) == "xxxxx" && text(client) == nil)

        let half = bench.tunnel()
        shutdown(half.client, Int32(SHUT_WR))
        bench.pass(.seconds(29))
        #expect(bench.set.count == 1)
        bench.pass(.seconds(6))
        #expect(bench.set.count == 0)
        other.pass(.hours(24))
        #expect(other.set.count == 1)
    }

    @Test("when a node is lost, its client still gets what the node had sent, and has 30 s to begin with it")
    func lost() {
        let bench = Bench()
        let chunk = [UInt8](repeating: 7, count: 65536)
        for takes in [true, false] {
            let (client, node) = bench.tunnel()
            var sent = 0
            for _ in 0..<40 {
                sent += max(0, send(chunk, node))
                bench.set.turn()
            }
            // Nothing is in its queue that the set would have to read first.
            while case let count = send(chunk, node), count > 0 { sent += count }
            bench.close(node)
            bench.turns()
            #expect(bench.set.count == 1)
            if takes {
                var received = 0
                while let bytes = receive(client) {
                    received += bytes.count
                    bench.turns()
                }
                #expect(received == sent)
            } else {
                bench.pass(.seconds(29))
                #expect(bench.set.count == 1)
                bench.pass(.seconds(6))
            }
            #expect(bench.set.count == 0)
        }
    }

    @Test("they end evenly over the time of a drain, also those that come meanwhile, and later ones at once")
    func pace() {
        let bench = Bench()
        for _ in 0..<10 { _ = bench.tunnel() }
        bench.set.endAll(within: .seconds(20))
        var left: [Int] = []
        for _ in 0..<5 {
            bench.pass(.seconds(2))
            left.append(bench.set.count)
        }
        #expect(left == [9, 8, 7, 6, 5])
        for _ in 0..<5 { _ = bench.tunnel() }
        #expect(bench.set.count == 10)
        for _ in 0..<5 {
            bench.pass(.seconds(2))
            left.append(bench.set.count)
        }
        #expect(left == [9, 8, 7, 6, 5, 8, 6, 4, 2, 0])
        let (client, node) = bench.tunnel()
        #expect(text(client) == nil && text(node) == nil)
        #expect(bench.ended.all.count == 16)
    }

    @Test("a set that goes closes what it has")
    func gone() {
        let ended: Int
        do {
            let bench = Bench()
            let sockets = (0..<3).map { _ in bench.tunnel() }
            bench.set.endAll(within: .zero)
            for (client, node) in sockets { #expect(text(client) == nil && text(node) == nil) }
            ended = bench.ended.all.count
        }
        #expect(ended == 3)
    }
}
