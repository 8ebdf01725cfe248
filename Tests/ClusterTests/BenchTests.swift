import Foundation
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

    @Test("wss:// is TLS to a server whose certificate is good, whoever signed it: --cacert, --insecure")
    func secure() async throws {
        try await Machine.with(Self.unlimited) { cluster in
            let certificates = try await Certificates()
            let name = try await certificates.issue("name", names: ["DNS:localhost"])
            let address = try await certificates.issue("address", names: ["IP:127.0.0.1"])
            let byName = try await TLSRelay.start(name, to: cluster.nodes[0].port)
            let byAddress = try await TLSRelay.start(address, to: cluster.nodes[0].port)
            func bench(_ relay: TLSRelay, _ arguments: [String], host: String) async throws -> ChildProcess.Output {
                try await MartletProgram.run(
                    ["bench"] + arguments + ["--url", "wss://\(host):\(relay.port)/ws"]
                        + ["--seconds", "0.5", "--warm-up", "0.1", "--json"], within: .seconds(60))
            }
            let trusted = ["--cacert", certificates.authority]
            for arguments in [["connect", "--clients", "4"], ["fanout", "--members", "50", "--bytes", "20000"]] {
                let output = try await bench(byName, arguments + trusted, host: "localhost")
                #expect(output.exit == .status(0), "\(arguments): \(output.errorText)")
                #expect(try JSON(parsing: output.text)["operations"]?.int ?? 0 > 0, "\(output.text)")
            }
            let literal = try await bench(byAddress, ["echo"] + trusted, host: "127.0.0.1")
            #expect(literal.exit == .status(0), "\(literal.errorText)")
            let anybody = try await bench(byAddress, ["echo", "--insecure"], host: "localhost")
            #expect(anybody.exit == .status(0), "\(anybody.errorText)")
            for (relay, arguments, host, reason) in [
                (byName, [], "localhost", "not trusted: unable to get local issuer certificate"),
                (byName, trusted, "127.0.0.1", "not trusted: IP address mismatch"),
                (byAddress, trusted, "localhost", "not trusted: hostname mismatch"),
                (byName, ["--cacert", "/nowhere"], "localhost", "/nowhere is no file"),
            ] {
                let output = try await bench(relay, ["echo"] + arguments, host: host)
                #expect(output.exit == .status(1) && output.errorText.contains(reason), "\(output.errorText)")
                #expect(output.standardErrorLines.count == 1)
            }
            let plain = try await MartletProgram.run(
                ["bench", "echo", "--url", "wss://127.0.0.1:\(cluster.nodes[0].port)/ws", "--insecure"])
            #expect(plain.errorText.contains("no TLS handshake"), "\(plain.errorText)")
            for relay in [byName, byAddress] { await relay.process.end() }
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
            ["fanout", "--url", "https:127.0.0.1/ws"], ["fanout", "--cacert"],
            ["fanout", "--url", "ws://127.0.0.1:1/ws"],
            ["echo", "--pid", "999999999"], ["echo", "--source", "here"], ["echo", "--source", "::1"],
            ["rooms", "--members", "2", "--publishers", "3"], ["publish", "--publishers", "10", "--rooms", "3"],
            ["presence", "--observers", "60", "--churners", "60"], ["fanout", "--bytes", "3"],
            ["echo", "--rate", "-1"], ["echo", "--rate", "1e-11"], ["echo", "--pid", "0"],
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
