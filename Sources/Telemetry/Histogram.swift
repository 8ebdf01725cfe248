/// Counts durations in nanoseconds with a relative error of at most 1/64, from 0 to about 9 hours, in constant memory.
package struct Histogram: Sendable {
    private static let subBits = 6
    private static let half = 1 << subBits
    private var counts = [UInt64](repeating: 0, count: (45 - subBits + 1) * half)
    package private(set) var count: UInt64 = 0
    package private(set) var maximum: UInt64 = 0

    package init() {}

    /// - Parameter times: how many values it stands for.
    package mutating func record(_ nanoseconds: UInt64, times: UInt64 = 1) {
        counts[Self.slot(min(nanoseconds, 1 << 45 - 1))] += times
        count += times
        maximum = max(maximum, nanoseconds)
    }

    package mutating func add(_ other: Histogram) {
        guard other.count > 0 else { return }
        for slot in counts.indices { counts[slot] += other.counts[slot] }
        count += other.count
        maximum = max(maximum, other.maximum)
    }

    /// The smallest recorded value, to within the error, that at least this share (0…1) of all values does not exceed; 0 when there are none.
    package func quantile(_ share: Double) -> UInt64 {
        let due = UInt64((share * Double(count)).rounded(.up))
        var seen: UInt64 = 0
        for (slot, number) in counts.enumerated() where number > 0 {
            seen += number
            if seen >= due { return min(Self.upperBound(slot), maximum) }
        }
        return maximum
    }

    /// Values under 64 have a slot each; above, each doubling has 64 of them.
    private static func slot(_ value: UInt64) -> Int {
        let exponent = max(0, 63 - value.leadingZeroBitCount - subBits)
        guard value >= UInt64(half) else { return Int(value) }
        return (exponent + 1) * half + Int(value >> UInt64(exponent)) - half
    }

    private static func upperBound(_ slot: Int) -> UInt64 {
        guard slot >= half else { return UInt64(slot) }
        let exponent = UInt64(slot / half - 1)
        return (UInt64(slot % half + half + 1) << exponent) - 1
    }
}
