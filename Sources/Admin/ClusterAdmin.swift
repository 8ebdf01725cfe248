package import ClusterState
import NIOCore
package import RedisClient
package import WireProtocol

/// What an operator asks of a cluster and orders it to do. It talks to Redis alone, so it answers while every node is
/// down; it never walks the key space.
///
/// Every function throws `RedisError` when Redis does not answer, and `NotFound` when what is asked for does not exist.
/// An order that makes no sense, or that was not taken, is an `OrderRefused`.
package struct ClusterAdmin: Sendable {
    let redis: RedisClient
    let keys: ClusterKeys
    let nodeStore: NodeStore
    let roomStore: RoomStore
    let moderationStore: ModerationStore
    let routerStore: RouterStore

    package init(redis: RedisClient, keys: ClusterKeys) {
        self.redis = redis
        self.keys = keys
        nodeStore = NodeStore(redis: redis, keys: keys)
        roomStore = RoomStore(redis: redis, keys: keys)
        moderationStore = ModerationStore(redis: redis, keys: keys)
        routerStore = RouterStore(redis: redis, keys: keys)
    }

    // MARK: nodes and sessions

    /// By name and number. Sessions and rooms are counted in the indexes, not taken from the last heartbeat.
    package func nodes() async throws -> [NodeReport] {
        try await reports(of: nodeStore.list().get())
    }

    func reports(of records: [NodeRecord]) async throws -> [NodeReport] {
        let counts = try await replies(
            to: records.flatMap { record -> [[RedisArgument]] in
                [
                    ["HLEN", .string(keys.nodeSessions(record.incarnation))],
                    ["SCARD", .string(keys.nodeRooms(record.incarnation))],
                ]
            })
        return records.enumerated().map { index, record in
            NodeReport(
                incarnation: record.incarnation, address: record.figures.address, state: record.state,
                sessions: Int(counts[index * 2].int ?? 0), rooms: Int(counts[index * 2 + 1].int ?? 0),
                leaseMilliseconds: record.leaseMs, version: record.figures.version,
                startedAt: record.figures.startedAt)
        }
    }

    /// By name and number, as routers read them.
    package func nodeRecords() async throws -> [NodeRecord] { try await nodeStore.list().get() }

    /// - Parameter text: a node's name, which stands for its newest incarnation, or an incarnation (`node-a.7`).
    package func node(_ text: String) async throws -> NodeReport {
        let all = try await nodes()
        if let exact = all.first(where: { $0.incarnation.description == text }) { return exact }
        guard let newest = all.last(where: { $0.incarnation.name == text }) else {
            throw NotFound("there is no node \(text)")
        }
        return newest
    }

    /// Sorted by user, then session.
    /// - Parameter node: only those of this node (see `node(_:)`).
    package func sessions(node: String? = nil) async throws -> [SessionReport] {
        let incarnations =
            if let node { [try await self.node(node).incarnation] } else {
                try await nodeStore.list().get().map(\.incarnation)
            }
        var sessions: [SessionReport] = []
        for incarnation in incarnations {
            sessions += try await nodeStore.sessions(of: incarnation).get().map {
                SessionReport(session: $0.0, user: $0.1, incarnation: incarnation)
            }
        }
        return sessions.sorted { ($0.user.string, $0.session.string) < ($1.user.string, $1.session.string) }
    }

    /// - Throws: `NotFound` when the user has no session.
    package func user(_ user: UserName) async throws -> UserReport {
        let sessions = try await nodeStore.sessions(ofUser: user).get()
        guard !sessions.isEmpty else { throw NotFound("no session of user \(user) is connected") }
        var places: [SessionID: [UserReport.Place]] = [:]
        for (incarnation, own) in Dictionary(grouping: sessions, by: \.1) {
            for membership in try await memberships(of: own.map(\.0), on: incarnation) {
                places[membership.session, default: []].append(
                    UserReport.Place(
                        room: membership.room, status: membership.status, joinedAt: membership.joinedAt))
            }
        }
        return UserReport(
            user: user,
            sessions: sessions.sorted { $0.0.string < $1.0.string }.map { session, incarnation in
                UserReport.Session(
                    session: session, incarnation: incarnation,
                    rooms: (places[session] ?? []).sorted { $0.room.string < $1.room.string })
            })
    }

    /// Asks each room of the node whether it knows the sessions, in pages of 500 rooms.
    private func memberships(of sessions: [SessionID], on incarnation: Incarnation) async throws -> [Membership] {
        let rooms = try await nodeStore.rooms(of: incarnation).get()
        var found: [Membership] = []
        for start in stride(from: 0, to: rooms.count, by: 500) {
            let page = rooms[start..<min(rooms.count, start + 500)]
            let answers = try await replies(
                to: page.map { room in
                    ["HMGET", .string(keys.roomSessions(room))] + sessions.map { .string($0.string) }
                })
            for (room, answer) in zip(page, answers) {
                for (session, value) in zip(sessions, answer.array ?? []) {
                    guard let text = value.string,
                        let membership = Membership(room: room, session: session.string, value: text)
                    else { continue }
                    found.append(membership)
                }
            }
        }
        return found
    }

    // MARK: rooms

    /// Every room in which a node has sessions, by name.
    package func rooms() async throws -> [RoomReport] {
        var names: Set<RoomName> = []
        for record in try await nodeStore.list().get() {
            names.formUnion(try await nodeStore.rooms(of: record.incarnation).get())
        }
        let sorted = Array(names)
        var reports: [RoomReport] = []
        for start in stride(from: 0, to: sorted.count, by: 500) {
            reports += try await withThrowingTaskGroup(of: RoomReport?.self) { group in
                for room in sorted[start..<min(sorted.count, start + 500)] {
                    group.addTask { try await report(of: room) }
                }
                // The index may name a room that its last session has left.
                return try await group.reduce(into: []) { list, report in
                    if let report, report.sessions > 0 { list.append(report) }
                }
            }
        }
        return reports.sorted { $0.room.string < $1.room.string }
    }

    /// - Throws: `NotFound` when nobody ever joined or wrote there, or the room ended.
    package func room(_ room: RoomName) async throws -> RoomReport {
        guard let report = try await report(of: room) else { throw NotFound("there is no room \(room)") }
        return report
    }

    private func report(of room: RoomName) async throws -> RoomReport? {
        async let head = roomStore.head(room: room).get()
        async let numbers = replies(to: [
            ["HLEN", .string(keys.roomSessions(room))], ["XLEN", .string(keys.roomLog(room))],
            ["HGET", .string(keys.roomMeta(room)), "ts"],
        ])
        guard let head = try await head else { return nil }
        let counts = try await numbers
        return RoomReport(
            room: room, users: head.count, sessions: Int(counts[0].int ?? 0), stored: Int(counts[1].int ?? 0),
            seq: head.seq, epoch: head.epoch, lastMessageAt: head.seq > 0 ? counts[2].int : nil)
    }

    /// Every session in the room, also of users who are invisible to others, grouped by user.
    package func presence(_ room: RoomName) async throws -> PresenceReport {
        guard let head = try await roomStore.head(room: room).get() else {
            throw NotFound("there is no room \(room)")
        }
        let members = try await roomStore.members(room: room).get()
        let users = Dictionary(grouping: members, by: \.user).map { user, sessions in
            PresenceReport.User(
                user: user,
                sessions: sessions.sorted { ($0.joinedAt, $0.session.string) < ($1.joinedAt, $1.session.string) })
        }
        return PresenceReport(
            room: room, count: head.count, users: users.sorted { $0.user.string < $1.user.string })
    }

    /// Oldest first.
    /// - Parameter limit: 1 to 500.
    package func history(_ room: RoomName, range: HistoryRange, limit: Int) async throws -> HistoryReport {
        var page = try await roomStore.history(room: room, range: range, limit: limit).get()
        var messages = page.messages
        while page.more, messages.count < limit, let first = messages.first?.seq, let last = messages.last?.seq {
            let next: HistoryRange =
                switch range {
                case .latest, .before: .before(first)
                case .after: .after(last)
                case .range(_, let to): .range(last + 1, to)
                }
            page = try await roomStore.history(room: room, range: next, limit: limit - messages.count).get()
            switch range {
            case .latest, .before: messages.insert(contentsOf: page.messages, at: 0)
            case .after, .range: messages += page.messages
            }
        }
        guard let head = page.head else { throw NotFound("there is no room \(room)") }
        return HistoryReport(room: room, epoch: head.epoch, seq: head.seq, messages: messages)
    }

    // MARK: all of it

    package func stats() async throws -> StatsReport {
        let nodes = try await nodes()
        let sessions = try await sessions()
        var rooms: Set<RoomName> = []
        for node in nodes where node.rooms > 0 {
            rooms.formUnion(try await nodeStore.rooms(of: node.incarnation).get())
        }
        let info = try await redis.command(["INFO"]).get().string ?? ""
        return StatsReport(
            nodes: nodes.map(\.state), sessions: sessions.count, users: Set(sessions.map(\.user)).count,
            rooms: rooms.count, redis: RedisFigures(info: info))
    }

    // MARK: pieces

    /// Of pipelined commands, in their order.
    func replies(to commands: [[RedisArgument]]) async throws -> [RESPValue] {
        let futures = commands.map { redis.command($0) }
        return try await EventLoopFuture.whenAllSucceed(futures, on: redis.eventLoop).get()
    }
}

/// One sentence about why an order was not carried out, though all that it names exists.
package struct OrderRefused: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ sentence: String) {
        description = sentence
    }
}

/// One sentence about what does not exist.
package struct NotFound: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String

    package init(_ sentence: String) {
        description = sentence
    }
}
