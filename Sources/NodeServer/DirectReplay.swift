import ChatCore
import NIOCore
import WireProtocol

/// What one session still has to get of private rooms.
final class DirectReplays {
    var rooms: [RoomName: DirectReplay] = [:]
    var waiting: [DirectReplay] = []
    /// Which private rooms those are is not known yet.
    var isLookingUp = true
    let rights: Rights
    let budget: Budget

    /// What all replays of a session may hold: a client that does not read costs no more than that.
    final class Budget {
        let maximumBytes: Int
        fileprivate(set) var bytes = 0

        init(maximumBytes: Int) { self.maximumBytes = maximumBytes }
    }

    init(maximumBytes: Int, rights: Rights) {
        budget = Budget(maximumBytes: maximumBytes)
        self.rights = rights
    }

    var isOver: Bool { rooms.isEmpty && waiting.isEmpty && !isLookingUp }
}

/// What a client that comes back missed in one private room of its user, on its way to it.
///
/// 1. Holds what comes live meanwhile, in order, within its bounds. What is not held the log has; acks are always held.
/// 2. Knows what of it came before the log was last read, so that the log tells about it.
/// 3. Hands back the publishes that should have been answered by now.
final class DirectReplay {
    /// A publish whose ack waits here.
    struct Publish {
        let id: String?
        /// Monotonic nanoseconds.
        let deadline: UInt64
    }

    enum Held {
        /// With the text for this session: the frame, or the ack of its own.
        case message(RoomPosition, text: [UInt8], publish: Publish?)
        case gap(epoch: String, from: Int64, to: Int64)

        var epoch: String {
            switch self {
            case .message(let place, _, _): place.epoch
            case .gap(let epoch, _, _): epoch
            }
        }

        var seqs: (from: Int64, to: Int64) {
            switch self {
            case .message(let place, _, _): (place.seq, place.seq)
            case .gap(_, let from, let to): (from, to)
            }
        }

        var publish: Publish? {
            if case .message(_, _, let publish) = self { publish } else { nil }
        }

        fileprivate var bytes: Int {
            if case .message(_, let text, _) = self { 64 + text.count } else { 64 }
        }
    }

    struct Entry {
        let number: Int
        let held: Held
    }

    let room: RoomName
    let user: UserName
    let session: SessionID
    let connection: SessionID
    /// False: what was missed is a gap, as the session has no right to what is stored.
    let mayRead: Bool
    /// The last message that the client has; `nil` until it is known.
    var position: RoomPosition?
    /// Something went out: what is missing from here on is only what was missed.
    var hasBegun = false
    /// Since when it is over. The relay may still bring what went out.
    var liveSince: NIODeadline?
    /// What came live meanwhile, in order.
    private(set) var held: [Entry] = []
    /// The number of the last that came live, held or not.
    private(set) var lastNumber = 0
    /// The log was read to its end after the entry of this number had come.
    var readThrough = 0
    /// Whether Redis knew the room then.
    var isRoomKnown = false
    /// The last that came and is not held: it must be read from the log.
    private var lastDropped = 0
    private var bytes = 0
    private let budget: DirectReplays.Budget
    /// Goes on with the next room.
    var whenLive: () -> Void = {}
    /// For publishes that others stored, behind all that was missed.
    private var acks: [(text: [UInt8], publish: Publish)] = []

    static let maximumBytes = 64 * 1024

    init(
        room: RoomName, user: UserName, session: SessionID, connection: SessionID, mayRead: Bool = true,
        budget: DirectReplays.Budget
    ) {
        (self.room, self.user, self.session, self.connection) = (room, user, session, connection)
        self.mayRead = mayRead
        self.budget = budget
    }

    deinit { budget.bytes -= bytes }

    var isLive: Bool { liveSince != nil }
    /// More came than is held, since the log was read.
    var hasOverflowed: Bool { lastDropped > readThrough }

    /// The client has it already.
    func hasPassed(_ held: Held) -> Bool {
        hasPassed(held.seqs.to, in: held.epoch)
    }

    func hasPassed(_ seq: Int64, in epoch: String) -> Bool {
        position.map { $0.epoch == epoch && seq <= $0.seq } ?? false
    }

    /// Nothing is missing before it; a client that has nothing of the room misses nothing.
    func isNext(_ held: Held) -> Bool {
        position.map { $0.epoch.isEmpty || $0.epoch == held.epoch && held.seqs.from == $0.seq + 1 } ?? false
    }

    func hold(_ new: Held) {
        lastNumber += 1
        let fits =
            !hasOverflowed && bytes + new.bytes <= Self.maximumBytes
            && budget.bytes + new.bytes <= budget.maximumBytes
        guard fits || new.publish != nil else {
            lastDropped = lastNumber
            return
        }
        held.append(Entry(number: lastNumber, held: new))
        count(new.bytes)
    }

    func hold(ack: [UInt8], of publish: Publish) { acks.append((ack, publish)) }

    /// Gives out what is held, from its beginning, for as long as it can be passed on.
    ///
    /// - Returns: whether nothing is left.
    func release(while passes: (Entry) -> Bool) -> Bool {
        let passed = held.prefix(while: passes)
        count(-passed.reduce(0) { $0 + $1.held.bytes })
        held.removeFirst(passed.count)
        return held.isEmpty
    }

    func takeAcks() -> [[UInt8]] {
        defer { acks = [] }
        return acks.map(\.text)
    }

    /// The ack in whose place a message stands in the log.
    func takeAck(of seq: Int64, in epoch: String) -> [UInt8]? {
        let index = held.firstIndex { $0.held.publish != nil && $0.held.seqs.to == seq && $0.held.epoch == epoch }
        guard let index, case .message(_, let ack, _) = held[index].held else { return nil }
        count(-held.remove(at: index).held.bytes)
        return ack
    }

    /// Drops the acks that should have gone out by now: the messages in whose place they stand are read from the log.
    ///
    /// - Parameter now: monotonic nanoseconds.
    func takeOverdue(now: UInt64) -> [Publish] {
        func isOverdue(_ publish: Publish?) -> Bool { publish.map { $0.deadline <= now } ?? false }
        let overdue = held.filter { isOverdue($0.held.publish) }
        let late = acks.filter { isOverdue($0.publish) }
        guard !overdue.isEmpty || !late.isEmpty else { return [] }
        held.removeAll { isOverdue($0.held.publish) }
        acks.removeAll { isOverdue($0.publish) }
        for entry in overdue {
            lastDropped = max(lastDropped, entry.number)
            count(-entry.held.bytes)
        }
        return overdue.compactMap(\.held.publish) + late.map(\.publish)
    }

    private func count(_ more: Int) {
        bytes += more
        budget.bytes += more
    }
}
