import NIOCore
import NIOHTTP1
import Synchronization

/// What a process takes of connections.
package struct GateLimits: Sendable {
    /// Connections of the process; 0 lifts the limit.
    package var connections = 0
    /// Connections over the limit that are told so; more are closed without a word.
    package var refusedAtOnce = 32
    /// WebSockets that have not said who they are; 0 lifts the limit.
    package var unauthenticated = 0
    package var address = ConductLimits()

    package init() {}
}

/// Decides which connections are taken: for all loops of one server.
///
/// 1. A connection counts from accept(2) to its end, and for its address too: the peer's, or, where the peer is a trusted
///    proxy, from its handshake on that of the client it stands for. Trusted proxies stand for many: no limit of an address
///    holds for them.
/// 2. Who is over a limit is served one answer, which says so; while many are, the next are closed at once.
/// 3. IPv6 addresses count by network (/64).
package final class ConnectionGate: Sendable {
    package enum Admission: Sendable {
        case serve
        /// Each request is to be answered with this.
        case refuse(GateRefusal)
        /// Close it without a word.
        case drop
    }

    package let addresses: ConductGuard<IPAddress>
    private let limits: GateLimits
    private let trusted: TrustedProxies
    private let open = Atomic(0)
    private let refused = Atomic(0)
    private let dropped = Atomic(0)
    private let strangers = Atomic(0)
    private let full = Atomic(false)
    private let counts = Mutex<[GateRefusal.Reason: Int]>([:])

    package init(
        limits: GateLimits, trustedProxies: TrustedProxies,
        onBar: @escaping ConductGuard<IPAddress>.BarHandler = { _, _, _ in }
    ) {
        self.limits = limits
        trusted = trustedProxies
        addresses = ConductGuard(limits: limits.address, onBar: onBar)
    }

    /// While it is set, new connections are refused.
    package var isOutOfMemory: Bool {
        get { full.load(ordering: .relaxed) }
        set { full.store(newValue, ordering: .relaxed) }
    }

    /// A connection was accepted; with any answer but `drop`, ``ended(_:as:)`` is called for it once.
    package func accepted(_ peer: IPAddress) -> Admission {
        let number = open.add(1, ordering: .relaxed).newValue
        var refusal: GateRefusal?
        if limits.connections > 0, number - refused.load(ordering: .relaxed) > limits.connections {
            refusal = GateRefusal(.connections)
        } else if isOutOfMemory {
            refusal = GateRefusal(.memory)
        } else {
            refusal = connect(peer)
        }
        guard let refusal else { return .serve }
        count(refusal)
        if refused.add(1, ordering: .relaxed).newValue > limits.refusedAtOnce {
            refused.subtract(1, ordering: .relaxed)
            open.subtract(1, ordering: .relaxed)
            dropped.add(1, ordering: .relaxed)
            return .drop
        }
        return .refuse(refusal)
    }

    /// The end of an accepted connection.
    ///
    /// - Parameter peer: for one whose handshake was admitted, its client.
    package func ended(_ peer: IPAddress, as admission: Admission) {
        open.subtract(1, ordering: .relaxed)
        if case .refuse = admission {
            refused.subtract(1, ordering: .relaxed)
        } else if !trusted.contains(peer) {
            addresses.disconnect(peer.network)
        }
    }

    /// A handshake of `client`, which came from `peer`. Where that is another, an admitted one counts as a connection of
    /// the client until ``ended(_:as:)``, or ``left(_:through:)`` when nothing came of it.
    package func handshake(of client: IPAddress, through peer: IPAddress) -> GateRefusal? {
        guard !trusted.contains(client) else { return nil }
        if let refusal = addresses.handshake(client.network) { return counted(GateRefusal(refusal)) }
        guard client != peer, let refusal = addresses.connect(client.network) else { return nil }
        return counted(GateRefusal(refusal))
    }

    package func left(_ client: IPAddress, through peer: IPAddress) {
        if client != peer, !trusted.contains(client) { addresses.disconnect(client.network) }
    }

    package func note(_ cause: AnomalyCause, of client: IPAddress) {
        if trusted.contains(client) { addresses.noteUnnamed(cause) } else { addresses.note(cause, of: client.network) }
    }

    /// A WebSocket of nobody yet; when it is taken, ``strangerLeft()`` is called once.
    package func strangerCame() -> GateRefusal? {
        let number = strangers.add(1, ordering: .relaxed).newValue
        guard limits.unauthenticated > 0, number > limits.unauthenticated else { return nil }
        strangers.subtract(1, ordering: .relaxed)
        return counted(GateRefusal(.unauthenticated))
    }

    /// It has said who it is, or is gone.
    package func strangerLeft() { strangers.subtract(1, ordering: .relaxed) }

    private func connect(_ peer: IPAddress) -> GateRefusal? {
        guard !trusted.contains(peer) else { return nil }
        return addresses.connect(peer.network).map { GateRefusal($0) }
    }

    private func counted(_ refusal: GateRefusal) -> GateRefusal {
        count(refusal)
        return refusal
    }

    private func count(_ refusal: GateRefusal) { counts.withLock { $0[refusal.reason, default: 0] += 1 } }

    // MARK: Figures

    package var openConnections: Int { open.load(ordering: .relaxed) }
    package var unauthenticated: Int { strangers.load(ordering: .relaxed) }
    /// Of the refused, those that were closed without a word.
    package var droppedConnections: Int { dropped.load(ordering: .relaxed) }
    package var refusals: [GateRefusal.Reason: Int] { counts.withLock { $0 } }
}

/// Why a connection is not taken, as it is told to a client.
package struct GateRefusal: Sendable, Equatable {
    package enum Reason: String, Sendable, CaseIterable {
        case connections = "too_many_connections"
        case memory = "out_of_memory"
        case unauthenticated = "too_many_unauthenticated"
        case addressConnections = "too_many_connections_of_address"
        case addressHandshakes = "too_many_handshakes_of_address"
        case barred = "address_barred"
    }

    package let reason: Reason
    package let retryAfterSeconds: Int

    init(_ reason: Reason) {
        self.reason = reason
        retryAfterSeconds = Int.random(in: 1...3)
    }

    package init(_ refusal: ConductRefusal) {
        reason =
            switch refusal.reason {
            case .connections: .addressConnections
            case .handshakes: .addressHandshakes
            case .barred: .barred
            }
        retryAfterSeconds = refusal.retryAfterSeconds
    }

    /// 503 where the server is full, 429 (RFC 6585 section 4) where it is the client's doing.
    private var status: HTTPResponseStatus {
        switch reason {
        case .connections, .memory, .unauthenticated: .serviceUnavailable
        case .addressConnections, .addressHandshakes, .barred: .tooManyRequests
        }
    }

    package var statusCode: Int { Int(status.code) }
    package var statusPhrase: String { status.reasonPhrase }

    package var message: String {
        switch reason {
        case .connections: "this server has as many connections as it takes; try again later"
        case .memory: "this server is short of memory; try again later"
        case .unauthenticated: "too many clients here have not said who they are; connect with a token"
        case .addressConnections: "this address has as many connections as one may have; close some"
        case .addressHandshakes: "this address opens connections too fast; wait and try again"
        case .barred: "too much went wrong with connections of this address; wait and try again"
        }
    }

    package var response: HTTPResponse {
        .error(
            status, reason: reason.rawValue, message: message,
            headers: ["Retry-After": String(retryAfterSeconds), "Connection": "close"])
    }
}
