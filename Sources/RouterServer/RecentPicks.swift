import NIOCore

/// The picks of one node that its figures do not count yet, or may not, by when they were made, to a tenth of a second. A
/// minute's at most are told apart: where figures stay away for longer, those before count as of that minute.
struct RecentPicks: Sendable {
    private static let slotLength: UInt64 = 100_000_000
    private static let slotLimit = 600
    /// How long before figures a pick may be and yet not be in them, beside those of the same slot: its client is on the way
    /// to its session, the figures are on theirs to the clock that dates them.
    private static let slotsOnTheWay: UInt64 = 1

    /// Tenths of a second since the machine started.
    typealias Slot = UInt64

    /// By slot, rising.
    private var slots: [(slot: Slot, count: Int)] = []
    private(set) var count = 0
    /// Of `count`, those that the figures may count, too.
    private(set) var doubtful = 0
    /// The last slot of which figures may know.
    private var told: Slot = 0

    /// - Returns: what `remove(_:)` takes it back by.
    mutating func add(at now: NIODeadline) -> Slot {
        count += 1
        // What is picked after figures were read is not in them.
        let slot = max(now.uptimeNanoseconds / Self.slotLength, told + 1)
        // Who read the clock before another, and came after it, is counted with that one.
        if let last = slots.last, last.slot >= slot {
            slots[slots.count - 1].count += 1
            return last.slot
        }
        slots.append((slot, 1))
        if slots.count > Self.slotLimit {
            slots[1].count += slots[0].count
            slots.removeFirst()
        }
        return slot
    }

    /// False when it counts no more.
    mutating func remove(_ slot: Slot) -> Bool {
        guard let index = slots.lastIndex(where: { $0.slot <= slot }), slots[index].slot == slot,
            slots[index].count > 0
        else { return false }
        slots[index].count -= 1
        count -= 1
        if slot <= told { doubtful -= 1 }
        return true
    }

    /// Those that figures of that time know.
    mutating func forget(before time: NIODeadline) {
        told = time.uptimeNanoseconds / Self.slotLength
        let known = told < Self.slotsOnTheWay ? 0 : told - Self.slotsOnTheWay
        slots.removeAll { $0.slot < known }
        count = slots.reduce(0) { $0 + $1.count }
        doubtful = slots.reduce(0) { $0 + ($1.slot <= told ? $1.count : 0) }
    }
}
