import Affinity
import Logging
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import RouterServer

@Suite("What checks make of a node")
struct NodeHealthTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
    private let a = RoutedNode(name: "a", incarnation: 1, host: "127.0.0.1", port: 1)
    private let b = RoutedNode(name: "b", incarnation: 1, host: "127.0.0.1", port: 2)
    private let c = RoutedNode(name: "c", incarnation: 1, host: "127.0.0.1", port: 3)

    private func table(_ nodes: [RoutedNode]? = nil) -> NodeTable {
        var table = NodeTable(hash: RendezvousHash(key: (1, 2)), bound: LoadBound())
        table.update(nodes ?? [a, b, c], now: start)
        return table
    }

    private func takers(_ table: NodeTable) -> [String] {
        table.order(for: "k", now: start).map(\.name).sorted()
    }

    @Test("three failures in a row leave it out, and two good answers in a row let it in")
    func fallAndRise() {
        var health = NodeHealth()
        #expect(health.failed(.silent, now: start) == nil)
        #expect(health.failed(.notReady(503), now: start) == nil)
        #expect(health.state == .up(failures: 2))
        #expect(health.passed(now: start) == nil)
        #expect(health.state == .up(failures: 0), "in a row")
        for _ in 0..<2 { #expect(health.failed(.silent, now: start) == nil) }
        #expect(health.failed(.broken, now: start) == .fell(.broken))
        #expect(health.passed(now: start + .seconds(1)) == nil)
        #expect(health.failed(.notReady(503), now: start + .seconds(2)) == nil)
        #expect(health.cause == .notReady(503), "the latest")
        #expect(health.passed(now: start + .seconds(3)) == nil)
        #expect(health.passed(now: start + .seconds(4)) == .rose(after: .seconds(4)))
        #expect(health.state == .up(failures: 0))
    }

    @Test("a connection that is refused counts at once; a way that was not found does not")
    func refused() {
        var health = NodeHealth()
        #expect(health.failed(.unreachable, now: start) == nil)
        #expect(health.failed(.refused, now: start) == .fell(.refused))
    }

    @Test("it is asked sooner while the next answer may change something")
    func settled() {
        var health = NodeHealth()
        #expect(health.isSettled)
        _ = health.failed(.silent, now: start)
        #expect(!health.isSettled)
        _ = health.failed(.refused, now: start)
        #expect(health.isSettled)
        _ = health.passed(now: start)
        #expect(!health.isSettled)
        _ = health.passed(now: start)
        #expect(health.isSettled)
    }

    @Test("a node that fell gets no keys until it rose, and then is no longer left out for what it did to clients")
    func fell() {
        var table = table()
        #expect(table.checked(a, .refused, now: start) == .fell(.refused))
        table.hung(a, now: start)
        #expect(takers(table) == ["b", "c"])
        let entry = table.route(for: "k", now: start).entries.first { $0.node == a }
        #expect(entry?.verdict == .down(.refused))
        #expect(entry?.limit == nil)
        _ = table.checked(a, nil, now: start)
        #expect(takers(table) == ["b", "c"])
        #expect(table.checked(a, nil, now: start + .seconds(3)) == .rose(after: .seconds(3)))
        #expect(takers(table) == ["a", "b", "c"])
    }

    @Test("when no node is ready all that say so serve, and one that is ready again serves alone")
    func panic() {
        var table = table()
        for node in [a, b, c] {
            for _ in 0..<3 { _ = table.checked(node, .notReady(503), now: start) }
        }
        #expect(takers(table) == ["a", "b", "c"], "Redis is away from all of them")
        for _ in 0..<2 { _ = table.checked(b, nil, now: start) }
        #expect(takers(table) == ["b"])
    }

    @Test("the first of many that is ready again gets its part of the clients alone, and then the others have theirs")
    func reserve() {
        var nodes = NodeTable(hash: RendezvousHash(key: (1, 2)), bound: LoadBound(percent: 125, floor: 0))
        let loaded = [a, b, c].map {
            RoutedNode(name: $0.name, incarnation: 1, host: $0.host, port: $0.port, sessions: 100)
        }
        nodes.update(loaded, now: start)
        for node in [a, c] {
            for _ in 0..<3 { _ = nodes.checked(node, .notReady(503), now: start) }
        }
        var picks: [String: Int] = [:]
        for number in 0..<90 {
            let (order, pick) = nodes.pick(for: "k\(number)", now: start)
            picks[pick?.node.name ?? "", default: 0] += 1
            #expect(order.count == 3, "who is not ready is tried after who is")
        }
        // 125 % of the average, which rises to 130.
        #expect((55...63).contains(picks["b"] ?? 0), "\(picks)")
        #expect(nodes.order(for: "k", now: start).map(\.name) == ["b"])
    }

    @Test("a node that drains is not ill: nothing is known of it, and it is well when that is taken back")
    func draining() {
        var table = table()
        for _ in 0..<3 { _ = table.checked(a, .notReady(503), now: start) }
        let away = RoutedNode(name: "a", incarnation: 1, host: "127.0.0.1", port: 1, state: .draining)
        table.update([away, b, c], now: start)
        #expect(table.checked(away, .notReady(503), now: start) == nil)
        #expect(table.failingCheck(away) == nil)
        table.update([a, b, c], now: start)
        #expect(takers(table) == ["a", "b", "c"])
    }

    @Test("of nodes that are not well those serve that answer at least; where none answers, all do")
    func leastIll() {
        var table = table()
        for _ in 0..<3 {
            _ = table.checked(a, .silent, now: start)
            _ = table.checked(b, .notReady(503), now: start)
        }
        table.failed(c, now: start)
        #expect(takers(table) == ["b"])
        _ = table.checked(b, .refused, now: start)
        #expect(takers(table) == ["a", "b", "c"])
        #expect(table.order(for: "k", now: start + .seconds(1)).map(\.name) == ["c"], "its second is over")
    }

    @Test("a new start of the node begins well, and what was asked of the last is not its own")
    func restart() {
        var table = table()
        _ = table.checked(a, .refused, now: start)
        let again = RoutedNode(name: "a", incarnation: 2, host: "127.0.0.1", port: 1)
        table.update([again, b, c], now: start)
        #expect(takers(table) == ["a", "b", "c"])
        #expect(table.checked(a, .refused, now: start) == nil)
        #expect(takers(table) == ["a", "b", "c"])
    }

    @Test("checks do not change where keys belong")
    func home() {
        var table = table()
        let before = (0..<50).map { table.home(of: "k\($0)")?.name }
        _ = table.checked(a, .refused, now: start)
        #expect((0..<50).map { table.home(of: "k\($0)")?.name } == before)
    }
}

@Suite("Asking a node whether it is ready", .timeLimit(.minutes(5)))
struct HealthCheckTests {
    private func ask(_ node: RoutedNode, within time: TimeAmount = .minutes(2)) async throws -> HealthCheck.Outcome {
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        let dialer = NodeDialer(headLimit: 16 * 1024, trouble: OwnTrouble(logger: Logger(label: "test")))
        return try await loop.flatSubmit { HealthCheck.ask(node, on: loop, by: dialer, within: time) }.get()
    }

    @Test("200 is ready; another status, no HTTP, an end without an answer, nobody there are told apart")
    func outcomes() async throws {
        let answers: [(String, HealthCheck.Outcome)] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n", .passed),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", .passed),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", .failed(.notReady(503))),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", .failed(.notReady(101))),
            ("SSH-2.0-OpenSSH\r\n\r\n", .failed(.broken)),
            ("", .failed(.broken)),
        ]
        for (answer, outcome) in answers {
            let node = try await FakeNode.start("a") { _ in answer }
            #expect(try await ask(node.node) == outcome)
            let head = "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:\(node.port)\r\nConnection: close\r\n\r\n"
            #expect(node.heads == [head])
            try await node.stop()
            #expect(try await ask(node.node) == .failed(.refused))
        }
    }

    @Test("a node that takes the connection and says nothing is silent, and the connection ends")
    func silent() async throws {
        let node = try await FakeNode.start("a")
        #expect(try await ask(node.node, within: .milliseconds(50)) == .failed(.silent))
        try await node.connection().end()
        try await node.stop()
    }

    private var quick: HealthChecker.Times {
        var times = HealthChecker.Times()
        times.interval = .milliseconds(20)
        times.fastInterval = .milliseconds(5)
        times.deadline = .minutes(1)
        return times
    }

    @Test("a router asks its nodes, sends clients past those that are not ready, and says once what changed")
    func router() async throws {
        let isReady = Box(false)
        let (ill, well) = (
            try await FakeNode.start("a") { head in
                let status = isReady.value ? "200 OK" : "503 Service Unavailable"
                return "HTTP/1.1 \(status)\r\nContent-Length: 0\r\n\r\n"
            },
            try await FakeNode.start("b") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        )
        let log = LogRecorder()
        try await withRouter(over: [ill.node, well.node], log: log, checks: quick) { router, port, _ in
            @Sendable func order(_ key: String) -> [String] { router.core.order(for: key).map(\.name) }
            _ = try await poll(within: .seconds(60), "the node to be left out") { order("k") == ["b"] ? true : nil }
            for number in 0..<8 {
                let client = try await Wire.connect(port: port)
                try await client.send("GET /?key=\(number) HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 200 "))
                client.close()
            }
            #expect(ill.heads.allSatisfy { $0.hasPrefix("GET /readyz ") })
            isReady.value = true
            _ = try await poll(within: .seconds(60), "the node to be let in") { order("k").count == 2 ? true : nil }
        }
        let told = log.lines.withLock { $0.filter { $0.metadata["node"] == "a" && $0.message.hasPrefix("a node ") } }
        #expect(
            told.map(\.message) == [
                "a node fails its checks and gets no new clients", "a node passes its checks again",
            ])
        #expect(told.first?.metadata["cause"] == "not_ready")
        #expect(told.first?.metadata["reason"] == "GET /readyz is answered 503")
        for node in [ill, well] { try await node.stop() }
    }

    @Test("a node that left the list is asked no more")
    func unlisted() async throws {
        let node = try await FakeNode.start("a") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        let other = try await FakeNode.start("b") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        try await withRouter(over: [node.node, other.node], checks: quick) { _, _, directory in
            _ = try await poll(within: .seconds(60), "checks") { node.heads.count > 2 ? true : nil }
            directory.set([other.node])
            // A check that was under way may still come.
            let before = other.heads.count
            _ = try await poll(within: .seconds(60), "the other's checks") {
                other.heads.count > before + 4 ? true : nil
            }
            let asked = node.heads.count
            _ = try await poll(within: .seconds(60), "its next checks") { other.heads.count > before + 9 ? true : nil }
            #expect(node.heads.count == asked)
        }
        try await node.stop()
        try await other.stop()
    }

    private final class Box: Sendable {
        private let state: Mutex<Bool>
        init(_ value: Bool) { state = Mutex(value) }
        var value: Bool {
            get { state.withLock { $0 } }
            set { state.withLock { $0 = newValue } }
        }
    }
}
