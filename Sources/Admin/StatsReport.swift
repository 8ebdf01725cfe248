package import ClusterState
package import WireProtocol

package struct StatsReport: Report {
    /// One a node.
    package let nodes: [NodeRecord.State]
    package let sessions: Int
    package let users: Int
    package let rooms: Int
    package let redis: RedisFigures

    package func count(_ state: NodeRecord.State) -> Int { nodes.count { $0 == state } }

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.key("nodes")
        json.beginObject()
        for state in [NodeRecord.State.ready, .draining, .dead] { json.member(state.rawValue, count(state)) }
        json.endObject()
        json.member("sessions", sessions)
        json.member("users", users)
        json.member("rooms", rooms)
        json.key("redis")
        redis.write(to: &json)
        json.endObject()
    }
}

/// What matters of Redis' INFO. A figure that a server does not give is 0 or empty.
package struct RedisFigures: Report {
    package let version: String
    package let uptimeSeconds: Int64
    package let memoryBytes: Int64
    /// 0: no limit.
    package let memoryLimitBytes: Int64
    package let evictionPolicy: String
    package let clients: Int64
    package let commandsPerSecond: Int64
    package let pubsubChannels: Int64
    package let hasAppendOnlyFile: Bool

    package init(info: String) {
        var fields: [Substring: Substring] = [:]
        for line in info.split(whereSeparator: \.isNewline) where !line.hasPrefix("#") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = line[line.index(after: colon)...]
        }
        func number(_ key: Substring) -> Int64 { fields[key].flatMap { Int64($0) } ?? 0 }
        version = String(fields["redis_version"] ?? "")
        uptimeSeconds = number("uptime_in_seconds")
        memoryBytes = number("used_memory")
        memoryLimitBytes = number("maxmemory")
        evictionPolicy = String(fields["maxmemory_policy"] ?? "")
        clients = number("connected_clients")
        commandsPerSecond = number("instantaneous_ops_per_sec")
        pubsubChannels = number("pubsub_channels")
        hasAppendOnlyFile = number("aof_enabled") == 1
    }

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("version", version)
        json.member("uptime_seconds", uptimeSeconds)
        json.member("memory_bytes", memoryBytes)
        json.member("memory_limit_bytes", memoryLimitBytes)
        json.member("eviction_policy", evictionPolicy)
        json.member("clients", clients)
        json.member("commands_per_second", commandsPerSecond)
        json.member("pubsub_channels", pubsubChannels)
        json.member("append_only_file", hasAppendOnlyFile)
        json.endObject()
    }
}
