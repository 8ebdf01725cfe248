import ClusterState
import Testing

@testable import Admin
@testable import martlet

@Suite("What martlet admin top draws")
struct TopScreenTests {
    private static let now: Int64 = 1_790_000_000_123

    private func node(
        _ name: String, _ state: NodeRecord.State = .ready, lease: Int64 = 8100, traffic: NodeTraffic? = nil
    ) throws -> TopReport.Node {
        TopReport.Node(
            report: NodeReport(
                incarnation: try #require(Incarnation(name)), address: "10.0.0.5:8081", state: state, sessions: 40,
                rooms: 7, leaseMilliseconds: lease, version: "0.1.0", startedAt: Self.now - 185_000),
            traffic: traffic)
    }

    private func router(_ name: String, ready: Int = 3, ejected: [String] = [], draining: Bool = false) -> RouterReport
    {
        RouterReport(
            record: RouterRecord(
                id: name,
                figures: RouterFigures(
                    name: name, address: "0.0.0.0:8080", internalAddress: "127.0.0.1:9080", version: "0.1.0",
                    startedAt: Self.now - 7_500_000, connections: 41, requests: 9, requestsPerSecond: 12.34, nodes: 3,
                    readyNodes: ready, ejected: ejected, draining: draining),
                leaseMs: 9000, figuresAgeMs: 100))
    }

    private func screen(
        _ nodes: [TopReport.Node], _ routers: [RouterReport], trouble: String? = nil, colour: Bool = false
    ) -> TopScreen {
        TopScreen(
            report: TopReport(
                at: Self.now, nodes: nodes, routers: routers, census: Census(users: 79, rooms: 12, at: Self.now),
                redis: RedisFigures(info: "used_memory:1572864\r\ninstantaneous_ops_per_sec:23\r\n")),
            redis: "127.0.0.1:6379", trouble: trouble, style: Style(colour: colour))
    }

    private func lines(_ screen: TopScreen, _ width: Int, _ height: Int) -> [String] {
        screen.lines(width: width, height: height, now: Self.now)
    }

    @Test("totals, then nodes, then routers, each under its head")
    func whole() throws {
        let drawn = lines(
            screen(
                [
                    try node(
                        "node-a.1", traffic: NodeTraffic(messagesIn: 12.3, messagesOut: 4100, p99Milliseconds: 8.34)),
                    try node("node-b.2", traffic: NodeTraffic(messagesIn: 0, messagesOut: 0, p99Milliseconds: nil)),
                ], [router("host-8080", ejected: ["node-b"])]), 120, 40)
        #expect(
            drawn == [
                "martlet 2026-09-21 14:13:20Z   redis 127.0.0.1:6379",
                "nodes 2 ready, 0 draining, 0 dead   routers 1",
                "sessions 80   users 79   rooms 12",
                "messages 12.3/s in, 4100/s out   p99 8.3ms (node-a)   memory 1.5 MiB   commands 23/s",
                "",
                "NODE      STATE  SESSIONS  ROOMS  IN/S  OUT/S    P99  LEASE     UP  VERSION",
                "node-a.1  ready        40      7  12.3   4100  8.3ms   8.1s  3m 5s  0.1.0",
                "node-b.2  ready        40      7     0      0      -   8.1s  3m 5s  0.1.0",
                "",
                "ROUTER     ADDRESS       STATE  CONNECTIONS  REQ/S  NODES  EJECTED     UP  VERSION",
                "host-8080  0.0.0.0:8080  ready           41   12.3    3/3  node-b   2h 5m  0.1.0",
            ])
    }

    @Test("without nodes and routers it says so, and that no figure is known")
    func empty() {
        let drawn = lines(screen([], []), 80, 24)
        #expect(drawn[1].hasPrefix("nodes 0 ready"))
        #expect(drawn[3].contains("p99 -"))
        #expect(drawn.suffix(3) == ["No node has registered.", "", "No router has registered."])
    }

    @Test("what Redis does not say any more stands below the reason")
    func trouble() throws {
        let drawn = lines(screen([try node("node-a.1")], [], trouble: "Redis at x\u{1B}[2J does not answer"), 80, 24)
        #expect(drawn[0] == #"Redis at x\u{1b}[2J does not answer"#)
        #expect(drawn[1].hasPrefix("martlet ") && drawn.contains { $0.hasPrefix("node-a.1") })
    }

    @Test("never more lines or columns than the terminal has, whatever its size")
    func fits() throws {
        let traffic = NodeTraffic(messagesIn: 1e9, messagesOut: 1e12, p99Milliseconds: 1e9)
        let nodes = try (1...30).map { try node("a-node-with-a-long-name-\($0).\($0)", traffic: traffic) }
        let routers = (1...9).map { router("日本-router-\($0)", ejected: ["node-a", "node-b", "node-c"]) }
        for colour in [false, true] {
            let screen = screen(nodes, routers, trouble: "Redis is gone", colour: colour)
            for width in [1, 10, 40, 80, 200] {
                for height in [1, 2, 5, 9, 10, 11, 24, 60] {
                    let drawn = lines(screen, width, height)
                    #expect(drawn.count <= height, "\(width) × \(height)")
                    for line in drawn {
                        let visible = line.replacing(#/\u{1B}\[\d+m/#, with: "")
                        #expect(DisplayWidth.of(visible) <= width, "\(width) × \(height): \(line)")
                        #expect(line.ranges(of: "\u{1B}[0m").count * 2 == line.ranges(of: "\u{1B}[").count)
                    }
                }
            }
        }
    }

    @Test("where not all have room the rest is counted, and those that need attention are seen first")
    func cut() throws {
        let nodes =
            try (1...20).map { try node("fine-\($0).1") } + [try node("gone.1", .dead), try node("late.1", lease: -1)]
        let routers = (1...10).map { router("r\($0)") } + [router("leaving", draining: true), router("lost", ready: 0)]
        let drawn = lines(screen(nodes, routers), 120, 24)
        #expect(drawn.count == 24)
        #expect(drawn[6].hasPrefix("gone.1") && drawn[7].hasPrefix("late.1") && drawn[8].hasPrefix("fine-1.1"))
        #expect(drawn.filter { $0.hasPrefix("… ") } == ["… 12 more", "… 8 more"])
        let head = try #require(drawn.firstIndex { $0.hasPrefix("ROUTER") })
        #expect(drawn[head + 1].hasPrefix("leaving") && drawn[head + 2].hasPrefix("lost"))
        #expect(drawn[head + 2].contains("not_ready"))
    }

    @Test("lines are shared: routers get a third where nodes need the rest, and more where they do not")
    func shares() {
        #expect(TopScreen.share(20, 5, 3) == (5, 3))
        #expect(TopScreen.share(20, 30, 3) == (17, 3))
        #expect(TopScreen.share(21, 30, 30) == (14, 7))
        #expect(TopScreen.share(20, 5, 30) == (5, 15))
        #expect(TopScreen.share(-3, 5, 5) == (1, 1))
    }

    @Test("amounts a second and latencies are short")
    func amounts() {
        let rates: [(Double, String)] = [
            (0, "0"), (0.04, "0"), (0.06, "0.1"), (12.34, "12.3"), (99.94, "99.9"), (99.96, "100"), (9999, "9999"),
            (9999.6, "10.0k"), (12_345, "12.3k"), (999_949, "999.9k"), (1_000_000, "1.0M"), (4_100_000, "4.1M"),
        ]
        for (value, text) in rates { #expect(Amounts.rate(value) == text, "\(value)") }
        let latencies: [(Double, String)] = [
            (0, "0.00ms"), (0.046, "0.05ms"), (0.994, "0.99ms"), (0.996, "1.0ms"), (8.34, "8.3ms"), (99.96, "100ms"),
            (420.4, "420ms"), (999.6, "1.0s"), (1234, "1.2s"),
        ]
        for (value, text) in latencies { #expect(Amounts.latency(milliseconds: value) == text, "\(value)") }
    }
}
