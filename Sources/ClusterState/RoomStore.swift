package import NIOCore
package import RedisClient
package import WireProtocol

/// Rooms as Redis holds them: membership, presence, messages.
///
/// 1. Each change is one script, so it happens as a whole or not at all, and says on the room's channel what it did.
/// 2. Keeps nothing itself and reads no clock; two stores of two processes are one.
/// 3. Futures complete on the client's event loop. They fail with ``RedisError``, or with ``ClusterStateError`` when Redis
///    holds what no version of this wrote.
package struct RoomStore: Sendable {
    /// How many elements one page has at most, about.
    static let chunk = 500
    /// How many sessions one sweep script takes out, so that it does not run over 5 ms on a slow machine either.
    static let sweepChunk = 100

    let redis: RedisClient
    let keys: ClusterKeys
    /// What a page of history weighs at most, about, unless its reader says otherwise.
    let pageBytes: Int

    /// - Parameter pageBytes: by default far less than one reply of Redis may weigh.
    package init(redis: RedisClient, keys: ClusterKeys, pageBytes: Int = 256 * 1024) {
        self.redis = redis
        self.keys = keys
        self.pageBytes = pageBytes
    }

    // MARK: membership

    /// Enters the room, again, or from another incarnation or an older generation. Once more the same changes nothing;
    /// a move is neither a leave nor a join to others. Fails with an out-of-memory error when Redis is full.
    ///
    /// The room must stand in the index of the incarnation before (``NodeStore/addRoom(_:_:)``).
    package func join(_ membership: Membership) -> EventLoopFuture<JoinResult> {
        join(membership, movingFrom: nil, attempts: 8)
    }

    private func join(_ m: Membership, movingFrom old: Incarnation?, attempts: Int) -> EventLoopFuture<JoinResult> {
        var scriptKeys = membershipKeys(m.room) + [.string(keys.roomSessions(m.room, on: m.incarnation))]
        if let old { scriptKeys.append(.string(keys.roomSessions(m.room, on: old))) }
        let epoch = Base64URL.random(count: 8)
        let arguments: [RedisArgument] = [
            .string(keys.roomChannel(m.room)), .string(epoch), .string(m.session.string), .string(m.user.string),
            .string(m.incarnation.description), .integer(m.generation), .integer(m.joinedAt),
            .string(m.status.rawValue), .string(m.info ?? ""),
        ]
        let joined = redis.evaluate(ClusterScripts.roomJoin, keys: scriptKeys, arguments: arguments)
        // Read right behind the script, and not in it: there the list would cost Redis more than the join.
        let listed = redis.command(["HSCAN", .string(keys.roomUsers(m.room)), "0", "COUNT", "100"])
        return joined.and(listed).flatMap { reply, listed in
            let fields = reply.array ?? []
            switch fields.first?.string {
            case "ok":
                guard let head = RoomHead(fields.dropFirst()) else { break }
                let members = Self.members(RoomUser.read(listed.array?.last), with: m)
                return redis.eventLoop.makeSucceededFuture(JoinResult(head: head, members: members))
            case "refused":
                guard let refusal = fields.dropFirst().first?.string.flatMap({ JoinRefusal(rawValue: $0) }) else {
                    break
                }
                return redis.eventLoop.makeSucceededFuture(JoinResult(refusal: refusal))
            case "declare":
                // The session stands on another incarnation, whose key must be declared. It may move on meanwhile.
                guard let old = fields.dropFirst().first?.string.flatMap({ Incarnation($0) }), attempts > 1 else {
                    break
                }
                return join(m, movingFrom: old, attempts: attempts - 1)
            default: break
            }
            return redis.eventLoop.makeFailedFuture(ClusterStateError.unexpectedReply(of: "room_join"))
        }
    }

    /// At most 100, the one who came among them: the room may have more users, or Redis may have taken the script only
    /// after the list.
    private static func members(_ users: [RoomUser], with m: Membership) -> [String] {
        guard m.status != .invisible,
            !users.prefix(100).contains(where: { $0.name.utf8.elementsEqual(m.user.string.utf8) })
        else {
            return users.prefix(100).map(\.json)
        }
        return [RoomUser(name: m.user.string, status: m.status, info: m.info ?? "").json] + users.prefix(99).map(\.json)
    }

    /// What ``leave(_:)`` takes for any generation, for an entry of which the node knows nothing else.
    package static let anyGeneration: Int64 = -1

    /// Leaves the room if the session still belongs to this incarnation and generation (``anyGeneration``: to this
    /// incarnation); false when it does not. Works also when Redis is full.
    package func leave(_ m: Membership) -> EventLoopFuture<Bool> {
        redis.evaluate(
            ClusterScripts.roomLeave,
            keys: membershipKeys(m.room) + [.string(keys.roomSessions(m.room, on: m.incarnation))],
            arguments: [
                .string(keys.roomChannel(m.room)), .string(m.session.string), .string(m.incarnation.description),
                .integer(m.generation),
            ]
        ).map { $0.int == 1 }
    }

    /// Gives the session the status of `m`; false when it does not belong to this incarnation and generation.
    package func setStatus(_ m: Membership) -> EventLoopFuture<Bool> {
        redis.evaluate(
            ClusterScripts.roomStatus,
            keys: membershipKeys(m.room),
            arguments: [
                .string(keys.roomChannel(m.room)), .string(m.session.string), .string(m.incarnation.description),
                .integer(m.generation), .string(m.status.rawValue),
            ]
        ).map { $0.int == 1 }
    }

    /// One chunk of a dead incarnation's sessions leaves.
    func sweep(_ incarnation: Incarnation, from room: RoomName) -> EventLoopFuture<(removed: Int, left: Int)> {
        redis.evaluate(
            ClusterScripts.roomSweep,
            keys: membershipKeys(room) + [.string(keys.roomSessions(room, on: incarnation))],
            arguments: [
                .string(keys.roomChannel(room)), .string(incarnation.description), .integer(Int64(Self.sweepChunk)),
            ]
        ).flatMapThrowing { reply in
            guard let fields = reply.array, fields.count == 2, let removed = fields[0].int, let left = fields[1].int
            else { throw ClusterStateError.unexpectedReply(of: "room_sweep") }
            return (Int(removed), Int(left))
        }
    }

    private func membershipKeys(_ room: RoomName) -> [RedisArgument] {
        [
            .string(keys.roomMeta(room)), .string(keys.roomSessions(room)), .string(keys.roomUsers(room)),
            .string(keys.roomDead(room)), .string(keys.roomLog(room)), .string(keys.roomRead(room)),
        ]
    }

    // MARK: who is here

    /// `nil` when there is no such room.
    package func head(room: RoomName) -> EventLoopFuture<RoomHead?> {
        redis.command(["HMGET", .string(keys.roomMeta(room)), "epoch", "seq", "tag", "pv", "count"]).map { reply in
            RoomHead((reply.array ?? [])[...])
        }
    }

    /// The visible users, one JSON object each (as in ``JoinResult/members``), at most `limit`. Read in pages: a user who
    /// comes or goes meanwhile may be missing.
    package func presence(room: RoomName, limit: Int) -> EventLoopFuture<(head: RoomHead?, members: [String])> {
        redis.eventLoop.makeFutureWithTask {
            var cursor = "0"
            var head: RoomHead?
            var members: [String] = []
            var seen: Set<[UInt8]> = []
            repeat {
                let reply = try await redis.evaluate(
                    ClusterScripts.roomPresence,
                    keys: [.string(keys.roomMeta(room)), .string(keys.roomUsers(room))],
                    arguments: [.string(cursor), .integer(Int64(min(max(limit, 1), Self.chunk)))]
                ).get()
                guard let fields = reply.array, let next = fields.first?.string else { break }
                head = RoomHead(fields.dropFirst())
                for user in RoomUser.read(fields.dropFirst(6).first) where members.count < limit {
                    if seen.insert(Array(user.name.utf8)).inserted { members.append(user.json) }
                }
                cursor = next
            } while cursor != "0" && members.count < limit
            return (head, members)
        }
    }

    /// Every session in the room, in no order. Read in pages: one that comes or goes meanwhile may be missing.
    package func members(room: RoomName) -> EventLoopFuture<[Membership]> {
        redis.eventLoop.makeFutureWithTask {
            var members: [String: Membership] = [:]
            try await redis.scan("HSCAN", keys.roomSessions(room)) { page in
                for index in stride(from: 0, to: page.count - 1, by: 2) {
                    guard let session = page[index].string, let value = page[index + 1].string else { continue }
                    members[session] = Membership(room: room, session: session, value: value)
                }
            }
            return Array(members.values)
        }
    }

    /// The ids of the sessions that stand on `incarnation` in this room.
    package func sessionsOn(_ incarnation: Incarnation, room: RoomName) -> EventLoopFuture<Set<String>> {
        redis.eventLoop.makeFutureWithTask {
            var sessions: Set<String> = []
            try await redis.scan("SSCAN", keys.roomSessions(room, on: incarnation)) { page in
                sessions.formUnion(page.compactMap(\.string))
            }
            return sessions
        }
    }
}

/// A visible user, as `P:{r:ROOM}:users` holds them: `ONLINE AWAY BUSY INVISIBLE`, a line end, info.
struct RoomUser {
    let name: String
    let status: PresenceStatus
    let info: String

    init(name: String, status: PresenceStatus, info: String) {
        (self.name, self.status, self.info) = (name, status, info)
    }

    /// Reads users and their values in turn; leaves out who is invisible, and what is no such value.
    static func read(_ reply: RESPValue?) -> [RoomUser] {
        let page = reply?.array ?? []
        return stride(from: 0, to: page.count - 1, by: 2).compactMap { index in
            page[index].string.flatMap { name in
                page[index + 1].string.flatMap { RoomUser(name: name, value: $0) }
            }
        }
    }

    init?(name: String, value: String) {
        let lines = value.split(separator: "\n", maxSplits: 1, omittingEmptySubsequences: false)
        guard lines.count == 2 else { return nil }
        let counts = lines[0].split(separator: " ")
        guard counts.count == PresenceStatus.allCases.count,
            let status = zip(PresenceStatus.allCases, counts).first(where: { $1 != "0" })?.0, status != .invisible
        else { return nil }
        self.init(name: name, status: status, info: String(lines[1]))
    }

    /// As events carry it: `status` unless it is online, `info` if there is any.
    var json: String {
        var json = JSONWriter()
        json.beginObject()
        json.key("user")
        json.value(name)
        if status != .online {
            json.key("status")
            json.value(status.rawValue)
        }
        if !info.isEmpty {
            json.key("info")
            json.raw(info.utf8)
        }
        json.endObject()
        return json.string
    }
}

extension RoomHead {
    /// Reads epoch, seq, tag, pv, count; `nil` when there is no epoch, so no room.
    init?(_ fields: ArraySlice<RESPValue>) {
        guard fields.count >= 5, let epoch = fields[fields.startIndex].string else { return nil }
        let rest = fields.dropFirst()
        let at = rest.startIndex
        self.init(
            epoch: epoch, seq: rest[at].int ?? 0, tag: rest[at + 1].string ?? "-", pv: rest[at + 2].int ?? 0,
            count: Int(rest[at + 3].int ?? 0))
    }
}

extension RedisClient {
    /// Walks a hash or set (never the key space) in pages of about 500 elements.
    func scan(_ command: String, _ key: String, _ body: ([RESPValue]) -> Void) async throws {
        var cursor = "0"
        repeat {
            let reply = try await self.command(
                [.string(command), .string(key), .string(cursor), "COUNT", .integer(Int64(RoomStore.chunk))]
            ).get()
            guard let fields = reply.array, fields.count == 2, let next = fields[0].string, let page = fields[1].array
            else { throw ClusterStateError.unexpectedReply(of: command) }
            body(page)
            cursor = next
        } while cursor != "0"
    }
}
