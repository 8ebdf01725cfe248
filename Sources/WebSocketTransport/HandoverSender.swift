import CLinux
import Glibc
package import NIOCore
import NIOPosix
import Synchronization

/// A router's end of ``HandoverSocket``: gives accepted connections to nodes of its host, which then serve them as their own.
///
/// At most ``mostAtOnce`` connections are on their way; a node that is not reached this way is tried again after 5 s.
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
    private static let retriesAfter: TimeAmount = .seconds(5)
    private static let mostIdle = 4

    private struct Node {
        var idle: [CInt] = []
        var notBefore = NIODeadline.uptimeNanoseconds(0)
    }

    private let nodes = Mutex<[String: Node]>([:])
    private let underWay = Atomic(0)
    private let threads = NIOThreadPool(numberOfThreads: 2)
    /// Seconds for a node to answer.
    private let patience: Int

    package init(patience: TimeAmount) {
        self.patience = max(1, Int(patience.nanoseconds / 1_000_000_000))
        threads.start()
    }

    /// Ends the threads once nothing is under way.
    package func stop() { threads.shutdownGracefully { _ in } }

    /// - Parameter address: of the node.
    package func mayReach(_ address: String) -> Bool {
        underWay.load(ordering: .relaxed) < Self.mostAtOnce
            && nodes.withLock { $0[address].map { $0.notBefore <= .now() } ?? true }
    }

    /// Gives a copy of the connection to the node; the caller's stays the caller's.
    ///
    /// - Parameters:
    ///   - bytes: all that was read of it, from a request's head on.
    ///   - loop: of the connection, on which this is called.
    package func give(
        _ connection: CInt, saying bytes: ByteBuffer, to address: String, on loop: any EventLoop
    ) -> EventLoopFuture<Outcome> {
        let copy = fcntl(connection, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0, bytes.readableBytes <= HandoverSocket.mostBytes else {
            if copy >= 0 { close(copy) }
            return loop.makeSucceededFuture(.notTaken)
        }
        underWay.add(1, ordering: .relaxed)
        return threads.runIfActive(eventLoop: loop) {
            defer {
                close(copy)
                self.underWay.subtract(1, ordering: .relaxed)
            }
            return self.give(copy, Array(bytes.readableBytesView), to: address)
        }.flatMapErrorThrowing { _ in
            close(copy)
            return .notTaken
        }
    }

    private func give(_ connection: CInt, _ bytes: [UInt8], to address: String) -> Outcome {
        // One that stood idle may be a dead node's: then nothing was sent, and a new one is tried.
        for _ in 0...Self.mostIdle {
            let idle = nodes.withLock { $0[address]?.idle.popLast() }
            guard let socket = idle ?? HandoverSocket.connect(to: address, patience: patience) else { break }
            guard send_with_descriptor(socket, bytes, bytes.count, connection) == bytes.count else {
                close(socket)
                continue
            }
            var answer: UInt8 = 0
            let count = recv(socket, &answer, 1, 0)
            guard count == 1 else {
                close(socket)
                avoid(address)
                // The end of the socket before an answer: the node is gone, and its copy with it.
                return count == 0 ? .notTaken : .unanswered
            }
            keep(socket, of: address)
            return answer == HandoverSocket.taken ? .taken : .notTaken
        }
        avoid(address)
        return .notTaken
    }

    private func keep(_ socket: CInt, of address: String) {
        let isKept = nodes.withLock { nodes in
            guard nodes[address, default: Node()].idle.count < Self.mostIdle else { return false }
            nodes[address, default: Node()].idle.append(socket)
            return true
        }
        if !isKept { close(socket) }
    }

    private func avoid(_ address: String) {
        nodes.withLock { $0[address, default: Node()].notBefore = .now() + Self.retriesAfter }
    }

    /// Forgets all nodes but these.
    package func keep(only addresses: Set<String>) {
        let gone = nodes.withLock { nodes in
            let gone = nodes.filter { !addresses.contains($0.key) }
            for address in gone.keys { nodes[address] = nil }
            return gone.values.flatMap(\.idle)
        }
        for socket in gone { close(socket) }
    }
}
