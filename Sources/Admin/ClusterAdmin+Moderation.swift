package import ChatCore
import ClusterState
package import NIOCore
import RedisClient
package import WireProtocol

/// Who orders, and what people are told.
package struct OrderSignature: Sendable {
    package let by: String
    package let reason: String

    package init(by: String, reason: String) {
        (self.by, self.reason) = (by, reason)
    }
}

extension ClusterAdmin {
    /// A kicked session cannot be resumed for so long: longer than any grace behind any lease.
    static let sessionKickLife = TimeAmount.hours(3)
    /// A node that was deaf for so long does not heed the kick of a token or an address.
    static let momentaryKickLife = TimeAmount.minutes(1)

    /// An order comes into force, in place of the one before it. The nodes do it while this returns, or as soon as they can
    /// hear; it is written.
    ///
    /// - Parameter duration: `nil`: until it is lifted.
    /// - Throws: `OrderRefused` when there are as many orders as there may be.
    package func order(
        _ key: ModerationOrder.Key, _ signature: OrderSignature, for duration: TimeAmount?
    ) async throws -> OrderReport {
        OrderReport(order: ModerationOrder(key, try await put([key], as: key, signature, for: duration)))
    }

    /// - Throws: `NotFound` when it is not in force.
    package func lift(_ key: ModerationOrder.Key, _ signature: OrderSignature) async throws -> LiftReport {
        guard try await moderationStore.lift(key, by: signature.by, reason: signature.reason).get() else {
            let place = key.room.map { " in room \($0)" } ?? ""
            throw NotFound("no \(key.kind.rawValue) of \(key.sort) \(key.name)\(place) is in force")
        }
        return LiftReport(key: key)
    }

    /// Those in force, oldest first.
    package func orders() async throws -> [OrderReport] {
        let now = try await moderationStore.head().get().now
        return try await moderationStore.all().get()
            .filter { order in order.terms.until.map { $0 > now } ?? true }
            .map { (since: $0.terms.since, field: $0.key.field, order: $0) }
            .sorted { ($0.since, $0.field) < ($1.since, $1.field) }
            .map { OrderReport(order: $0.order) }
    }

    /// Oldest first.
    package func audit(last: Int) async throws -> [AuditReport] {
        try await moderationStore.audit(last: last).get().map { AuditReport(entry: $0) }
    }

    /// Whoever is connected from the address, or with the token, goes and may come back.
    ///
    /// - Parameter key: of a kick.
    package func kickOnce(_ key: ModerationOrder.Key, _ signature: OrderSignature) async throws -> OrderReport {
        try await order(key, signature, for: Self.momentaryKickLife)
    }

    /// - Throws: `NotFound` when there is no such session.
    package func kick(
        session: SessionID, _ signature: OrderSignature, patience: TimeAmount
    ) async throws -> KickReport {
        let name = try await redis.command(["HGET", .string(keys.session(session)), "user"]).get().string
        guard let user = name.flatMap({ try? UserName(validating: $0) }),
            let key = ModerationOrder.Key(.kick, .session(session))
        else { throw NotFound("there is no session \(session)") }
        _ = try await put([key], as: key, signature, for: Self.sessionKickLife)
        return try await watchKick(of: user, room: nil, [session], signature.reason, patience: patience)
    }

    /// The sessions cannot be resumed, wherever they are, also those of a node that is dead at the moment.
    func forbid(_ sessions: Set<SessionID>, of user: UserName, room: RoomName?, _ signature: OrderSignature)
        async throws
    {
        guard let named = ModerationOrder.Key(.kick, .user(user), in: room) else { return }
        // Out of one room is no end of the session.
        var keys = room == nil ? sessions.compactMap { ModerationOrder.Key(.kick, .session($0)) }[...] : []
        repeat {
            let page = Array(keys.prefix(ModerationStore.atOnce))
            keys = keys.dropFirst(page.count)
            _ = try await put(page, as: named, signature, for: page.isEmpty ? nil : Self.sessionKickLife)
        } while !keys.isEmpty
    }

    private func put(
        _ keys: [ModerationOrder.Key], as named: ModerationOrder.Key, _ signature: OrderSignature,
        for duration: TimeAmount?
    ) async throws -> ModerationOrder.Terms {
        let terms = try await moderationStore.put(
            keys, as: named, by: signature.by, reason: signature.reason, for: duration
        ).get()
        guard let terms else {
            throw OrderRefused(
                "there are \(ModerationStore.maximumOrders) orders already; lift some, or order ranges of addresses")
        }
        return terms
    }
}
