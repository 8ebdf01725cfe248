package import NIOCore
import Synchronization

/// A router's end of ``HandoverSocket``: gives accepted connections to nodes of its host, which then serve them as their own.
///
/// 1. Each loop has one socket to a node. A message goes out at once, and nothing waits for its answer but the connection that is
///    given: a node that stands still holds up nobody else's.
/// 2. At most ``mostAtOnce`` connections are on their way on a socket.
/// 3. What a node has not received when its patience is over, or when it is gone, is taken back: nothing is given twice.
/// 4. A node that is not reached this way is tried again after a pause, by one loop alone where it only did not want that one.
package final class HandoverSender: Sendable {
    package enum Outcome: Sendable {
        /// The node has it, and this process nothing to do with it any more.
        case taken
        /// The node received it, and did not say what it made of it, in time or at all: it is the node's, too.
        case unanswered
        /// The node does not want it, or was not reached: it may be proxied.
        case notTaken
        /// The node did not receive it in time, and no longer can.
        case takenBack
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
        /// Where a node has taken other lines, and not this one.
        var refused: [Place: NIODeadline] = [:]
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

    /// - Parameters:
    ///   - address: of the node.
    ///   - loop: of the connection.
    package func mayReach(_ address: String, on loop: any EventLoop) -> Bool {
        func isOver(_ pause: NIODeadline?) -> Bool { pause.map { $0 <= .now() } ?? true }
        return state.withLock { state in
            isOver(state.notBefore[address])
                && (state.refused.isEmpty
                    || isOver(state.refused[Place(address: address, loop: ObjectIdentifier(loop))]))
        }
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
        guard bytes.readableBytes <= HandoverSocket.mostBytes, let line = line(of: place, on: loop),
            let answer = line.give(connection, bytes)
        else { return loop.makeSucceededFuture(.notTaken) }
        return answer
    }

    private func line(of place: Place, on loop: any EventLoop) -> HandoverLine? {
        if let line = state.withLock({ $0.lines[place] })?.bound.value, line.isOpen { return line }
        guard let socket = HandoverSocket.connect(to: place.address) else {
            avoid(place.address)
            return nil
        }
        let made = HandoverLine(over: socket, on: loop, patience: patience) { [weak self] loss in
            switch loss {
            case .ofNode: self?.avoid(place.address)
            case .ofLine: self?.avoid(place)
            }
        }
        guard let line = made else {
            avoid(place)
            return nil
        }
        line.open()
        let bound = NIOLoopBound(line, eventLoop: loop)
        state.withLock { $0.lines[place] = Line(loop: loop, bound: bound) }
        return line
    }

    private func avoid(_ address: String) {
        state.withLock { $0.notBefore[address] = .now() + pause }
    }

    private func avoid(_ place: Place) {
        state.withLock { $0.refused[place] = .now() + pause }
    }

    /// Forgets all nodes but these.
    package func keep(only addresses: Set<String>) {
        let gone = state.withLock { state in
            state.notBefore = state.notBefore.filter { addresses.contains($0.key) }
            state.refused = state.refused.filter { addresses.contains($0.key.address) }
            let gone = state.lines.filter { !addresses.contains($0.key.address) }
            for place in gone.keys { state.lines[place] = nil }
            return gone.values
        }
        for line in gone { line.loop.execute { line.bound.value.closeWhenAnswered() } }
    }
}
