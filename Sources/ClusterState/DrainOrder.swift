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

extension DrainOrder? {
    /// Those of `node_heartbeat.lua` and `node_register.lua`: the order and when it was given.
    var arguments: [RedisArgument] {
        map { [$0.mustDrain ? "1" : "0", .integer($0.given)] } ?? ["", "-1"]
    }
}
