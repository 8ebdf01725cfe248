import Synchronization

/// What the gate and the count of connections are told when a client's connection ends, once: with its channel, or, where a
/// ``TunnelSet`` has taken its socket, with the tunnel.
///
/// 1. ``RouterCore`` adds its own count and `gate.ended`, for the address that connected; ``ClientConnection`` adds
///    `gate.left`, for the client that a trusted proxy names.
/// 2. Nothing is to be added once the tunnel may have ended: it would never be called.
final class ConnectionEnd: Sendable {
    private struct State {
        var actions: [@Sendable () -> Void] = []
        var isInTunnel = false
    }

    private let state = Mutex(State())

    func add(_ action: @escaping @Sendable () -> Void) { state.withLock { $0.actions.append(action) } }

    /// From now on the end is that of the tunnel.
    func movesToTunnel() { state.withLock { $0.isInTunnel = true } }

    func channelClosed() {
        if !state.withLock(\.isInTunnel) { ended() }
    }

    /// May be called again.
    func ended() {
        let actions = state.withLock { state in
            defer { state.actions = [] }
            return state.actions
        }
        for action in actions { action() }
    }
}
