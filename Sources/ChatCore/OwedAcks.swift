/// Publishes of this node that are stored, and whose message has not come back through the relay, which acknowledges them in
/// their place (G1). None stays without an answer: what a gap swallowed, or what the relay never brings, is handed back.
package struct OwedAcks<Publish: Sendable>: Sendable {
    private struct Entry: Sendable {
        let seq: Int64
        /// Monotonic nanoseconds.
        let since: UInt64
        let deadline: UInt64
        let publish: Publish
    }

    /// In the order of `seq`. A slice, so that taking the first ones moves nothing.
    private var entries: ArraySlice<Entry> = []

    package init() {}

    package var isEmpty: Bool { entries.isEmpty }
    package var highestSeq: Int64? { entries.last?.seq }

    /// - Parameter deadline: monotonic nanoseconds, like `now`.
    package mutating func add(_ publish: Publish, seq: Int64, now: UInt64, deadline: UInt64) {
        let index = entries.lastIndex { $0.seq <= seq }.map { $0 + 1 } ?? entries.startIndex
        entries.insert(Entry(seq: seq, since: now, deadline: deadline, publish: publish), at: index)
    }

    /// All up to this `seq`: the relay, or the log, brought the messages, or a gap swallowed them.
    package mutating func take(through seq: Int64) -> [(seq: Int64, publish: Publish)] {
        guard let first = entries.first, first.seq <= seq else { return [] }
        let taken = entries.prefix { $0.seq <= seq }.map { ($0.seq, $0.publish) }
        entries.removeFirst(taken.count)
        // A slice keeps what was removed from its front.
        if entries.isEmpty { entries = [] }
        return taken
    }

    /// As ``take(through:)``, of those that match.
    package mutating func take(
        through seq: Int64, where matches: (Publish) -> Bool
    ) -> [(seq: Int64, publish: Publish)] {
        guard let first = entries.first, first.seq <= seq else { return [] }
        func isTaken(_ entry: Entry) -> Bool { entry.seq <= seq && matches(entry.publish) }
        let taken = entries.filter(isTaken).map { ($0.seq, $0.publish) }
        entries.removeAll(where: isTaken)
        return taken
    }

    /// Returns and drops what should have been answered by now.
    package mutating func takeOverdue(now: UInt64) -> [(seq: Int64, publish: Publish)] {
        guard entries.contains(where: { $0.deadline <= now }) else { return [] }
        let overdue = entries.filter { $0.deadline <= now }
        entries.removeAll { $0.deadline <= now }
        return overdue.map { ($0.seq, $0.publish) }
    }

    package mutating func takeAll() -> [(seq: Int64, publish: Publish)] {
        take(through: .max)
    }

    /// The first of those that match and are owed since before that moment.
    package func overdue(
        since: UInt64, where matches: (Publish) -> Bool = { _ in true }
    ) -> (seq: Int64, publish: Publish)? {
        entries.first { $0.since <= since && matches($0.publish) }.map { ($0.seq, $0.publish) }
    }
}
