import Glibc
import NIOCore

/// One connection through a ``FaultProxy``: the two channels and what waits in each way. Confined to the proxy's loop.
final class FaultLink {
    /// Bytes of one way.
    private struct Pipe {
        var queue: CircularBuffer<(due: NIODeadline, bytes: ByteBuffer)> = []
        var waiting = 0
        /// Of the last bytes that came, so that jitter turns nothing round.
        var lastDue = NIODeadline.uptimeNanoseconds(0)
        /// When the throttle lets the next bytes go.
        var free = NIODeadline.uptimeNanoseconds(0)
        var alarm: Scheduled<Void>?
        /// The sender has ended; the receiver is told behind the last byte.
        var isEnding = false
        var isEnded = false
        /// Something was swallowed: the receiver never hears anything again.
        var isBlack = false
    }

    /// So much waits in a way before its sender is not read any more.
    private static let bound = 64 * 1024
    /// The mark is said within so many bytes, or never: to look through all of them costs more than to pass them on.
    private static let markBound = 8 * 1024

    private let core: FaultCore
    private let client: any Channel
    var server: (any Channel)?
    private(set) var isMarked = false
    /// The end of the client's bytes so far, in which the mark may begin.
    private var tail: [UInt8] = []
    private var lookedThrough = 0
    private var rewriter: Rewriter
    private var pipes = [Pipe(), Pipe()]
    private var isStarted = false
    private var isOver = false

    init(core: FaultCore, client: any Channel) {
        (self.core, self.client) = (core, client)
        rewriter = Rewriter(core.words)
    }

    private func source(_ way: Fault.Way) -> (any Channel)? { way == .toServer ? client : server }
    private func receiver(_ way: Fault.Way) -> (any Channel)? { source(way.opposite) }

    /// Both channels are there.
    func start() {
        guard !isOver else { return end(resets: true) }
        isStarted = true
        for way in Fault.Way.allCases { readMore(way) }
    }

    func readMore(_ way: Fault.Way) {
        guard isStarted, !isOver, pipes[way.rawValue].waiting < Self.bound else { return }
        source(way)?.read()
    }

    func received(_ read: ByteBuffer, _ way: Fault.Way) {
        var bytes = read
        if way == .toServer {
            look(for: core.mark, in: bytes)
            if !rewriter.isIdle { bytes = ByteBuffer(bytes: rewriter.rewrite(bytes.readableBytesView)) }
        }
        let fault = core.fault(of: self)
        let swallows = pipes[way.rawValue].isBlack || fault.swallowed.contains(way)
        core.figures?.update { figures in
            if way == .toServer {
                figures.fromClients += bytes.readableBytes
            } else {
                figures.fromServers += bytes.readableBytes
            }
            if swallows { figures.swallowed += bytes.readableBytes }
        }
        if swallows {
            pipes[way.rawValue].isBlack = true
            return
        }
        var delay = fault.latency
        if fault.jitter > .zero { delay += fault.jitter * Double.random(in: 0..<1, using: &core.random) }
        let due = max(pipes[way.rawValue].lastDue, .now() + TimeAmount(delay))
        pipes[way.rawValue].lastDue = due
        pipes[way.rawValue].queue.append((due, bytes))
        pipes[way.rawValue].waiting += bytes.readableBytes
        pump(way)
    }

    /// Passes on what is due, and sees to it that the rest comes when it is.
    func pump(_ way: Fault.Way) {
        guard isStarted, !isOver, let receiver = receiver(way) else { return }
        let fault = core.fault(of: self)
        let index = way.rawValue
        pipes[index].alarm?.cancel()
        pipes[index].alarm = nil
        guard !fault.held.contains(way) else { return }
        while let (due, bytes) = pipes[index].queue.first {
            guard receiver.isWritable else { return }
            let now = NIODeadline.now()
            let next = fault.bytesPerSecond == nil ? due : max(due, pipes[index].free)
            guard next <= now else { return wake(way, at: next) }
            var count = fault.isSplit ? 1 : bytes.readableBytes
            if let rate = fault.bytesPerSecond {
                count = min(count, max(1, rate / 20))
                pipes[index].free = now + .nanoseconds(Int64(count) * 1_000_000_000 / Int64(max(1, rate)))
            }
            var rest = bytes
            guard let piece = rest.readSlice(length: count) else { return }
            if rest.readableBytes > 0 {
                pipes[index].queue[pipes[index].queue.startIndex].bytes = rest
            } else {
                pipes[index].queue.removeFirst()
            }
            pipes[index].waiting -= count
            receiver.writeAndFlush(piece, promise: nil)
            if isOver { return }
            if fault.isSplit { return wake(way, at: now) }
        }
        if pipes[index].isEnding, !pipes[index].isEnded {
            pipes[index].isEnded = true
            receiver.close(mode: .output, promise: nil)
            if pipes[way.opposite.rawValue].isEnded { end(resets: false) }
        } else {
            readMore(way)
        }
    }

    private func wake(_ way: Fault.Way, at deadline: NIODeadline) {
        let bound = NIOLoopBound(self, eventLoop: client.eventLoop)
        pipes[way.rawValue].alarm = client.eventLoop.scheduleTask(deadline: deadline) { bound.value.pump(way) }
    }

    /// The sender of this way ended, in order or not.
    func ended(_ way: Fault.Way, isReset: Bool) {
        guard !isOver else { return }
        if pipes[way.rawValue].isEnding {
            // Its end was passed on before; what still comes for it finds nobody.
            if isReset { end(resets: true) }
            return
        }
        if pipes[way.rawValue].isBlack || core.fault(of: self).swallowed.contains(way) {
            pipes[way.rawValue].isBlack = true
            // Nobody is left who could end the other way.
            if pipes.allSatisfy(\.isBlack), source(way.opposite)?.isActive != true { end(resets: true) }
            return
        }
        pipes[way.rawValue].isEnding = true
        if isReset { end(resets: true) } else { pump(way) }
    }

    func end(resets: Bool) {
        let wasOver = isOver
        isOver = true
        for index in pipes.indices { pipes[index].alarm?.cancel() }
        for channel in [client, server].compactMap({ $0 }) {
            if resets {
                // On the loop this is done when it returns.
                _ = (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0))
            }
            channel.close(promise: nil)
        }
        if !wasOver { core.over(self) }
    }

    private func look(for mark: [UInt8], in bytes: ByteBuffer) {
        guard !isMarked, !mark.isEmpty, lookedThrough < Self.markBound else { return }
        lookedThrough += bytes.readableBytes
        tail += Array(bytes.readableBytesView)
        if tail.indices.contains(where: { tail[$0...].starts(with: mark) }) {
            isMarked = true
            core.figures?.update { $0.marked += 1 }
            tail = []
        } else {
            tail = Array(tail.suffix(mark.count - 1))
        }
    }
}

/// One of the two channels of a link: what comes in here goes `way`.
final class FaultEnd: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let link: FaultLink
    private let way: Fault.Way
    private var failed = false

    init(_ link: FaultLink, _ way: Fault.Way) {
        (self.link, self.way) = (link, way)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { link.received(unwrapInboundIn(data), way) }
    func channelReadComplete(context: ChannelHandlerContext) { link.readMore(way) }
    func channelWritabilityChanged(context: ChannelHandlerContext) { link.pump(way.opposite) }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { link.ended(way, isReset: false) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        failed = true
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) { link.ended(way, isReset: failed) }
}

extension TimeAmount {
    fileprivate init(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        self = .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
    }
}
