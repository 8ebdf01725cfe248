import NIOCore
import Synchronization

/// Follows how much of what was given to a connection has left NIO for the kernel.
final class Written: Sendable {
    private let count = Mutex(0)

    var bytes: Int { count.withLock { $0 } }

    func follow(_ wire: Wire, _ bytes: [UInt8]) {
        wire.channel?.writeAndFlush(ByteBuffer(bytes: bytes)).whenSuccess {
            self.count.withLock { $0 += bytes.count }
        }
    }

    /// Until nothing has left for a quarter of a second. A sender that is only slow would go on, so that this cannot
    /// say "stalled" of a connection that flows.
    func stalls() async {
        var last = -1
        while last != bytes {
            last = bytes
            try? await Task.sleep(for: .milliseconds(250))
        }
    }
}
