/// Of what a lasting trouble would say again and again: the first at once, then at most one in each interval, with how many were
/// left unsaid before it.
package struct LogThrottle: Sendable {
    /// Nanoseconds.
    private let interval: UInt64
    private var next: UInt64 = 0
    private var unsaid = 0

    package init(seconds: UInt64) { interval = seconds * 1_000_000_000 }

    /// - Parameter now: nanoseconds of a clock that does not go back.
    /// - Returns: how many were left unsaid since the last that was said; nil when this one is left unsaid, too.
    package mutating func say(now: UInt64) -> Int? {
        guard now >= next else {
            unsaid += 1
            return nil
        }
        next = now + interval
        defer { unsaid = 0 }
        return unsaid
    }
}
