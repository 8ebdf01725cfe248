import NIOCore
import Synchronization
import Testing
import WebSocketTransport

@Suite("Outbound budget")
struct OutboundBudgetTests {
    @Test("G6: over half of its budget a connection says so, and its owner is told once when that is over")
    func behind() throws {
        var buffer = ByteBuffer()
        WebSocketFrame.appendText(ByteBuffer(string: String(repeating: "z", count: 16000)), to: &buffer)
        let frame = Array(buffer.readableBytesView)
        let sent = Mutex(0)
        let recorder = Recorder { connection, _ in
            var count = 0
            while !connection.isBehind, connection.isOpen, count < 4000 {
                frame.withUnsafeBytes { connection.sendFrames($0) }
                count += 1
            }
            #expect(connection.isBehind && connection.isOpen)
            #expect(connection.queuedBytes > 512 * 1024)
            sent.withLock { $0 = count }
        }
        let server = try TestServer(recorder: recorder)
        let socket = try RawSocket(port: server.port, receiveBuffer: 4096)
        socket.openWebSocket()
        for _ in 0..<2 {
            socket.send(clientText("go"))
            recorder.wait { $0.last == .readComplete }
            for _ in 0..<sent.withLock({ $0 }) { #expect(socket.receiveFrame()?.first == 0x81) }
            recorder.wait { $0.last == .caughtUp }
        }
        #expect(recorder.all.filter { $0 == .caughtUp }.count == 2)
        socket.send(clientFrame(0x88, closePayload(1000)))
        #expect(recorder.waitUntilClosed() == .closed(1000, ""))
        try server.stop()
    }
}
