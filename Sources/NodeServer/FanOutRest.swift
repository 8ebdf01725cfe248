/// How long a large room waits before its next tick: as long as its last one took to send.
///
/// A large room in which much is said would otherwise keep its loop sending all the time, each message to each member by
/// itself, and leave nothing of the machine to those who read. Resting, it sends the fewer ticks the longer they take,
/// with more messages in each, which cost one `send` a member together. Where ticks are short or have one message nothing
/// waits, and what outgrows the bound of a tick does not.
///
/// Times are nanoseconds of a clock that does not go back.
struct FanOutRest {
    /// Rooms with fewer members do not rest: in so short a time only the clock would tell that they took long.
    static var fewestMembers: Int { 100 }
    private static var longest: UInt64 { 8_000_000 }
    /// After a tick that took less nothing waits.
    private static var least: UInt64 { 500_000 }

    private var took: UInt64 = 0
    private(set) var until: UInt64 = 0

    /// A part of a tick was sent.
    mutating func sent(from start: UInt64, to end: UInt64, isWhole: Bool) {
        took += end - start
        guard isWhole else { return }
        if took >= Self.least { until = end + min(took, Self.longest) }
        took = 0
    }
}

/// The rooms of a shard that got something and have not been sent to, in the order in which they got it.
struct DirtyRooms<Receiver: FrameReceiver> {
    private var rooms: [ShardRoom<Receiver>] = []

    var isEmpty: Bool { rooms.isEmpty }

    mutating func insert(_ room: ShardRoom<Receiver>) {
        guard !room.isDirty else { return }
        room.isDirty = true
        rooms.append(room)
    }

    /// Takes out those that may be sent to now. One that rests stays; one with a tick on its way goes, to come back behind
    /// that one.
    mutating func takeDue(now: UInt64) -> [ShardRoom<Receiver>] {
        var due: [ShardRoom<Receiver>] = []
        rooms.removeAll { room in
            if !room.isSending {
                guard room.rest.until <= now else { return false }
                due.append(room)
            }
            room.isDirty = false
            return true
        }
        return due
    }

    /// When the first of those that rest may be sent to.
    var next: UInt64? { rooms.lazy.map(\.rest.until).min() }
}
