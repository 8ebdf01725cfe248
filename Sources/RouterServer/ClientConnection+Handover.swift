import NIOCore
import WebSocketTransport

/// A WebSocket to a node of this host: the node gets the client's socket itself, with the request's head as a proxied one would
/// have it and every byte read behind it. From then on the connection costs this process nothing, and outlives it.
///
/// Until the node has answered nothing is read, and this process's descriptor stays open; then it is closed, and not shut down.
/// A node that does not want it is dialled like any other. From one that hangs it is taken back, and the next is tried.
///
/// Who is kept by an address gets no cookie then: the head of the answer is the node's to write, and the same address leads to
/// the same node again.
extension ClientConnection {
    func mayHandOver(_ exchange: Exchange, to node: RoutedNode) -> Bool {
        guard exchange.request.isUpgrade, !inputEnded, let handover = core.handover, let context else { return false }
        return handover.mayReach(node.address, on: context.eventLoop)
    }

    func handOver(_ exchange: Exchange, to node: RoutedNode) {
        guard let context, let handover = core.handover, let connection = context.descriptor else {
            return dial(node, exchange)
        }
        var bytes = exchange.request.headForNode(address: node.address, peer: peer, isSecure: isSecure)
        bytes.writeImmutableBuffer(inbound)
        handover.give(connection, saying: bytes, to: node.address, on: context.eventLoop)
            .assumeIsolated().whenSuccess { self.gave(exchange, to: node, $0) }
    }

    private func gave(_ exchange: Exchange, to node: RoutedNode, _ outcome: HandoverSender.Outcome) {
        // The client went meanwhile: the node sees that, too.
        guard isUnderWay(exchange) else { return }
        switch outcome {
        case .taken:
            core.answered(node)
            leave(exchange, to: node)
        case .unanswered:
            core.hung(node)
            leave(exchange, to: node)
        case .notTaken:
            dial(node, exchange)
        case .takenBack:
            core.hung(node)
            perform(exchange.attempt.timedOut(), exchange)
        }
    }

    private func leave(_ exchange: Exchange, to node: RoutedNode) {
        exchange.pick = nil
        exchange.isLogged = true
        core.logHandover(exchange.request, to: node, started: exchange.started, tries: exchange.attempt.tries)
        close()
    }
}

extension ChannelHandlerContext {
    /// Of the channel's socket, which stays the channel's; nil where it has none.
    var descriptor: CInt? {
        try? pipeline.syncOperations.withUnsafeTransportIfAvailable(of: CInt.self) { $0 }
    }
}
