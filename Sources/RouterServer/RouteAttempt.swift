/// One request's way through the nodes of its key's order: which to try next, and when to stop.
///
/// 1. A node that could not be connected to got nothing, so the next may have the request, whatever it is.
/// 2. Once it was sent, only a request without a body that asks for an upgrade, or that a proxy may repeat
///    (RFC 9110 section 9.2.2), goes to another node; and only before any answer to it was passed on.
package struct RouteAttempt: Sendable {
    package enum Action: Equatable, Sendable {
        case dial(RoutedNode)
        /// The answer goes to the client.
        case relay
        case fail(Failure)
    }

    package enum Failure: Equatable, Sendable {
        /// Nobody is left to try.
        case noNode
        /// A node had the request and answered nothing that can be passed on.
        case badGateway
        case gatewayTimeout
    }

    private let nodes: [RoutedNode]
    private var next = 0
    private let isUpgrade: Bool
    /// Another node may have it after this one, so this one is not waited for long.
    package let mayRepeat: Bool

    /// - Parameter hasBody: also when none of it was read.
    package init(nodes: [RoutedNode], method: String, isUpgrade: Bool, hasBody: Bool) {
        self.nodes = nodes
        self.isUpgrade = isUpgrade
        mayRepeat = !hasBody && (isUpgrade || ["GET", "HEAD", "OPTIONS"].contains(method))
    }

    /// The node that has the request, or had it last.
    package var current: RoutedNode? { next > 0 ? nodes[next - 1] : nil }

    /// How many have had it, or were to.
    package var tries: Int { next }

    package mutating func start() -> Action { advance() ?? .fail(.noNode) }

    package mutating func connectFailed() -> Action { advance() ?? .fail(.noNode) }

    /// The head of a final answer is there. A node that drains refuses upgrades with 503; when the last one does, the
    /// client gets that answer.
    package mutating func answered(status: Int) -> Action {
        guard status == 503, isUpgrade, mayRepeat else { return .relay }
        return advance() ?? .relay
    }

    /// The connection ended, or what came was not HTTP, before a final answer.
    package mutating func broke() -> Action {
        guard mayRepeat else { return .fail(.badGateway) }
        return advance() ?? .fail(.badGateway)
    }

    /// The deadline for a final answer is past.
    package mutating func timedOut() -> Action {
        guard mayRepeat else { return .fail(.gatewayTimeout) }
        return advance() ?? .fail(.gatewayTimeout)
    }

    private mutating func advance() -> Action? {
        guard next < nodes.count else { return nil }
        next += 1
        return .dial(nodes[next - 1])
    }
}
