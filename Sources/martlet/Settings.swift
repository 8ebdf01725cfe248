import ChatCore
import Logging
import NIOCore
import WebSocketTransport

/// What a process is told from outside: the defaults below, then a configuration file, then the environment, then flags.
///
/// 1. The property's initial value is the default; `Settings.table` says everything else about it.
/// 2. A value that stands in a `Settings` was checked against the table: users need no second check.
/// 3. An empty environment value counts as not set, so that compose files may pass `KEY=${KEY:-}`.
struct Settings: Sendable, Equatable {
    enum Auth: String, Sendable, CaseIterable { case none, token }
    enum Switch: String, Sendable, CaseIterable { case on, off }

    var redisURL = "redis://127.0.0.1:6379"
    var redisPrefix = "martlet"
    var redisTimeout: TimeAmount = .seconds(30)
    var nodeName: String?
    var host = "127.0.0.1"
    var port: Int?
    var internalHost = "127.0.0.1"
    var internalPort: Int?
    var advertise: String?
    var auth = Auth.token
    var tokenSecret: String?
    var tokens = TokenSettings()
    var secret: String?
    var chatToken: String?
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
    var drainRate = 500
    var historyMessages = 1000
    var history: TimeAmount = .hours(24)
    var ackReplicas = 0
    var compression = Switch.off
    var handover = Switch.on
    var proxyProtocol = Switch.off
    var trustedProxies: [AddressBlock]?
    var nodeSources: [IPAddress] = []
    var nodeProxyProtocol = Switch.off
    var logLevel = Logger.Level.info
    var tls = TLSSettings()
    var redisTLSAuthorities: String?
    var redisTLSCertificate: String?
    var redisTLSKey: String?
    var redisTLSServerName: String?
    var limits = LimitSettings()
    var balance = BalanceSettings()

    /// The rules of rooms: the settings above, and the configuration file.
    var namespaces = Namespaces()
    /// What was set, by key, as it may be shown.
    var given: [String: Given] = [:]
    /// The configuration file, without the settings in it.
    var file: ConfigurationFile?
    /// What the person who started this should know; none of it keeps a process from starting.
    var warnings: [String] = []
}

extension Settings {
    /// Every key there is. `.env.example` and docs are made from it (`martlet config env-example`).
    static let table =
        generalRows + tokenRows + tlsRows + redisTLSRows + LimitSettings.table
        + BalanceSettings.table + nodeConnectionRows + chatRows

    private static let generalRows: [SettingRow] = [
        SettingRow(
            key: "MARTLET_CONFIG", flag: "--config", allowed: "the path of a file that can be read", readers: .all,
            doc:
                "A configuration file in JSON: settings by their names in lower case without MARTLET_, and the rules of"
                + " namespaces. The environment and flags win over it.",
            defaultText: nil, unset: "there is none", apply: { _, _ in true }),
        .text(
            "MARTLET_REDIS_URL", flag: "--redis", \.redisURL, SettingSyntax.redisURL, .redis,
            "Where Redis is: redis://[user:password@]host[:port][/db], rediss:// for TLS, or unix:///path/to/socket[?db=N]."
        ),
        .file("MARTLET_REDIS_URL_FILE", of: "MARTLET_REDIS_URL", .redis),
        .text(
            "MARTLET_REDIS_PREFIX", flag: "--prefix", \.redisPrefix, SettingSyntax.prefix, .redis,
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
        .text(
            "MARTLET_INTERNAL_HOST", \.internalHost, SettingSyntax.host, .servers,
            "The address of the internal port, where /metrics, /healthz and /readyz stand, and /nodes of a router. Nobody is"
                + " asked who they are there: keep it from the world."),
        .optionalInteger(
            "MARTLET_INTERNAL_PORT", flag: nil, \.internalPort, 0...65535, .servers,
            "The internal port; 0 takes a free one and logs which. dev takes it for the router, and the ones after it for the"
                + " nodes.",
            unset: "1000 more than the port, or 1000 less where that is too much"),
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
            unset: "tokens are checked by MARTLET_TOKEN_KEYS and MARTLET_TOKEN_JWKS_URL, without which none can be",
            isSecret: true),
        .file("MARTLET_TOKEN_SECRET_FILE", of: "MARTLET_TOKEN_SECRET", [.node, .dev, .token]),
        .optionalText(
            "MARTLET_SECRET", flag: nil, \.secret, SettingSyntax.secret(minimumBytes: 16), [.router, .dev, .admin],
            "The cluster's secret, the same for every router: it keys the hash that picks a node. admin route needs it, too.",
            unset: "a router warns, as anybody can then choose keys that meet on one node; dev makes one up",
            isSecret: true),
        .file("MARTLET_SECRET_FILE", of: "MARTLET_SECRET", [.router, .dev, .admin]),
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
            "MARTLET_DRAIN_RATE", \.drainRate, 0...1_000_000, .node,
            "Clients a second that a node which drains sends away, evenly; it sends more where MARTLET_DRAIN_SECONDS would be"
                + " over before. 0 sends all at once."),
        .integer(
            "MARTLET_HISTORY_MESSAGES", \.historyMessages, 0...1_000_000, .node,
            "Messages a room keeps; 0 keeps none, and then nothing can be recovered after a reconnect."),
        .seconds(
            "MARTLET_HISTORY_SECONDS", \.history, 1...31_536_000, .node,
            "How long a room keeps a message."),
        .integer(
            "MARTLET_ACK_REPLICAS", \.ackReplicas, 0...16, .node,
            "Replicas of Redis that must have a message before it is acknowledged; while fewer follow, publishes are"
                + " refused as unavailable. 0 waits for none. The same for every node."),
        .choice(
            "MARTLET_COMPRESSION", flag: nil, \.compression, .node,
            "Whether messages are compressed (permessage-deflate, RFC 7692) for clients that offer it. on saves two"
                + " thirds of the bytes of a text of 1 KB, and costs 10 µs of CPU a message, however many get it."),
        .choice(
            "MARTLET_HANDOVER", flag: nil, \.handover, .servers,
            "Whether a router gives WebSockets to nodes of its own host and user as they are, so that messages do not pass"
                + " through it: where neither speaks TLS, and the node trusts proxies of this machine."),
        .choice(
            "MARTLET_PROXY_PROTOCOL", flag: nil, \.proxyProtocol, [.router],
            "Whether connections to the router from MARTLET_TRUSTED_PROXIES begin with a header of the PROXY protocol, version"
                + " 2, which says whose they are; one of theirs without it is closed."),
        SettingRow(
            key: "MARTLET_TRUSTED_PROXIES", allowed: "a comma-separated list of addresses or CIDR blocks",
            readers: .servers,
            doc:
                "Whose X-Forwarded-* headers are believed, e.g. 10.0.0.0/8,::1: at a router the proxies in front of it; at a node"
                + " the routers, and the proxies in front of them.",
            defaultText: nil, unset: "none at a router, at a node this machine (127.0.0.0/8,::1)", form: .list,
            apply: { settings, text in
                let parts = text.split(separator: ",")
                let blocks = parts.compactMap { AddressBlock(SettingSyntax.trim($0)) }
                guard !blocks.isEmpty, blocks.count == parts.count else { return false }
                settings.trustedProxies = blocks
                return true
            }),
        .choice(
            "MARTLET_LOG_LEVEL", flag: "--log-level", \.logLevel, .servers,
            "The least severe log lines that are written."),
    ]
}
