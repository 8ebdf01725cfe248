import Logging
import Synchronization
import Telemetry
import WebSocketTransport

/// Says that this router cannot make connections to nodes, which is no node's fault. Each request and each check would say
/// so again: of each kind, and of each address that is lost, there is one line in five seconds.
final class OwnTrouble: Sendable {
    private let logger: Logger
    private let ports: ThrottledLine
    private let others: ThrottledLine
    private let lost = Mutex<[IPAddress: ThrottledLine]>([:])

    init(logger: Logger) {
        self.logger = logger
        ports = ThrottledLine(
            .error,
            "no source port is left for a connection to a node: give this router more addresses (MARTLET_NODE_SOURCE)",
            logger: logger)
        others = ThrottledLine(.error, "this router cannot make a connection", logger: logger)
    }

    func cannotConnect(to node: RoutedNode, _ error: any Error) {
        if let address = ConnectFailure.lostSource(error) { return lostSource(address) }
        if ConnectFailure.isOutOfPorts(error) {
            ports.say(["node": "\(node.name)", "address": "\(node.address)"])
        } else {
            others.say(["node": "\(node.name)", "address": "\(node.address)", "error": "\(error)"])
        }
    }

    /// Also where the next address carries on: without it there are fewer ports.
    func lostSource(_ address: IPAddress) {
        let line = lost.withLock { lost in
            if let line = lost[address] { return line }
            let line = ThrottledLine(
                .error, "an address that nodes are dialled from is not this machine's any more (MARTLET_NODE_SOURCE)",
                logger: logger)
            lost[address] = line
            return line
        }
        line.say(["source": "\(address)"])
    }
}
