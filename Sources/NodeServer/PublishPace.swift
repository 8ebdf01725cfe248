import WireProtocol

/// When waiting publishes go to the store.
///
/// One at a time goes at once. Where many come, waiting a moment gathers several for the same script, write, relay and
/// send a member, which is most of what a message costs. Whether it does is seen, not configured: where most publishes come
/// from sessions that published a moment ago, nobody is waited for. Those may be waiting for their acks, and then nobody else
/// comes.
///
/// Times are nanoseconds of a clock that does not go back.
struct PublishPace {
    /// How long a publish waits for others, at most.
    static var linger: UInt64 { 4_000_000 }
    /// Over how long arrivals are counted: so many in this time or twice of it are many.
    private static var window: UInt64 { 8_000_000 }
    private static var many: Int { 8 }
    /// So many a room need not wait for more.
    private static var enoughInRoom: Int { 4 }
    /// Of so many sessions of a window it is known that they published.
    private static var remembered: Int { 256 }

    private struct Window {
        var count = 0
        /// Of those, from sessions that had published in this window or the one before.
        var again = 0
        var sessions: Set<SessionID> = []
    }

    private var windowStart: UInt64 = 0
    private var current = Window()
    private var previous = Window()
    /// When the first came that has not gone; `nil` when none waits.
    private var waitingSince: UInt64?

    mutating func arrived(from session: SessionID, now: UInt64) {
        let passed = now - min(windowStart, now)
        if passed >= Self.window {
            previous = passed < 2 * Self.window ? current : Window()
            (windowStart, current) = (now, Window())
        }
        current.count += 1
        if current.sessions.contains(session) || previous.sessions.contains(session) {
            current.again += 1
        } else if current.sessions.count < Self.remembered {
            current.sessions.insert(session)
        }
        waitingSince = waitingSince ?? now
    }

    /// - Returns: how long to wait still; 0: they go now, all of them, and ``left()`` is called.
    func wait(publishes: Int, rooms: Int, now: UInt64) -> UInt64 {
        let count = current.count + previous.count
        guard let waitingSince, count >= Self.many, 2 * (current.again + previous.again) < count,
            publishes < rooms * Self.enoughInRoom
        else { return 0 }
        return Self.linger - min(now - min(waitingSince, now), Self.linger)
    }

    mutating func left() {
        waitingSince = nil
    }
}
