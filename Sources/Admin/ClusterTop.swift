import ClusterState
import NIOCore
import RedisClient
import WireProtocol

/// Reads the cluster again and again.
///
/// 1. Nodes, routers, sessions and Redis are read each time, with a few commands a node.
/// 2. Users and rooms are counted by walking the indexes of all nodes. In a large cluster that is much, so it is done for a
///    twentieth of the time at most, and the last count stands meanwhile.
package struct ClusterTop: Sendable {
    /// Older figures say nothing of how much goes on now.
    private static let staleMilliseconds: Int64 = 30_000
    private static let rest: Int64 = 20

    private let admin: ClusterAdmin
    private var census: Census?
    private var nextCensus = NIODeadline.uptimeNanoseconds(0)

    package init(_ admin: ClusterAdmin) {
        self.admin = admin
    }

    /// - Parameter now: milliseconds since 1970.
    package mutating func read(now: Int64) async throws -> TopReport {
        let records = try await admin.nodeRecords()
        async let reports = admin.reports(of: records)
        async let routers = admin.routers()
        async let info = admin.redis.command(["INFO"]).get().string ?? ""
        let nodes = zip(records, try await reports).map { record, report in
            let isFresh = record.state != .dead && record.leaseMs > 0 && record.figuresAgeMs < Self.staleMilliseconds
            return TopReport.Node(report: report, traffic: isFresh ? record.figures.traffic : nil)
        }
        return TopReport(
            at: now, nodes: nodes, routers: try await routers,
            census: try await census(of: nodes.map(\.report), now: now), redis: RedisFigures(info: try await info))
    }

    private mutating func census(of nodes: [NodeReport], now: Int64) async throws -> Census {
        let began = NIODeadline.now()
        if let census, began < nextCensus { return census }
        let counted = try await admin.census(of: nodes, at: now)
        let end = NIODeadline.now()
        nextCensus = end + .nanoseconds((end - began).nanoseconds * Self.rest)
        census = counted
        return counted
    }
}

extension ClusterAdmin {
    fileprivate func census(of nodes: [NodeReport], at now: Int64) async throws -> Census {
        var users: Set<UserName> = []
        var rooms: Set<RoomName> = []
        for node in nodes {
            if node.sessions > 0 { users.formUnion(try await nodeStore.sessions(of: node.incarnation).get().map(\.1)) }
            if node.rooms > 0 { rooms.formUnion(try await nodeStore.rooms(of: node.incarnation).get()) }
        }
        return Census(users: users.count, rooms: rooms.count, at: now)
    }
}
