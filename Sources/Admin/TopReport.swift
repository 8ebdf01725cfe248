package import ClusterState
package import WireProtocol

/// The cluster at one moment, for `martlet admin top`.
package struct TopReport: Report {
    package struct Node: Sendable {
        package let report: NodeReport
        /// nil of one that does not say, or has not for a while.
        package let traffic: NodeTraffic?

        package init(report: NodeReport, traffic: NodeTraffic?) {
            self.report = report
            self.traffic = traffic
        }
    }

    /// Milliseconds since 1970.
    package let at: Int64
    /// By name and number.
    package let nodes: [Node]
    /// By name and start.
    package let routers: [RouterReport]
    package let census: Census
    package let redis: RedisFigures

    package init(at: Int64, nodes: [Node], routers: [RouterReport], census: Census, redis: RedisFigures) {
        (self.at, self.nodes, self.routers, self.census, self.redis) = (at, nodes, routers, census, redis)
    }

    package func count(_ state: NodeRecord.State) -> Int { nodes.count { $0.report.state == state } }
    package var sessions: Int { nodes.reduce(0) { $0 + $1.report.sessions } }
    package var messagesIn: Double { nodes.reduce(0) { $0 + ($1.traffic?.messagesIn ?? 0) } }
    package var messagesOut: Double { nodes.reduce(0) { $0 + ($1.traffic?.messagesOut ?? 0) } }
    /// The highest of the nodes', and whose it is; nil when none has one.
    package var worst: (milliseconds: Double, node: String)? {
        nodes.compactMap { node in node.traffic?.p99Milliseconds.map { ($0, node.report.incarnation.name) } }
            .max { $0.0 < $1.0 }
    }

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("at", at)
        json.key("totals")
        json.beginObject()
        json.key("nodes")
        json.beginObject()
        for state in [NodeRecord.State.ready, .draining, .dead] { json.member(state.rawValue, count(state)) }
        json.endObject()
        json.member("routers", routers.count)
        json.member("sessions", sessions)
        json.member("users", census.users)
        json.member("rooms", census.rooms)
        json.member("counted_at", census.at)
        json.member("messages_in_per_second", messagesIn)
        json.member("messages_out_per_second", messagesOut)
        json.member("p99_ms", worst?.milliseconds)
        json.endObject()
        json.key("nodes")
        json.beginArray()
        for node in nodes { node.write(to: &json) }
        json.endArray()
        json.key("routers")
        routers.write(to: &json)
        json.key("redis")
        redis.write(to: &json)
        json.endObject()
    }
}

extension TopReport.Node {
    fileprivate func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("node", report.incarnation.name)
        json.member("incarnation", report.incarnation.description)
        json.member("state", report.state.rawValue)
        json.member("sessions", report.sessions)
        json.member("rooms", report.rooms)
        json.member("messages_in_per_second", traffic?.messagesIn)
        json.member("messages_out_per_second", traffic?.messagesOut)
        json.member("p99_ms", traffic?.p99Milliseconds)
        json.member("lease_ms", report.leaseMilliseconds)
        json.member("version", report.version)
        json.member("started_at", report.startedAt)
        json.endObject()
    }
}

/// How many different users and rooms there are, whatever the number of nodes that each is on.
package struct Census: Sendable {
    package let users: Int
    package let rooms: Int
    /// Milliseconds since 1970.
    package let at: Int64

    package init(users: Int, rooms: Int, at: Int64) {
        (self.users, self.rooms, self.at) = (users, rooms, at)
    }
}
