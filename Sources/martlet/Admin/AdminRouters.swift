import Admin
import ArgumentParser
import ClusterState

struct AdminRouters: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "routers", abstract: "The routers, whom they serve and which nodes they know.")

    @OptionGroup var options: AdminOptions
    @OptionGroup var watch: WatchOptions

    func run() async throws {
        try await options.run { session in
            try await session.show(watch) {
                try await session.admin.routers()
            } lines: { routers in
                routers.isEmpty
                    ? ["No router has registered."]
                    : Self.table(routers, now: Amounts.now()).lines(width: session.width, style: session.style)
            }
        }
    }

    /// - Parameter now: milliseconds since 1970.
    static func table(_ routers: [RouterReport], now: Int64) -> Table {
        var table = Table(columns: [
            .init(title: "router", isFlexible: true), .init(title: "address", isFlexible: true),
            .init(title: "state"), .init(title: "connections", isNumber: true), .init(title: "req/s", isNumber: true),
            .init(title: "nodes", isNumber: true), .init(title: "ejected", isFlexible: true),
            .init(title: "up", isNumber: true), .init(title: "version", isFlexible: true),
        ])
        table.rows = routers.map { router in
            let figures = router.figures
            return [
                Table.Cell(figures.name), Table.Cell(figures.address),
                Table.Cell(router.state.rawValue, hue(router.state)), Table.Cell(figures.connections),
                Table.Cell(Amounts.rate(figures.requestsPerSecond)),
                Table.Cell("\(figures.readyNodes)/\(figures.nodes)"),
                Table.Cell(
                    figures.ejected.isEmpty ? "-" : figures.ejected.joined(separator: " "), ejectedHue(figures.ejected)),
                Table.Cell(Amounts.age(milliseconds: now - figures.startedAt)), Table.Cell(figures.version),
            ]
        }
        return table
    }

    private static func ejectedHue(_ ejected: [String]) -> Style.Hue? { ejected.isEmpty ? nil : .yellow }

    private static func hue(_ state: RouterReport.State) -> Style.Hue {
        switch state {
        case .ready: .green
        case .draining: .yellow
        case .notReady: .red
        }
    }
}
