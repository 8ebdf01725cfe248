import NIOCore

/// Receive buffers that no idle connection holds on to.
///
/// NIO keeps, for the life of a channel, the first buffer that a channel's allocator made, and reads into it again
/// unless the allocator says that its next buffer may be a bigger one. So the first buffer is of 16 bytes (the start of
/// an HTTP request, read once), `record` always answers `true`, and every later read gets
/// - while HTTP is spoken a buffer of its own, since the HTTP decoder may keep it;
/// - after the upgrade the loop's one buffer of 64 KiB, which the handler gives back when its read is over. It is
///   given away while in use, so that NIO finds itself the only owner and does not copy; a read that ends without a
///   `channelRead` (end of file) loses it, and the next one is allocated. Under TLS a read still gets a buffer of its own:
///   what is read is TLS's, which gives nothing back.
///
/// Checked against swift-nio 2.101.2. Should NIO change its pooling, this costs memory or allocations, never correctness.
struct SharedReadAllocator: RecvByteBufferAllocator {
    private let loop: LoopContext?
    private let size: Int
    private var hasRead: Bool

    /// For a new channel, until the upgrade.
    static let forHTTP = SharedReadAllocator(loop: nil, size: 2048, hasRead: false)

    static func forWebSocket(_ loop: LoopContext) -> SharedReadAllocator {
        SharedReadAllocator(loop: loop, size: LoopContext.readBufferBytes, hasRead: true)
    }

    /// After the upgrade, under TLS.
    static let forTLS = SharedReadAllocator(loop: nil, size: 8192, hasRead: true)

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        guard hasRead else { return allocator.buffer(capacity: 16) }
        return loop?.takeReadBuffer(allocator) ?? allocator.buffer(capacity: size)
    }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        hasRead = true
        return true
    }
}
