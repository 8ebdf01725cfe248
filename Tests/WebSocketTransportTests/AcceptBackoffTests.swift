import Glibc
import NIOCore
import NIOEmbedded
import Synchronization
import Testing
import WebSocketTransport

@Suite("A listening socket without descriptors")
struct AcceptBackoffTests {
    /// Counts the reads that reach the channel.
    private final class Reads: ChannelOutboundHandler, Sendable {
        typealias OutboundIn = Never
        let count = Mutex(0)

        func read(context: ChannelHandlerContext) {
            count.withLock { $0 += 1 }
            context.read()
        }
    }

    @Test("T23: after a failed accept it waits 100 ms, then goes on; another error is passed on")
    func waits() throws {
        let reads = Reads()
        let channel = EmbeddedChannel(handlers: [reads, AcceptBackoff()])
        channel.pipeline.fireErrorCaught(IOError(errnoCode: EMFILE, reason: "accept"))
        channel.pipeline.fireErrorCaught(IOError(errnoCode: EMFILE, reason: "accept"))
        let before = reads.count.withLock { $0 }
        channel.read()
        channel.read()
        channel.embeddedEventLoop.advanceTime(by: .milliseconds(99))
        #expect(reads.count.withLock { $0 } == before)
        channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
        #expect(reads.count.withLock { $0 } == before + 1)
        channel.read()
        #expect(reads.count.withLock { $0 } == before + 2)
        #expect(throws: Never.self) { try channel.throwIfErrorCaught() }
        channel.pipeline.fireErrorCaught(ChannelError.inputClosed)
        #expect(throws: ChannelError.inputClosed) { try channel.throwIfErrorCaught() }
        _ = try? channel.finish()
    }
}
