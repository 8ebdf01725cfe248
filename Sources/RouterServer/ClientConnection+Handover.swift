import NIOCore
import WebSocketTransport

/// A WebSocket to a node of this host: the node gets the client's socket itself, with the request's head as a proxied one would
/// have it and every byte read behind it. From then on the connection costs this process nothing, and outlives it.
///
/// Until the node has answered this process asks for no bytes, and its descriptor stays open; then it is closed, and not shut
/// down. NIO reads all the same when the client ends its direction. The node serves nobody before it has answered, so what is read
/// so was sent before the `101`, which no client does (RFC 6455 section 4.1): it goes along where the connection is proxied, or
/// given to another node, and is lost where the node has it.
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
