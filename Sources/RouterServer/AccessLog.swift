import Logging
import NIOCore
import Synchronization

/// One line a request, in JSON like all others: `request`, `upgrade`, or `handed over`; never a query, a key or a token.
///
/// Of a tunnel there are two, when it begins and when it ends, with the same `request_id`. `bytes_in` went to the node and
/// `bytes_out` came from it, heads included; of a tunnel they stand in the second line.
extension RouterCore {
    /// nginx's word for a client that went, or did not go on, before there was an answer.
    static let clientWent = 499

    /// - Parameters:
    ///   - tries: how many nodes were asked.
    ///   - isCut: the client did not get all of the answer.
    func log(
        _ request: ProxiedRequest, status: Int, node: RoutedNode?, started: NIODeadline, tries: Int = 0,
        traffic: ProxiedTraffic? = nil, isCut: Bool = false
    ) {
        answers.add(isUpgrade: request.isUpgrade, status: status)
        var line = line(of: request, node: node?.name ?? "-", started: started, tries: tries)
        line["status"] = .stringConvertible(status)
        if request.isUpgrade { line["handed_over"] = .stringConvertible(false) }
        if isCut { line["cut"] = .stringConvertible(true) }
        if let traffic { Self.add(traffic.toNode, traffic.fromNode, to: &line) }
        logger.info(request.isUpgrade ? "upgrade" : "request", metadata: line)
    }

    /// What the node answers passes by the router.
    func logHandover(_ request: ProxiedRequest, to node: RoutedNode, started: NIODeadline, tries: Int) {
        handedOver.add(1, ordering: .relaxed)
        var line = line(of: request, node: node.name, started: started, tries: tries)
        line["handed_over"] = .stringConvertible(true)
        logger.info("handed over", metadata: line)
    }

    /// What tells of a tunnel's end, and keeps nothing else of its request.
    func logsEnd(of request: ProxiedRequest, node: RoutedNode?, started: NIODeadline) -> @Sendable (Int, Int) -> Void {
        let (id, client, name, logger) = (request.id, request.client, node?.name ?? "-", logger)
        return { toNode, fromNode in
            var line: Logger.Metadata = [
                "node": "\(name)", "client": "\(client)", "ms": Self.milliseconds(since: started),
                "request_id": "\(id)",
            ]
            Self.add(toNode, fromNode, to: &line)
            logger.info("tunnel ended", metadata: line)
        }
    }

    private func line(
        of request: ProxiedRequest, node: String, started: NIODeadline, tries: Int
    ) -> Logger.Metadata {
        [
            "method": "\(request.head.method)", "path": "\(request.path)", "node": "\(node)",
            "key": "\(request.affinity.kind.rawValue)", "client": "\(request.client)",
            "ms": Self.milliseconds(since: started), "request_id": "\(request.id)",
            "tries": .stringConvertible(tries),
        ]
    }

    private static func add(_ toNode: Int, _ fromNode: Int, to line: inout Logger.Metadata) {
        line["bytes_in"] = .stringConvertible(toNode)
        line["bytes_out"] = .stringConvertible(fromNode)
    }

    private static func milliseconds(since started: NIODeadline) -> Logger.MetadataValue {
        .stringConvertible(Double((NIODeadline.now() - started).nanoseconds / 10_000) / 100)
    }
}

extension ClientConnection {
    /// Once for each exchange.
    func log(_ exchange: Exchange, status: Int, isCut: Bool = false) {
        guard !exchange.isLogged else { return }
        exchange.isLogged = true
        core.log(
            exchange.request, status: status, node: exchange.attempt.current, started: exchange.started,
            tries: exchange.attempt.tries, traffic: status == 101 ? nil : exchange.traffic, isCut: isCut)
    }
}
