import Glibc
import NIOCore
import NIOPosix
import WebSocketTransport

/// Whose fault it is that a connection to a node was not made.
enum ConnectFailure {
    /// The node, or the way to it: it refused, did not answer in time, cannot be reached, or its name is unknown. False
    /// when this machine could not even try: no descriptor, port or memory was left, or something forbade it.
    static func isOfNode(_ error: any Error) -> Bool {
        switch error {
        case let error as NIOConnectionError:
            // Without addresses to try the name was not found.
            error.connectionErrors.isEmpty || error.connectionErrors.contains { isOfNode($0.error) }
        case let error as IOError:
            [ECONNREFUSED, ECONNRESET, ECONNABORTED, ETIMEDOUT, EHOSTUNREACH, EHOSTDOWN, ENETUNREACH, ENETDOWN]
                .contains(error.errnoCode)
        case ChannelError.connectTimeout: true
        default: false
        }
    }

    /// No port was left for another connection from one address of this machine to one of the node's (connect(2),
    /// EADDRNOTAVAIL), and nothing worse.
    static func isOutOfPorts(_ error: any Error) -> Bool {
        switch error {
        case let error as NIOConnectionError:
            !isOfNode(error) && error.connectionErrors.contains { isOutOfPorts($0.error) }
        case let error as IOError: error.errnoCode == EADDRNOTAVAIL
        default: false
        }
    }

    /// The address that it was to be dialled from, where this machine has it no more, and nothing worse.
    static func lostSource(_ error: any Error) -> IPAddress? {
        if let error = error as? NIOConnectionError {
            return isOfNode(error) ? nil : error.connectionErrors.lazy.compactMap { lostSource($0.error) }.first
        }
        return (error as? NodeSources.NotOfThisMachine)?.address
    }

    /// Its machine says that nobody listens there.
    static func isRefusal(_ error: any Error) -> Bool {
        if let error = error as? NIOConnectionError { return error.connectionErrors.contains { isRefusal($0.error) } }
        return (error as? IOError)?.errnoCode == ECONNREFUSED
    }
}
