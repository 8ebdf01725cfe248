import Affinity
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import RouterServer

private let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

@Suite("What a router counts of each node", .timeLimit(.minutes(5)))
struct NodeMeterTests {
    private func upgrade(_ wire: Wire) async throws {
        try await wire.send(
            "GET /ws?key=k HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly")
    }

    private func waitUntil(_ what: String, _ holds: @escaping @Sendable () -> Bool) async throws {
        _ = try await poll(within: .seconds(60), what) { holds() ? true : nil }
    }

    @Test("a tunnel is an open connection until it ends, and every byte of head and frames counts, each way")
    func tunnel() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { router, port, _ in
            let meter = router.core.meters.meter(of: "a")
            let client = try await Wire.connect(port: port)
            try await upgrade(client)
            let server = try await node.connection()
            let head = try await server.receiveHead()
            #expect(meter.connections.load(ordering: .relaxed) == 1)
            #expect(meter.connectTimes.counts.reduce(0, +) == 1)
            try await server.send(accepted + "first")
            #expect(try await client.receiveHead() == accepted)
            #expect(try await client.receiveText(5) == "first")
            try await client.send(String(repeating: "x", count: 100_000))
            #expect(try await server.receiveText(100_005).hasPrefix("early"))
            try await server.send(String(repeating: "y", count: 70_000))
            _ = try await client.receiveText(70_000)
            #expect(meter.toNode.load(ordering: .relaxed) == head.utf8.count + 100_005)
            #expect(meter.fromNode.load(ordering: .relaxed) == accepted.utf8.count + 70_005)
            client.close()
            await server.end()
            server.close()
            try await waitUntil("the connection to count no more") { meter.connections.load(ordering: .relaxed) == 0 }
        }
        try await node.stop()
    }

    @Test("so do requests; one that nobody takes is no connection")
    func requests() async throws {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        let node = try await FakeNode.start("a") { _ in answer }
        try await withRouter(over: [node.node]) { router, port, _ in
            let meter = router.core.meters.meter(of: "a")
            for _ in 0..<2 {
                let client = try await Wire.connect(port: port)
                try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(try await client.receiveMessage().body == "hello")
                client.close()
            }
            #expect(meter.fromNode.load(ordering: .relaxed) == 2 * answer.utf8.count)
            #expect(meter.toNode.load(ordering: .relaxed) == node.heads.reduce(0) { $0 + $1.utf8.count })
            try await waitUntil("the connections to end") { meter.connections.load(ordering: .relaxed) == 0 }
            try await node.stop()
            let client = try await Wire.connect(port: port)
            try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 503 "))
            client.close()
            #expect(meter.connections.load(ordering: .relaxed) == 0)
            #expect(meter.connectTimes.counts.reduce(0, +) == 2)
            #expect(router.core.nodes.pickCounts.first?.counts.ejections == 1)
        }
    }

    @Test("a node that left the list is forgotten when its last connection has ended")
    func forgotten() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { router, port, directory in
            let client = try await Wire.connect(port: port)
            try await upgrade(client)
            let server = try await node.connection()
            _ = try await server.receiveHead()
            directory.set([])
            directory.set([node.node])
            let meter = router.core.meters.meter(of: "a")
            #expect(meter.connections.load(ordering: .relaxed) == 1)
            // A client that only ends its side may still want the answer.
            try await client.reset()
            await server.end()
            server.close()
            try await waitUntil("the connection to end") { meter.connections.load(ordering: .relaxed) == 0 }
            directory.set([])
            #expect(router.core.meters.meter(of: "a") !== meter)
        }
        try await node.stop()
    }

    @Test("ejections, checks and failed checks count over a node's restarts, while it is listed")
    func table() {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
        func node(_ incarnation: Int64) -> RoutedNode {
            RoutedNode(name: "a", incarnation: incarnation, host: "127.0.0.1", port: 1)
        }
        var table = NodeTable(hash: RendezvousHash(key: (1, 2)))
        table.update([node(1)], now: start)
        table.failed(node(1), now: start)
        table.failed(node(1), now: start)
        _ = table.checked(node(1), .silent, now: start)
        table.update([node(2)], now: start)
        _ = table.checked(node(1), .silent, now: start)
        _ = table.checked(node(2), nil, now: start)
        table.hung(node(2), now: start)
        #expect(table.pickCounts.first?.counts == .init(ejections: 2, checks: 2, failedChecks: 1))
        table.update([], now: start)
        table.update([node(2)], now: start)
        #expect(table.pickCounts.first?.counts == .init())
    }

    @Test("a connect falls into the first bucket that it is not above")
    func connectTimes() {
        var times = NodeMeter.ConnectTimes()
        for seconds in [0.000_1, 0.000_5, 0.000_6, 2.5, 7] { times.add(seconds) }
        #expect(times.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
        #expect(abs(times.sum - 9.501_2) < 1e-9)
    }
}
