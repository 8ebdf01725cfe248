import TestSupport
import Testing

/// `martlet bench` against real nodes, each scenario for a moment.
@Suite("martlet bench")
struct BenchTests {
    private static let unlimited = Cluster.Options(
        nodes: 2,
        environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0", "MARTLET_LIMIT_UPGRADES_PER_SECOND": "0"])

    private func bench(_ cluster: Cluster, _ arguments: [String]) async throws -> JSON {
        let node = try #require(cluster.nodes[0].process)
        let urls = cluster.nodes.flatMap { ["--url", "ws://127.0.0.1:\($0.port)/ws"] }
        let output = try await MartletProgram.run(
            ["bench"] + arguments + urls + ["--seconds", "0.5", "--warm-up", "0.1", "--pid", "\(node.pid)", "--json"],
            within: .seconds(60))
        #expect(output.exit == .status(0), "\(arguments): \(output.errorText)")
        return try JSON(parsing: output.text)
    }

    @Test("every scenario runs, checks itself and says its figures")
    func scenarios() async throws {
        try await Machine.with(Self.unlimited, weight: 2) { cluster in
            for arguments in [
                ["fanout", "--members", "50"], ["fanout", "--members", "50", "--in-flight", "8"],
                ["rooms", "--rooms", "10", "--members", "5", "--publishers", "2", "--rate", "200"],
                ["echo", "--clients", "3"], ["publish", "--publishers", "16", "--rooms", "4", "--in-flight", "4"],
                ["connect", "--clients", "4"], ["presence", "--rooms", "2", "--rate", "50"],
                ["soak", "--rooms", "10", "--interval", "0.2"],
            ] {
                let report = try await bench(cluster, arguments)
                #expect(report["scenario"]?.string == arguments[0])
                #expect((report["operations"]?.int ?? 0) > 0, "\(report.text)")
                #expect((report["messages"]?.int ?? 0) > 0, "\(report.text)")
                let latency = ["p50", "p90", "p99", "p99_9", "max"].map { report["latency_ms"]?[$0]?.number ?? -1 }
                #expect(latency == latency.sorted() && latency[0] > 0, "\(report.text)")
                #expect(report["processes"]?.array?.first?["cpu_us_per_operation"]?.number ?? 0 > 0)
                #expect(report["own_cpu_us_per_operation"]?.number ?? 0 > 0)
                let isDue = report["latency_counts"]?.string == "from when it was due"
                #expect(isDue == (arguments.contains("--rate") || arguments[0] == "soak"))
            }
        }
    }

    @Test("idle tells memory for each connection and CPU for all, with and without rooms", arguments: [0, 2])
    func idle(rooms: Int) async throws {
        try await Machine.with(Self.unlimited) { cluster in
            let report = try await bench(cluster, ["idle", "--connections", "200", "--rooms-each", "\(rooms)"])
            #expect(report["connections"]?.int == 200)
            let node = try #require(report["processes"]?.array?.first)
            #expect(node["bytes_per_connection"]?.number ?? 0 > 0)
            #expect(node["cpu_percent"]?.number ?? -1 >= 0)
        }
    }

    @Test("a rate that is refused fails the run in one sentence, which says what to lift")
    func limited() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let output = try await MartletProgram.run(
                ["bench", "echo", "--url", "ws://127.0.0.1:\(cluster.nodes[0].port)/ws", "--rate", "500"])
            #expect(output.exit == .status(1))
            #expect(output.errorText.contains("MARTLET_LIMIT_MESSAGES_PER_SECOND=0"), "\(output.errorText)")
            #expect(output.standardErrorLines.count == 1)
        }
    }

    @Test(
        "bad arguments are one sentence",
        arguments: [
            ["fanout", "--url", "wss://127.0.0.1/ws"], ["fanout", "--url", "ws://127.0.0.1:1/ws"],
            ["echo", "--pid", "999999999"], ["echo", "--source", "here"], ["echo", "--source", "::1"],
            ["rooms", "--members", "2", "--publishers", "3"], ["publish", "--publishers", "10", "--rooms", "3"],
            ["presence", "--observers", "60", "--churners", "60"], ["fanout", "--bytes", "3"],
            ["echo", "--rate", "-1"],
            ["idle", "--connections", "0"], ["soak", "--interval", "0"], ["echo", "--seconds", "x"], ["dance"],
        ]
    )
    func badArguments(arguments: [String]) async throws {
        let output = try await MartletProgram.run(["bench"] + arguments)
        #expect(output.exit != .status(0))
        #expect(!output.errorText.isEmpty && output.text.isEmpty)
        #expect(output.errorText.split(separator: "\n").first?.hasPrefix("martlet: ") == true, "\(output.errorText)")
    }
}

extension JSON {
    /// A number of either kind.
    fileprivate var number: Double? {
        switch self {
        case .double(let value): value
        default: int.map(Double.init)
        }
    }
}
