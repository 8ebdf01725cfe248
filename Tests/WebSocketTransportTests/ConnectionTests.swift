import NIOCore
import NIOHTTP1
import NIOPosix
import Testing

@testable import WebSocketTransport

@Suite("WebSocket connection")
struct ConnectionTests {
    @Test(
        "broken frames over a socket: the peer reads a Close frame with the code and then the end",
        arguments: [
            ([0x81, 0x01, 0x41], 1002), (clientFrame(0xC1, [65]), 1002), (clientFrame(0x80, [65]), 1002),
            (clientFrame(0x89, [UInt8](repeating: 65, count: 126)), 1002), (clientFrame(0x81, [0xFF]), 1007),
            (clientFrame(0x82, [UInt8](repeating: 65, count: 65537)), 1009),
            (clientFrame(0x88, closePayload(1005)), 1002),
        ] as [([UInt8], UInt16)]
    )
    func brokenFrames(bytes: [UInt8], code: UInt16) throws {
        let recorder = Recorder()
        let server = try TestServer(recorder: recorder)
        let socket = try RawSocket(port: server.port)
        socket.openWebSocket()
        // More than a socket buffer behind it: were the connection closed at once, a reset would overtake the Close frame.
        socket.send(clientText("fine") + bytes + [UInt8](repeating: 0xFF, count: 300_000))
        let frame = socket.receiveFrame()
        #expect(frame?.first == 0x88)
        #expect(frame?.payload.prefix(2) == closePayload(code)[...])
        #expect((frame?.payload.count ?? 0) > 2, "a reason")
        #expect(socket.receiveFrame() == nil)
        socket.finishSending()
        guard case .closed(code, _) = recorder.waitUntilClosed() else {
            Issue.record("\(recorder.all)")
            return
        }
        #expect(recorder.texts == ["fine"])
        try server.stop()
    }

    @Test("pings are answered with their payload, also between fragments")
    func pings() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        socket.openWebSocket()
        socket.send(clientFrame(0x01, [65]) + clientFrame(0x89, [1, 2, 3]) + clientFrame(0x80, [66]))
        let pong = socket.receiveFrame()
        #expect(pong?.first == 0x8A)
        #expect(pong?.payload == [1, 2, 3])
        #expect(socket.receiveFrame()?.payload == Array("AB".utf8))
        try server.stop()
    }

    @Test("a Close frame is echoed, and the server ends the connection", arguments: [1000, 4999, 1005] as [UInt16])
    func echoesClose(code: UInt16) throws {
        let recorder = Recorder()
        let server = try TestServer(recorder: recorder)
        let socket = try RawSocket(port: server.port)
        socket.openWebSocket()
        let payload = code == 1005 ? [] : closePayload(code, "why")
        socket.send(clientFrame(0x88, payload) + clientText("too late"))
        let frame = socket.receiveFrame()
        #expect(frame?.first == 0x88)
        #expect(frame?.payload == payload)
        #expect(socket.receiveAll() == [])
        #expect(recorder.waitUntilClosed() == .closed(code, code == 1005 ? "" : "why"))
        #expect(recorder.texts == [])
        try server.stop()
    }

    @Test("nothing is sent behind a Close frame, and a peer that does not answer it is dropped in time")
    func nothingBehindClose() throws {
        let recorder = Recorder { connection, _ in
            connection.send(text: ByteBuffer(string: "bye"))
            connection.close(code: 4000, reason: "moved")
            connection.send(text: ByteBuffer(string: "no"))
            connection.ping()
            [UInt8](arrayLiteral: 0x81, 0x01, 0x41).withUnsafeBytes { connection.sendFrames($0) }
            connection.close(code: 1000, reason: "no")
        }
        let server = try TestServer(recorder: recorder)
        let socket = try RawSocket(port: server.port)
        socket.openWebSocket()
        socket.send(clientText("go"))
        #expect(socket.receiveFrame()?.payload == Array("bye".utf8))
        socket.send(clientFrame(0x89, [1]) + clientText("not delivered"))
        #expect(socket.receiveFrame()?.payload == closePayload(4000, "moved"))
        #expect(socket.receiveAll() == [])
        #expect(recorder.waitUntilClosed() == .closed(4000, "moved"))
        #expect(recorder.texts == ["go"])
        try server.stop()
    }

    @Test("a connection that just breaks is told once, with 1006")
    func breaks() throws {
        let recorder = Recorder()
        let server = try TestServer(recorder: recorder)
        do {
            let socket = try RawSocket(port: server.port)
            socket.openWebSocket()
            socket.send(clientText("hello") + clientFrame(0x01, [65]))
            socket.reset()
        }
        recorder.waitUntilClosed()
        try server.stop()
        #expect(recorder.all.last == .closed(1006, ""))
        #expect(recorder.all.filter { $0 == .closed(1006, "") }.count == 1)
    }

    @Test("messages of one read burst come before one readComplete; half a message makes none")
    func bursts() throws {
        let recorder = Recorder()
        let server = try TestServer(recorder: recorder)
        let socket = try RawSocket(port: server.port)
        socket.openWebSocket()
        socket.send(clientText("a") + clientText("b") + clientText("c"))
        recorder.wait { $0.contains(.readComplete) }
        socket.send(Array(clientText("dd").prefix(7)) + [])
        socket.send([clientText("dd")[7]] + clientText("e"))
        recorder.wait { $0.contains(.text("e")) && $0.last == .readComplete }
        #expect(recorder.all.prefix(4) == [.text("a"), .text("b"), .text("c"), .readComplete])
        #expect(recorder.texts == ["a", "b", "c", "dd", "e"])
        try server.stop()
    }

    @Test("delegates may keep a delivered buffer: it does not change under them")
    func keptBuffers() throws {
        let kept = KeptBuffers()
        let recorder = Recorder { _, text in kept.add(text) }
        let server = try TestServer(recorder: recorder)
        let client = try server.connect(Recorder())
        try client.onLoop { client in
            for number in 0..<100 { client.send(text: ByteBuffer(string: "number \(number)")) }
        }
        recorder.wait { $0.contains(.text("number 99")) }
        #expect(kept.all.map { String(buffer: $0) } == (0..<100).map { "number \($0)" })
        try server.stop()
    }

    @Test("a quiescing channel closes its WebSocket with 1001")
    func quiesce() throws {
        let recorder = Recorder()
        let server = try TestServer()
        let connection = try server.connect(recorder)
        try connection.onLoop { connection in
            connection.context?.pipeline.fireUserInboundEventTriggered(ChannelShouldQuiesceEvent())
        }
        #expect(recorder.waitUntilClosed() == .closed(1001, "going away"))
        try server.stop()
    }

    @Test("a connection that ends before its delegate is there tells it all the same, once")
    func abortedInTheFactory() throws {
        let recorder = Recorder()
        let server = try TestServer { _, _ in
            .accept { connection in
                connection.abort()
                return recorder
            }
        }
        let socket = try RawSocket(port: server.port)
        socket.send(RawSocket.handshake)
        recorder.waitUntilClosed()
        try server.stop()
        #expect(recorder.all == [.closed(1006, "")])
    }

    @Test("after the upgrade the pipeline is one handler")
    func oneHandler() throws {
        let connection = try TestServer().connect(Recorder())
        let text = try connection.onLoop { $0.context?.pipeline.debugDescription ?? "" }
        #expect(text.contains("WebSocketConnection"))
        #expect(!text.contains("ClientHandshake"))
        let described = Recorder { connection, _ in
            connection.send(text: ByteBuffer(string: connection.context?.pipeline.debugDescription ?? ""))
        }
        let server = try TestServer(recorder: described)
        let heard = Recorder()
        let client = try server.connect(heard)
        try client.onLoop { $0.send(text: ByteBuffer(string: "describe")) }
        heard.wait { !$0.isEmpty }
        let description = heard.texts.first ?? ""
        #expect(description.contains("WebSocketConnection"))
        #expect(!description.contains("HTTP") && !description.contains("ByteToMessage"))
        try server.stop()
    }
}

@Suite("WebSocket client")
struct ClientTests {
    @Test("a refusal is an error with the status and the body")
    func refused() throws {
        let server = try TestServer { _, _ in
            .refuse(.error(.unauthorized, reason: "bad_token", message: "No.", headers: ["X-Why": "token"]))
        }
        let error = #expect(throws: WebSocketClientError.self) { try server.connect(Recorder()) }
        #expect(error?.code == .refused)
        #expect(error?.response?.status == .unauthorized)
        #expect(error?.response?.headers.first(name: "x-why") == "token")
        #expect(error.map { String(buffer: $0.response?.body ?? ByteBuffer()) }?.contains("bad_token") == true)
        #expect(error?.description == "127.0.0.1:\(server.port) answered 401 Unauthorized")
        try server.stop()
    }

    @Test(
        "addresses that are none are refused before anything is sent",
        arguments: [
            "", "http://a/", "wss://", "ws://", "ws://:80/", "ws://a:0/", "ws://a:70000/", "ws://a:b/", "ws://u@a/",
            "ws://a/#f", "ws://a/ b", "ws://[::1", "ws:/a",
        ]
    )
    func invalidURLs(url: String) throws {
        let error = #expect(throws: WebSocketClientError.self) {
            try WebSocketClient.connect(url: url, on: TestServer.group.next(), delegate: { _ in Recorder() }).wait()
        }
        #expect(error?.code == .invalidURL)
    }

    @Test("addresses are taken apart")
    func urls() throws {
        let plain = try WebSocketURL("ws://example.org")
        #expect(plain.host == "example.org" && plain.port == 80 && plain.target == "/")
        let full = try WebSocketURL("WS://[::1]:8080?user=a")
        #expect(full.host == "::1" && full.port == 8080 && full.target == "/?user=a" && full.authority == "[::1]:8080")
        #expect(try WebSocketURL("ws://a:1/b/c?d").target == "/b/c?d")
        let secure = try WebSocketURL("WSS://example.org?a")
        #expect(secure.isSecure && !plain.isSecure)
        #expect(secure.port == 443)
        #expect(try WebSocketURL("wss://example.org:8443/").port == 8443)
    }

    private static let rightHead = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"

    @Test(
        "answers that break the handshake are told apart",
        arguments: [
            ("", .badHandshake), ("SSH-2.0-x\r\n", .badHandshake), ("HTTP/1.1 banana\r\n\r\n", .badHandshake),
            (rightHead + "Sec-WebSocket-Accept: AAAA\r\n\r\n", .badHandshake), (rightHead + "\r\n", .badHandshake),
            ("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", .badHandshake),
            (rightHead + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: x\r\n\r\n", .badHandshake),
            (rightHead + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: x\r\n\r\n", .badHandshake),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", .refused), ("HTTP/1.1 503 No\r\n\r\nbody", .refused),
            ("HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", .refused),
        ] as [(String, WebSocketClientError.Code)]
    )
    func badAnswers(answer: String, code: WebSocketClientError.Code) throws {
        let listener = try ServerBootstrap(group: TestServer.group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Answer(answer))
                }
            }.bind(host: "127.0.0.1", port: 0).wait()
        let port = listener.localAddress?.port ?? 0
        let error = #expect(throws: WebSocketClientError.self) {
            try WebSocketClient.connect(
                url: "ws://127.0.0.1:\(port)/",
                on: TestServer.group.next(),
                delegate: { _ in Recorder() }
            ).wait()
        }
        #expect(error?.code == code)
        if code == .refused {
            let body = String(buffer: error?.response?.body ?? ByteBuffer())
            #expect(body == "hi" || body == "body")
        }
        try listener.close().wait()
    }

    @Test("a server that says nothing, and a port where nobody listens, are errors in time")
    func silence() throws {
        let listener = try ServerBootstrap(group: TestServer.group).bind(host: "127.0.0.1", port: 0).wait()
        let port = listener.localAddress?.port ?? 0
        var limits = WebSocketLimits()
        limits.connectTimeout = .milliseconds(200)
        func connect() throws {
            _ = try WebSocketClient.connect(
                url: "ws://127.0.0.1:\(port)/",
                on: TestServer.group.next(),
                limits: limits,
                delegate: { _ in Recorder() }
            ).wait()
        }
        #expect(#expect(throws: WebSocketClientError.self) { try connect() }?.code == .timedOut)
        try listener.close().wait()
        let refused = #expect(throws: WebSocketClientError.self) { try connect() }
        #expect(refused?.code == .connectFailed)
        #expect(refused?.description == "can't connect to 127.0.0.1:\(port): Connection refused")
    }
}

/// Answers the first bytes with a fixed text, `ACCEPT` in it replaced by the right value, and closes.
private final class Answer: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    private let text: String

    init(_ text: String) { self.text = text }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let request = String(buffer: unwrapInboundIn(data))
        let key = request.split(separator: "\r\n").first { $0.hasPrefix("Sec-WebSocket-Key: ") }?.dropFirst(19) ?? ""
        let accept = WebSocketHandshake.accept(for: String(key)) ?? ""
        let parts = text.split(separator: "ACCEPT", omittingEmptySubsequences: false)
        context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: parts.joined(separator: accept))), promise: nil)
        context.close(promise: nil)
    }
}
