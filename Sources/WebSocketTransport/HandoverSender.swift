import CLinux
import Glibc
package import NIOCore
import NIOPosix
import Synchronization

/// A router's end of ``HandoverSocket``: gives accepted connections to nodes of its host, which then serve them as their own.
///
/// 1. Each loop has one socket to a node. A message goes out at once, and nothing waits for its answer but the connection that is
///    given: a node that stands still holds up nobody else's.
/// 2. At most ``mostAtOnce`` connections are on their way on a socket.
/// 3. A node that is not reached this way is tried again after a pause.
package final class HandoverSender: Sendable {
    package enum Outcome: Sendable {
        /// The node has it, and this process nothing to do with it any more.
        case taken
        /// The node knows nothing of it: it may be proxied.
        case notTaken
        /// It was given, and no answer came: nobody knows whose it is.
        case unanswered
    }

    package static var mostAtOnce: Int { 64 }

    private struct Place: Hashable {
        let address: String
        let loop: ObjectIdentifier
    }

    private struct Line {
        let loop: any EventLoop
        let bound: NIOLoopBound<HandoverLine>
    }

    private struct State {
        var lines: [Place: Line] = [:]
        var notBefore: [String: NIODeadline] = [:]
    }

    private let state = Mutex(State())
    private let patience: TimeAmount
    private let pause: TimeAmount

    /// - Parameters:
    ///   - patience: for a node to answer.
    ///   - pause: before a node that was not reached is tried again.
    package init(patience: TimeAmount, pause: TimeAmount = .seconds(5)) {
        (self.patience, self.pause) = (patience, pause)
    }

    /// - Parameter address: of the node.
    package func mayReach(_ address: String) -> Bool {
        state.withLock { $0.notBefore[address].map { $0 <= .now() } ?? true }
    }

    /// Gives the connection to the node; the caller's descriptor stays the caller's, and open until the answer.
    ///
    /// - Parameters:
    ///   - bytes: all that was read of it, from a request's head on.
    ///   - loop: of the connection, on which this is called.
    package func give(
        _ connection: CInt, saying bytes: ByteBuffer, to address: String, on loop: any EventLoop
    ) -> EventLoopFuture<Outcome> {
        let place = Place(address: address, loop: ObjectIdentifier(loop))
        let bytes = Array(bytes.readableBytesView)
        // The node of a socket that was there may have gone unnoticed: then nothing was sent, and a new one is tried.
        for _ in 0..<2 where bytes.count <= HandoverSocket.mostBytes {
            guard let line = line(of: place, on: loop) else { break }
            switch line.give(connection, bytes) {
            case .sent(let answer): return answer
            case .full: return loop.makeSucceededFuture(.notTaken)
            case .closed: continue
            }
        }
        return loop.makeSucceededFuture(.notTaken)
    }

    private func line(of place: Place, on loop: any EventLoop) -> HandoverLine? {
        if let line = state.withLock({ $0.lines[place] })?.bound.value, line.isOpen { return line }
        guard let descriptor = HandoverSocket.connect(to: place.address) else {
            avoid(place.address)
            return nil
        }
        let line = HandoverLine(descriptor, patience: patience) { [weak self] in self?.avoid(place.address) }
        line.open(on: loop)
        let bound = NIOLoopBound(line, eventLoop: loop)
        state.withLock { $0.lines[place] = Line(loop: loop, bound: bound) }
        return line
    }

    private func avoid(_ address: String) {
        state.withLock { $0.notBefore[address] = .now() + pause }
    }

    /// Forgets all nodes but these.
    package func keep(only addresses: Set<String>) {
        let gone = state.withLock { state in
            state.notBefore = state.notBefore.filter { addresses.contains($0.key) }
            let gone = state.lines.filter { !addresses.contains($0.key.address) }
            for place in gone.keys { state.lines[place] = nil }
            return gone.values
        }
        for line in gone { line.loop.execute { line.bound.value.closeWhenAnswered() } }
    }
}

/// One socket to a node, on a loop; answers come in the order in which connections were given.
private final class HandoverLine: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    enum Sending {
        case sent(EventLoopFuture<HandoverSender.Outcome>)
        /// So much is under way that the node takes no more now.
        case full
        case closed
    }

    private struct Given {
        let answer: EventLoopPromise<HandoverSender.Outcome>
        let deadline: NIODeadline
    }

    private let descriptor: CInt
    private let patience: TimeAmount
    private let lost: @Sendable () -> Void
    private var loop: (any EventLoop)?
    private var channel: (any Channel)?
    private var given = CircularBuffer<Given>()
    private var timer: Scheduled<Void>?
    private var isLast = false
    private(set) var isOpen = true

    /// - Parameter lost: the node has gone, or does not answer.
    init(_ descriptor: CInt, patience: TimeAmount, lost: @escaping @Sendable () -> Void) {
        (self.descriptor, self.patience, self.lost) = (descriptor, patience, lost)
    }

    func open(on loop: any EventLoop) {
        self.loop = loop
        let bound = NIOLoopBound(self, eventLoop: loop)
        ClientBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 64))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    bound.value.channel = channel
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
            .withConnectedSocket(descriptor)
            .whenFailure { _ in bound.value.end(.unanswered) }
    }

    func give(_ connection: CInt, _ bytes: [UInt8]) -> Sending {
        guard isOpen, let loop else { return .closed }
        guard given.count < HandoverSender.mostAtOnce else { return .full }
        guard send_with_descriptor(descriptor, bytes, bytes.count, connection) == bytes.count else {
            // Of the socket's room, and of the descriptors that are under way (unix(7)).
            guard errno != EAGAIN, errno != ETOOMANYREFS, errno != ENOBUFS else { return .full }
            end(.notTaken)
            return .closed
        }
        let answer = loop.makePromise(of: HandoverSender.Outcome.self)
        given.append(Given(answer: answer, deadline: .now() + patience))
        awaitAnswer(on: loop)
        return .sent(answer.futureResult)
    }

    func closeWhenAnswered() {
        isLast = true
        if given.isEmpty { end(.notTaken) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        for byte in unwrapInboundIn(data).readableBytesView {
            guard let first = given.popFirst() else { return end(.notTaken) }
            first.answer.succeed(byte == HandoverSocket.taken ? .taken : .notTaken)
        }
        if isLast, given.isEmpty { end(.notTaken) }
    }

    /// The node is gone, and its copies of the connections with it.
    func channelInactive(context: ChannelHandlerContext) {
        lose(.notTaken)
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { lose(.notTaken) }

    private func awaitAnswer(on loop: any EventLoop) {
        guard timer == nil, let first = given.first else { return }
        timer = loop.assumeIsolated().scheduleTask(deadline: first.deadline) { [weak self] in
            guard let self else { return }
            timer = nil
            if let first = given.first, first.deadline <= .now() { lose(.unanswered) } else { awaitAnswer(on: loop) }
        }
    }

    private func lose(_ outcome: HandoverSender.Outcome) {
        if isOpen, !isLast { lost() }
        end(outcome)
    }

    private func end(_ outcome: HandoverSender.Outcome) {
        isOpen = false
        timer?.cancel()
        // Closing comes back here, as the end of the channel.
        let (ended, channel) = (given, channel)
        given = CircularBuffer()
        self.channel = nil
        channel?.close(promise: nil)
        for each in ended { each.answer.succeed(outcome) }
    }
}
