import Synchronization

/// What may be read from any thread at once.
final class ClientFigures: Sendable {
    private struct Values {
        var state: ConnectionState?
        var buffered = 0
        var onItsWay = 0
        /// Milliseconds.
        var roundTrip: Int64?
    }

    private let values = Mutex(Values())

    var state: ConnectionState? { values.withLock(\.state) }

    var bufferedAmount: Int { values.withLock { $0.buffered + $0.onItsWay } }

    var roundTrip: Duration? { values.withLock(\.roundTrip).map { .milliseconds($0) } }

    func set(_ state: ConnectionState) {
        values.withLock { $0.state = state }
    }

    func set(buffered: Int, roundTrip: Int64?) {
        values.withLock {
            $0.buffered = buffered
            $0.roundTrip = roundTrip
        }
    }

    /// Bytes that a caller has handed over and the client's loop has not yet taken.
    func addOnItsWay(_ bytes: Int) {
        values.withLock { $0.onItsWay += bytes }
    }
}
