import WebSocketTransport

/// What keeps one client, address or user from harming the others: see docs/operations.md, Limits.
struct LimitSettings: Sendable, Equatable {
    enum MissingOrigin: String, Sendable, CaseIterable { case allow, refuse }

    var bytesPerSecond = 262_144
    var bytesBurst = 1_048_576
    var userMessagesPerSecond = 120
    var sessionsPerUser = 50
    var addressConnections = 1000
    var addressHandshakesPerSecond = 50
    var addressFailures = 100
    var connections = 0
    var unauthenticated = 1000
    var memoryBytes = 0
    var origins: [OriginPolicy.Rule] = [.sameHost]
    var originMissing = MissingOrigin.refuse

    /// Of each address, at a node or a router.
    var address: ConductLimits {
        ConductLimits(
            connections: addressConnections, handshakesPerSecond: addressHandshakesPerSecond, faults: addressFailures)
    }

    static let table: [SettingRow] = [
        .integer(
            "MARTLET_LIMIT_BYTES_PER_SECOND", \.limits.bytesPerSecond, 0...1_000_000_000, .node,
            "Bytes of messages a second that one session may send for long; 0 lifts the limit."),
        .integer(
            "MARTLET_LIMIT_BYTES_BURST", \.limits.bytesBurst, 256...1_000_000_000, .node,
            "Bytes that one session may send at once before the limit a second holds; a larger message counts as so many."
        ),
        .integer(
            "MARTLET_LIMIT_USER_MESSAGES_PER_SECOND", \.limits.userMessagesPerSecond, 0...1_000_000, .node,
            "Messages a second that all sessions of one user may send, over all nodes; as many may come at once. The nodes"
                + " tell each other once a second through Redis, so that for a second or two each allows all of it. 0 lifts"
                + " the limit."),
        .integer(
            "MARTLET_LIMIT_SESSIONS_PER_USER", \.limits.sessionsPerUser, 0...1_000_000, .node,
            "Sessions of one user, over all nodes, those included that may still be resumed; 0 lifts the limit."),
        .integer(
            "MARTLET_LIMIT_ADDRESS_CONNECTIONS", \.limits.addressConnections, 0...10_000_000, .servers,
            "Connections of one client address (in IPv6 of one /64) at once, at a node or router; more are answered 429."
                + " Not for MARTLET_TRUSTED_PROXIES. 0 lifts the limit, as dev does unless it is told otherwise."),
        .integer(
            "MARTLET_LIMIT_ADDRESS_HANDSHAKES_PER_SECOND", \.limits.addressHandshakesPerSecond, 0...1_000_000, .servers,
            "WebSocket handshakes a second of one client address, four times as many at once; more are answered 429. 0"
                + " lifts the limit, as dev does unless it is told otherwise."),
        .integer(
            "MARTLET_LIMIT_ADDRESS_FAILURES", \.limits.addressFailures, 0...1_000_000, .servers,
            "What may go wrong with connections of one address (bad handshakes, tokens, frames; a session closed for going"
                + " on over its limits counts 25) before it is barred for 10 s, then twice as long each time; what went"
                + " wrong counts half after a minute. Users are barred for the last of these alike. 0 lifts the limit, as dev does"
                + " unless it is told otherwise."),
        .integer(
            "MARTLET_LIMIT_CONNECTIONS", \.limits.connections, 0...100_000_000, .servers,
            "Connections of the process; more are answered 503. 0: as many as its file descriptors are good for (at a"
                + " router two each)."),
        .integer(
            "MARTLET_LIMIT_UNAUTHENTICATED", \.limits.unauthenticated, 0...100_000_000, .node,
            "WebSockets at once that have not said who they are; for one more the longest silent of those that share its"
                + " event loop is closed with 4101, and where there is none it is answered 503. 0 lifts the limit."),
        .integer(
            "MARTLET_LIMIT_MEMORY_BYTES", \.limits.memoryBytes, 0...1_000_000_000_000_000, .node,
            "Bytes of RAM of the process, over which the node is not ready and answers new connections with 503; 0 lifts"
                + " the limit."),
        SettingRow(
            key: "MARTLET_ORIGINS",
            allowed: "a comma-separated list of origins (https://app.example.com), https://*.example.com, self and *",
            readers: .servers,
            doc:
                "Pages of which origins may connect, and ask a router at /locate where to: self is the host that the handshake"
                + " was sent to, *. stands for every host below, * for all; null never may. Others are answered 403.",
            defaultText: "self", form: .list,
            apply: { settings, text in
                let parts = text.split(separator: ",", omittingEmptySubsequences: false)
                let rules = parts.compactMap { OriginPolicy.Rule(SettingSyntax.trim($0)) }
                guard rules.count == parts.count else { return false }
                settings.limits.origins = rules
                return true
            }),
        .choice(
            "MARTLET_ORIGIN_MISSING", \.limits.originMissing, .node,
            "Whether clients without an Origin, which are no browsers, may connect; dev allows it unless it is told"
                + " otherwise. The SDKs and martlet's own commands send their server's."),
    ]
}
