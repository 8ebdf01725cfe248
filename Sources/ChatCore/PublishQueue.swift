/// The publishes of one room on one node, in the order in which they came, with one batch under way at a time so that
/// neither a retry nor a reloaded script can reorder a sender (G1). Times are monotonic nanoseconds.
///
/// What was sent and not answered goes back to the front and is sent again with the same ids: the store answers what
/// it already has with its first `seq` (G3). What is not answered by its deadline is handed back (G5).
package struct PublishQueue<Element: Sendable>: Sendable {
    package struct Entry: Sendable {
        package let element: Element
        package let bytes: Int
        package let deadline: UInt64
        /// How often this entry was part of a batch before the present one.
        package fileprivate(set) var attempts = 0
        /// The relay brought it, before the store's answer.
        package fileprivate(set) var isRelayed = false
    }

    private enum State {
        /// Nothing is under way. Goes to `inFlight` with a batch.
        case idle
        /// One batch was handed out. Goes to `idle` when it was answered or its outcome is unknown.
        case inFlight
    }

    private var state: State = .idle
    private var batch: [Entry] = []
    /// The relay brings a batch in its order, so the next that it brings is most likely here.
    private var nextRelayed = 0
    /// A slice, so that taking the first ones moves nothing.
    private var waiting: ArraySlice<Entry> = []
    package private(set) var bytes = 0

    package init() {}

    package var count: Int { batch.count + waiting.count }
    package var isEmpty: Bool { batch.isEmpty && waiting.isEmpty }
    package var isInFlight: Bool { state == .inFlight }

    package mutating func append(_ element: Element, bytes: Int, deadline: UInt64) {
        waiting.append(Entry(element: element, bytes: bytes, deadline: deadline))
        self.bytes += bytes
    }

    /// The next batch, or nothing while one is under way or none waits. It ends before an id that it has already.
    package mutating func nextBatch(
        maximumCount: Int, maximumBytes: Int, id: (Element) -> String
    ) -> [Entry] {
        guard state == .idle, !waiting.isEmpty else { return [] }
        var size = 0
        var count = 0
        var ids: Set<String> = []
        for entry in waiting.prefix(maximumCount) {
            size += entry.bytes
            let isNew = ids.insert(id(entry.element)).inserted
            if count > 0, size > maximumBytes || !isNew { break }
            count += 1
        }
        batch = Array(waiting.prefix(count))
        waiting.removeFirst(count)
        // A slice keeps what was removed from its front.
        if waiting.isEmpty { waiting = [] }
        state = .inFlight
        return batch
    }

    /// The batch was answered; its entries in order.
    package mutating func answered() -> [Entry] {
        let entries = batch
        finishBatch()
        bytes -= entries.reduce(0) { $0 + $1.bytes }
        return entries
    }

    /// The batch may or may not have been stored: its entries wait again, before all others. Returns those that the relay
    /// brought: nobody waits for them any more.
    package mutating func outcomeUnknown() -> [Entry] {
        let entries = batch.map { entry in
            var entry = entry
            entry.attempts += 1
            return entry
        }
        finishBatch()
        waiting = entries[...] + waiting
        return takeOut { $0.isRelayed }
    }

    /// The relay brought one, so it is stored, and acknowledged: it is not sent or refused any more. Returns what waited to
    /// be sent again.
    package mutating func relayed(where matches: (Element) -> Bool) -> [Entry] {
        let isNext = nextRelayed < batch.count && matches(batch[nextRelayed].element)
        if let index = isNext ? nextRelayed : batch.firstIndex(where: { matches($0.element) }) {
            batch[index].isRelayed = true
            nextRelayed = index + 1
            return []
        }
        guard waiting.first?.attempts ?? 0 > 0 else { return [] }
        return takeOut { $0.attempts > 0 && matches($0.element) }
    }

    /// Of what went out at least once and may be stored.
    package func sent(where matches: (Element) -> Bool) -> Entry? {
        batch.first { matches($0.element) }
            ?? waiting.prefix { $0.attempts > 0 }.first { matches($0.element) }
    }

    package func mayBeStored(where matches: (Element) -> Bool) -> Bool { sent(where: matches) != nil }

    /// Takes out what waits past its deadline. A batch under way is left to its own command deadline.
    package mutating func expire(now: UInt64) -> [Entry] {
        takeOut { $0.deadline <= now }
    }

    private mutating func takeOut(_ isWanted: (Entry) -> Bool) -> [Entry] {
        guard waiting.contains(where: isWanted) else { return [] }
        let taken = Array(waiting.filter(isWanted))
        waiting = waiting.filter { !isWanted($0) }[...]
        bytes -= taken.reduce(0) { $0 + $1.bytes }
        return taken
    }

    private mutating func finishBatch() {
        batch = []
        nextRelayed = 0
        state = .idle
    }
}
