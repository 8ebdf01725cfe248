import NIOCore

/// Keeps NIO from holding a receive buffer for each idle channel: it holds on to the first one that an allocator makes,
/// hence 16 bytes for that (with `maxMessagesPerRead` 1), and asks for a new one each time that `record` says true.
struct FirstReadAllocator: RecvByteBufferAllocator {
    private var hasRead = false

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: hasRead ? 8192 : 16) }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        hasRead = true
        return true
    }
}
