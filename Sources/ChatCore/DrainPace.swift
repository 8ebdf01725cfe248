/// How fast the clients of a node that drains are sent away: so many a second, one after the other, and all in time.
/// Times are nanoseconds since the drain began.
package struct DrainPace: Sendable, Hashable {
    /// Before which nobody goes: the first is to be told of it in time, too (``Departures/notice``).
    private let lead: Int64
    /// Between two clients; 0: all go at once.
    package let interval: Int64

    /// - Parameters:
    ///   - perSecond: 0: as fast as can be.
    ///   - patience: the time in which all must be sent away; the rate rises where it would take longer. Of a short one
    ///     half is spent before the first goes.
    package init(clients: Int, perSecond: Int, patience: Int64) {
        let patience = max(0, patience)
        lead = min(Int64(Departures<Never>.notice), patience / 2)
        let wanted = perSecond > 0 ? 1_000_000_000 / Int64(perSecond) : 0
        interval = min(wanted, (patience - lead) / Int64(max(1, clients)))
    }

    /// - Parameter place: 0 for the first client.
    package func departure(of place: Int) -> Int64 { lead + Int64(place) * interval }

    /// Which places the clients of each table have when one goes from each in turn, from those that have some left.
    ///
    /// - Parameter counts: the clients of each table.
    package static func places(of counts: [Int]) -> [[Int]] {
        var places = counts.map { _ in [Int]() }
        for (table, count) in counts.enumerated() { places[table].reserveCapacity(count) }
        var next = 0
        for row in 0..<(counts.max() ?? 0) {
            for table in counts.indices where row < counts[table] {
                places[table].append(next)
                next += 1
            }
        }
        return places
    }
}

/// Clients that are to go, and when: each is told a while before, and closed at its moment. Times are monotonic
/// nanoseconds.
package struct Departures<Client> {
    /// How long before its end a client is told of it; one that goes sooner is told at once.
    package static var notice: UInt64 { 1_000_000_000 }
    /// There is no look at the clock sooner after the last: who is due then goes with it.
    private static var grain: UInt64 { 1_000_000 }

    private var clients: [(at: UInt64, client: Client?)] = []
    private var told = 0
    private var closed = 0

    package struct Actions {
        /// And how many nanoseconds before their end.
        package var tell: [(client: Client, delay: UInt64)] = []
        package var close: [Client] = []
        /// When to look again; nil: all were closed.
        package var next: UInt64?
    }

    package init() {}

    /// - Parameter moment: not before that of the client before it; such a one goes together with that.
    package mutating func add(_ client: Client, at moment: UInt64) {
        clients.append((max(moment, clients.last?.at ?? 0), client))
    }

    /// Behind all others, and after a while in which it may be welcomed.
    package mutating func addLast(_ client: Client, now: UInt64) { add(client, at: now + Self.notice) }

    package mutating func advance(now: UInt64) -> Actions {
        var actions = Actions()
        while told < clients.count, clients[told].at <= now + Self.notice {
            let (moment, client) = clients[told]
            if let client { actions.tell.append((client, moment > now ? moment - now : 0)) }
            told += 1
        }
        while closed < told, clients[closed].at <= now {
            if let client = clients[closed].client { actions.close.append(client) }
            clients[closed].client = nil
            closed += 1
        }
        let nextToTell = told < clients.count ? clients[told].at - Self.notice : .max
        let nextToClose = closed < told ? clients[closed].at : .max
        let next = min(nextToTell, nextToClose)
        if next != .max { actions.next = max(next, now + Self.grain) }
        return actions
    }
}
