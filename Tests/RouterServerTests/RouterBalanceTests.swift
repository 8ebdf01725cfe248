import Affinity
import NIOCore
import NIOPosix
import Testing
import WebSocketTransport

@testable import RouterServer

private let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
private let drained = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

private func upgrade(_ key: String = "k") -> String {
    "GET /ws?key=\(key) HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

@Suite("A router counts whom it picked nodes for", .timeLimit(.minutes(5)))
struct RouterBalanceTests {
    private func loads(_ router: Router) -> [String: Int] {
        let route = router.core.nodes.route(for: "k", now: .now())
        return Dictionary(uniqueKeysWithValues: route.entries.map { ($0.node.name, $0.load) })
    }

    /// The nodes in the order of the key `k`.
    private func withNodes(
        _ bound: LoadBound, _ body: ([FakeNode], Router, Int) async throws -> Void
    ) async throws {
        let nodes = [try await FakeNode.start("a"), try await FakeNode.start("b")]
        try await withRouter(over: nodes.map(\.node), bound: bound) { router, port, _ in
            let order = router.core.order(for: "k").map(\.name)
            try await body(order.compactMap { name in nodes.first { $0.name == name } }, router, port)
        }
        // A test may have stopped one itself.
        for node in nodes { try? await node.stop() }
    }

    @Test("from the dial on, and as long as the node's own figures do not")
    func counted() async throws {
        try await withNodes(LoadBound(percent: 100, floor: 1)) { nodes, router, port in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade())
            let server = try await nodes[0].connection()
            _ = try await server.receiveHead()
            #expect(loads(router) == [nodes[0].name: 1, nodes[1].name: 0])
            try await server.send(accepted)
            #expect(try await client.receiveHead() == accepted)
            client.close()
            await server.end()
            // A session that ended is the node's to tell.
            #expect(loads(router) == [nodes[0].name: 1, nodes[1].name: 0])

            // At the bound: the next client goes to the next node, and then nobody is below.
            let second = try await Wire.connect(port: port)
            try await second.send(upgrade())
            let other = try await nodes[1].connection()
            #expect(loads(router) == [nodes[0].name: 1, nodes[1].name: 1])
            second.close()
            other.close()
        }
    }

    @Test("no more when the client goes before the node has answered")
    func clientLeaves() async throws {
        try await withNodes(LoadBound(percent: 100, floor: 1)) { nodes, router, port in
            for _ in 0..<3 {
                let client = try await Wire.connect(port: port)
                try await client.send(upgrade())
                let server = try await nodes[0].connection()
                _ = try await server.receiveHead()
                #expect(loads(router)[nodes[0].name] == 1)
                try await client.reset()
                await server.end()
                #expect(loads(router)[nodes[0].name] == 0)
            }
        }
    }

    @Test(
        "at the node that is tried after one that drains, refuses the connection or answers nonsense, and at no other")
    func nextNode() async throws {
        try await withNodes(LoadBound(percent: 100, floor: 10)) { nodes, router, port in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade())
            let first = try await nodes[0].connection()
            _ = try await first.receiveHead()
            try await first.send(drained)
            let second = try await nodes[1].connection()
            _ = try await second.receiveHead()
            #expect(loads(router) == [nodes[0].name: 0, nodes[1].name: 1])
            try await second.send("nonsense\r\n\r\n")
            #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 502 "))
            #expect(loads(router) == [nodes[0].name: 0, nodes[1].name: 0])

            try await nodes[0].stop()
            let other = try await Wire.connect(port: port)
            try await other.send(upgrade())
            _ = try await nodes[1].connection().receiveHead()
            #expect(loads(router) == [nodes[0].name: 0, nodes[1].name: 1])
            other.close()
            client.close()
        }
    }

    @Test("not for a node that refuses the client itself")
    func refused() async throws {
        try await withNodes(LoadBound(percent: 100, floor: 10)) { nodes, router, port in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade())
            let server = try await nodes[0].connection()
            _ = try await server.receiveHead()
            try await server.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 401 "))
            #expect(loads(router) == [nodes[0].name: 0, nodes[1].name: 0])
            client.close()
        }
    }

    @Test("and no request that is no upgrade, which is not bounded either")
    func requests() async throws {
        try await withNodes(LoadBound(percent: 100, floor: 0)) { nodes, router, port in
            for _ in 0..<3 {
                let client = try await Wire.connect(port: port)
                try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
                let server = try await nodes[0].connection()
                _ = try await server.receiveHead()
                #expect(loads(router) == [nodes[0].name: 0, nodes[1].name: 0])
                try await client.reset()
                await server.end()
            }
        }
    }

    // MARK: locate

    private func ask(
        _ target: String, at port: Int, method: String = "GET", _ fields: String = ""
    ) async throws -> (head: String, body: String) {
        let client = try await Wire.connect(port: port)
        defer { client.close() }
        try await client.send("\(method) \(target) HTTP/1.1\r\nHost: chat.example.com\r\n\(fields)\r\n")
        return try await client.receiveMessage()
    }

    private let nodes = ["a", "b"].map { name in
        RoutedNode(
            name: name, incarnation: 1, host: "127.0.0.1", port: 1, url: name == "a" ? "wss://a.example.com/ws" : nil)
    }

    @Test("/locate tells a key's node and its URL, and counts a client where there is one")
    func locate() async throws {
        try await withRouter(over: nodes, bound: LoadBound(percent: 1000, floor: 1000)) { router, port, _ in
            let keys = (0..<20).map { "key-\($0)" }
            for key in keys {
                let answer = try await ask("/locate?key=\(key)", at: port)
                #expect(answer.head.hasPrefix("HTTP/1.1 200 "))
                #expect(answer.head.contains("\r\nCache-Control: no-store\r\n"))
                let isFirst = router.core.order(for: key)[0].name == "a"
                #expect(
                    answer.body
                        == (isFirst ? #"{"node":"a","url":"wss://a.example.com/ws"}"# : #"{"node":"b"}"#) + "\n")
            }
            let onA = keys.count { router.core.order(for: $0)[0].name == "a" }
            #expect(onA > 0 && onA < 20)
            #expect(loads(router) == ["a": onA, "b": 0])
            // Without a key, what a handshake with the same words would have.
            let user = try await ask("/locate?user=key-1&x=y", at: port)
            #expect(try await ask("/locate?key=key-1", at: port).body == user.body)
            #expect(try await ask("/locate", at: port).head.hasPrefix("HTTP/1.1 200 "))
        }
    }

    @Test("/locate passes by a node that is at its bound, as a handshake does")
    func locateSpills() async throws {
        let nodes = ["a", "b"].map { name in
            RoutedNode(name: name, incarnation: 1, host: "127.0.0.1", port: 1, url: "ws://\(name)/ws")
        }
        try await withRouter(over: nodes, bound: LoadBound(percent: 100, floor: 1)) { router, port, _ in
            let order = router.core.order(for: "k").map(\.name)
            for name in order {
                let body = try await ask("/locate?key=k", at: port).body
                #expect(body == #"{"node":"\#(name)","url":"ws://\#(name)/ws"}"# + "\n")
            }
        }
    }

    @Test("pages of other origins may read /locate where the policy lets them connect, and are refused otherwise")
    func locateOrigins() async throws {
        try await withRouter(over: nodes) { _, port, _ in
            let own = try await ask("/locate?key=k", at: port, "Origin: http://chat.example.com\r\n")
            #expect(own.head.contains("\r\nAccess-Control-Allow-Origin: http://chat.example.com\r\n"))
            #expect(own.head.contains("\r\nVary: Origin\r\n"))
            let none = try await ask("/locate?key=k", at: port)
            #expect(!none.head.contains("Access-Control"))
            for origin in ["https://evil.example", "null"] {
                let foreign = try await ask("/locate?key=k", at: port, "Origin: \(origin)\r\n")
                #expect(foreign.head.hasPrefix("HTTP/1.1 403 "))
                #expect(!foreign.head.contains("Access-Control"))
                #expect(foreign.body.contains("origin_not_allowed"))
            }
        }
    }

    @Test("/locate is a GET, has the limit of handshakes, and says 503 where no node is")
    func locateLimits() async throws {
        var limits = RouterLimits.patient
        limits.upgradesPerSecond = 2
        try await withRouter(over: nodes, limits: limits) { _, port, _ in
            #expect(try await ask("/locate?key=k", at: port, method: "POST").head.contains("\r\nAllow: GET\r\n"))
            var answers: [String] = []
            for _ in 0..<12 { answers.append(try await ask("/locate?key=k", at: port).head) }
            let refused = answers.filter { $0.hasPrefix("HTTP/1.1 503 ") }
            #expect(!refused.isEmpty && refused.allSatisfy { $0.contains("\r\nRetry-After: ") })
        }
        try await withRouter(over: []) { _, port, _ in
            let answer = try await ask("/locate?key=k", at: port)
            #expect(answer.head.hasPrefix("HTTP/1.1 503 "))
            #expect(answer.body.contains("no_node"))
        }
    }

    @Test("rooms meet on one node where the setting says so")
    func rooms() async throws {
        let rule = try #require(AffinityRule("room,user"))
        try await withRouter(over: nodes, affinity: rule) { router, port, _ in
            for room in 0..<8 {
                let home = router.core.order(for: "room-\(room)")[0].name
                for user in 0..<3 {
                    let answer = try await ask("/locate?room=room-\(room)&user=user-\(user)", at: port)
                    #expect(answer.body.hasPrefix(#"{"node":"\#(home)""#))
                }
            }
        }
    }
}
