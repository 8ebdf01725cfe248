/// How long a room waits before its next tick: as long as its last one took to send.
///
/// A large room in which much is said would otherwise keep its loop sending all the time, each message to each member by
/// itself, and leave nothing of the machine to those who read. Resting, it sends the fewer ticks the longer they take,
/// with more messages in each, which cost one `send` a member together. Where ticks are short or rare nothing waits.
///
/// Times are nanoseconds of a clock that does not go back.
struct FanOutRest {
    /// A tick waits no longer than this.
    static var longest: UInt64 { 8_000_000 }
    /// After a tick that took less nothing waits.
    static var least: UInt64 { 500_000 }

    private var took: UInt64 = 0
    private(set) var until: UInt64 = 0

    /// A part of a tick was sent.
    mutating func sent(from start: UInt64, to end: UInt64, isWhole: Bool) {
        took += end - min(start, end)
        guard isWhole else { return }
        if took >= Self.least { until = end + min(took, Self.longest) }
        took = 0
    }
}
