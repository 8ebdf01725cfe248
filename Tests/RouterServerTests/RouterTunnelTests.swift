import Logging
import NIOCore
import NIOEmbedded
import NIOPosix
import Testing

@testable import RouterServer

private let accepted =
    "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

private func upgrade(_ query: String = "?key=k") -> String {
    "GET /ws\(query) HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

@Suite("Tunnels", .timeLimit(.minutes(5)))
struct RouterTunnelTests {
    private func withTunnel(
        query: String = "?key=k",
        receiveBuffer: Int? = nil,
        _ body: (Wire, Wire, Router) async throws -> Void
    ) async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { router, port, _ in
            let client = try await Wire.connect(port: port, receiveBuffer: receiveBuffer)
            try await client.send(upgrade(query))
            let server = try await node.connection()
            let head = try await server.receiveHead()
            #expect(head.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"))
            try await server.send(accepted)
            let answer = try await client.receiveHead()
            #expect(answer.hasPrefix("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n"))
            try await body(client, server, router)
            client.close()
            server.close()
        }
        try await node.stop()
    }

    @Test("bytes pass both ways as they are, those around the handshake too")
    func exact() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let all = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let client = try await Wire.connect(port: port)
            try await client.send(Array(upgrade().utf8) + all)
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(Array(accepted.utf8) + all)
            #expect(try await client.receiveHead() == accepted)
            #expect(try await client.receive(5000) == all)
            #expect(try await server.receive(5000) == all)
            for size in [1, 150, 1024, 16384, 65536, 300_000] {
                let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ size) }
                client.post(bytes)
                server.post(bytes)
                #expect(try await server.receive(size) == bytes)
                #expect(try await client.receive(size) == bytes)
            }
            client.close()
        }
        try await node.stop()
    }

    @Test("the cookie comes with the 101 when nothing else keeps the client to a node")
    func cookie() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade(""))
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(accepted)
            #expect(try await client.receiveHead().contains("\r\nSet-Cookie: martlet_affinity="))
            client.close()
        }
        try await node.stop()
    }

    @Test("a receiver that stalls stops its sender, then gets every byte in order", arguments: [true, false])
    func backPressure(clientStalls: Bool) async throws {
        try await withTunnel(receiveBuffer: 65536) { client, server, _ in
            let (sender, receiver) = clientStalls ? (server, client) : (client, server)
            receiver.pause()
            let size = 80 * 1024 * 1024
            let chunk = (0..<65536).map { UInt8(truncatingIfNeeded: $0 / 251) }
            let sent = Written()
            for _ in 0..<(size / chunk.count) { sent.follow(sender, chunk) }
            await sent.stalls()
            #expect(sent.bytes < size * 3 / 4)
            // The other direction is not held up by it.
            try await receiver.send("still here")
            #expect(try await sender.receiveText(10) == "still here")
            receiver.resume()
            // In few pieces, since each is taken off the front of what came.
            let piece = [[UInt8]](repeating: chunk, count: 128).flatMap(\.self)
            for _ in 0..<(size / piece.count) { #expect(try await receiver.receive(piece.count) == piece) }
        }
    }

    @Test("the end of one direction passes on behind its bytes, and the other goes on", arguments: [true, false])
    func halfClose(clientEnds: Bool) async throws {
        try await withTunnel { client, server, _ in
            let (ending, other) = clientEnds ? (client, server) : (server, client)
            let bytes = [UInt8](repeating: 5, count: 200_000)
            ending.post(bytes)
            try await ending.closeOutput()
            #expect(try await other.receive(bytes.count) == bytes)
            await other.end()
            other.post(bytes)
            #expect(try await ending.receive(bytes.count) == bytes)
            try await other.closeOutput()
            await ending.closed()
            await other.closed()
        }
    }

    @Test("what a client sends behind its upgrade reaches the node, also when the client ends its side at once")
    func halfClosedUpgrade() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade() + "early frames")
            try await client.closeOutput()
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(accepted)
            #expect(try await client.receiveHead() == accepted)
            #expect(try await server.receiveAll() == "early frames")
            try await server.send("late answer")
            #expect(try await client.receiveText(11) == "late answer")
            server.close()
            await client.closed()
        }
        try await node.stop()
    }

    @Test("what a node sends behind its 101 reaches the client, also when both end their sides at once")
    func halfClosedAcceptance() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade() + "early frames")
            try await client.closeOutput()
            let server = try await node.connection()
            _ = try await server.receiveHead()
            server.post(Array((accepted + "only words").utf8))
            try await server.closeOutput()
            #expect(try await client.receiveAll() == accepted + "only words")
            #expect(try await server.receiveAll() == "early frames")
        }
        try await node.stop()
    }

    @Test("a node that dies closes the client's connection, behind what it had sent", arguments: [true, false])
    func nodeDies(resets: Bool) async throws {
        try await withTunnel { client, server, router in
            try await server.send("last words")
            #expect(try await client.receiveText(10) == "last words")
            if resets { try await server.reset() } else { server.close() }
            await client.end()
            client.close()
            await client.closed()
        }
    }

    @Test("a client that vanishes closes the node's connection", arguments: [true, false])
    func clientDies(resets: Bool) async throws {
        try await withTunnel { client, server, _ in
            try await client.send("bye")
            #expect(try await server.receiveText(3) == "bye")
            if resets { try await client.reset() } else { client.close() }
            await server.end()
        }
    }

    @Test("a refused upgrade is a plain answer, and what the client sent behind it goes nowhere")
    func refusedUpgrade() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade() + "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
            #expect(
                try await client.receiveAll()
                    == "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
            )
            #expect(node.connectionsWaiting == 0)
        }
        try await node.stop()
    }

    @Test("a router that drains closes the idle, lets a tunnel go on, and ends with it")
    func drain() async throws {
        let node = try await FakeNode.start("a")
        // A loopback address of its own: on 127.0.0.1 another test's listener may get the port as soon as it is free.
        let host = "127.63.0.1"
        var configuration = RouterConfiguration(host: host, port: 0, affinityKey: (1, 2), subject: { _ in nil })
        configuration.checks = nil
        configuration.limits = .patient
        let router = try Router.start(
            configuration,
            directory: FixedDirectory([node.node]),
            group: .singletonMultiThreadedEventLoopGroup,
            logger: .init(label: "t", factory: { _ in NoLog() })
        )
        let port = try #require(router.localAddress?.port)
        let client = try await Wire.connect(host: host, port: port)
        try await client.send(upgrade())
        let server = try await node.connection()
        _ = try await server.receiveHead()
        try await server.send(accepted)
        _ = try await client.receiveHead()
        let idle = try await Wire.connect(host: host, port: port)
        try await idle.send("GET /_router/healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        #expect(try await idle.receiveMessage().body == "ok\n")

        let drained = router.drain(within: .minutes(10))
        await idle.end()
        await #expect(throws: (any Error).self) { _ = try await Wire.connect(host: host, port: port) }
        try await client.send("on")
        #expect(try await server.receiveText(2) == "on")
        server.close()
        await client.end()
        client.close()
        try await drained.get()
        #expect(router.openConnections == 0)
        try await node.stop()
    }

    @Test("a router that drains answers whom it had accepted, also who has not asked yet, and then closes")
    func drainOfFresh() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { router, port, _ in
            let (asks, opens) = (try await Wire.connect(port: port), try await Wire.connect(port: port))
            while router.openConnections < 2 { await Task.yield() }
            let drained = router.drain(within: .minutes(10))
            while !router.core.isDraining { await Task.yield() }
            try await asks.send("GET /_router/healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            let answer = try await asks.receiveMessage()
            #expect(answer.body == "ok\n" && answer.head.lowercased().contains("\r\nconnection: close"))
            await asks.end()
            try await opens.send(upgrade())
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(accepted)
            #expect(try await opens.receiveHead() == accepted)
            for wire in [asks, opens, server] { wire.close() }
            try await drained.get()
        }
        try await node.stop()
    }

    @Test("the drain's deadline closes what is left")
    func drainDeadline() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { router, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade())
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(accepted)
            _ = try await client.receiveHead()
            // `withRouter` drains with no time to wait.
            #expect(router.openConnections == 1)
        }
        try await node.stop()
    }
}
