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
        for order in change.new { obey(order) }
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
    private func obey(_ order: ModerationOrder) {
        switch (order.key.kind, order.key.target) {
        case (.ban, .user(let user)): kickDetached(user, from: order.key.room)
        case (.ban, .session(let id)), (.kick, .session(let id)), (.revoke, .session(let id)):
            if detachedUntil[id] != nil { end(id) }
        case (.ban, _), (.kick, _), (.mute, _), (.revoke, _): break
        }
    }

    /// A session that came to this node without a connection, and what was ordered of it before.
    ///
    /// - Returns: false when nobody may come back to it.
    func mayKeep(_ record: SessionRecord) -> Bool {
        let subject = ModerationSubject(user: record.user, session: record.session, token: nil, address: .unknown)
        return moderation.exclusion(of: subject) == nil
    }

    func leaveBannedRooms(_ record: SessionRecord) {
        for room in record.rooms.keys where moderation.ban(of: record.user, from: room) != nil {
            leave(room, record.session)
        }
    }
}
