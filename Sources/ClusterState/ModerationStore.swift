package import ChatCore
package import NIOCore
package import RedisClient

/// The orders of operators as Redis holds them: one hash with all that are in force, and the audit.
///
/// 1. An order is written, noted in the audit and told to the nodes in one step.
/// 2. Whoever reads them all learns the version that they have at least, and from then on what changes, by the control
///    channel, or that it missed something, by the version.
/// 3. Both keys are bounded. Keeps nothing itself and reads no clock. Futures complete on the client's event loop.
package struct ModerationStore: Sendable {
    /// More are refused: every node holds them all.
    package static let maximumOrders: Int64 = 100_000
    /// Redis keeps up to a node of its stream more.
    package static let auditLines: Int64 = 10_000

    /// Orders of one script, so that it takes Redis a few milliseconds at most.
    package static let atOnce = 100

    let redis: RedisClient
    let keys: ClusterKeys

    package init(redis: RedisClient, keys: ClusterKeys) {
        self.redis = redis
        self.keys = keys
    }

    /// Works also when Redis is full.
    ///
    /// - Parameters:
    ///   - orders: what comes into force, at most ``atOnce``; nothing, when only the audit is to know.
    ///   - named: what the audit calls it.
    ///   - duration: at least a millisecond; `nil`: until it is lifted.
    /// - Returns: the terms that hold from now on; `nil` when there are too many orders, and nothing was done.
    package func put(
        _ orders: [ModerationOrder.Key], as named: ModerationOrder.Key, by: String, reason: String,
        for duration: TimeAmount?
    ) -> EventLoopFuture<ModerationOrder.Terms?> {
        redis.evaluate(
            ClusterScripts.ordersPut, keys: [.string(keys.orders), .string(keys.audit)],
            arguments: [
                .string(keys.controlChannel), duration.map { .integer($0.milliseconds) } ?? "", .string(by),
                .string(reason), .integer(Self.maximumOrders), .integer(Self.auditLines), .string(named.field),
            ] + orders.map { .string($0.field) }
        ).flatMapThrowing { reply in
            guard let fields = reply.array else { throw ClusterStateError.unexpectedReply(of: "orders_put") }
            if fields.isEmpty { return nil }
            guard fields.count == 2, let since = fields[0].int, let until = fields[1].int else {
                throw ClusterStateError.unexpectedReply(of: "orders_put")
            }
            return ModerationOrder.Terms(reason: reason, by: by, since: since, until: until == 0 ? nil : until)
        }
    }

    /// False when it was not in force. Works also when Redis is full.
    package func lift(_ order: ModerationOrder.Key, by: String, reason: String) -> EventLoopFuture<Bool> {
        redis.evaluate(
            ClusterScripts.ordersLift, keys: [.string(keys.orders), .string(keys.audit)],
            arguments: [
                .string(keys.controlChannel), .string(by), .string(reason), .integer(Self.auditLines),
                .string(order.field),
            ]
        ).map { $0.int == 1 }
    }

    /// The version, and milliseconds since 1970 by the clock of Redis.
    package func head() -> EventLoopFuture<(version: String, now: Int64)> {
        redis.evaluate(ClusterScripts.ordersHead, keys: [.string(keys.orders)], arguments: []).flatMapThrowing {
            guard let fields = $0.array, fields.count == 2, let version = fields[0].string, let now = fields[1].int
            else { throw ClusterStateError.unexpectedReply(of: "orders_head") }
            // As the scripts call it where nothing was written yet.
            return (version.isEmpty ? "0-0" : version, now)
        }
    }

    /// Every order, also such as are past and still there; in no order. In pages, so that a change under way may be in it or
    /// not: it is what holds at the version that was read before it, or later.
    package func all() -> EventLoopFuture<[ModerationOrder]> {
        redis.eventLoop.makeFutureWithTask {
            var orders: [ModerationOrder] = []
            try await redis.scan("HSCAN", keys.orders) { page in
                for index in stride(from: 0, to: page.count - 1, by: 2) {
                    guard let key = page[index].string.flatMap({ ModerationOrder.Key(field: $0) }),
                        let terms = page[index + 1].string.flatMap({ ModerationOrder.Terms(value: $0) })
                    else { continue }
                    orders.append(ModerationOrder(key, terms))
                }
            }
            return orders
        }
    }

    /// Takes away what is past by the clock of Redis. If that fails, whoever reads them next does it.
    package func expire(_ orders: [ModerationOrder.Key]) {
        for start in stride(from: 0, to: orders.count, by: Self.atOnce) {
            _ = redis.evaluate(
                ClusterScripts.ordersExpire, keys: [.string(keys.orders)],
                arguments: orders[start..<min(orders.count, start + Self.atOnce)].map { .string($0.field) })
        }
    }

    /// Notes an order to a node. That is no order here: it stands with the node.
    package func note(_ order: NodeOrder, of node: Incarnation, by: String, reason: String) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.auditNode, keys: [.string(keys.audit)],
            arguments: [
                .integer(Self.auditLines), .string(node.description), .string(order.rawValue), .string(by),
                .string(reason),
            ]
        ).map { _ in }
    }

    /// The last lines, oldest first.
    package func audit(last: Int) -> EventLoopFuture<[AuditEntry]> {
        redis.command(["XREVRANGE", .string(keys.audit), "+", "-", "COUNT", .integer(Int64(last))]).map { reply in
            (reply.array ?? []).reversed().compactMap(AuditEntry.init)
        }
    }
}

extension AuditEntry {
    /// Reads an entry of the stream.
    fileprivate init?(_ value: RESPValue) {
        guard let parts = value.array, parts.count == 2, let list = parts[1].array,
            let at = parts[0].string.flatMap({ Int64($0.prefix { $0 != "-" }) })
        else { return nil }
        var fields: [String: String] = [:]
        for index in stride(from: 0, to: list.count - 1, by: 2) {
            fields[list[index].string ?? ""] = list[index + 1].string ?? ""
        }
        let subject: Subject
        if let key = fields["order"].flatMap({ ModerationOrder.Key(field: $0) }) {
            subject = .people(key, isLifted: fields["lifted"] != nil)
        } else if let node = fields["node"].flatMap({ Incarnation($0) }),
            let order = fields["action"].flatMap({ NodeOrder(rawValue: $0) })
        {
            subject = .node(node, order)
        } else {
            return nil
        }
        let until = fields["until"].flatMap { Int64($0) } ?? 0
        self.init(
            at: at, subject: subject, by: fields["by"] ?? "", reason: fields["reason"] ?? "",
            until: until == 0 ? nil : until)
    }
}
