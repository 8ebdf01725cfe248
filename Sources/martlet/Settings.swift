import Glibc
import Logging
import NIOCore
import WebSocketTransport

/// What a process is told from outside: the defaults below, then the environment, then flags.
///
/// 1. The property's initial value is the default; `Settings.table` says everything else about it.
/// 2. A value that stands in a `Settings` was checked against the table: users need no second check.
/// 3. An empty environment value counts as not set, so that compose files may pass `KEY=${KEY:-}`.
struct Settings: Sendable, Equatable {
    enum Auth: String, Sendable, CaseIterable { case none, token }
    enum Switch: String, Sendable, CaseIterable { case on, off }

    var redisURL = "redis://127.0.0.1:6379"
    var redisPrefix = "martlet"
    var redisTLSAuthorities: String?
    var redisTLSCertificate: String?
    var redisTLSKey: String?
    var redisTLSServerName: String?
    var redisTimeout: TimeAmount = .seconds(30)
    var nodeName: String?
    var host = "127.0.0.1"
    var port: Int?
    var advertise: String?
    var auth = Auth.token
    var tokenSecret: String?
    var secret: String?
    var limitMessagesPerSecond = 30
    var limitMessagesBurst = 60
    var limitMessageBytes = 65536
    var limitRoomsPerSession = 100
    var limitOutboundBytes = 1_048_576
    var limitUpgradesPerSecond = 2000
    var heartbeat: TimeAmount = .seconds(25)
    var heartbeatTimeout: TimeAmount = .seconds(10)
    var lease: TimeAmount = .seconds(10)
    var resumeGrace: TimeAmount = .seconds(30)
    var drain: TimeAmount = .seconds(30)
    var historyMessages = 1000
    var history: TimeAmount = .hours(24)
    var historyNamespaces: [HistoryNamespace] = []
    var ackReplicas = 0
    var compression = Switch.off
    var trustedProxies: [AddressBlock]?
    var logLevel = Logger.Level.info
    var tls = TLSSettings()
}

extension Settings {
    /// Every key there is. `.env.example` and docs are made from it (`martlet config env-example`).
    static let table: [SettingRow] =
        [
            .text(
                "MARTLET_REDIS_URL", flag: "--redis", \.redisURL, SettingSyntax.redisURL, .all,
                "Where Redis is: redis://[user:password@]host[:port][/db], rediss:// for TLS, or unix:///path/to/socket[?db=N]."
            ),
            .text(
                "MARTLET_REDIS_PREFIX", flag: "--prefix", \.redisPrefix, SettingSyntax.prefix, .all,
                "What every key and channel in Redis begins with; two clusters on one Redis need two of them."),
            .seconds(
                "MARTLET_REDIS_TIMEOUT_SECONDS", flag: "--redis-timeout", \.redisTimeout, 0...86400, .servers,
                "How long a start waits for a Redis that does not answer before it gives up with exit code 3."),
            .optionalText(
                "MARTLET_NODE_NAME", flag: "--name", \.nodeName, SettingSyntax.nodeName, [.node],
                "The node's name in the cluster; a second start under one name ends the first.",
                unset: "host name and port"),
            .text(
                "MARTLET_HOST", flag: "--host", \.host, SettingSyntax.host, .servers,
                "The address to listen on; 0.0.0.0 is every address of this machine."),
            .optionalInteger(
                "MARTLET_PORT", flag: "--port", \.port, 0...65535, .servers,
                "The port to listen on; 0 takes a free one and logs which.",
                unset: "8081 for a node, 8080 for a router and for dev"),
            .optionalText(
                "MARTLET_ADVERTISE", flag: "--advertise", \.advertise, SettingSyntax.hostAndPort, [.node],
                "Where routers dial this node, as host:port.", unset: "the address it listens on"),
            .choice(
                "MARTLET_AUTH", flag: "--auth", \.auth, .node,
                "Who may connect: token asks each client for a signed token, none believes the name a client gives"
                    + " and is for development alone; dev has none unless it is told otherwise."),
            .optionalText(
                "MARTLET_TOKEN_SECRET", flag: nil, \.tokenSecret, SettingSyntax.secret(minimumBytes: 32),
                [.node, .dev, .token],
                "The key of HS256 tokens; with MARTLET_AUTH=none a node needs no key.",
                unset: "a node or dev with MARTLET_AUTH=token does not start", isSecret: true),
            .optionalText(
                "MARTLET_SECRET", flag: nil, \.secret, SettingSyntax.secret(minimumBytes: 16), [.router, .dev],
                "The cluster's secret, the same for every router: it keys the hash that picks a node.",
                unset: "a router warns, as anybody can then choose keys that meet on one node; dev makes one up",
                isSecret: true),
            .integer(
                "MARTLET_LIMIT_MESSAGES_PER_SECOND", \.limitMessagesPerSecond, 0...1_000_000, .node,
                "Messages a second that one session may send for long; 0 lifts the limit."),
            .integer(
                "MARTLET_LIMIT_MESSAGES_BURST", \.limitMessagesBurst, 1...1_000_000, .node,
                "Messages that one session may send at once before the limit a second holds."),
            .integer(
                "MARTLET_LIMIT_MESSAGE_BYTES", \.limitMessageBytes, 256...16_777_216, .node,
                "The largest message in bytes, at most a quarter of MARTLET_LIMIT_OUTBOUND_BYTES; a larger one closes its"
                    + " connection."),
            .integer(
                "MARTLET_LIMIT_ROOMS_PER_SESSION", \.limitRoomsPerSession, 1...100_000, .node,
                "Rooms that one session may be in."),
            .integer(
                "MARTLET_LIMIT_OUTBOUND_BYTES", \.limitOutboundBytes, 65536...1_073_741_824, .node,
                "Bytes that may wait for a slow client before it is told to reconnect and resume."),
            .integer(
                "MARTLET_LIMIT_UPGRADES_PER_SECOND", \.limitUpgradesPerSecond, 0...1_000_000, .servers,
                "New connections a second that a node takes, and that a router passes on; as many may come at once, more are"
                    + " answered 503 with Retry-After. 0 lifts the limit."),
            .seconds(
                "MARTLET_HEARTBEAT_SECONDS", \.heartbeat, 1...3600, .node,
                "The time between two pings to a client that is silent."),
            .seconds(
                "MARTLET_HEARTBEAT_TIMEOUT_SECONDS", \.heartbeatTimeout, 1...3600, .node,
                "How long a client may leave a ping without an answer before it counts as gone."),
            .seconds(
                "MARTLET_LEASE_SECONDS", \.lease, 1...3600, .node,
                "How long a node that cannot renew its lease still counts as alive; the same for every node."),
            .seconds(
                "MARTLET_RESUME_GRACE_SECONDS", \.resumeGrace, 0...3600, .node,
                "How long a session without a connection keeps its place and may be resumed; 0 ends it at once. The same for"
                    + " every node."),
            .seconds(
                "MARTLET_DRAIN_SECONDS", flag: "--drain", \.drain, 0...3600, .servers,
                "The time that SIGTERM leaves for clients to move elsewhere; dev leaves 3 unless it is told otherwise."),
            .integer(
                "MARTLET_HISTORY_MESSAGES", \.historyMessages, 0...1_000_000, .node,
                "Messages a room keeps; 0 keeps none, and then nothing can be recovered after a reconnect."),
            .seconds(
                "MARTLET_HISTORY_SECONDS", \.history, 1...31_536_000, .node,
                "How long a room keeps a message."),
            SettingRow(
                key: "MARTLET_HISTORY_NAMESPACES", allowed: "a comma-separated list of \(HistoryNamespace.form)",
                readers: Set<SettingRow.Reader>.node.union([.admin]),
                doc:
                    "What rooms of a namespace (what stands before the first : of their name; that of private messages is dm)"
                    + " keep instead, e.g. news=10000/7d,live=0. The same for every node.",
                defaultText: nil, unset: "MARTLET_HISTORY_MESSAGES and MARTLET_HISTORY_SECONDS hold for all rooms",
                refusal: HistoryNamespace.problem,
                apply: { settings, text in
                    guard let list = HistoryNamespace.list(text) else { return false }
                    settings.historyNamespaces = list
                    return true
                }),
            .integer(
                "MARTLET_ACK_REPLICAS", \.ackReplicas, 0...16, .node,
                "Replicas of Redis that must have a message before it is acknowledged; while fewer follow, publishes are"
                    + " refused as unavailable. 0 waits for none. The same for every node."),
            .choice(
                "MARTLET_COMPRESSION", flag: nil, \.compression, .node,
                "Whether messages are compressed (permessage-deflate, RFC 7692) for clients that offer it. on saves two"
                    + " thirds of the bytes of a text of 1 KB, and costs 10 µs of CPU a message, however many get it."),
            SettingRow(
                key: "MARTLET_TRUSTED_PROXIES", allowed: "a comma-separated list of addresses or CIDR blocks",
                readers: .servers,
                doc:
                    "Whose X-Forwarded-* headers are believed, e.g. 10.0.0.0/8,::1: at a router the proxies in front of it, whose"
                    + " networks may also read /_router/nodes; at a node the routers, and the proxies in front of them.",
                defaultText: nil, unset: "none at a router, at a node this machine (127.0.0.0/8,::1)",
                apply: { settings, text in
                    let parts = text.split(separator: ",")
                    let blocks = parts.compactMap { AddressBlock(SettingSyntax.trim($0)) }
                    guard blocks.count == parts.count else { return false }
                    settings.trustedProxies = blocks
                    return true
                }),
            .choice(
                "MARTLET_LOG_LEVEL", flag: "--log-level", \.logLevel, .servers,
                "The least severe log lines that are written."),
        ] + tlsRows + redisTLSRows

    /// What this process was told: see `init(environment:flags:)`.
    static func read(flags: [String: String?] = [:]) throws(Failure) -> Settings {
        try Settings(environment: processEnvironment(), flags: flags)
    }

    /// - Parameters:
    ///   - environment: everything in it that begins with `MARTLET_` must be in the table.
    ///   - flags: values given on the command line, by key of the table; nil is a flag that was not given.
    /// - Throws: `Failure` with exit code 2 and one sentence that names key (or flag), value and what is allowed.
    init(
        environment: [String: String],
        flags: [String: String?] = [:]
    ) throws(Failure) {
        try Settings.refuseUnknownKeys(of: environment)
        for row in Settings.table {
            if let text = flags[row.key] ?? nil {
                try apply(row, text, name: row.flag ?? row.key)
            } else if let text = environment[row.key], !text.isEmpty {
                try apply(row, text, name: row.key)
            }
        }
        try checkMessageFitsOutbound()
    }

    /// Else one message would take the budget of everybody in its room.
    private func checkMessageFitsOutbound() throws(Failure) {
        guard limitMessageBytes > limitOutboundBytes / 4 else { return }
        throw Failure(
            .usage,
            "MARTLET_LIMIT_MESSAGE_BYTES is \(limitMessageBytes), but must be at most a quarter of"
                + " MARTLET_LIMIT_OUTBOUND_BYTES, which is \(limitOutboundBytes)")
    }

    /// For commands that read none of the settings: a name that is wrong for one process is wrong for all.
    static func refuseUnknownKeys(of environment: [String: String]) throws(Failure) {
        for key in environment.keys.sorted() { try refuseUnknownKey(key, in: "the environment") }
    }

    static func refuseUnknownKey(_ key: String, in place: String) throws(Failure) {
        guard key.hasPrefix("MARTLET_"), rows[key] == nil else { return }
        let nearest = EditDistance.nearest(to: key, among: Settings.table.map(\.key)) ?? ""
        throw Failure(
            .usage, "\(place) has \(Printable.text(key)), which no setting is called; the nearest is \(nearest)")
    }

    private mutating func apply(_ row: SettingRow, _ text: String, name: String) throws(Failure) {
        guard !row.apply(&self, text) else { return }
        if let refusal = row.refusal { throw Failure(.usage, "\(name): \(refusal(text))") }
        let value = row.isSecret ? "of \(text.utf8.count) bytes" : "“\(Printable.text(text))”"
        throw Failure(.usage, "\(name) is \(value), but must be \(row.allowed)")
    }

    private static let rows = Dictionary(uniqueKeysWithValues: table.map { ($0.key, $0) })

    /// The environment of this process; entries that are not UTF-8 are repaired, a name given twice counts once.
    static func processEnvironment() -> [String: String] {
        var result: [String: String] = [:]
        var cursor = environ
        while let entry = cursor.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                result[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            cursor += 1
        }
        return result
    }
}
