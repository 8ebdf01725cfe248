import CLinux
import Glibc
import NIOCore
import NIOPosix

/// One ``HandoverSocket`` to a node, on a loop, with its ``HandoverQueue``; answers come in the order in which connections were
/// given.
final class HandoverLine: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    enum Loss {
        /// It has gone, or does not answer.
        case ofNode
        /// The node has closed this line before it answered anything on it: as far as one can tell it has too many.
        case ofLine
    }

    private struct Given {
        let number: UInt64
        let answer: EventLoopPromise<HandoverSender.Outcome>
        let deadline: NIODeadline
    }

    private let socket: CInt
    private let queue: HandoverQueue
    private let loop: any EventLoop
    private let patience: TimeAmount
    private let lost: @Sendable (Loss) -> Void
    private var channel: (any Channel)?
    private var given = CircularBuffer<Given>()
    private var count: UInt64 = 0
    private var timer: Scheduled<Void>?
    private var wasAnswered = false
    private var isLast = false
    private(set) var isOpen = true

    /// - Parameter socket: connected to the node; closed in the end.
    /// - Returns: nil where the node has closed it already, or no descriptor is left.
    init?(over socket: CInt, on loop: any EventLoop, patience: TimeAmount, lost: @escaping @Sendable (Loss) -> Void) {
        guard let queue = HandoverQueue() else {
            close(socket)
            return nil
        }
        var hello = HandoverSocket.hello
        guard send_with_descriptor(socket, &hello, 1, queue.receiving) == 1 else {
            close(socket)
            queue.close()
            return nil
        }
        (self.socket, self.queue) = (socket, queue)
        (self.loop, self.patience, self.lost) = (loop, patience, lost)
    }

    func open() {
        let bound = NIOLoopBound(self, eventLoop: loop)
        ClientBootstrap(group: loop)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 64))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    bound.value.channel = channel
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
            .withConnectedSocket(socket)
            .whenFailure { _ in bound.value.end(.notTaken) }
    }

    /// - Returns: nil where so much is under way that the node takes no more now.
    func give(_ connection: CInt, _ bytes: ByteBuffer) -> EventLoopFuture<HandoverSender.Outcome>? {
        guard isOpen, given.count < HandoverSender.mostAtOnce else { return nil }
        count += 1
        guard queue.put(connection, saying: bytes.readableBytesView, number: count) else { return nil }
        let answer = loop.makePromise(of: HandoverSender.Outcome.self)
        given.append(Given(number: count, answer: answer, deadline: .now() + patience))
        awaitAnswer()
        return answer.futureResult
    }

    func closeWhenAnswered() {
        isLast = true
        if given.isEmpty { end(.notTaken) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        wasAnswered = true
        for byte in unwrapInboundIn(data).readableBytesView {
            guard let first = given.popFirst() else { return end(.notTaken) }
            first.answer.succeed(byte == HandoverSocket.taken ? .taken : .notTaken)
        }
        if isLast, given.isEmpty { end(.notTaken) }
    }

    /// The node is gone, and its copies of what it has not received with it.
    func channelInactive(context: ChannelHandlerContext) {
        wasClosed()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { wasClosed() }

    private func wasClosed() { lose(wasAnswered ? .ofNode : .ofLine, .notTaken) }

    private func awaitAnswer() {
        guard timer == nil, let first = given.first else { return }
        timer = loop.assumeIsolated().scheduleTask(deadline: first.deadline) { [weak self] in
            guard let self else { return }
            timer = nil
            if let first = given.first, first.deadline <= .now() { lose(.ofNode, .takenBack) } else { awaitAnswer() }
        }
    }

    private func lose(_ loss: Loss, _ outcome: HandoverSender.Outcome) {
        if isOpen, !isLast { lost(loss) }
        end(outcome)
    }

    /// - Parameter outcome: of what the node has not received. The rest is its own, whether it lives or not.
    private func end(_ outcome: HandoverSender.Outcome) {
        // Closing comes back here, as the end of the channel.
        guard isOpen else { return }
        isOpen = false
        timer?.cancel()
        let numbers = queue.takeBack()
        queue.close()
        let (ended, channel) = (given, channel)
        given = CircularBuffer()
        self.channel = nil
        channel?.close(promise: nil)
        for each in ended { each.answer.succeed(numbers.contains(each.number) ? outcome : .unanswered) }
    }
}
