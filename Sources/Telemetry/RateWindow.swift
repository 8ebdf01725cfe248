/// How fast a counter rises: over a span that ends with its last reading.
package struct RateWindow: Sendable {
    /// Nanoseconds.
    private let span: UInt64
    /// The oldest is the last that is at least a span older than the newest, or the first there was.
    private var readings: [(total: Int, at: UInt64)] = []

    package init(seconds: UInt64) {
        span = seconds * 1_000_000_000
    }

    /// - Parameter now: nanoseconds of a clock that does not go back.
    package mutating func read(_ total: Int, at now: UInt64) {
        if let last = readings.last, last.at >= now { readings.removeLast() }
        readings.append((total, now))
        while readings.count > 2, now - readings[1].at >= span { readings.removeFirst() }
    }

    /// A second; 0 before the second reading.
    package var perSecond: Double {
        guard let first = readings.first, let last = readings.last, last.at > first.at else { return 0 }
        return Double(last.total - first.total) * 1e9 / Double(last.at - first.at)
    }
}
