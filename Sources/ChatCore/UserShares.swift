package import WireProtocol

/// One node's part in holding each user to a rate of messages across the cluster. Times are monotonic nanoseconds.
///
/// 1. A message is taken or refused by what is known here: no message waits for a round trip.
/// 2. Once a second ``report()`` says what was asked of this node for those who ask much; the caller exchanges it with the
///    other nodes and gives back what was asked of them (``learn(_:others:now:)``). From then on this node allows its part of
///    the rate: as its part of what is asked, or all that the others leave.
/// 3. Who asks less than a sixteenth of the rate is not reported. What nobody told within ``freshness`` counts as nothing, so
///    that without the exchange each node allows the whole rate.
///
/// In all, a user gets the rate, and for a second or two after they began elsewhere at most as many times that as they have
/// nodes.
package struct UserShares: Sendable {
    package static let freshness: UInt64 = 3_000_000_000

    private struct Entry: Sendable {
        /// Asked since the last report.
        var asked = 0.0
        /// What was asked a second, lately: rises at once and falls by half a second.
        var demand = 0.0
        var others = 0.0
        var heardAt: UInt64 = 0
        var credit: Double
        var creditedAt: UInt64
    }

    private let rate: Double
    private var entries: [UserName: Entry] = [:]

    /// `nil` when `ratePerSecond` is 0: no limit.
    package init?(ratePerSecond: Int) {
        guard ratePerSecond > 0 else { return nil }
        rate = Double(ratePerSecond)
    }

    /// Users who sent something lately.
    package var count: Int { entries.count }

    /// A message of `user`. As many as a second's may come at once.
    package mutating func take(_ user: UserName, now: UInt64) -> TokenBucket.TakeAction {
        var entry = entries[user] ?? Entry(credit: rate, creditedAt: now)
        entry.asked += 1
        let allowed = allowed(entry, now: now)
        let elapsed = Double(max(now, entry.creditedAt) - entry.creditedAt) / 1_000_000_000
        entry.credit = min(max(1, allowed), entry.credit + elapsed * allowed)
        entry.creditedAt = now
        defer { entries[user] = entry }
        guard entry.credit >= 1 else {
            return .refuse(retryAfterMilliseconds: Int64((1 - entry.credit) / allowed * 1000) + 1)
        }
        entry.credit -= 1
        return .pass
    }

    /// To be called once a second.
    ///
    /// - Returns: who asked much, and how much, messages a second.
    package mutating func report() -> [(user: UserName, demand: Int)] {
        var reports: [(user: UserName, demand: Int)] = []
        for (user, entry) in entries {
            let demand = min(max(entry.asked, (entry.demand + entry.asked) / 2), 4 * rate)
            if entry.asked == 0, demand < 0.5 {
                entries[user] = nil
                continue
            }
            entries[user]?.demand = demand
            entries[user]?.asked = 0
            if demand * 16 >= rate { reports.append((user, Int(demand.rounded(.up)))) }
        }
        return reports
    }

    /// - Parameter others: messages a second that the user asks of the other nodes.
    package mutating func learn(_ user: UserName, others: Int, now: UInt64) {
        entries[user]?.others = Double(max(0, others))
        entries[user]?.heardAt = now
    }

    /// Messages a second, at least 1.
    private func allowed(_ entry: Entry, now: UInt64) -> Double {
        guard entry.others > 0, now < entry.heardAt + Self.freshness else { return rate }
        let own = max(entry.demand, min(entry.asked, 4 * rate), 1)
        return max(1, rate * own / (own + entry.others), rate - entry.others)
    }
}
