/// When waiting publishes go to the store.
///
/// One at a time goes at once. Where many come, waiting a moment gathers several for the same script, write, relay and
/// send a member, which is most of what a message costs. Whether it does is seen, not configured: a client that sends its
/// next message when it has the ack of the last, however often, gathers nothing, and is not waited for again for a while.
///
/// Times are nanoseconds of a clock that does not go back.
struct PublishPace {
    /// How long a publish waits for others, at most.
    static var linger: UInt64 { 4_000_000 }
    /// Over how long arrivals are counted: so many in this time or twice of it are many.
    private static var window: UInt64 { 8_000_000 }
    private static var many: Int { 4 }
    /// So many a room need not wait for more.
    private static var enoughInRoom: Int { 4 }
    /// How long nobody is waited for after a wait that gathered nothing.
    private static var rest: UInt64 { 1_000_000_000 }

    private var windowStart: UInt64 = 0
    private var count = 0
    private var previousCount = 0
    /// When the first came that has not gone; `nil` when none waits.
    private var waitingSince: UInt64?
    private var hasLingered = false
    private var restsUntil: UInt64 = 0

    mutating func arrived(_ publishes: Int, now: UInt64) {
        let passed = now - min(windowStart, now)
        if passed >= Self.window {
            previousCount = passed < 2 * Self.window ? count : 0
            (windowStart, count) = (now, 0)
        }
        count += publishes
        waitingSince = waitingSince ?? now
    }

    /// - Returns: how long to wait still; 0: they go now, all of them, and ``left(_:now:)`` is called.
    mutating func wait(publishes: Int, rooms: Int, now: UInt64) -> UInt64 {
        guard let waitingSince, now >= restsUntil, count + previousCount >= Self.many,
            publishes < rooms * Self.enoughInRoom
        else { return 0 }
        let passed = now - min(waitingSince, now)
        guard passed < Self.linger else { return 0 }
        hasLingered = true
        return Self.linger - passed
    }

    mutating func left(_ publishes: Int, now: UInt64) {
        if hasLingered, publishes < 2 { restsUntil = now + Self.rest }
        hasLingered = false
        waitingSince = nil
    }
}
