import ChatCore
import NIOCore
import Synchronization
import WireProtocol

/// The orders in force, once for all loops of a node, which ask at every gate: a change costs among many what it costs alone.
///
/// The hub's loop changes them, and then tells the shards what is new, so that whoever came in before it goes.
final class Moderation: Sendable {
    private let table = Mutex(ModerationTable())
    /// Every publish asks, and mostly nobody is muted: that much needs no lock.
    private let hasMutes = Atomic(false)
    private let wasRead = Atomic(false)
    private let clock = Atomic<Int64>(0)
    private let knownAt = Atomic<UInt64>(0)

    /// For how long a node that hears nothing goes by the orders that it knows, before it asks for them: with the asking, less
    /// than the second in which they are to hold.
    static var patience: TimeAmount { .milliseconds(750) }

    /// Until then nobody may be let in.
    var isRead: Bool { wasRead.load(ordering: .acquiring) }

    var count: Int { table.withLock { $0.orders.count } }

    // MARK: Questions

    /// Milliseconds since 1970 by the clock of Redis, by which orders end.
    var now: Int64 { Self.uptime + clock.load(ordering: .relaxed) }

    private static var uptime: Int64 { Int64(NIODeadline.now().uptimeNanoseconds / 1_000_000) }

    /// Why the subject may not be connected, if it may not.
    func exclusion(of subject: ModerationSubject) -> ModerationOrder? {
        table.withLock { $0.exclusion(of: subject, now) }
    }

    /// Why the subject may not speak in the room, if it may not.
    ///
    /// - Parameter room: `nil`: what is said everywhere at once.
    func mute(of subject: @autoclosure () -> ModerationSubject, in room: RoomName?) -> ModerationOrder? {
        guard hasMutes.load(ordering: .relaxed) else { return nil }
        let subject = subject()
        return table.withLock { $0.mute(of: subject, in: room, now) }
    }

    /// Why the user may not be in the room, though they may be elsewhere.
    func ban(of user: UserName, from room: RoomName) -> ModerationOrder? {
        table.withLock { $0.ban(of: user, from: room, now) }
    }

    /// Whether an order may have been given more than ``patience`` ago that is not among them: the node stood still.
    ///
    /// - Parameter now: monotonic nanoseconds.
    func isOutdated(_ now: UInt64) -> Bool {
        let known = knownAt.load(ordering: .relaxed)
        return now > known && now - known > UInt64(Self.patience.nanoseconds)
    }

    // MARK: Changes, by the feed

    /// - Parameter time: all orders of before are known, as far as the node was told.
    func setKnown(_ time: NIODeadline) { knownAt.store(time.uptimeNanoseconds, ordering: .relaxed) }

    /// - Parameter now: milliseconds since 1970 by the clock of Redis.
    func setClock(_ now: Int64) { clock.store(now - Self.uptime, ordering: .relaxed) }

    func change<Result: Sendable>(_ body: (inout ModerationTable) -> Result) -> Result {
        table.withLock { table in
            defer { hasMutes.store(table.hasMutes, ordering: .relaxed) }
            return body(&table)
        }
    }

    /// - Parameter new: all there are.
    /// - Returns: those that were in force.
    func replace(with new: ModerationTable) -> ModerationTable {
        let before = change { table in
            let before = table
            table = new
            return before
        }
        wasRead.store(true, ordering: .releasing)
        return before
    }
}
