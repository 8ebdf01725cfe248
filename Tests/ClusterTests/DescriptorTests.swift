import Foundation
import TestSupport
import Testing

/// A router whose descriptors are used up.
@Suite("Descriptors of a router", .patience)
struct DescriptorTests {
    private static let trouble = "this router cannot make a connection"

    /// - Returns: the lowest that is not open.
    private func firstFree(of process: ClusterProcess) throws -> Int {
        let pid = try #require(process.process?.pid)
        let open = Set(try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").compactMap { Int($0) })
        return (0...open.count).first { !open.contains($0) } ?? 0
    }

    /// - Parameter limit: the soft one.
    private func limitDescriptors(of process: ClusterProcess, to limit: String) async throws {
        let pid = try #require(process.process?.pid)
        let command = try await ChildProcess.spawn(
            "/usr/bin/prlimit", ["--pid", "\(pid)", "--nofile=\(limit):"], name: "prlimit", environment: [:])
        #expect(try await command.waitForExit(within: .seconds(20)) == .status(0))
    }

    @Test("T23: used up, checks and requests fail without harm to the nodes, and the log says so once in a while")
    func exhausted() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            let router = cluster.routers[0]
            @Sendable func said() -> [JSON] { router.log.filter { $0["msg"] == .string(Self.trouble) } }
            // Connections of the harness may be about to end.
            let limit = try await poll(within: .seconds(60), every: .milliseconds(200), "a check not to be possible") {
                let limit = try firstFree(of: router)
                try await limitDescriptors(of: router, to: "\(limit)")
                return said().isEmpty ? nil : limit
            }
            let first = try #require(said().first)
            #expect(first["node"] == "node-a" && first["unsaid"] == 0, "\(first.text)")
            #expect(first["error"]?.string?.contains("Too many open files") == true, "\(first.text)")
            // The client's.
            try await limitDescriptors(of: router, to: "\(limit + 1)")
            for _ in 0..<20 {
                #expect(try await HTTPAnswer.of("POST", "/?key=k", port: router.port).status == 503)
            }
            try await limitDescriptors(of: router, to: "\(limit)")
            _ = try await poll(within: .seconds(60), "what was left unsaid to be counted") {
                said().compactMap { $0["unsaid"]?.int }.reduce(0, +) >= 20 - said().count ? true : nil
            }
            let times = try said().map { try $0.time() }
            for (one, next) in zip(times, times.dropFirst()) {
                // The clocks of log and throttle are two.
                #expect(next.timeIntervalSince(one) > 4.9)
            }
            try await limitDescriptors(of: router, to: "1000")
            #expect(try await HTTPAnswer.of("GET", "/?key=k", port: router.port).status == 200)
            #expect(!router.log.contains { $0["msg"]?.string?.hasPrefix("a node ") == true }, "no node is to blame")
        }
    }
}
