import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import WebSocketTransport

/// Sends every message back, over the transport that nodes and routers serve with, permessage-deflate offered: what
/// `Tests/Autobahn` fuzzes.
///
/// 1. Listens on a free port of 127.0.0.1 and prints it as its only line of output.
/// 2. Ends when its input does, so never outlives who started it.
@main
enum EchoServer {
    /// Three cases of the suite send 16 MiB in a message.
    static let largestMessage = 16 << 20

    static func main() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        var limits = WebSocketLimits()
        limits.maximumMessageBytes = largestMessage
        limits.maximumQueuedBytes = 4 * largestMessage
        limits.allowsCompression = true
        let server = try HTTPServer.start(
            host: "127.0.0.1",
            port: 0,
            group: group,
            limits: limits,
            onRequest: { _, loop in loop.makeSucceededFuture(HTTPResponse(status: .notFound)) },
            onUpgrade: { _, _ in .accept { _ in Echo() } }
        ).wait()
        print(server.localAddress?.port ?? 0)
        fflush(nil)
        while getchar() != EOF {}
        try server.close().wait()
        try group.syncShutdownGracefully()
    }
}

private final class Echo: WebSocketDelegate {
    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
        connection.send(text: text)
    }

    func webSocket(_ connection: WebSocketConnection, receivedBinary bytes: ByteBuffer) {
        connection.send(binary: bytes)
    }

    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {}
}
