import Admin
import Affinity
import ArgumentParser
import Glibc
import NIOCore
package import RouterServer
package import WireProtocol

struct AdminRoute: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "route",
        abstract: "The nodes for an affinity key, from its first choice on, and which gets its next client, and why.",
        discussion: """
            A key is a user's name, or whatever MARTLET_AFFINITY says. The answer is that of a router with the same \
            MARTLET_SECRET, MARTLET_BALANCE_FACTOR, MARTLET_BALANCE_FLOOR and MARTLET_SLOW_START_SECONDS which has picked nobody since the nodes last \
            told how many sessions they have; what one router knows beyond that stands at /nodes?key=KEY on its internal \
            port.
            """)

    @OptionGroup var options: AdminOptions
    @Argument(help: "The key: of a client without a room, its user.") var key: String?

    @Option(help: ArgumentHelp("The room in the client's query: its key, if MARTLET_AFFINITY has room before user."))
    var room: String?

    func validate() throws {
        guard key?.isEmpty == false || room?.isEmpty == false else {
            throw ValidationError("name a key, or a room with --room")
        }
    }

    func run() async throws {
        let rule = try Settings.read(flags: options.redis.flags).balance.affinity
        let key = try Self.key(key, room: room, by: rule)
        try await options.run { session in
            let settings = session.settings
            var table = NodeTable(
                hash: RendezvousHash(key: RouterConfiguration.affinityKey(secret: settings.secret ?? "")),
                bound: settings.balance.bound, slowStart: settings.balance.slowStart)
            try await session.show {
                let records = try await session.admin.nodeRecords()
                table.update(records.compactMap { RoutedNode($0) }, now: .now())
                let route = table.route(for: key, now: .now())
                guard !route.entries.isEmpty else { throw NotFound("no node has registered") }
                return route
            } lines: { route in
                Self.lines(route, session)
            }
            if settings.secret == nil {
                Terminal.write(
                    "MARTLET_SECRET is not set: this is the order of routers that have none either.\n",
                    to: STDERR_FILENO)
            }
        }
    }

    /// - Throws: `Failure` when the room alone is named, and is nobody's key.
    static func key(_ key: String?, room: String?, by rule: AffinityRule) throws(Failure) -> String {
        guard let room else { return key ?? "" }
        let first = rule.sources.first { $0 == .room || (key != nil && ($0 == .user || $0 == .key)) }
        if first == .room { return room }
        guard let key else {
            throw Failure(
                .usage, "MARTLET_AFFINITY is \(rule.description): a room is no key there; name a key instead of --room")
        }
        return key
    }

    private static func lines(_ route: KeyRoute, _ session: AdminSession) -> [String] {
        var table = Table(columns: [
            .init(title: "place", isNumber: true), .init(title: "node"), .init(title: "weight", isNumber: true),
            .init(title: "sessions", isNumber: true), .init(title: "bound", isNumber: true),
            .init(title: "why", isFlexible: true),
        ])
        table.rows = route.entries.enumerated().map { index, entry in
            [
                Table.Cell(index < route.candidates ? String(index + 1) : "-"),
                Table.Cell(entry.node.name), Table.Cell(entry.node.weight), Table.Cell(entry.load),
                Table.Cell(entry.limit.map(String.init) ?? "-"),
                Table.Cell(route.reason(of: index), hue(entry.verdict)),
            ]
        }
        return table.lines(width: session.width, style: session.style)
    }

    private static func hue(_ verdict: KeyRoute.Verdict) -> Style.Hue? {
        switch verdict {
        case .picked: .green
        case .atBound, .slowStart, .ejected, .down, .draining, .late: .yellow
        case .dead: .red
        case .reserve: nil
        }
    }
}

extension KeyRoute: Report {
    /// `{"key","node","order":[…]}`: `node` is who gets the next client, null when nobody takes any; each of `order` as
    /// `writeEntries(to:)` says.
    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("key", key)
        json.key("node")
        if let picked { json.value(picked.name) } else { json.null() }
        json.key("order")
        writeEntries(to: &json)
        json.endObject()
    }
}
