import Logging
import NIOCore
import NIOEmbedded
import Synchronization
import Testing
import WebSocketTransport

@testable import RouterServer

struct NoLog: LogHandler {
    var logLevel = Logger.Level.critical
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }
    func log(event: LogEvent) {}
}

@Suite("Requests that a router answers itself", .timeLimit(.minutes(5)))
struct RouterRequestTests {
    private func answer(_ port: Int, _ bytes: [UInt8]) async throws -> String {
        let wire = try await Wire.connect(port: port)
        try await wire.send(bytes)
        return try await wire.receiveAll()
    }

    @Test(
        "T15: requests that could be read in two ways reach no node",
        arguments: [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\u{b}chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
            "\u{16}\u{3}\u{1}\u{2}\u{0}", "hello\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        ]
    )
    func smuggling(text: String) async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let reply = try await answer(port, Array(text.utf8))
            #expect(reply.hasPrefix("HTTP/1.1 400 Bad Request\r\n"))
            #expect(
                reply.contains(
                    #"{"error":{"code":400,"reason":"bad_request","message":"the request is not valid HTTP/1.1: "#
                )
            )
            #expect(node.connectionsWaiting == 0)
        }
        try await node.stop()
    }

    @Test("a bad chunk ends the request at the node and at the client")
    func badChunk() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            let server = try await node.connection()
            _ = try await server.receiveHead()
            try await client.send("0x3\r\n")
            #expect(try await client.receiveAll().hasPrefix("HTTP/1.1 400 "))
            #expect(try await server.receiveAll() == "3\r\nabc\r\n")
        }
        try await node.stop()
    }

    @Test("a head over 64 KiB is 431, and another version 505")
    func limits() async throws {
        try await withRouter(over: []) { _, port, _ in
            let long = "GET / HTTP/1.1\r\nHost: a\r\nX: " + String(repeating: "x", count: 70_000)
            let tooLong = try await answer(port, Array(long.utf8))
            #expect(tooLong.hasPrefix("HTTP/1.1 431 "))
            let preface = try await answer(port, Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8))
            #expect(preface.hasPrefix("HTTP/1.1 505 "))
        }
    }

    @Test("T20: a head that does not end in time is 408, a connection without one just ends, also after a request")
    func slowHead() throws {
        let request = "GET /_router/healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        for (sent, head, later, last) in [
            ("GET / HT", TimeAmount.seconds(9), TimeAmount.seconds(2), "HTTP/1.1 408 "),
            ("", .seconds(9), .seconds(2), ""),
            (request, .seconds(59), .seconds(2), ""),
            (request + "GET", .seconds(9), .seconds(2), "HTTP/1.1 408 "),
        ] {
            let channel = try client()
            if !sent.isEmpty { try channel.writeInbound(ByteBuffer(string: sent)) }
            if sent.hasPrefix(request) { #expect(try answers(channel).first?.hasSuffix("ok\n") == true) }
            channel.embeddedEventLoop.advanceTime(by: head)
            #expect(try answers(channel) == [])
            #expect(channel.isActive)
            channel.embeddedEventLoop.advanceTime(by: later)
            let told = try answers(channel).joined()
            #expect(last.isEmpty ? told.isEmpty : told.hasPrefix(last))
            #expect(!channel.isActive)
            _ = try channel.finish(acceptAlreadyClosed: true)
        }
    }

    /// A client's connection to a router without nodes, whose clock stands still until a test moves it.
    private func client(_ handlers: [any ChannelHandler & Sendable] = []) throws -> EmbeddedChannel {
        let core = RouterCore(
            configuration: RouterConfiguration(host: "", port: 0, affinityKey: (1, 2)),
            logger: Logger(label: "test", factory: { _ in NoLog() })
        )
        let peer = try #require(IPAddress("192.0.2.7"))
        let channel = EmbeddedChannel()
        try channel.pipeline.syncOperations.addHandlers(handlers)
        try channel.pipeline.syncOperations.addHandler(ClientConnection(core: core, peer: peer))
        try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
        return channel
    }

    private func answers(_ channel: EmbeddedChannel) throws -> [String] {
        var all: [String] = []
        while let answer = try channel.readOutbound(as: ByteBuffer.self) {
            if answer.readableBytes > 0 { all.append(String(buffer: answer)) }
        }
        return all
    }

    @Test("a thousand pipelined requests are answered in order")
    func pipelined() async throws {
        try await withRouter(over: []) { _, port, _ in
            let wire = try await Wire.connect(port: port)
            let pair = "GET /_router/healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n"
            wire.post(Array(String(repeating: pair, count: 500).utf8))
            for _ in 0..<500 {
                #expect(try await wire.receiveMessage().head.hasPrefix("HTTP/1.1 200 "))
                #expect(try await wire.receiveMessage().head.hasPrefix("HTTP/1.1 503 "))
            }
            try await wire.closeOutput()
            await wire.closed()
        }
    }

    /// Counts the reads that reach the channel.
    private final class Reads: ChannelOutboundHandler, Sendable {
        typealias OutboundIn = ByteBuffer
        let count = Mutex(0)

        func read(context: ChannelHandlerContext) {
            count.withLock { $0 += 1 }
            context.read()
        }
    }

    @Test("T22: a client that leaves its answers unread is neither read from nor answered until it reads")
    func neverReads() throws {
        let reads = Reads()
        let channel = try client([reads])
        let pair = "GET /_router/healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n"
        try channel.writeInbound(ByteBuffer(string: pair))
        #expect(try answers(channel).count == 2)

        channel.isWritable = false
        channel.pipeline.fireChannelWritabilityChanged()
        try channel.writeInbound(ByteBuffer(string: pair + pair + "GET"))
        let before = reads.count.withLock { $0 }
        channel.read()
        #expect(try answers(channel) == [])
        #expect(reads.count.withLock { $0 } == before)

        channel.isWritable = true
        channel.pipeline.fireChannelWritabilityChanged()
        #expect(try answers(channel).count == 4)
        #expect(reads.count.withLock { $0 } == before + 1)
        _ = try channel.finish(acceptAlreadyClosed: true)
    }

    @Test("a client that has ended its side still gets its answer")
    func halfClosedClient() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
            try await client.closeOutput()
            let server = try await node.connection()
            _ = try await server.receiveHead()
            #expect(try await server.receiveText(2) == "ok")
            let body = String(repeating: "x", count: 1_000_000)
            server.post(Array("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n\(body)".utf8))
            #expect(try await client.receiveMessage().body == body)
            await client.closed()
        }
        try await node.stop()
    }

    @Test("the router's own paths answer GET and HEAD, and no other path is its own")
    func ownPaths() async throws {
        let node = try await FakeNode.start("node-1") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Node: 1\r\n\r\n"
        }
        try await withRouter(over: [node.node]) { _, port, _ in
            let wire = try await Wire.connect(port: port)
            func ask(_ method: String, _ target: String) async throws -> (head: String, body: String) {
                try await wire.send("\(method) \(target) HTTP/1.1\r\nHost: a\r\n\r\n")
                if method == "HEAD" { return (try await wire.receiveHead(), "") }
                return try await wire.receiveMessage()
            }
            #expect(try await ask("GET", "/_router/healthz").body == "ok\n")
            #expect(try await ask("HEAD", "/_router/healthz").head.contains("\r\nContent-Length: 3\r\n"))
            #expect(try await ask("POST", "/_router/healthz").head.hasPrefix("HTTP/1.1 405 "))
            #expect(try await ask("GET", "/_router/other").head.hasPrefix("HTTP/1.1 404 "))
            #expect(try await ask("GET", "/_router/nodes").head.hasPrefix("HTTP/1.1 404 "))
            #expect(try await ask("GET", "/_routers").head.contains("X-Node: 1"))
            #expect(try await ask("GET", "/?/_router/healthz").head.contains("X-Node: 1"))
            wire.close()
        }
        try await node.stop()
    }

    @Test(
        "T3: an access line names method, path, status, node, kind of key, time and request, and no key, query or token"
    )
    func accessLog() async throws {
        let node = try await FakeNode.start("node-1") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        let log = LogRecorder()
        try await withRouter(over: [node.node], trusted: ["127.0.0.0/8"], log: log) { _, port, _ in
            let wire = try await Wire.connect(port: port)
            try await wire.send(
                "GET /rooms?token=token-of-erin HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
            )
            _ = try await wire.receiveMessage()
            wire.close()
        }
        let line = try #require(log.lines.withLock { $0.first })
        #expect(line.message == "request")
        var metadata = line.metadata.mapValues { "\($0)" }
        #expect(metadata.removeValue(forKey: "ms").flatMap(Double.init) != nil)
        #expect(
            metadata == [
                "method": "GET", "path": "/rooms", "status": "200", "node": "node-1", "key": "token",
                "client": "203.0.113.9", "request_id": "r-1", "tries": "1",
                "bytes_in": "\(node.heads[0].utf8.count)", "bytes_out": "38",
            ]
        )
        try await node.stop()
    }

    @Test("T16: a trusted balancer's PROXY header says whose a connection is; one of its without a header is closed")
    func proxyProtocol() async throws {
        let node = try await FakeNode.start("node-1") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        let log = LogRecorder()
        let client = try #require(IPAddress("203.0.113.9"))
        let header = ProxyProtocol.header(from: (client, 4711), to: (.loopback, 443))
        try await withRouter(over: [node.node], trusted: ["127.0.0.0/8"], readsProxyProtocol: true, log: log) {
            router, port, _ in
            let wire = try await Wire.connect(port: port)
            try await wire.send(
                Array(header.readableBytesView)
                    + Array("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n".utf8))
            _ = try await wire.receiveMessage()
            wire.close()
            for _ in 0..<3 {
                let bare = try await Wire.connect(port: port)
                try await bare.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                #expect(try await bare.receiveAll() == "")
            }
            #expect(router.core.gate.addresses.anomalies[.badHandshake] == 3)
        }
        let closed = log.lines.withLock {
            $0.filter { $0.message.hasSuffix("no header of the PROXY protocol and was closed") }
        }
        #expect(closed.count == 1, "and that is said once in a while")
        // Who is no trusted proxy may not say so, and what a client says of itself does not pass.
        try await withRouter(over: [node.node], readsProxyProtocol: true) { _, port, _ in
            let wire = try await Wire.connect(port: port)
            try await wire.send(Array(header.readableBytesView) + Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
            #expect(try await wire.receiveAll().hasPrefix("HTTP/1.1 400 "))
        }
        let line = try #require(log.lines.withLock { $0.first { $0.message == "request" } })
        #expect(line.metadata["client"].map { "\($0)" } == "203.0.113.9")
        try await node.stop()
    }

    @Test(
        "T16: clients whose address a balancer's header does not say have the limits of one, and say nothing of themselves"
    )
    func proxyProtocolOfNobody() async throws {
        let node = try await FakeNode.start("node-1") { _ in "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" }
        var gate = GateLimits()
        gate.address = ConductLimits(handshakesPerSecond: 1)
        try await withRouter(over: [node.node], gate: gate, trusted: ["127.0.0.0/8"], readsProxyProtocol: true) {
            _, port, _ in
            let header = ProxyProtocol.localHeader.readableBytesView.prefix(12) + [0x21, 0x31, 0x00, 0x00]
            var refused = 0
            for _ in 0..<200 where refused == 0 {
                let wire = try await Wire.connect(port: port)
                try await wire.send(
                    Array(header)
                        + Array("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n".utf8)
                        + Array("X-Forwarded-For: 198.51.100.\(node.heads.count)\r\nX-Request-ID: theirs\r\n\r\n".utf8))
                if try await wire.receiveHead().hasPrefix("HTTP/1.1 429 ") { refused += 1 }
                wire.close()
            }
            #expect(refused == 1)
        }
        for head in node.heads {
            #expect(head.contains("\r\nX-Forwarded-For: ::\r\n") && !head.contains("theirs"))
        }
        try await node.stop()
    }

    @Test("a balancer's header also says that the client speaks TLS, and what the connection is called")
    func proxyProtocolFields() async throws {
        let node = try await FakeNode.start("node-1") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        let client = try #require(IPAddress("203.0.113.9"))
        try await withRouter(over: [node.node], trusted: ["127.0.0.0/8"], readsProxyProtocol: true) { _, port, _ in
            for id in ["lb-7", "lb 8\r\nX-Evil: 1"] {
                let header = ProxyProtocol.header(
                    from: (client, 4711), to: (.loopback, 443), isSecure: true, id: id)
                let wire = try await Wire.connect(port: port)
                try await wire.send(Array(header.readableBytesView) + Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8))
                #expect(try await wire.receiveHead().contains("; Secure\r\n"))
                wire.close()
            }
        }
        #expect(node.heads[0].contains("\r\nX-Request-ID: lb-7\r\n"))
        for head in node.heads { #expect(head.contains("\r\nX-Forwarded-Proto: https\r\n") && !head.contains("Evil")) }
        try await node.stop()
    }

    @Test("a router that writes the PROXY protocol names client and request at the start of each connection to a node")
    func writesProxyProtocol() async throws {
        let node = try await FakeNode.start("node-1")
        try await withRouter(
            over: [node.node], trusted: ["127.0.0.0/8"], keepsNodes: true, writesProxyProtocol: true
        ) { _, port, _ in
            let client = try await Wire.connect(port: port)
            let own = try #require(client.channel?.localAddress?.port)
            let chained = try #require(IPAddress("203.0.113.9"))
            for (line, address, from) in [
                ("X-A: 1", IPAddress.loopback, own), ("X-Forwarded-For: 203.0.113.9", chained, 0),
            ] {
                try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-1\r\n\(line)\r\n\r\n")
                let expected = ProxyProtocol.header(from: (address, from), to: (.loopback, port), id: "r-1")
                let wire = try await node.connection()
                #expect(try await wire.receive(expected.readableBytes) == Array(expected.readableBytesView))
                let head = try await wire.receiveHead()
                #expect(head.hasPrefix("GET /?key=k HTTP/1.1\r\n") && head.contains("\r\nConnection: close\r\n"))
                try await wire.send("HTTP/1.1 204 No Content\r\n\r\n")
                _ = try await client.receiveHead()
                await wire.end()
            }
        }
        try await node.stop()
    }
}
