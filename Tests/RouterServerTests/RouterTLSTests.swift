import Glibc
import NIOCore
import NIOEmbedded
import NIOPosix
import Synchronization
import TestSupport
import TestTLS
import Testing
import WebSocketTransport

@testable import RouterServer

/// One authority for all tests of the suite.
private struct Issued: Sendable {
    let authority: Certificates
    let server: Certificates.Pair

    static let shared = Task {
        let authority = try await Certificates()
        return Issued(authority: authority, server: try await authority.issue("server"))
    }

    func credentials() throws -> TLSCredentials {
        try TLSCredentials(certificate: server.certificate, key: server.key)
    }

    func connect(_ port: Int, receiveBuffer: Int? = nil) throws -> TLSSocket {
        var options = TLSSocket.Options(authority: authority.authority)
        options.receiveBuffer = receiveBuffer
        return try TLSSocket(port: port, options)
    }
}

private let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

@Suite("Router: TLS with clients")
struct RouterTLSTests {
    private let issued: Issued

    init() async throws { issued = try await Issued.shared.value }

    @Test("T6: the node is told https, the cookie goes back through TLS alone")
    func forwarded() async throws {
        let node = try await FakeNode.start("a") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" }
        try await withRouter(over: [node.node], tls: issued.credentials()) { _, port, _ in
            let client = try issued.connect(port)
            for _ in 0..<2 {
                client.send("GET /page HTTP/1.1\r\nHost: chat.example\r\n\r\n")
                let (head, body) = client.receiveResponse()
                #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n") && body == "hi")
                #expect(head.contains("; SameSite=Lax; Secure\r\n"))
            }
            client.send("GET /page HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n")
            #expect(client.receiveResponse().body == "hi")
            #expect(client.receiveAll() == [] && client.end == .closed)
            #expect(node.heads.count == 3)
            for head in node.heads { #expect(head.contains("\r\nX-Forwarded-Proto: https\r\n")) }
        }
        try await node.stop()
    }

    @Test("without TLS of its own it passes on what a trusted proxy says, and the cookie goes by that")
    func proxied() async throws {
        let node = try await FakeNode.start("a") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" }
        try await withRouter(over: [node.node], trusted: ["127.0.0.1"]) { _, port, _ in
            for (said, isSecure) in [("https", true), ("http", false)] {
                let client = try await Wire.connect(port: port)
                try await client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: \(said)\r\n\r\n")
                #expect(try await client.receiveHead().contains("; Secure\r\n") == isSecure)
                client.close()
            }
        }
        try await node.stop()
    }

    @Test("a tunnel carries megabytes both ways, byte for byte, also to who reads slowly")
    func tunnel() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node], tls: issued.credentials()) { _, port, _ in
            let client = try issued.connect(port, receiveBuffer: 8192)
            client.send(
                "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nearly")
            let server = try await node.connection()
            #expect(try await server.receiveHead().contains("X-Forwarded-Proto: https"))
            try await server.send(accepted + "first")
            #expect(client.receiveHead().hasPrefix("HTTP/1.1 101 "))
            #expect(client.receive(5) == Array("first".utf8))
            #expect(try await server.receiveText(5) == "early")

            let down = (0..<4_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
            for start in stride(from: 0, to: down.count, by: 100_000) {
                server.post(Array(down[start..<min(start + 100_000, down.count)]))
            }
            #expect(client.receive(down.count) == down)
            let up = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 8) }
            for start in stride(from: 0, to: up.count, by: 30_000) {
                client.send(Array(up[start..<min(start + 30_000, up.count)]))
            }
            #expect(try await server.receive(up.count) == up)
            for number in 0..<200 {
                try await server.send("small \(number);")
                #expect(client.receive("small \(number);".utf8.count) == Array("small \(number);".utf8))
            }
        }
        try await node.stop()
    }

    @Test("either end of a tunnel ends first, and the other gets all that was sent before")
    func halfClose() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node], tls: issued.credentials()) { _, port, _ in
            for nodeEnds in [true, false] {
                let client = try issued.connect(port)
                client.send("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                let server = try await node.connection()
                _ = try await server.receiveHead()
                try await server.send(accepted)
                #expect(client.receiveHead().hasPrefix("HTTP/1.1 101 "))
                if nodeEnds {
                    let last = [UInt8](repeating: 7, count: 500_000)
                    server.post(last)
                    try await server.closeOutput()
                    #expect(client.receiveAll() == last && client.end == .closed)
                    client.send("the other way goes on")
                    client.finishSending()
                    #expect(try await server.receiveAll() == "the other way goes on")
                } else {
                    client.send("last words")
                    client.finishSending()
                    #expect(try await server.receiveAll() == "last words")
                    try await server.send("the other way goes on")
                    #expect(client.receive(21) == Array("the other way goes on".utf8))
                    server.close()
                    #expect(client.receiveAll() == [])
                }
            }
        }
        try await node.stop()
    }

    private func waitUntil(_ what: String, _ holds: @escaping @Sendable () -> Bool) async throws {
        _ = try await poll(within: .seconds(60), what) { holds() ? true : nil }
    }

    /// A reset would take what the kernel still has to send.
    @Test("when one end is lost, the other gets all that was sent before and an end, though it goes on writing")
    func lost() async throws {
        let node = try await FakeNode.start("a")
        var limits = RouterLimits.patient
        limits.tunnels.ending = .minutes(10)
        try await withRouter(over: [node.node], limits: limits, tls: issued.credentials()) { router, port, _ in
            let meter = router.core.meters.meter(of: "a")
            for nodeIsLost in [true, false] {
                var client: TLSSocket? = try issued.connect(port, receiveBuffer: 32768)
                client?.send("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
                let server = try await node.connection()
                _ = try await server.receiveHead()
                try await server.send(accepted)
                #expect(client?.receiveHead().hasPrefix("HTTP/1.1 101 ") == true)
                let last = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
                @Sendable func passed() -> Int {
                    nodeIsLost ? meter.fromNode.load(ordering: .relaxed) : meter.toNode.load(ordering: .relaxed)
                }
                let before = passed()
                if nodeIsLost {
                    try await server.send(last)
                    try await waitUntil("the router to have all") { passed() == before + last.count }
                    server.close()
                    client?.send("into nowhere")
                    try await waitUntil("the node to be lost") { meter.connections.load(ordering: .relaxed) == 0 }
                    for _ in 0..<3 { client?.send("more") }
                    #expect(client?.receiveAll() == last && client?.end == .closed)
                } else {
                    server.pause()
                    client?.send(last)
                    try await waitUntil("the router to have all") { passed() == before + last.count }
                    client = nil
                    try await server.send("into nowhere")
                    try await waitUntil("the client to be lost") { router.openConnections == 0 }
                    for _ in 0..<3 { try await server.send("more") }
                    server.resume()
                    #expect(try await server.receive(last.count) == last)
                    await server.end()
                    #expect(server.channel != nil, "it was reset")
                    server.close()
                }
                client = nil
                try await waitUntil("both to be closed") {
                    router.openConnections == 0 && meter.connections.load(ordering: .relaxed) == 0
                }
            }
        }
        try await node.stop()
    }

    @Test("T22: a client that never reads holds up the node, not the router's memory")
    func backPressure() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node], tls: issued.credentials()) { _, port, _ in
            let client = try issued.connect(port, receiveBuffer: 4096)
            client.send("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(accepted)
            #expect(client.receiveHead().hasPrefix("HTTP/1.1 101 "))
            // What sockets hold differs, so much do none.
            for _ in 0..<600 { server.post([UInt8](repeating: 1, count: 100_000)) }
            let channel = try #require(server.channel)
            #expect(!channel.isWritable)
            let waiting = try await channel.getOption(.bufferedWritableBytes).get()
            #expect(waiting > 30_000_000)
            #expect(client.receive(60_000_000).count == 60_000_000)
        }
        try await node.stop()
    }

    @Test("T20: who does not end the handshake in time, or speaks no TLS, is closed without a byte")
    func noHandshake() async throws {
        var limits = RouterLimits.patient
        limits.headTime = .milliseconds(50)
        try await withRouter(over: [], limits: limits, tls: issued.credentials()) { _, port, _ in
            for beginning in [[], [0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] as [[UInt8]] {
                let client = try await Wire.connect(port: port)
                try await client.send(beginning)
                #expect(try await client.receiveAll() == "")
            }
        }
        try await withRouter(over: [], tls: issued.credentials()) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(!(try await client.receiveAll()).hasPrefix("HTTP/"))
        }
    }

    @Test("the last tunnel of a drain, too, has time for its end: who goes on writing reads all that was sent")
    func drainOfTunnels() async throws {
        let node = try await FakeNode.start("a")
        var limits = RouterLimits.patient
        limits.tunnels.ending = .seconds(4)
        try await withRouter(over: [node.node], limits: limits, tls: issued.credentials()) { router, port, _ in
            let client = try issued.connect(port, receiveBuffer: 32768)
            client.send("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await server.send(accepted)
            #expect(client.receiveHead().hasPrefix("HTTP/1.1 101 "))
            let last = [UInt8](repeating: 7, count: 300_000)
            try await server.send(last)
            let meter = router.core.meters.meter(of: "a")
            try await waitUntil("the router to have all") { meter.fromNode.load(ordering: .relaxed) >= last.count }
            let drained = router.drain(within: .seconds(9))
            await server.end()
            for _ in 0..<3 { client.send("more") }
            #expect(client.receiveAll() == last && client.end == .closed)
            client.finishSending()
            server.close()
            try await drained.get()
        }
        try await node.stop()
    }

    @Test("a router that drains ends idle connections with the goodbye of TLS")
    func drain() async throws {
        let node = try await FakeNode.start("a") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" }
        try await withRouter(over: [node.node], tls: issued.credentials()) { router, port, _ in
            let client = try issued.connect(port)
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(client.receiveResponse().body == "hi")
            try await router.drain(within: .seconds(10)).get()
            #expect(client.receiveAll() == [] && client.end == .closed)
        }
        try await node.stop()
    }
}
