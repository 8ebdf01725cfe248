import NIOCore
import NIOHTTP1
import NIOPosix
import Testing
import WebSocketTransport

@Suite("Server and client of this transport talk to each other")
struct RoundTripTests {
    @Test("text, binary, ping and the closing handshake, in order")
    func talk() throws {
        let server = try TestServer()
        let recorder = Recorder()
        let connection = try server.connect(recorder)
        let big = String(repeating: "grüße ", count: 5000)
        try connection.onLoop { connection in
            connection.send(text: ByteBuffer(string: "hello"))
            connection.send(text: ByteBuffer(string: big))
            connection.send(binary: ByteBuffer(bytes: [0, 1, 255]))
            connection.send(text: ByteBuffer())
            connection.ping()
        }
        let events = recorder.wait { $0.contains(.pong) }.filter { $0 != .readComplete }
        #expect(events == [.text("hello"), .text(big), .binary([0, 1, 255]), .text(""), .pong])
        try connection.onLoop { $0.close(code: 1000, reason: "done") }
        #expect(recorder.waitUntilClosed() == .closed(1000, "done"))
        try server.stop()
    }

    @Test("the server's side learns the client's code and reason, once")
    func serverLearnsClose() throws {
        let recorder = Recorder()
        let server = try TestServer(recorder: recorder)
        let connection = try server.connect(Recorder())
        try connection.onLoop { connection in
            connection.send(text: ByteBuffer(string: "last words"))
            connection.close(code: 4321, reason: "tschüß")
            connection.send(text: ByteBuffer(string: "never sent"))
            connection.close(code: 1000, reason: "never sent")
        }
        recorder.waitUntilClosed()
        #expect(recorder.all == [.text("last words"), .readComplete, .closed(4321, "tschüß")])
        try server.stop()
    }

    @Test("a server that accepts, says why it closes, and goes is understood")
    func closeRightBehindTheAcceptance() throws {
        let server = try TestServer { _, _ in
            .accept { connection in
                connection.close(code: 4200, reason: "banned")
                return Echo()
            }
        }
        for _ in 0..<20 {
            let recorder = Recorder()
            _ = try server.connect(recorder)
            #expect(recorder.waitUntilClosed() == .closed(4200, "banned"))
        }
        try server.stop()
    }
}
