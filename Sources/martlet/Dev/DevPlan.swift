import Logging

/// What `martlet dev` starts, decided before anything runs.
struct DevPlan: Sendable, Equatable {
    struct Child: Sendable, Equatable {
        let name: String
        let program: String
        let arguments: [String]
        /// Over what dev itself was given; nil takes a key away.
        let environment: [String: String?]
        let readiness: Readiness
        /// The file it writes to beside its output.
        var log: String?
        /// See `Supervision`.
        let tier: Int
    }

    static let maximumNodes = 26

    let children: [Child]
    /// What must be free before anything starts, with the name of who takes it.
    let ports: [(host: String, port: Int, owner: String)]
    let page: String
    let redisURL: String
    let redisPrefix: String
    /// That of the router's hash.
    let secret: String
    /// Where the router takes WebSockets.
    var chatURL: String { (isSecure ? "wss" : "ws") + page.drop { $0 != ":" } + "ws" }
    /// Without its password.
    var shownRedisURL: String { Settings.rows["MARTLET_REDIS_URL"]?.shown(redisURL) ?? "" }
    /// Of the Redis that is started here; nil when it stands already.
    let ownSocket: String?
    let authentication: Settings.Auth
    let nodeCount: Int
    /// The router speaks TLS with clients.
    let isSecure: Bool

    /// - Parameters:
    ///   - settings: host, port (the router's; nodes take the ones after it), Redis prefix and drain time count here. A
    ///     `MARTLET_AUTH` that was set is respected, otherwise it is `none`.
    ///   - standingRedis: the URL of a Redis that runs already; nil starts one of our own.
    ///   - certificates: what the router speaks TLS with, instead of MARTLET_TLS_CERT and MARTLET_TLS_KEY.
    ///   - folder: absolute; `redis/` under it holds the data of our own Redis.
    ///   - socketFolder: where our own Redis' socket stands.
    ///   - randomSecret: stands for `MARTLET_SECRET` unless there is one.
    init(
        settings: Settings, nodes: Int, standingRedis: String?,
        certificates: DevCertificates.Files? = nil, folder: String, socketFolder: String, program: String,
        randomSecret: String
    ) throws(Failure) {
        let port = settings.port ?? 8080
        guard (1...Self.maximumNodes).contains(nodes) else {
            throw Failure(.usage, "--nodes is \(nodes), but must be from 1 to \(Self.maximumNodes)")
        }
        guard port > 0, port + nodes <= 65535 else {
            throw Failure(
                .usage,
                "--port is \(port), but must be from 1 to \(65535 - nodes): the router takes it, and each node one after it"
            )
        }
        let internalPort = settings.internalPort(besides: port, count: nodes + 1)
        guard internalPort > 0, internalPort + nodes <= 65535, abs(internalPort - port) > nodes else {
            throw Failure(
                .usage,
                "MARTLET_INTERNAL_PORT is \(internalPort), but must be from 1 to \(65535 - nodes) and \(nodes + 1) away from"
                    + " --port: the router takes it, and each node one after it")
        }
        let internalHost = Self.reachableHost(settings.internalHost)
        let socket = socketFolder + "/redis.sock"
        let url = standingRedis ?? "unix://" + socket
        let secret = settings.secret ?? randomSecret
        let authentication = settings.given["MARTLET_AUTH"] == nil ? Settings.Auth.none : settings.auth
        var common: [String: String?] = [
            "MARTLET_REDIS_URL": url, "MARTLET_REDIS_URL_FILE": nil, "MARTLET_REDIS_PREFIX": settings.redisPrefix,
            "MARTLET_AUTH": authentication.rawValue, "MARTLET_ADVERTISE": nil, "MARTLET_NODE_NAME": nil,
            // Between the router and its nodes, which only this machine reaches, there is no TLS.
            "MARTLET_TLS_CERT": nil, "MARTLET_TLS_KEY": nil, "MARTLET_TLS_CLIENT_CA": nil, "MARTLET_NODE_TLS_CA": nil,
            "MARTLET_NODE_TLS_CERT": nil, "MARTLET_NODE_TLS_KEY": nil, "MARTLET_NODE_TLS_NAME": nil,
            "MARTLET_SECRET": secret, "MARTLET_SECRET_FILE": nil,
            "MARTLET_LOG_LEVEL": settings.logLevel.rawValue,
        ]
        for (key, value) in Self.relaxed where settings.given[key] == nil { common[key] = value }
        let watch = ["--exit-with-fd", String(ChildProcess.watchDescriptor)]

        var children: [Child] = []
        var ports: [(host: String, port: Int, owner: String)] = [(settings.host, port, "the router")]
        if standingRedis == nil {
            let command = ["redis-server"] + Self.redisOptions(folder: folder + "/redis", socket: socket)
            children.append(
                Child(
                    name: "redis", program: program, arguments: ["shim"] + watch + ["--"] + command, environment: [:],
                    readiness: .redis(socket: socket), log: folder + "/redis/redis.log", tier: 0))
        }
        for index in 0..<nodes {
            let name = "node-\(Character(Unicode.Scalar(UInt8(ascii: "a") + UInt8(index))))"
            let own: [String: String?] = [
                "MARTLET_NODE_NAME": name, "MARTLET_HOST": "127.0.0.1", "MARTLET_PORT": String(port + 1 + index),
                "MARTLET_ADVERTISE": "127.0.0.1:\(port + 1 + index)",
                "MARTLET_NODE_URL": "ws://127.0.0.1:\(port + 1 + index)/ws",
                "MARTLET_INTERNAL_PORT": String(internalPort + 1 + index),
            ]
            ports.append(("127.0.0.1", port + 1 + index, name))
            children.append(
                Child(
                    name: name, program: program, arguments: ["node"] + watch,
                    environment: common.merging(own) { $1 },
                    readiness: .http(host: internalHost, port: internalPort + 1 + index, path: "/readyz"), tier: 1))
        }
        let reachable = Self.reachableHost(settings.host)
        let certificate = certificates?.certificate ?? settings.tls.certificate
        let own: [String: String?] = [
            "MARTLET_HOST": settings.host, "MARTLET_PORT": String(port), "MARTLET_TLS_CERT": certificate,
            "MARTLET_TLS_KEY": certificates?.key ?? settings.tls.key, "MARTLET_INTERNAL_PORT": String(internalPort),
        ]
        isSecure = certificate != nil
        children.append(
            Child(
                name: "router", program: program, arguments: ["router"] + watch,
                environment: common.merging(own) { $1 },
                readiness: isSecure
                    ? .https(host: reachable, port: port, path: "/_router/healthz")
                    : .http(host: reachable, port: port, path: "/_router/healthz"), tier: 1))
        for (index, child) in children.filter({ $0.name != "redis" }).enumerated() {
            let offset = child.name == "router" ? 0 : index + 1
            ports.append((settings.internalHost, internalPort + offset, "\(child.name) (internal port)"))
        }
        self.children = children
        self.ports = ports
        page =
            (isSecure ? "https://" : "http://") + (reachable.contains(":") ? "[\(reachable)]" : reachable) + ":\(port)/"
        redisURL = url
        redisPrefix = settings.redisPrefix
        self.secret = secret
        ownSocket = standingRedis == nil ? socket : nil
        self.authentication = authentication
        nodeCount = nodes
    }

    /// What is kept from a child has to be kept from its environment; a configuration file is read by all of them.
    func refuse(_ file: ConfigurationFile?) throws(Failure) {
        let kept = Set(children.flatMap { $0.environment.filter { $0.value == nil }.keys })
        for row in Settings.table where kept.contains(row.key) && row.key.contains("TLS") {
            guard let line = file?.lines[row.key] else { continue }
            throw Failure(
                .usage,
                "\(file?.name ?? ""):\(line): dev cannot keep “\(row.fileName)” from its nodes: set \(row.key) instead")
        }
    }

    /// Unless somebody says otherwise: on one machine everybody has one address, and tools send no Origin.
    private static let relaxed = [
        "MARTLET_DRAIN_SECONDS": "3", "MARTLET_LIMIT_ADDRESS_CONNECTIONS": "0",
        "MARTLET_LIMIT_ADDRESS_HANDSHAKES_PER_SECOND": "0", "MARTLET_LIMIT_ADDRESS_FAILURES": "0",
        "MARTLET_ORIGIN_MISSING": "allow",
    ]

    /// The append-only file is the data; no snapshots beside it. Nothing is evicted (a cluster whose leases were evicted
    /// would fall apart), and a node that reads slowly for a moment is not cut off (the default of 32 MiB is soon full
    /// when a busy room is relayed).
    static func redisOptions(folder: String, socket: String) -> [String] {
        [
            "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--dir", folder, "--appendonly", "yes",
            "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
            "--client-output-buffer-limit", "pubsub", "256mb", "128mb", "60", "--loglevel", "warning", "--logfile",
            folder + "/redis.log", "--daemonize", "no",
        ]
    }

    /// Where those on this machine reach who listens on `host`.
    static func reachableHost(_ host: String) -> String {
        switch host {
        case "0.0.0.0": "127.0.0.1"
        case "::": "::1"
        default: host
        }
    }

    static func == (a: DevPlan, b: DevPlan) -> Bool {
        a.children == b.children && a.page == b.page && a.redisURL == b.redisURL
    }
}
