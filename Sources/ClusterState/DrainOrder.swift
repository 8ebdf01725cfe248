import NIOCore
import RedisClient

/// An operator's word that a node is to drain, or not to any more.
///
/// Redis has it, and the node that heard it. Of two the later holds: so a failover that forgets the last writes takes nothing
/// back that the node knows, and nothing that was said meanwhile is lost to what the node remembers.
package struct DrainOrder: Sendable, Hashable {
    package let mustDrain: Bool
    /// Milliseconds by the clock of Redis. 0 of an order that a version gave which wrote no time.
    package let given: Int64

    package init(mustDrain: Bool, given: Int64) { (self.mustDrain, self.given) = (mustDrain, given) }

    /// - Parameters:
    ///   - text: the field `drain`; nil or empty for no order.
    ///   - given: the field `ordered`.
    init?(_ text: String?, given: Int64) {
        guard let text, !text.isEmpty else { return nil }
        self.init(mustDrain: text == "1", given: given)
    }
}

extension NodeStore {
    /// The last one that an incarnation was given; nil when there was none, or it is of another process.
    func order(of incarnation: Incarnation, startedAt: Int64) -> EventLoopFuture<DrainOrder?> {
        redis.command(["HMGET", .string(keys.node(incarnation)), "started", "drain", "ordered"]).map { reply in
            guard let fields = reply.array, fields.count == 3, fields[0].int == startedAt else { return nil }
            return DrainOrder(fields[1].string, given: fields[2].int ?? 0)
        }
    }
}

extension DrainOrder? {
    static func later(_ one: DrainOrder?, _ other: DrainOrder?) -> DrainOrder? {
        [one, other].compactMap(\.self).max { $0.given < $1.given }
    }

    /// Those of `node_heartbeat.lua` and `node_register.lua`: the order and when it was given.
    var arguments: [RedisArgument] {
        map { [$0.mustDrain ? "1" : "0", .integer($0.given)] } ?? ["", "-1"]
    }
}
