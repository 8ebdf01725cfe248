import Admin
import ArgumentParser
import ChatCore
import ClusterState
import WireProtocol

struct AdminBans: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bans", abstract: "All orders in force: bans, mutes, revocations and kicks.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.orders()
            } lines: { reports in
                guard !reports.isEmpty else { return ["No order is in force."] }
                var table = Table(columns: [
                    .init(title: "order"), .init(title: "target"), .init(title: "name", isFlexible: true),
                    .init(title: "room", isFlexible: true), .init(title: "since"),
                    .init(title: "ends in", isNumber: true),
                    .init(title: "by", isFlexible: true), .init(title: "reason", isFlexible: true),
                ])
                let now = Amounts.now()
                table.rows = reports.map { report in
                    let (key, terms) = (report.order.key, report.order.terms)
                    return [
                        Table.Cell(key.kind.rawValue), Table.Cell(key.sort), Table.Cell(key.name),
                        Table.Cell(key.room?.string ?? "-"), Table.Cell(Amounts.time(milliseconds: terms.since)),
                        Table.Cell(terms.until.map { Amounts.age(milliseconds: $0 - now) } ?? "-"),
                        Table.Cell(terms.by), Table.Cell(terms.reason),
                    ]
                }
                return table.lines(width: session.width, style: session.style)
            }
        }
    }
}

struct AdminAudit: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit", abstract: "Who ordered what, and when, oldest first.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    @Option(help: "At most so many of the last lines, 1 to 10000.")
    var last = 50

    func validate() throws {
        guard (1...10_000).contains(last) else { throw ValidationError("--last must be from 1 to 10000") }
    }

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.audit(last: last)
            } lines: { reports in
                guard !reports.isEmpty else { return ["Nothing was ordered yet."] }
                var table = Table(columns: [
                    .init(title: "when"), .init(title: "by", isFlexible: true), .init(title: "what"),
                    .init(title: "target"), .init(title: "name", isFlexible: true),
                    .init(title: "room", isFlexible: true), .init(title: "until"),
                    .init(title: "reason", isFlexible: true),
                ])
                table.rows = reports.map { report in
                    let entry = report.entry
                    return [
                        Table.Cell(Amounts.time(milliseconds: entry.at)), Table.Cell(entry.by),
                        Table.Cell(report.action), Table.Cell(report.target), Table.Cell(report.name),
                        Table.Cell(report.room?.string ?? "-"),
                        Table.Cell(entry.until.map { Amounts.time(milliseconds: $0) } ?? "-"), Table.Cell(entry.reason),
                    ]
                }
                return table.lines(width: session.width, style: session.style)
            }
        }
    }
}
