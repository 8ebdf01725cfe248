import Affinity
import ClusterState
import NIOCore
import RouterServer
import WebSocketTransport

/// Which node a client meets: see docs/operations.md, Which node a client meets.
struct BalanceSettings: Sendable, Equatable {
    var factor = LoadBound().percent
    var floor = LoadBound().floor
    var slowStart = SlowStart.standard
    var affinity = AffinityRule.standard
    var nodeWeight = NodeFigures.defaultWeight
    var nodeURL: String?

    /// nil: nothing is bounded.
    var bound: LoadBound? { factor == 0 ? nil : LoadBound(percent: factor, floor: floor) }

    static let table: [SettingRow] = [
        SettingRow(
            key: "MARTLET_BALANCE_FACTOR", allowed: "0 or a whole number from 100 to 1000", readers: picking,
            doc:
                "How many sessions a node may have, in percent of the average (by weight), before a key's next choice gets the"
                + " new ones; 0: as many as come. The same for every router.",
            defaultText: String(LoadBound().percent), form: .number,
            apply: { settings, text in
                guard let number = SettingSyntax.wholeNumber(text), number == 0 || LoadBound.percents.contains(number)
                else { return false }
                settings.balance.factor = number
                return true
            }),
        .integer(
            "MARTLET_BALANCE_FLOOR", \.balance.floor, LoadBound.floors, picking,
            "Sessions that a node may have in any case, whatever the average. The same for every router."),
        .seconds(
            "MARTLET_SLOW_START_SECONDS", \.balance.slowStart, 0...3600, picking,
            "How long a node that is new among others, or whose checks go well again, takes a growing part of its keys, from a"
                + " tenth on; 0: all at once. The same for every router."),
        SettingRow(
            key: "MARTLET_AFFINITY",
            allowed: "a comma-separated list of key, user, room, cookie, header:NAME and, as the last, address",
            readers: picking,
            doc:
                "What keeps a client to one node: the first of these that its request has. key, user and room are in the query"
                + " (user also in the token), cookie is martlet_affinity, which the router sets, and the client's address stands"
                + " at the end in any case. The same for every router.",
            defaultText: AffinityRule.standard.description, form: .list,
            apply: { settings, text in
                guard let rule = AffinityRule(text) else { return false }
                settings.balance.affinity = rule
                return true
            }),
        .integer(
            "MARTLET_NODE_WEIGHT", \.balance.nodeWeight, NodeFigures.weights, .node,
            "The node's share of clients next to the weights of the others: with 200 it gets twice as many as one with 100."
        ),
        .optionalText(
            "MARTLET_NODE_URL", flag: nil, \.balance.nodeURL, SettingSyntax.webSocketURL, [.node],
            "Where clients reach this node without a router; routers tell it to those who ask at /locate.",
            unset: "clients come through routers alone"),
    ]

    private static let picking: Set<SettingRow.Reader> = [.router, .dev, .admin]
}

extension SettingSyntax {
    static let webSocketURL = SettingSyntax(allowed: "ws://host[:port]/path or wss://host[:port]/path, without a query")
    {
        text in
        guard let scheme = ["ws://", "wss://"].first(where: { text.hasPrefix($0) }), text.utf8.count <= 512,
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }), !text.contains(where: { "?#\"<>\\^`{|}".contains($0) })
        else { return false }
        let rest = text.dropFirst(scheme.utf8.count)
        guard let slash = rest.firstIndex(of: "/") else { return false }
        return Origin((scheme == "ws://" ? "http://" : "https://") + rest[..<slash]) != nil
    }
}
