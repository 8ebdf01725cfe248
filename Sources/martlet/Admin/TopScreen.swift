import Admin
import ClusterState

/// `martlet admin top` as lines: no more of them, and no wider, than the terminal has room for.
///
/// Nodes and routers that need attention stand first, so that they are seen where not all have room; a line says how many
/// were left out.
struct TopScreen {
    let report: TopReport
    /// Where Redis is.
    let redis: String
    /// Why there is nothing newer than the report.
    var trouble: String?
    let style: Style

    /// - Parameter now: milliseconds since 1970.
    func lines(width: Int, height: Int, now: Int64) -> [String] {
        let totals = (trouble.map { [style.mark(Printable.text($0), .red)] } ?? []) + self.totals
        let nodes = nodeTable(now: now)
        let routers = AdminRouters.table(
            report.routers.filter { $0.state != .ready } + report.routers.filter { $0.state == .ready }, now: now)
        // Beside the rows: a blank line and a head each.
        let (forNodes, forRouters) = Self.share(
            height - totals.count - 4, max(1, nodes.rows.count), max(1, routers.rows.count))
        let all =
            totals + [""] + lines(of: nodes, forNodes, width, empty: "No node has registered.") + [""]
            + lines(of: routers, forRouters, width, empty: "No router has registered.")
        return all.prefix(max(0, height)).map { ChatStyle.truncated($0, to: width) }
    }

    // MARK: Totals

    private var totals: [String] {
        let states: [(NodeRecord.State, Style.Hue?)] = [(.ready, nil), (.draining, .yellow), (.dead, .red)]
        let nodes = states.map { state, hue in
            let count = report.count(state)
            let isBad = state == .ready && count == 0
            return style.mark("\(count) \(state.rawValue)", isBad ? .red : count > 0 ? hue : nil)
        }
        let p99 = report.worst.map { "\(Amounts.latency(milliseconds: $0.milliseconds)) (\(Printable.text($0.node)))" }
        let figures = report.redis
        let limit = figures.memoryLimitBytes == 0 ? "" : " of \(Amounts.bytes(figures.memoryLimitBytes))"
        return [
            line([("martlet", Amounts.time(milliseconds: report.at)), ("redis", Printable.text(redis))]),
            line([("nodes", nodes.joined(separator: ", ")), ("routers", "\(report.routers.count)")]),
            line([
                ("sessions", "\(report.sessions)"), ("users", "\(report.census.users)"),
                ("rooms", "\(report.census.rooms)"),
            ]),
            line([
                ("messages", "\(Amounts.rate(report.messagesIn))/s in, \(Amounts.rate(report.messagesOut))/s out"),
                ("p99", p99 ?? "-"), ("memory", Amounts.bytes(figures.memoryBytes) + limit),
                ("commands", "\(figures.commandsPerSecond)/s"),
            ]),
        ]
    }

    private func line(_ fields: [(String, String)]) -> String {
        fields.map { style.mark($0, .bold) + " " + $1 }.joined(separator: "   ")
    }

    // MARK: Tables

    private func nodeTable(now: Int64) -> Table {
        var table = Table(columns: [
            .init(title: "node", isFlexible: true), .init(title: "state"), .init(title: "sessions", isNumber: true),
            .init(title: "rooms", isNumber: true), .init(title: "in/s", isNumber: true),
            .init(title: "out/s", isNumber: true), .init(title: "p99", isNumber: true),
            .init(title: "lease", isNumber: true), .init(title: "up", isNumber: true),
            .init(title: "version", isFlexible: true),
        ])
        func needsAttention(_ node: TopReport.Node) -> Bool {
            node.report.state != .ready || node.report.leaseMilliseconds < 0
        }
        let nodes = report.nodes.filter(needsAttention) + report.nodes.filter { !needsAttention($0) }
        table.rows = nodes.map { node in
            let (report, traffic) = (node.report, node.traffic)
            return [
                Table.Cell(report.incarnation.description),
                Table.Cell(report.state.rawValue, AdminNodes.hue(report.state)), Table.Cell(report.sessions),
                Table.Cell(report.rooms), Table.Cell(traffic.map { Amounts.rate($0.messagesIn) } ?? "-"),
                Table.Cell(traffic.map { Amounts.rate($0.messagesOut) } ?? "-"),
                Table.Cell(traffic?.p99Milliseconds.map { Amounts.latency(milliseconds: $0) } ?? "-"),
                AdminNodes.lease(of: report), AdminNodes.up(report, now: now), Table.Cell(report.version),
            ]
        }
        return table
    }

    /// The head, and so many lines below it.
    private func lines(of table: Table, _ room: Int, _ width: Int, empty: String) -> [String] {
        guard !table.rows.isEmpty else { return [empty] }
        let all = table.lines(width: width, style: style)
        guard table.rows.count > room else { return all }
        let shown = max(0, room - 1)
        return all.prefix(1 + shown) + ["… \(table.rows.count - shown) more"]
    }

    /// What each of two lists gets of the lines there are: the second a third, or what the first leaves.
    static func share(_ lines: Int, _ first: Int, _ second: Int) -> (Int, Int) {
        let lines = max(2, lines)
        guard first + second > lines else { return (first, second) }
        let forSecond = min(second, max(1, lines / 3, lines - first))
        return (lines - forSecond, forSecond)
    }
}
