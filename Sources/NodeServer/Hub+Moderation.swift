import ChatCore
import ClusterState
import Logging
import NIOCore
import WireProtocol

/// The orders of operators: from Redis to the shards, and upon sessions that have no connection here.
extension Hub {
    private static var linesAtOnce: Int { 100 }

    func moderationChanged(_ change: ModerationFeed.Change) {
        log(change)
        metrics.orders = moderation.count
        guard !change.new.isEmpty else { return }
        let new = ModerationTable(change.new)
        for shard in shards.indices { emit(.moderation(new), to: shard) }
        obeyDetached(new)
        for order in change.new where order.key.kind == .ban {
            guard case .user(let user) = order.key.target, let room = order.key.room else { continue }
            kickDetached(user, from: room)
        }
    }

    /// Of the audit: each node says when it began to enforce what.
    private func log(_ change: ModerationFeed.Change) {
        guard !change.isFirst else {
            return logger.info("orders of operators were read", metadata: ["orders": "\(change.new.count)"])
        }
        for order in change.new.prefix(Self.linesAtOnce) {
            logger.notice(
                "order",
                metadata: [
                    "order": "\(order.key.field)", "by": "\(order.terms.by)", "reason": "\(order.terms.reason)",
                    "since": "\(order.terms.since)", "until": "\(order.terms.until.map(String.init) ?? "")",
                    "node": "\(configuration.name)",
                ])
        }
        for key in change.gone.prefix(Self.linesAtOnce) {
            logger.notice("order ended", metadata: ["order": "\(key.field)", "node": "\(configuration.name)"])
        }
        let unsaid = max(0, change.new.count - Self.linesAtOnce) + max(0, change.gone.count - Self.linesAtOnce)
        if unsaid > 0 { logger.notice("more orders changed", metadata: ["count": "\(unsaid)"]) }
    }

    // MARK: Sessions without a connection

    /// Those with one are the shards' affair.
    ///
    /// - Parameter new: what was not in force before.
    private func obeyDetached(_ new: ModerationTable) {
        let now = moderation.now
        for (id, session) in detached {
            guard let user = directory[id]?.user else { continue }
            if new.expulsion(of: ModerationSubject(id, user, session.origin), now) != nil { end(id) }
        }
    }

    /// A session that came to this node without a connection, and what was ordered of it before.
    ///
    /// - Returns: false when nobody may come back to it.
    func mayKeep(_ record: SessionRecord) -> Bool {
        moderation.exclusion(of: ModerationSubject(record.session, record.user, nil)) == nil
    }

    func leaveBannedRooms(_ record: SessionRecord) {
        for room in record.rooms.keys where moderation.ban(of: record.user, from: room) != nil {
            leave(room, record.session)
        }
    }
}

extension ModerationSubject {
    /// - Parameter origin: `nil`: nothing is known of its connection.
    init(_ session: SessionID, _ user: UserName, _ origin: SessionOrigin?) {
        self.init(user: user, session: session, token: origin?.token, address: origin?.address ?? .unknown)
    }
}
