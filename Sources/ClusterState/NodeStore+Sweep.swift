package import NIOCore
import RedisClient
import WireProtocol

extension NodeStore {
    /// What `node_claim.lua` says of an incarnation.
    enum Claim: String {
        case live, claimed, taken, swept, forget
    }

    /// For so long a swept incarnation is still listed as dead.
    private static let remembranceMs: Int64 = 600_000
    /// Rooms whose chunks are under way at once: Redis runs them in one go, and everyone else waits.
    private static let roomsAtOnce: Int64 = 16
    private static let sessionsAtOnce: Int64 = 128

    /// Declares dead whose lease is past, and sweeps the dead, one after the other, except those that another sweeps:
    /// (1) dead, (2) the rooms of its index, (3) in each a tombstone and then its sessions in chunks, (4) the keys of its
    /// sessions and their users' lists, (5) the index. Between (1) and (2) it adopts the sessions that can still be resumed. Every step may be repeated and may be left to another sweeper.
    ///
    /// The caller guarantees that it held its own lease unbroken for a whole lease period, so that a Redis that stood
    /// still makes nobody dead.
    ///
    /// - Parameter notAfter: the end of the caller's own lease by Redis's clock. Should Redis stand still while this is under
    ///   way, what it then runs too late declares nobody dead.
    /// - Returns: a report for each incarnation that was swept, or whose sweep failed; one that fails does not keep
    ///   the others from being swept.
    package func sweepLapsed(
        by me: Incarnation, notAfter: Int64, adoption: SessionAdoption? = nil
    ) -> EventLoopFuture<[SweepReport]> {
        redis.eventLoop.makeFutureWithTask {
            let known = try await hinted()
            let others = known.filter { $0 != me }
            // All verdicts first: whom the control channel names dead, routers avoid at once.
            let verdicts = try await EventLoopFuture.whenAllComplete(
                others.map { claimFuture($0, by: nil, notAfter: notAfter) }, on: redis.eventLoop
            ).get()
            var reports: [SweepReport] = []
            for (incarnation, verdict) in zip(others, verdicts) {
                do {
                    switch try verdict.get() {
                    case .live: break
                    case .forget: try await dropHint(incarnation)
                    case .swept:
                        if known.contains(where: { $0.name == incarnation.name && $0.number > incarnation.number }) {
                            try await dropHint(incarnation)
                        }
                    case .claimed, .taken:
                        guard try await claimFuture(incarnation, by: me, notAfter: notAfter).get() == .claimed else {
                            break
                        }
                        if let adoption, try await !adopt(adoption, from: incarnation, by: me) { break }
                        reports.append(try await sweep(incarnation, by: me, forget: false))
                    }
                } catch {
                    var report = SweepReport(incarnation: incarnation)
                    report.failure = "\(error)"
                    reports.append(report)
                }
            }
            return reports
        }
    }

    func claim(_ incarnation: Incarnation, by sweeper: Incarnation?, force: Bool) async throws -> Claim {
        try await claimFuture(incarnation, by: sweeper, force: force).get()
    }

    private func claimFuture(
        _ i: Incarnation, by sweeper: Incarnation?, force: Bool = false, notAfter: Int64 = .max
    ) -> EventLoopFuture<Claim> {
        redis.evaluate(
            ClusterScripts.nodeClaim, keys: [.string(keys.node(i))],
            arguments: [
                .string(keys.controlChannel), .string(i.description), .string(sweeper?.description ?? ""),
                .integer(sweepClaim.milliseconds), force ? "1" : "0", .integer(Self.remembranceMs), .integer(notAfter),
            ]
        ).flatMapThrowing { reply in
            guard let claim = reply.string.flatMap({ Claim(rawValue: $0) }) else {
                throw ClusterStateError.unexpectedReply(of: "node_claim")
            }
            return claim
        }
    }

    /// The caller holds the claim. False when it lost it on the way.
    private func adopt(
        _ adoption: SessionAdoption, from dead: Incarnation, by me: Incarnation
    ) async throws -> Bool {
        let lease = try await redis.command(["HGET", .string(keys.node(dead)), "lease"]).get()
        let leaseEnd = lease.string.flatMap { Int64($0) } ?? 0
        var known = try await sessions(of: dead).get()[...]
        while !known.isEmpty {
            let page = known.prefix(Int(Self.sessionsAtOnce))
            known = known.dropFirst(page.count)
            let adopted = page.map { session, user in
                sessionStore.adopt(
                    session, user: user, of: dead, leaseEnd: leaseEnd, grace: adoption.grace, by: me)
            }
            let sessions = try await EventLoopFuture.whenAllSucceed(adopted, on: redis.eventLoop).get()
            try await adoption.take(sessions.compactMap(\.self)).get()
            guard try await claim(dead, by: me, force: false) == .claimed else { return false }
        }
        return true
    }

    /// The caller holds the claim.
    func sweep(_ incarnation: Incarnation, by me: Incarnation, forget: Bool) async throws -> SweepReport {
        var report = SweepReport(incarnation: incarnation)
        while let rooms = try await some("SRANDMEMBER", keys.nodeRooms(incarnation), Self.roomsAtOnce) {
            try await sweepRooms(rooms, of: incarnation, into: &report)
            guard try await claim(incarnation, by: me, force: false) == .claimed else { return report }
        }
        while let page = try await some("HRANDFIELD", keys.nodeSessions(incarnation), Self.sessionsAtOnce) {
            try await sweepSessions(page, of: incarnation, into: &report)
            guard try await claim(incarnation, by: me, force: false) == .claimed else { return report }
        }
        let reply = try await redis.evaluate(
            ClusterScripts.nodeSwept,
            keys: [
                .string(keys.node(incarnation)), .string(keys.nodeRooms(incarnation)),
                .string(keys.nodeSessions(incarnation)),
            ],
            arguments: [forget ? "1" : "0"]
        ).get()
        report.isComplete = reply.int == 1
        if forget { try await dropHint(incarnation) }
        return report
    }

    private func sweepRooms(_ names: [String], of incarnation: Incarnation, into report: inout SweepReport) async throws
    {
        let store = RoomStore(redis: redis, keys: keys)
        var open = names.compactMap { try? RoomName(validating: $0) }
        report.rooms += open.count
        while !open.isEmpty {
            let sweeps = open.map { room in store.sweep(incarnation, from: room).map { (room, $0) } }
            let results = try await EventLoopFuture.whenAllSucceed(sweeps, on: redis.eventLoop).get()
            report.memberships += results.reduce(0) { $0 + $1.1.removed }
            open = results.filter { $0.1.left > 0 }.map(\.0)
        }
        _ = try await redis.command(
            ["SREM", .string(keys.nodeRooms(incarnation))] + names.map { .string($0) }
        ).get()
    }

    private func sweepSessions(_ page: [String], of incarnation: Incarnation, into report: inout SweepReport)
        async throws
    {
        let fields: [RedisArgument] = page.map { .string($0) }
        let users = try await redis.command(["HMGET", .string(keys.nodeSessions(incarnation))] + fields).get()
        let pairs = zip(page, users.array ?? []).compactMap { id, user -> (SessionID, UserName)? in
            guard let session = SessionID(id), let user = user.string.flatMap({ try? UserName(validating: $0) })
            else { return nil }
            return (session, user)
        }
        let releases = pairs.map { sessionStore.release(incarnation, $0.0, user: $0.1) }
        _ = try await EventLoopFuture.whenAllSucceed(releases, on: redis.eventLoop).get()
        report.sessions += pairs.count
        _ = try await redis.command(["HDEL", .string(keys.nodeSessions(incarnation))] + fields).get()
    }

    /// Up to `count` elements of a set or hash, any; `nil` when it is empty.
    private func some(_ command: String, _ key: String, _ count: Int64) async throws -> [String]? {
        let reply = try await redis.command([.string(command), .string(key), .integer(count)]).get()
        let elements = (reply.array ?? []).compactMap(\.string)
        return elements.isEmpty ? nil : elements
    }

    private func dropHint(_ incarnation: Incarnation) async throws {
        _ = try await redis.command(["HDEL", .string(keys.nodes), .string(incarnation.description)]).get()
    }
}
