import CLinux
import Glibc
import NIOCore
import Synchronization
import TestSupport
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

    private func send(_ bytes: [UInt8], _ descriptor: CInt) -> Int {
        Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

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
        bench.pass(.hours(1))
        send("frames", client)
        send("answer", node)
        bench.turns()
        #expect(text(client) == "first answer")
        #expect(text(node) == "early frames")
        #expect(bench.meter.toNode.load(ordering: .relaxed) == 6)
        #expect(bench.meter.fromNode.load(ordering: .relaxed) == 6)
        bench.close(client)
        bench.turns()
        #expect(text(node) == nil)
        bench.close(node)
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

    /// What the set still gives it is thrown away.
    private func closes(_ bench: Bench, _ client: CInt, _ node: CInt) {
        for descriptor in [client, node] { while let bytes = receive(descriptor), !bytes.isEmpty {} }
        bench.close(client)
        bench.close(node)
        bench.turns()
    }

    @Test("it ends when neither says anything for its idle time, and where it has none it does not")
    func idle() {
        let bench = Bench()
        let (client, node) = bench.tunnel { $0.idle = .seconds(70) }
        _ = bench.tunnel()
        for _ in 0..<5 {
            bench.pass(.seconds(60))
            send("x", node)
            bench.turns()
        }
        bench.pass(.seconds(69))
        #expect(text(client) == "xxxxx")
        bench.pass(.seconds(6))
        #expect(text(client) == nil && text(node) == nil)
        closes(bench, client, node)
        bench.pass(.hours(24))
        #expect(bench.set.count == 1)
    }

    @Test("half closed it has 30 s from then on, and again from each byte, however long it was still before")
    func idleHalfClosed() {
        let bench = Bench()
        let (client, node) = bench.tunnel { $0.idle = .hours(2) }
        bench.pass(.hours(1))
        shutdown(client, Int32(SHUT_WR))
        bench.turns()
        for _ in 0..<3 {
            bench.pass(.seconds(29))
            send("x", node)
            bench.turns()
        }
        #expect(text(client) == "xxx")
        bench.pass(.seconds(29))
        #expect(text(client) == "")
        bench.pass(.seconds(6))
        #expect(text(client) == nil)
        closes(bench, client, node)
        #expect(bench.set.count == 0)
    }

    /// A tunnel whose client takes nothing, with as much on its way as there is room for.
    private func full(_ bench: Bench) -> (client: CInt, node: CInt, sent: Int) {
        let chunk = [UInt8](repeating: 7, count: 65536)
        let (client, node) = bench.tunnel()
        var (sent, still) = (0, 0)
        while still < 10 {
            let count = send(chunk, node)
            if count > 0 { sent += count }
            still = count > 0 ? 0 : still + 1
            bench.set.turn()
        }
        return (client, node, sent)
    }

    @Test("when a node is lost, its client gets all that it had sent, has 30 s to begin with it, and then the end")
    func lost() {
        let bench = Bench()
        for takes in [true, false] {
            let (client, node, sent) = full(bench)
            bench.pass(.hours(1))
            bench.close(node)
            bench.turns()
            bench.pass(.seconds(29))
            #expect(bench.set.count == 1)
            if takes {
                var received = 0
                while let bytes = receive(client) {
                    received += bytes.count
                    // What it says meanwhile has nowhere to go.
                    if received < sent { send("?", client) }
                    bench.turns()
                }
                #expect(received == sent)
                bench.close(client)
                bench.turns()
            } else {
                bench.pass(.seconds(6))
                #expect(bench.set.count == 1)
                bench.pass(.seconds(6))
            }
            #expect(bench.set.count == 0)
        }
    }

    @Test("what a lost client's node goes on to say does not keep the tunnel, and where both are gone it ends at once")
    func lostClient() {
        let bench = Bench()
        let (node, client, _) = full(bench)
        bench.close(client)
        bench.turns()
        for _ in 0..<12 {
            bench.pass(.seconds(5))
            _ = send([1], node)
        }
        #expect(bench.set.count == 0)
        let (one, other) = bench.tunnel()
        bench.close(one)
        bench.close(other)
        bench.turns()
        #expect(bench.set.count == 0)
    }

    @Test("a drain ends them evenly, behind what waits; those that come meanwhile at its end, and later ones at once")
    func pace() {
        let bench = Bench()
        let sockets = (0..<10).map { _ in bench.tunnel() }
        bench.set.endAll(within: .seconds(25))
        var left: [Int] = []
        func open() -> Int { sockets.count { text($0.client) != nil } }
        for _ in 0..<5 {
            bench.pass(.seconds(2))
            left.append(open())
        }
        #expect(left == [9, 8, 7, 6, 5])
        let late = bench.tunnel()
        for _ in 0..<5 {
            bench.pass(.seconds(2))
            left.append(open())
        }
        #expect(left == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
        #expect(text(late.client) == "")
        bench.pass(.seconds(5))
        #expect(text(late.client) == nil)
        #expect(bench.set.count == 0)
        let (client, node) = bench.tunnel()
        #expect(text(client) == nil && text(node) == nil)
        #expect(bench.ended.all.count == 12)
    }

    @Test("sets of several threads take turns")
    func turns() {
        let benches = (0..<3).map { _ in Bench() }
        let sockets = benches.flatMap { bench in (0..<4).map { _ in bench.tunnel() } }
        for (place, bench) in benches.enumerated() { bench.set.endAll(within: .seconds(12 + 5), place: place, of: 3) }
        var ended: [Int] = []
        for _ in 0..<12 {
            for bench in benches { bench.pass(.seconds(1)) }
            ended.append(sockets.count { text($0.client) == nil })
        }
        #expect(ended == Array(1...12))
    }

    @Test(
        "whatever both ends do, each gets the other's bytes from the first on and none else, and nothing is left at the end"
    )
    func anything() {
        var random = SplitMix(seed: 7)
        for _ in 0..<80 {
            let bench = Bench()
            let (client, node) = bench.tunnel { $0.idle = .minutes(2) }
            let ends = [client, node]
            var (sent, received, open) = (
                [[UInt8]](repeating: [], count: 2), [[UInt8]](repeating: [], count: 2), [true, true]
            )
            var next = [UInt8](repeating: 0, count: 2)
            for _ in 0..<40 {
                let side = Int.random(in: 0...1, using: &random)
                guard open[side] else { continue }
                switch Int.random(in: 0..<20, using: &random) {
                case 0:
                    bench.close(ends[side])
                    open[side] = false
                case 1: shutdown(ends[side], Int32(SHUT_WR))
                case 2: bench.pass(.seconds(Int64.random(in: 1...40, using: &random)))
                case 3..<11:
                    let bytes = (0..<Int.random(in: 1...20_000, using: &random)).map { _ in
                        next[side] &+= 31
                        return next[side]
                    }
                    let count = send(bytes, ends[side])
                    sent[side] += bytes[..<max(0, count)]
                    next[side] = sent[side].last ?? 0
                default: received[side] += receive(ends[side]) ?? []
                }
                bench.set.turn()
            }
            for side in 0...1 { #expect(sent[1 - side].starts(with: received[side])) }
            for side in 0...1 where open[side] { bench.close(ends[side]) }
            for _ in 0..<8 { bench.pass(.seconds(30)) }
            #expect(bench.set.count == 0 && bench.ended.all.count == 1)
        }
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
