import Dispatch
import Foundation
import NIOCore
import NIOEmbedded
import NIOPosix
import Synchronization
import TestSupport
import TestTLS
import Testing

@testable import WebSocketTransport

/// One authority for all tests of the suite, with what it issued.
private struct Issued: Sendable {
    let authority: Certificates
    let server: Certificates.Pair
    let client: Certificates.Pair
    let expired: Certificates.Pair

    static let shared = Task {
        let authority = try await Certificates()
        return Issued(
            authority: authority, server: try await authority.issue("server"),
            client: try await authority.issue("client"),
            expired: try await authority.issue("expired", isExpired: true))
    }

    func credentials(of pair: Certificates.Pair? = nil, asksClients: Bool = false) throws -> TLSCredentials {
        let pair = pair ?? server
        return try TLSCredentials(
            certificate: pair.certificate, key: pair.key,
            clientAuthorities: asksClients ? authority.authority : nil)
    }

    var trusting: TLSSocket.Options { TLSSocket.Options(authority: authority.authority) }
}

/// What `onUnreadable` was told.
private final class Complaints: Sendable {
    private let reasons = Mutex<[String]>([])
    private let changed = DispatchSemaphore(value: 0)

    func add(_ reason: Unreadable, _ client: IPAddress) {
        reasons.withLock { $0.append("\(client): \(reason)") }
        changed.signal()
    }

    func next() -> String? {
        guard changed.wait(timeout: .now() + .seconds(10)) == .success else { return nil }
        return reasons.withLock { $0.isEmpty ? nil : $0.removeFirst() }
    }

    var all: [String] { reasons.withLock { $0 } }
}

@Suite("TLS")
struct TLSTests {
    private let issued: Issued

    init() async throws { issued = try await Issued.shared.value }

    @Test("HTTP, the handshake and messages go through TLS, also large ones; the end is said in both protocols")
    func roundTrip() throws {
        let server = try TestServer(tls: issued.credentials())
        var options = issued.trusting
        options.protocols = ["h2", "http/1.1"]
        let socket = try TLSSocket(port: server.port, options)
        #expect(socket.version == "TLSv1.3")
        #expect(socket.agreedProtocol == "http/1.1")
        socket.send("GET /secure HTTP/1.1\r\nHost: chat.example:8443\r\n\r\n")
        #expect(socket.receiveResponse().body == "true true")
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080", "x.localhost"] {
            socket.send("GET /secure HTTP/1.1\r\nHost: \(host)\r\n\r\n")
            #expect(socket.receiveResponse().body == "true false", "\(host)")
        }
        let large = String(repeating: "b", count: 50_000)
        socket.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + large)
        #expect(socket.receiveResponse().body == large)
        #expect(socket.openWebSocket().hasPrefix("HTTP/1.1 101 "))
        for size in [1, 200, 16_000, 65_536] {
            let text = String(repeating: "x", count: size)
            socket.sendText(text)
            let frame = socket.receiveFrame()
            #expect(frame?.first == 0x81 && frame?.payload == Array(text.utf8), "\(size)")
        }
        socket.sendFrame(0x88, closePayload(1000))
        #expect(socket.receiveFrame()?.payload == closePayload(1000))
        #expect(socket.receiveAll() == [])
        #expect(socket.end == .closed, "the goodbye of TLS comes before the end of TCP")
        try server.stop()
    }

    @Test("what a proxy that is trusted says of TLS is believed")
    func proxied() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        for (said, answer) in [("https", "true true"), ("http", "false false")] {
            socket.send("GET /secure HTTP/1.1\r\nHost: chat.example\r\nX-Forwarded-Proto: \(said)\r\n\r\n")
            #expect(socket.receiveResponse().body == answer)
        }
        try server.stop()
    }

    @Test("an answer that ends its connection arrives whole")
    func lastAnswer() throws {
        let server = try TestServer(tls: issued.credentials())
        let socket = try TLSSocket(port: server.port, issued.trusting)
        socket.send("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        #expect(socket.receiveResponse().body == "hello")
        #expect(socket.receiveAll() == [] && socket.end == .closed)
        let broken = try TLSSocket(port: server.port, issued.trusting)
        broken.send("nonsense\r\n\r\n")
        #expect(broken.receiveResponse().head.hasPrefix("HTTP/1.1 400 "))
        #expect(broken.receiveAll() == [] && broken.end == .closed)
        try server.stop()
    }

    @Test("T6: versions before 1.2 are refused", arguments: [TLSSocket.Version.tls10, .tls11, .tls12, .tls13])
    func versions(version: TLSSocket.Version) throws {
        let complaints = Complaints()
        let server = try TestServer(tls: issued.credentials(), onUnreadable: complaints.add)
        var options = issued.trusting
        options.version = version
        if version.rawValue >= TLSSocket.Version.tls12.rawValue {
            let socket = try TLSSocket(port: server.port, options)
            socket.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(socket.receiveResponse().body == "hello")
        } else {
            #expect(throws: TLSSocket.Failure.self) { try TLSSocket(port: server.port, options) }
            #expect(complaints.next() == "127.0.0.1: no TLS handshake: unsupported protocol")
        }
        try server.stop()
    }

    @Test("who speaks another protocol than that of the port is closed, and told of once")
    func otherProtocol() throws {
        let complaints = Complaints()
        let secure = try TestServer(tls: issued.credentials(), onUnreadable: complaints.add)
        let plainClient = try RawSocket(port: secure.port)
        plainClient.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        _ = plainClient.receiveAll()
        #expect(complaints.next() == "127.0.0.1: no TLS handshake: the client speaks plain HTTP")

        let plain = try TestServer(onUnreadable: complaints.add)
        #expect(throws: TLSSocket.Failure.self) { try TLSSocket(port: plain.port, issued.trusting) }
        let complaint = try #require(complaints.next())
        #expect(complaint.hasPrefix("127.0.0.1: not HTTP/1.1: "))
        try secure.stop()
        try plain.stop()
        #expect(complaints.all == [])
    }

    @Test("T20: the time of a request's head is that of the handshake, too: who stops in it is closed without a byte")
    func slowHandshake() throws {
        var limits = TestServer.limits
        limits.requestTimeout = .milliseconds(50)
        let complaints = Complaints()
        let server = try TestServer(limits: limits, tls: issued.credentials(), onUnreadable: complaints.add)
        for beginning in [[], [0x16, 0x03, 0x01, 0x02, 0x00, 0x01]] as [[UInt8]] {
            let socket = try RawSocket(port: server.port)
            socket.send(beginning)
            #expect(socket.receiveAll() == [])
            #expect(complaints.next() == "127.0.0.1: no TLS handshake: the client took too long")
        }
        try server.stop()
    }

    @Test("frames leave in the order of the calls through a full socket, and nobody is slow who reads")
    func order() throws {
        var limits = TestServer.limits
        limits.maximumQueuedBytes = 64 << 20
        limits.closeTimeout = .seconds(5)
        let filler = String(repeating: "x", count: 3000)
        let count = 3000
        let recorder = Recorder { connection, _ in
            for number in 0..<count {
                let text = number % 3 == 0 ? "\(number)" : "\(number) \(filler)"
                if number % 2 == 0 {
                    connection.send(text: ByteBuffer(string: text))
                } else {
                    var frame = ByteBuffer()
                    WebSocketFrame.appendText(ByteBuffer(string: text), to: &frame)
                    frame.withUnsafeReadableBytes { connection.sendFrames($0) }
                }
            }
            connection.close(code: 1000, reason: "")
        }
        let server = try TestServer(limits: limits, tls: issued.credentials()) { _, _ in .accept { _ in recorder } }
        var options = issued.trusting
        options.receiveBuffer = 4096
        let socket = try TLSSocket(port: server.port, options)
        #expect(socket.openWebSocket().hasPrefix("HTTP/1.1 101 "))
        socket.sendText("go")
        recorder.wait { $0.contains(.readComplete) }
        for number in 0..<count {
            let expected = number % 3 == 0 ? "\(number)" : "\(number) \(filler)"
            guard let frame = socket.receiveFrame(), frame.payload == Array(expected.utf8) else {
                Issue.record("not \(number)")
                break
            }
        }
        #expect(socket.receiveFrame()?.payload == closePayload(1000))
        socket.sendFrame(0x88, closePayload(1000))
        #expect(socket.receiveAll() == [])
        try server.stop()
    }

    @Test("what the socket takes at once does not count as waiting, though it is far more than may wait")
    func budget() throws {
        var limits = TestServer.limits
        limits.maximumQueuedBytes = 32 * 1024
        let recorder = Recorder { connection, _ in
            for number in 0..<20 {
                var frame = ByteBuffer()
                let text = "\(number) \(String(repeating: "y", count: 5000))"
                WebSocketFrame.appendText(ByteBuffer(string: text), to: &frame)
                frame.withUnsafeReadableBytes { connection.sendFrames($0) }
            }
        }
        let server = try TestServer(limits: limits, tls: issued.credentials()) { _, _ in .accept { _ in recorder } }
        let socket = try TLSSocket(port: server.port, issued.trusting)
        #expect(socket.openWebSocket().hasPrefix("HTTP/1.1 101 "))
        socket.sendText("go")
        for number in 0..<20 {
            let frame = socket.receiveFrame()
            #expect(frame?.first == 0x81 && frame?.payload.count == 5001 + "\(number)".count, "\(number)")
        }
        #expect(recorder.closed == nil)
        try server.stop()
    }

    @Test("who does not read is closed with 4001, and may read why")
    func slowReader() throws {
        var limits = TestServer.limits
        limits.maximumQueuedBytes = 64 * 1024
        limits.closeTimeout = .seconds(5)
        let connection = Mutex<WebSocketConnection?>(nil)
        let recorder = Recorder { sender, _ in connection.withLock { $0 = sender } }
        let server = try TestServer(limits: limits, tls: issued.credentials()) { _, _ in .accept { _ in recorder } }
        var options = issued.trusting
        options.receiveBuffer = 4096
        let socket = try TLSSocket(port: server.port, options)
        #expect(socket.openWebSocket().hasPrefix("HTTP/1.1 101 "))
        socket.sendText("go")
        recorder.wait { $0.contains(.readComplete) }
        let open = try #require(connection.withLock { $0 })
        let text = String(repeating: "z", count: 16_000)
        var sent = 0
        while try open.onLoop({ $0.isOpen }), sent < 2000 {
            _ = try open.onLoop { $0.send(text: ByteBuffer(string: text)) }
            sent += 1
        }
        #expect(sent < 2000)
        var received = 0
        while let frame = socket.receiveFrame() {
            if frame.first == 0x88 {
                #expect(frame.payload == closePayload(4001, "slow, resume"))
                break
            }
            #expect(frame.payload == Array(text.utf8))
            received += 1
        }
        #expect(received > 0 && received < sent)
        socket.sendFrame(0x88, closePayload(4001))
        recorder.waitUntilClosed()
        try server.stop()
    }

    @Test("a write that fails within the call tells of nothing within it, and of the end after it")
    func failingWrite() throws {
        final class Failing: ChannelOutboundHandler {
            typealias OutboundIn = ByteBuffer
            /// As NIO does: what has come is read before the end.
            func flush(context: ChannelHandlerContext) {
                context.fireChannelRead(NIOAny(ByteBuffer(bytes: clientText("late"))))
                context.fireChannelReadComplete()
                context.close(promise: nil)
            }
        }
        let loop = EmbeddedEventLoop()
        let channel = EmbeddedChannel(handler: Failing(), loop: loop)
        let recorder = Recorder()
        let connection = WebSocketConnection(
            role: .server, loop: .current(on: loop), limits: SharedLimits(TestServer.limits), server: nil,
            subprotocol: nil, isSecure: true)
        try channel.pipeline.syncOperations.addHandler(connection)
        connection.attach(recorder)
        clientText("one").withUnsafeBytes { connection.sendFrames($0) }
        #expect(recorder.all == [])
        clientText("two").withUnsafeBytes { connection.sendFrames($0) }
        #expect(recorder.all == [])
        loop.run()
        #expect(recorder.all == [.closed(1006, "")])
    }

    @Test("an end without a closing handshake is told at once, and nothing comes after it")
    func abort() throws {
        let recorder = Recorder { connection, _ in connection.abort() }
        let server = try TestServer(tls: issued.credentials()) { _, _ in .accept { _ in recorder } }
        let socket = try TLSSocket(port: server.port, issued.trusting)
        #expect(socket.openWebSocket().hasPrefix("HTTP/1.1 101 "))
        socket.sendText("one")
        socket.sendText("two")
        #expect(socket.receiveAll() == [])
        // Noted when the call that aborts is over.
        recorder.wait { $0.contains(.text("one")) }
        #expect(recorder.all.first == .closed(1006, ""))
        #expect(recorder.texts == ["one"])
        try server.stop()
    }

    @Test("T6: a client shows a certificate of the authority where that is asked, or is refused")
    func mutual() throws {
        let server = try TestServer(tls: issued.credentials(asksClients: true))
        var options = issued.trusting
        options.pair = issued.client
        let socket = try TLSSocket(port: server.port, options)
        socket.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(socket.receiveResponse().body == "hello")
        // In version 1.3 the client has ended the handshake before the server has seen its certificate.
        for pair in [nil, issued.expired] {
            options.pair = pair
            let refused = try? TLSSocket(port: server.port, options)
            refused?.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(refused?.receiveAll() ?? [] == [])
        }
        try server.stop()
    }

    @Test("T6: a client of another authority is refused, too")
    func foreign() async throws {
        let foreign = try await Certificates(authority: "Test CA").issue("client")
        let server = try TestServer(tls: issued.credentials(asksClients: true))
        var options = issued.trusting
        options.pair = foreign
        let refused = try? TLSSocket(port: server.port, options)
        refused?.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(refused?.receiveAll() ?? [] == [])
        try await server.server.close().get()
    }
}
