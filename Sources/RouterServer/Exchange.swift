import NIOCore

/// One request of a client under way.
final class Exchange {
    let request: ProxiedRequest
    let started: NIODeadline
    var attempt: RouteAttempt
    /// Takes the request's body off what the client sends.
    var requestBody: BodyDecoder
    var node: NodeConnection?
    /// Of the connection to the node that had the request last.
    var traffic: ProxiedTraffic?
    /// Of an upgrade that no node has accepted yet: counts for the node that is tried.
    var pick: NodeTable.Pick?
    /// How the answer's body is framed for the client; nil before its head was written.
    var framing: BodyLength?
    var status = 0
    var isLogged = false
    /// The connection to the client ends after this answer.
    var closes: Bool
    /// When a byte last moved.
    var lastProgress: NIODeadline

    init(
        request: ProxiedRequest, nodes: [RoutedNode], pick: NodeTable.Pick?, closes: Bool, now: NIODeadline
    ) {
        self.request = request
        self.pick = pick
        self.closes = closes
        started = now
        lastProgress = now
        requestBody = BodyDecoder(request.body)
        attempt = RouteAttempt(
            nodes: nodes,
            method: request.head.method,
            isUpgrade: request.isUpgrade,
            hasBody: request.body != .none
        )
    }

    var answerHasBegun: Bool { framing != nil }

    /// How long nothing may move.
    func patience(_ limits: RouterLimits) -> TimeAmount {
        attempt.mayRepeat && !answerHasBegun ? limits.answerTime : limits.exchangeIdle
    }
}
