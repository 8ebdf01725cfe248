import Foundation
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import WebSocketTransport

/// A router, or a node, whose descriptors are used up.
@Suite("Descriptors that are used up", .patience)
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

    @Test(
        "T23: used up, who connects waits until there is one again; the log says so once in a while, and a counter counts"
    )
    func waiting() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            for (process, path) in [(cluster.routers[0], "/_router/healthz"), (cluster.nodes[0], "/healthz")] {
                @Sendable func said() -> [JSON] {
                    process.log.filter { $0["msg"] == "connections wait and cannot be taken" }
                }
                let clients = Mutex<[Task<Int, any Error>]>([])
                // Connections of the harness may be about to end.
                let first = try await poll(within: .seconds(60), every: .milliseconds(200), "a client to wait") {
                    try await limitDescriptors(of: process, to: "\(firstFree(of: process))")
                    let client = Task {
                        try await HTTPAnswer.of("GET", path, port: process.port, timeout: 120).status
                    }
                    clients.withLock { $0.append(client) }
                    return said().first
                }
                #expect(first["unsaid"] == 0, "\(first.text)")
                #expect(first["error"]?.string?.contains("Too many open files") == true, "\(first.text)")
                let next = try await poll(within: .seconds(60), "it to be said again") { said().dropFirst().first }
                #expect(try next.time().timeIntervalSince(first.time()) > 4.9)
                let unsaid = try #require(next["unsaid"]?.int)
                #expect(unsaid > 0)
                try await limitDescriptors(of: process, to: "1000")
                for client in clients.withLock(\.self) { #expect(try await client.value == 200) }
                let metrics = try await process.internals("/metrics").text.split(separator: "\n")
                let count = metrics.first { $0.hasPrefix("martlet_accept_failures_total ") }?.split(separator: " ").last
                #expect(try #require(count.flatMap { Int($0) }) >= unsaid + 2)
            }
        }
    }

    /// Hundredths of a second that it has had of the processors so far (proc(5)).
    private func processorTime(of process: ClusterProcess) throws -> Int {
        let pid = try #require(process.process?.pid)
        let stat = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
        let fields = try #require(stat.split(separator: ")").last).split(separator: " ")
        return try #require(Int(fields[11])) + #require(Int(fields[12]))
    }

    @Test("T23: a node that has none for a router which comes to hand over lets it wait, and does nothing meanwhile")
    func none() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let node = cluster.nodes[0]
            try await limitDescriptors(of: node, to: "3")
            let line = try #require(HandoverSocket.connect(to: "127.0.0.1:\(node.port)"))
            defer { close(line) }
            let before = try processorTime(of: node)
            try await Task.sleep(for: .seconds(2))
            // A loop without a wait has about 200.
            #expect(try processorTime(of: node) - before < 50)
            try await limitDescriptors(of: node, to: "1000")
            // A router says more than this: the node that takes the line closes it.
            #expect(send(line, [HandoverSocket.hello], 1, Int32(MSG_NOSIGNAL)) == 1)
            _ = try await poll(within: .seconds(10), "the node to take the router") {
                var byte: UInt8 = 0
                return recv(line, &byte, 1, Int32(MSG_DONTWAIT)) == 0 ? true : nil
            }
        }
    }

    private func connectionsToNodes(of router: ClusterProcess) async throws -> Int {
        try await router.internals("/metrics").text.split(separator: "\n").reduce(0) { sum, line in
            guard line.hasPrefix("martlet_router_node_connections{") else { return sum }
            return sum + (line.split(separator: " ").last.flatMap { Double($0) }.map { Int($0) } ?? 0)
        }
    }

    @Test("T23: kept connections to nodes leave a router enough for every client that it takes")
    func kept() async throws {
        try await Machine.with(Cluster.Options(nodes: 5), weight: 2) { cluster in
            let own = ["MARTLET_PORT": String(try FreePort.next()), "MARTLET_HANDOVER": "off"]
            let router = ClusterProcess(
                .router, name: "narrow", port: Int(own["MARTLET_PORT"] ?? "") ?? 0, internalPort: try FreePort.next(),
                environment: cluster.environment.merging(own) { $1 }, descriptors: 160)
            try await router.start()
            try await router.waitUntilReady()
            _ = try await poll(within: .seconds(10), "the router to know every node") {
                let text = try await router.internals("/nodes").text
                return cluster.nodes.allSatisfy { text.contains($0.name) } ? true : nil
            }
            // As many at once as may be, so that as many are kept as are.
            let count = 40
            for node in cluster.nodes { node.pause() }
            try await withThrowingTaskGroup(of: Int.self) { group in
                for number in 0..<count {
                    group.addTask {
                        try await HTTPAnswer.of("GET", "/?key=\(number)", port: router.port, timeout: 60).status
                    }
                }
                _ = try await poll(within: .seconds(30), "all to be under way") {
                    try await connectionsToNodes(of: router) == count ? true : nil
                }
                for node in cluster.nodes { node.resume() }
                for try await status in group { #expect(status == 200) }
            }
            var (sessions, refused): ([Session], HTTPAnswer?) = ([], nil)
            while refused == nil, sessions.count < 200 {
                do {
                    sessions.append(try await cluster.connect("user-\(sessions.count)", to: router))
                } catch let error as TestClient.Refused {
                    refused = error.answer
                }
            }
            #expect(sessions.count > 30, "\(sessions.count)")
            let reason = try refused?.json()["error"]?["reason"]?.string
            #expect(refused?.status == 503 && reason == "too_many_connections", "\(refused?.text ?? "nobody")")
            for session in sessions { try await session.client.roundTrip() }
            #expect(!router.log.contains { $0["msg"] == .string(Self.trouble) })
            await router.kill()
        }
    }
}
