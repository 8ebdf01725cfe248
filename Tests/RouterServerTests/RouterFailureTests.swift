import Affinity
import NIOCore
import Synchronization
import Testing
import WebSocketTransport

@testable import RouterServer

private let upgrade =
    "GET /ws?key=k HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
private let answer = "HTTP/1.1 204 No Content\r\n\r\n"
private let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

@Suite("Nodes that fail", .timeLimit(.minutes(5)))
struct RouterFailureTests {
    /// Nodes in the order that the key `k` has them.
    private func ordered(_ names: [String]) async throws -> [FakeNode] {
        var nodes: [FakeNode] = []
        for name in names { nodes.append(try await FakeNode.start(name)) }
        var table = NodeTable(hash: .init(key: (1, 2)))
        table.update(nodes.map(\.node), now: .now())
        return table.order(for: "k", now: .now()).compactMap { found in nodes.first { $0.name == found.name } }
    }

    @Test("a node that refuses is tried no more for a while, and the next in the order serves")
    func refused() async throws {
        let nodes = try await ordered(["a", "b", "c"])
        try await nodes[0].stop()
        let log = LogRecorder()
        try await withRouter(over: nodes.map(\.node), log: log) { _, port, _ in
            for _ in 0..<2 {
                let client = try await Wire.connect(port: port)
                try await client.send("POST /?key=k HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
                let wire = try await nodes[1].connection()
                _ = try await wire.receiveHead()
                #expect(try await wire.receiveText(2) == "ok")
                try await wire.send("HTTP/1.1 204 No Content\r\n\r\n")
                _ = try await client.receiveHead()
                client.close()
            }
        }
        let line = try #require(log.lines.withLock { lines in lines.first { $0.message.contains("does not take") } })
        #expect(line.metadata["node"].map { "\($0)" } == nodes[0].name)
        #expect(line.metadata["ejected_ms"].map { "\($0)" } == "1000")
        for node in nodes.dropFirst() { try await node.stop() }
    }

    @Test("no node is 503 with Retry-After and a reason, and the connection goes on")
    func noNode() async throws {
        let nodes = try await ordered(["a"])
        try await nodes[0].stop()
        try await withRouter(over: nodes.map(\.node)) { _, port, directory in
            let client = try await Wire.connect(port: port)
            for _ in 0..<2 {
                try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
                let (head, body) = try await client.receiveMessage()
                #expect(head.hasPrefix("HTTP/1.1 503 Service Unavailable\r\n"))
                #expect(head.contains("\r\nRetry-After: 1\r\n"))
                #expect(
                    body
                        == #"{"error":{"code":503,"reason":"no_node","message":"no node can take this request now; try again"}}"#
                        + "\n"
                )
                directory.set([])
            }
            try await client.send(upgrade)
            #expect(try await client.receiveAll().hasPrefix("HTTP/1.1 503 "))
        }
    }

    @Test("T19: upgrades over the rate are 503 with Retry-After and reach no node; other requests do")
    func tooManyUpgrades() async throws {
        let node = try await FakeNode.start("a") { _ in "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" }
        var limits = RouterLimits.patient
        limits.upgradesPerSecond = 1
        try await withRouter(over: [node.node], limits: limits) { _, port, _ in
            var (taken, refused) = (0, "")
            while refused.isEmpty, taken < 100 {
                let client = try await Wire.connect(port: port)
                try await client.send(upgrade)
                let answer = try await client.receiveAll()
                if answer.hasPrefix("HTTP/1.1 503 ") { refused = answer } else { taken += 1 }
            }
            #expect(["1", "2", "3"].contains { refused.contains("\r\nRetry-After: \($0)\r\n") })
            #expect(refused.contains("\"reason\":\"too_many_upgrades\""))
            #expect(node.heads.count == taken)
            let client = try await Wire.connect(port: port)
            try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 204 "))
        }
        try await node.stop()
    }

    @Test("T19: an address over its own limit takes no handshake from the others, whatever it asks for")
    func addressFirst() async throws {
        let node = try await FakeNode.start("a") { _ in "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" }
        var (limits, gate) = (RouterLimits.patient, GateLimits())
        // An address has four at once, so one is always left.
        limits.upgradesPerSecond = 5
        gate.address = ConductLimits(handshakesPerSecond: 1)
        try await withRouter(over: [node.node], limits: limits, gate: gate) { router, port, _ in
            func ask(_ request: String, from source: String) async throws -> String {
                let client = try await Wire.connect(port: port, from: source)
                defer { client.close() }
                try await client.send(request)
                return String(try await client.receiveHead().prefix(13))
            }
            let locate = "GET /locate?key=k HTTP/1.1\r\nHost: a\r\n\r\n"
            var refused = 0
            for number in 0..<60 {
                let answer = try await ask(number % 2 == 0 ? upgrade : locate, from: "127.0.0.2")
                #expect(answer != "HTTP/1.1 503 ")
                if answer == "HTTP/1.1 429 " { refused += 1 }
            }
            #expect(refused > 0)
            #expect(try await ask(upgrade, from: "127.0.0.1") == "HTTP/1.1 204 ")
            #expect(router.core.upgrades.refused == 0)
        }
        try await node.stop()
    }

    @Test("a node that drains sends an upgrade on; the last one's 503 reaches the client")
    func draining() async throws {
        let nodes = try await ordered(["a", "b"])
        try await withRouter(over: nodes.map(\.node)) { _, port, _ in
            let client = try await Wire.connect(port: port)
            // Frames sent early are not lost by the second try.
            try await client.send(upgrade + "early")
            let first = try await nodes[0].connection()
            _ = try await first.receiveHead()
            try await first.send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
            let second = try await nodes[1].connection()
            #expect(try await second.receiveHead().hasPrefix("GET /ws?key=k HTTP/1.1\r\n"))
            try await second.send(accepted)
            #expect(try await client.receiveHead() == accepted)
            #expect(try await second.receiveText(5) == "early")
            client.close()

            let unlucky = try await Wire.connect(port: port)
            try await unlucky.send(upgrade)
            for node in nodes {
                let wire = try await node.connection()
                _ = try await wire.receiveHead()
                try await wire.send(
                    "HTTP/1.1 503 Service Unavailable\r\nX-Last: \(node.name)\r\nContent-Length: 0\r\n\r\n"
                )
            }
            #expect(try await unlucky.receiveAll().contains("X-Last: \(nodes[1].name)\r\n"))
        }
        for node in nodes { try await node.stop() }
    }

    @Test("a node that hangs up without an answer is passed over for what may be repeated, else it is 502")
    func hangsUp() async throws {
        let nodes = try await ordered(["a", "b"])
        try await withRouter(over: nodes.map(\.node)) { _, port, _ in
            for request in ["GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n", upgrade] {
                let client = try await Wire.connect(port: port)
                try await client.send(request)
                let first = try await nodes[0].connection()
                _ = try await first.receiveHead()
                first.close()
                let second = try await nodes[1].connection()
                _ = try await second.receiveHead()
                try await second.send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 404 "))
                client.close()
            }
            for garbage in [
                "", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "HTTP/1.1 101 X\r\n\r\n",
            ] {
                let client = try await Wire.connect(port: port)
                try await client.send("POST /?key=k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                let wire = try await nodes[0].connection()
                _ = try await wire.receiveHead()
                if !garbage.isEmpty { try await wire.send(garbage) } else { wire.close() }
                let (head, body) = try await client.receiveMessage()
                #expect(head.hasPrefix("HTTP/1.1 502 "), "\(garbage)")
                #expect(body.contains(#""reason":"bad_gateway""#))
                client.close()
            }
        }
        for node in nodes { try await node.stop() }
    }

    @Test(
        "a node that accepts and says nothing loses what may be repeated to the next, and is left out for 16 seconds",
        arguments: [upgrade, "GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /?key=k HTTP/1.1\r\nHost: a\r\n\r\n"]
    )
    func silent(request: String) async throws {
        // The first in the order is silent; the other answers by itself, however long this test has to wait for its turn.
        let names = try await ordered(["a", "b"]).map(\.name)
        let silent = try await FakeNode.start(names[0])
        let other = try await FakeNode.start(names[1]) { $0.contains("Upgrade: websocket") ? accepted : answer }
        let log = LogRecorder()
        var limits = RouterLimits.patient
        limits.answerTime = .seconds(2)
        try await withRouter(over: [silent.node, other.node], limits: limits, log: log) { _, port, _ in
            for _ in 0..<2 {
                let client = try await Wire.connect(port: port)
                try await client.send(request)
                #expect(
                    try await client.receiveHead().hasPrefix(request == upgrade ? "HTTP/1.1 101 " : "HTTP/1.1 204 "))
                client.close()
            }
            await (try silent.connection()).end()
        }
        let lines = log.lines.withLock { $0.filter { $0.message == "a node does not answer" } }
        #expect(lines.first?.metadata["node"].map { "\($0)" } == silent.name)
        #expect(lines.first?.metadata["ejected_ms"].map { "\($0)" } == "16000")
        try await silent.stop()
        try await other.stop()
    }

    @Test("an answer that does not come is 504, of a request that may not be repeated too, and is no other node's")
    func late() async throws {
        let nodes = try await ordered(["a", "b"])
        var limits = RouterLimits.patient
        limits.answerTime = .milliseconds(200)
        limits.exchangeIdle = .milliseconds(300)
        try await withRouter(over: nodes.map(\.node), limits: limits) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("POST /?key=k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            #expect(try await client.receiveMessage().head.hasPrefix("HTTP/1.1 504 "))
            #expect(nodes[1].connectionsWaiting == 0)
            try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await client.receiveMessage().head.hasPrefix("HTTP/1.1 504 "))
            client.close()
        }
        for node in nodes { try await node.stop() }
    }

    @Test("a client that goes away takes its request to the node along")
    func clientGone() async throws {
        let nodes = try await ordered(["a"])
        try await withRouter(over: nodes.map(\.node)) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            let wire = try await nodes[0].connection()
            _ = try await wire.receiveHead()
            try await client.reset()
            await wire.end()
        }
        try await nodes[0].stop()
    }
}
