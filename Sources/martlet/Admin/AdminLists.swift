import Admin
import ArgumentParser
import ClusterState
import WireProtocol

struct AdminNodes: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nodes", abstract: "The nodes, their leases and what they carry.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.nodes()
            } lines: { nodes in
                guard !nodes.isEmpty else { return ["No node has registered."] }
                var table = Table(columns: [
                    .init(title: "node"), .init(title: "address", isFlexible: true), .init(title: "state"),
                    .init(title: "sessions", isNumber: true), .init(title: "rooms", isNumber: true),
                    .init(title: "lease", isNumber: true), .init(title: "up", isNumber: true),
                    .init(title: "version", isFlexible: true),
                ])
                let now = Amounts.now()
                table.rows = nodes.map { node in
                    [
                        Table.Cell(node.incarnation.description), Table.Cell(node.address),
                        Table.Cell(node.state.rawValue, Self.hue(node.state)), Table.Cell(node.sessions),
                        Table.Cell(node.rooms), Self.lease(of: node), Self.up(node, now: now),
                        Table.Cell(node.version),
                    ]
                }
                return table.lines(width: session.width, style: session.style)
            }
        }
    }

    static func lease(of node: NodeReport) -> Table.Cell {
        guard node.state != .dead else { return "-" }
        return Table.Cell(
            Amounts.seconds(milliseconds: node.leaseMilliseconds), node.leaseMilliseconds < 0 ? .red : nil)
    }

    /// - Parameter now: milliseconds since 1970.
    static func up(_ node: NodeReport, now: Int64) -> Table.Cell {
        node.state == .dead ? "-" : Table.Cell(Amounts.age(milliseconds: now - node.startedAt))
    }

    static func hue(_ state: NodeRecord.State) -> Style.Hue {
        switch state {
        case .ready: .green
        case .draining: .yellow
        case .dead: .red
        }
    }
}

struct AdminRooms: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rooms", abstract: "The rooms in which somebody is.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.rooms()
            } lines: { rooms in
                rooms.isEmpty
                    ? ["Nobody is in any room."]
                    : AdminRoom.table(rooms).lines(width: session.width, style: session.style)
            }
        }
    }
}

struct AdminSessions: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sessions", abstract: "Every session, its user and its node.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    @Option(help: "Only the sessions of this node (a name or an incarnation).")
    var node: String?

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.sessions(node: node)
            } lines: { sessions in
                guard !sessions.isEmpty else { return ["Nobody is connected."] }
                var table = Table(columns: [
                    .init(title: "user", isFlexible: true), .init(title: "session"), .init(title: "node"),
                ])
                table.rows = sessions.map {
                    [Table.Cell($0.user.string), Table.Cell($0.session.string), Table.Cell($0.incarnation.description)]
                }
                return table.lines(width: session.width, style: session.style)
            }
        }
    }
}

struct AdminStats: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats", abstract: "The cluster in a few numbers, and Redis with it.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.stats()
            } lines: { stats in
                let redis = stats.redis
                let limit = redis.memoryLimitBytes == 0 ? "no limit" : "of \(Amounts.bytes(redis.memoryLimitBytes))"
                let isSafe = redis.evictionPolicy == "noeviction"
                let rows: [(String, String, Style.Hue?)] = [
                    (
                        "nodes",
                        "\(stats.count(.ready)) ready, \(stats.count(.draining)) draining, \(stats.count(.dead)) dead",
                        stats.count(.ready) == 0 ? .red : nil
                    ),
                    ("sessions", "\(stats.sessions) of \(stats.users) users", nil),
                    ("rooms", "\(stats.rooms)", nil),
                    ("redis", "\(redis.version), up \(Amounts.age(milliseconds: redis.uptimeSeconds * 1000))", nil),
                    ("memory", "\(Amounts.bytes(redis.memoryBytes)), \(limit)", nil),
                    (
                        "eviction", redis.evictionPolicy + (isSafe ? "" : " (must be noeviction: leases could vanish)"),
                        isSafe ? nil : .red
                    ),
                    (
                        "durable", redis.hasAppendOnlyFile ? "append-only file" : "no append-only file",
                        redis.hasAppendOnlyFile ? nil : .yellow
                    ),
                    ("clients", "\(redis.clients), \(redis.pubsubChannels) channels", nil),
                    ("commands", "\(redis.commandsPerSecond)/s", nil),
                ]
                return rows.map { name, value, hue in
                    let label = name + String(repeating: " ", count: 10 - name.count)
                    return session.style.mark(label, .bold) + session.style.mark(Printable.text(value), hue)
                }
            }
        }
    }
}
