import MartletClient
import TestSupport
import Testing

/// A herd of clients that come at once, with real sockets.
@Suite("New connections over the rate")
struct UpgradeLimitTests {
    private static let upgrade = [
        ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]

    /// Connects until it sends somebody away.
    private func refusal(at process: ClusterProcess) async throws -> HTTPAnswer {
        try await poll(within: .seconds(30), "\(process.name) to refuse a connection") {
            let answer = try await HTTPAnswer.of("GET", "/ws?user=a", port: process.port, headers: Self.upgrade)
            return answer.status == 101 ? nil : answer
        }
    }

    @Test("make the Swift SDK wait as long as they say, at least, and then let it in")
    func clients() async throws {
        let options = Cluster.Options(nodes: 1, environment: ["MARTLET_LIMIT_UPGRADES_PER_SECOND": "1"])
        try await Machine.with(options) { cluster in
            let url = "ws://127.0.0.1:\(cluster.nodes[0].port)/ws"
            let clients = try (1...4).map { try MartletClient(url: url, credential: .user("user-\($0)")) }
            let streams = clients.map { $0.states() }
            for client in clients { client.connect() }
            var waits: [Int64] = []
            for states in streams {
                states: for await state in states {
                    switch state {
                    case .waiting(let milliseconds, _): waits.append(milliseconds)
                    case .online: break states
                    case .connecting, .closed: continue
                    }
                }
            }
            #expect(!waits.isEmpty && waits.allSatisfy { $0 >= 1000 }, "\(waits)")
            for client in clients { client.close() }
        }
    }

    @Test("are 503 with Retry-After at a node and at a router, are counted, and are taken a little later")
    func overTheRate() async throws {
        let options = Cluster.Options(
            nodes: 1, routers: 1, environment: ["MARTLET_LIMIT_UPGRADES_PER_SECOND": "1"])
        try await Machine.with(options) { cluster in
            for process in [cluster.nodes[0], cluster.routers[0]] {
                let answer = try await refusal(at: process)
                #expect(answer.status == 503)
                #expect((1...3).contains(answer["retry-after"].flatMap { Int($0) } ?? 0))
                #expect(try answer.json()["error"]?["reason"]?.string == "too_many_upgrades")
                _ = try await poll(within: .seconds(30), "\(process.name) to take a connection") {
                    let answer = try await HTTPAnswer.of("GET", "/ws?user=a", port: process.port, headers: Self.upgrade)
                    return answer.status == 101 ? true : nil
                }
            }
            let metrics = try await cluster.nodes[0].internals("/metrics").text
            let line = metrics.split(separator: "\n").first { $0.hasPrefix("martlet_upgrades_refused_total ") }
            #expect((line.flatMap { $0.split(separator: " ").last }.flatMap { Int($0) } ?? 0) > 0)
        }
    }
}
