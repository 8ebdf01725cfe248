import Glibc
import NIOCore
import NIOPosix
import Synchronization

/// One end of a TCP connection whose every byte a test sees and chooses; a client's or a fake node's.
///
/// `@unchecked Sendable`: the handler's state is in a mutex.
final class Wire: ChannelDuplexHandler, @unchecked Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundIn = ByteBuffer

    struct Ended: Error, CustomStringConvertible {
        let got: [UInt8]
        var description: String { "gave up after \(String(decoding: got.prefix(400), as: UTF8.self).debugDescription)" }
    }

    private struct State {
        var channel: (any Channel)?
        var received: [UInt8] = []
        var total = 0
        var hasEnded = false
        var isClosed = false
        var waiters: [Int: (State) -> Bool] = [:]
        var lastWaiter = 0
        var isPaused = false
        var readIsHeld = false
        var discards = false
    }

    private let state = Mutex(State())
    /// Called on the loop with all that came and was not taken, for nodes that answer by themselves.
    private let onReceive: (@Sendable (Wire) -> Void)?

    init(onReceive: (@Sendable (Wire) -> Void)? = nil) { self.onReceive = onReceive }

    static func connect(
        host: String = "127.0.0.1",
        port: Int,
        from source: String? = nil,
        paused: Bool = false,
        receiveBuffer: Int? = nil
    ) async throws -> Wire {
        var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
        if let receiveBuffer {
            bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: .init(receiveBuffer))
        }
        if let source { bootstrap = bootstrap.bind(to: try SocketAddress(ipAddress: source, port: 0)) }
        let wire = Wire()
        if paused { wire.pause() }
        _ = try await bootstrap.channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(wire) }
        }.connect(to: SocketAddress(ipAddress: host, port: port)).get()
        return wire
    }

    // MARK: What a test does

    var channel: (any Channel)? { state.withLock { $0.channel } }

    func send(_ text: String) async throws { try await send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) async throws {
        guard let channel else { throw ChannelError.ioOnClosedChannel }
        try await channel.writeAndFlush(ByteBuffer(bytes: bytes))
    }

    /// Gives the bytes to NIO without waiting for them to leave.
    func post(_ bytes: [UInt8]) { channel?.writeAndFlush(ByteBuffer(bytes: bytes), promise: nil) }

    /// Exactly that many bytes.
    func receive(_ count: Int) async throws -> [UInt8] {
        try await take { $0.received.count >= count ? count : nil }
    }

    func receiveText(_ count: Int) async throws -> String { String(decoding: try await receive(count), as: UTF8.self) }

    /// Up to and with the empty line.
    func receiveHead() async throws -> String {
        let bytes = try await take { state in
            state.received.firstRange(of: Array("\r\n\r\n".utf8)).map(\.upperBound)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A head and as many bytes as its Content-Length says.
    func receiveMessage() async throws -> (head: String, body: String) {
        let head = try await receiveHead()
        let length =
            head.split(separator: "\r\n").first { $0.lowercased().hasPrefix("content-length:") }
            .flatMap { Int($0.drop { $0 != ":" }.dropFirst(2)) } ?? 0
        return (head, try await receiveText(length))
    }

    /// Everything until the other side ends.
    func receiveAll() async throws -> String {
        _ = await wait { $0.hasEnded || $0.isClosed }
        return state.withLock { state in
            defer { state.received = [] }
            return String(decoding: state.received, as: UTF8.self)
        }
    }

    /// Bytes that came, those that were taken included.
    var total: Int { state.withLock { $0.total } }

    /// Until so many bytes came in all; true unless the connection ended before.
    func total(reaches count: Int) async -> Bool {
        await wait { $0.total >= count || $0.hasEnded || $0.isClosed }
        return total >= count
    }

    func end() async { await wait { $0.hasEnded || $0.isClosed } }

    func closed() async { await wait { $0.isClosed } }

    var hasEnded: Bool { state.withLock { $0.hasEnded || $0.isClosed } }

    func pause() { state.withLock { $0.isPaused = true } }

    /// Counts what comes and keeps none of it.
    func discard() { state.withLock { $0.discards = true } }

    func resume() {
        let channel = state.withLock { state in
            state.isPaused = false
            defer { state.readIsHeld = false }
            return state.readIsHeld ? state.channel : nil
        }
        channel?.read()
    }

    func closeOutput() async throws { try await channel?.close(mode: .output).get() }

    func close() { channel?.close(promise: nil) }

    /// Ends with a reset.
    func reset() async throws {
        try await (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        try? await channel?.close().get()
    }

    /// What came, taken at once.
    func drainReceived() -> [UInt8] {
        state.withLock { state in
            defer { state.received = [] }
            return state.received
        }
    }

    // MARK: Waiting

    private func take(_ count: @escaping @Sendable (borrowing State) -> Int?) async throws -> [UInt8] {
        await wait { count($0) != nil || $0.hasEnded || $0.isClosed }
        return try state.withLock { state in
            guard let count = count(state) else { throw Ended(got: state.received) }
            defer { state.received.removeFirst(count) }
            return Array(state.received.prefix(count))
        }
    }

    /// Until the condition holds, for at most two minutes: a busy machine may let a test stand still for long.
    private func wait(_ condition: @escaping @Sendable (State) -> Bool) async {
        await withCheckedContinuation { continuation in
            let waiter: Int? = state.withLock { state in
                if condition(state) { return nil }
                state.lastWaiter += 1
                state.waiters[state.lastWaiter] = { state in
                    guard condition(state) else { return false }
                    continuation.resume()
                    return true
                }
                return state.lastWaiter
            }
            guard let waiter else { return continuation.resume() }
            MultiThreadedEventLoopGroup.singleton.any().scheduleTask(in: .minutes(2)) {
                let isLate = self.state.withLock { $0.waiters.removeValue(forKey: waiter) != nil }
                if isLate { continuation.resume() }
            }
        }
    }

    private func change(_ body: (inout State) -> Void) {
        state.withLock { state in
            body(&state)
            for (waiter, isDone) in state.waiters where isDone(state) { state.waiters[waiter] = nil }
        }
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) { change { $0.channel = context.channel } }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        change { state in
            state.total += buffer.readableBytes
            if !state.discards { state.received += buffer.readableBytesView }
        }
        onReceive?(self)
    }

    func read(context: ChannelHandlerContext) {
        let isPaused = state.withLock { state in
            if state.isPaused { state.readIsHeld = true }
            return state.isPaused
        }
        if !isPaused { context.read() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { change { $0.hasEnded = true } }
    }

    func channelInactive(context: ChannelHandlerContext) {
        change { state in
            state.hasEnded = true
            state.isClosed = true
            state.channel = nil
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
