import Synchronization

/// What is to be done when a client's connection has ended, which may be long after its channel: a tunnel goes on without.
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
