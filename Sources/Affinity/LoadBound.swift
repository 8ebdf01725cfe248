/// How many sessions a node may have before a key's next choice gets the new ones: Mirrokni, Thorup and Zadimoghaddam,
/// "Consistent Hashing with Bounded Loads" (2016), with weights; `hash-balance-factor` of HAProxy is the same.
///
/// Where no node takes more than its limit, at least one of them is below it: the limits add up to more than all sessions.
package struct LoadBound: Sendable, Hashable {
    package static let percents = 100...1000
    package static let floors = 0...1_000_000_000

    /// Of the average, for nodes of equal weight.
    package let percent: Int
    /// Sessions that a node of any weight may have: so that few of them stay where their keys belong.
    package let floor: Int

    /// What is out of range counts as the nearest that is not.
    package init(percent: Int = 125, floor: Int = 250) {
        self.percent = min(max(percent, Self.percents.lowerBound), Self.percents.upperBound)
        self.floor = min(max(floor, Self.floors.lowerBound), Self.floors.upperBound)
    }

    /// The greater of the floor and percent × (sessions + 1) × weight ÷ totalWeight, rounded up: a node with fewer sessions
    /// may get the next.
    ///
    /// - Parameters:
    ///   - sessions: of all nodes that take some, up to 10^12.
    ///   - weight: of the node, up to 1000.
    ///   - totalWeight: of all nodes that take some.
    package func limit(sessions: Int, weight: Int, of totalWeight: Int) -> Int {
        let divisor = 100 * max(totalWeight, 1)
        let share = percent * (min(max(sessions, 0), 1_000_000_000_000) + 1) * weight
        return max(floor, (share + divisor - 1) / divisor)
    }
}
