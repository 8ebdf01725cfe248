import Logging
import NIOCore
import Synchronization
import Telemetry

/// Says that this router cannot make connections to nodes, which is no node's fault. Each request and each check would say so again:
/// of each kind there is one line in five seconds.
final class OwnTrouble: Sendable {
    private struct Throttles {
        var ports = LogThrottle(seconds: 5)
        var others = LogThrottle(seconds: 5)
    }

    private let logger: Logger
    private let throttles = Mutex(Throttles())

    init(logger: Logger) { self.logger = logger }

    func cannotConnect(to node: RoutedNode, _ error: any Error) {
        let lacksPort = ConnectFailure.isOutOfPorts(error)
        let now = NIODeadline.now().uptimeNanoseconds
        let unsaid = throttles.withLock { lacksPort ? $0.ports.say(now: now) : $0.others.say(now: now) }
        guard let unsaid else { return }
        var metadata: Logger.Metadata = [
            "node": "\(node.name)", "address": "\(node.address)", "unsaid": .stringConvertible(unsaid),
        ]
        guard !lacksPort else {
            return logger.error(
                "no source port is left for a connection to a node: give this router more addresses (MARTLET_NODE_SOURCE)",
                metadata: metadata)
        }
        metadata["error"] = "\(error)"
        logger.error("this router cannot make a connection", metadata: metadata)
    }
}
