import NIOCore

/// The picks of one node that its figures do not count yet, by when they were made, to a tenth of a second. A minute's at
/// most are told apart: where figures stay away for longer, those before count as of that minute.
struct RecentPicks: Sendable {
    private static let slotLength: UInt64 = 100_000_000
    private static let slotLimit = 600

    /// Tenths of a second since the machine started.
    typealias Slot = UInt64

    /// By slot, rising.
    private var slots: [(slot: Slot, count: Int)] = []
    private(set) var count = 0

    /// - Returns: what `remove(_:)` takes it back by.
    mutating func add(at now: NIODeadline) -> Slot {
        let slot = now.uptimeNanoseconds / Self.slotLength
        count += 1
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
        return true
    }

    /// Those that figures of that time know. Those of the same tenth of a second stay, as figures may lack them.
    mutating func forget(before time: NIODeadline) {
        let slot = time.uptimeNanoseconds / Self.slotLength
        slots.removeAll { $0.slot < slot }
        count = slots.reduce(0) { $0 + $1.count }
    }
}
