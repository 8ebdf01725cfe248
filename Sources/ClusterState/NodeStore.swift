package import NIOCore
package import RedisClient
package import WireProtocol

/// Nodes as Redis holds them: incarnations, leases, what each owns, and the sweep of those that died.
///
/// 1. All that a node owns is found through the index of its incarnation, written before the thing itself.
/// 2. Only the word `dead` in `P:{i:I}` fences; a lease that is past may be renewed until somebody writes it.
/// 3. Keeps nothing itself and reads no clock. Futures complete on the client's event loop.
package struct NodeStore: Sendable {
    let redis: RedisClient
    let keys: ClusterKeys
    let sweepClaim: TimeAmount

    /// - Parameter sweepClaim: a sweeper that has not renewed its claim for so long is taken for dead, and another goes on.
    package init(redis: RedisClient, keys: ClusterKeys, sweepClaim: TimeAmount = .seconds(5)) {
        self.redis = redis
        self.keys = keys
        self.sweepClaim = sweepClaim
    }

    var sessionStore: SessionStore { SessionStore(redis: redis, keys: keys) }

    // MARK: lease

    /// A new incarnation with the next number; earlier ones of the name are fenced. Announced on the control channel.
    /// An order to drain, or not to, that an earlier one of this process had goes with it, if it is later than what the
    /// figures know.
    ///
    /// - Parameter former: the last of this process, which the hint may have forgotten.
    /// - Throws: ``ClusterStateError`` `invalidNodeName`.
    package func register(
        name: String, figures: NodeFigures, lease: TimeAmount, after former: Incarnation? = nil
    ) -> EventLoopFuture<Incarnation> {
        redis.eventLoop.makeFutureWithTask {
            guard Incarnation.isValid(name: name) else {
                throw ClusterStateError(
                    code: .invalidNodeName,
                    message: "a node name has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ / - and \(name) has not")
            }
            let incarnation = try await create(name: name, figures: figures, lease: lease)
            let hinted = try await hinted().filter { $0.name == name }
            var known = figures
            // Where Redis forgot the counter, too, the new number may be the old one.
            for earlier in Set(hinted + [former].compactMap(\.self)) where earlier != incarnation {
                _ = try await claim(earlier, by: nil, force: true)
                // Dead by now, so that nobody orders it anything any more.
                let order = try await order(of: earlier, startedAt: figures.startedAt).get()
                known.order = .later(known.order, order)
            }
            if known.order != figures.order {
                _ = try await heartbeat(incarnation, figures: known, lease: lease).get()
            }
            try await announce(.up(incarnation))
            return incarnation
        }
    }

    private func create(name: String, figures: NodeFigures, lease: TimeAmount) async throws -> Incarnation {
        // A number is taken only when Redis was restored from an old copy; the next one is not.
        for _ in 0..<16 {
            let reply = try await redis.evaluate(
                ClusterScripts.incarnationNext, keys: [.string(keys.incarnationCounter)], arguments: []
            ).get()
            guard let number = reply.int, let incarnation = Incarnation(name: name, number: number) else {
                throw ClusterStateError.unexpectedReply(of: "incarnation_next")
            }
            // The hint first: a hash that nobody can find would stay for ever. And again after it, since a sweeper may
            // take the hint away that points nowhere yet.
            try await hint(incarnation, figures).get()
            let created = try await redis.evaluate(
                ClusterScripts.nodeRegister, keys: [.string(keys.node(incarnation))],
                arguments: [
                    .integer(lease.milliseconds), .integer(figures.startedAt), .string(figures.address),
                    .string(figures.version), .integer(Int64(figures.sessions)), .integer(Int64(figures.rooms)),
                    figures.draining ? "1" : "0", .integer(Int64(figures.weight)), .string(figures.url ?? ""),
                    figures.ending == .yes ? "1" : "0",
                ] + figures.order.arguments + [figures.silenceArgument]
            ).get()
            if created.int == 1 {
                try await hint(incarnation, figures).get()
                return incarnation
            }
        }
        throw ClusterStateError.unexpectedReply(of: "node_register")
    }

    /// Renews the lease, also one that is past and that nobody swept. Works also when Redis is full.
    package func heartbeat(
        _ incarnation: Incarnation, figures: NodeFigures, lease: TimeAmount
    ) -> EventLoopFuture<HeartbeatResult> {
        redis.evaluate(
            ClusterScripts.nodeHeartbeat, keys: [.string(keys.node(incarnation))],
            arguments: [
                .integer(lease.milliseconds), .integer(figures.startedAt), .integer(Int64(figures.sessions)),
                .integer(Int64(figures.rooms)), figures.draining ? "1" : "0", .string(keys.controlChannel),
                .string(incarnation.description), .string(figures.address), .integer(Int64(figures.weight)),
                .string(figures.url ?? ""), .string(figures.traffic?.text ?? ""), figures.ending.argument,
            ] + figures.order.arguments + [figures.silenceArgument]
        ).flatMapThrowing { reply in
            guard let fields = reply.array, fields.count == 4, let held = fields[0].int, let given = fields[2].int,
                let leaseEnd = fields[3].int
            else { throw ClusterStateError.unexpectedReply(of: "node_heartbeat") }
            guard held == 1 else { return .dead }
            // Only a hint: the next heartbeat writes it again.
            _ = hint(incarnation, figures)
            return .held(order: DrainOrder(fields[1].string, given: given), leaseEnd: leaseEnd)
        }
    }

    /// Whether nobody declared it dead.
    package func isAlive(_ incarnation: Incarnation) -> EventLoopFuture<Bool> {
        redis.command(["HGET", .string(keys.node(incarnation)), "state"]).map { $0.string == "live" }
    }

    /// A clean end: whatever is still the incarnation's goes as in a sweep, then its own keys. Announced on the control
    /// channel. The caller has left its rooms before; what is left after them leaves a tombstone in its room for a day.
    package func deregister(_ incarnation: Incarnation) -> EventLoopFuture<Void> {
        redis.eventLoop.makeFutureWithTask {
            guard try await claim(incarnation, by: incarnation, force: true) == .claimed else { return }
            _ = try await sweep(incarnation, by: incarnation, forget: true)
        }
    }

    /// An end that leaves what is the incarnation's to the survivors, who adopt its sessions: it is dead from now on.
    /// False when there is no survivor; then nothing changed.
    package func abdicate(_ incarnation: Incarnation) -> EventLoopFuture<Bool> {
        redis.eventLoop.makeFutureWithTask {
            let others = try await list().get().filter {
                $0.incarnation != incarnation && $0.state == .ready && $0.leaseMs > 0
            }
            guard !others.isEmpty else { return false }
            _ = try await claim(incarnation, by: nil, force: true)
            return true
        }
    }

    /// A later incarnation of the same name that holds its lease, and is of another process.
    ///
    /// - Parameter startedAt: of this process, as in its figures.
    package func successor(of incarnation: Incarnation, startedAt: Int64) -> EventLoopFuture<NodeRecord?> {
        list().map { records in
            records.first { record in
                record.incarnation.name == incarnation.name && record.incarnation.number > incarnation.number
                    && record.state != .dead && record.leaseMs > 0 && record.figures.startedAt != startedAt
            }
        }
    }

    /// Every incarnation that the hint names and Redis knows, by name and number.
    package func list() -> EventLoopFuture<[NodeRecord]> {
        redis.command(["HKEYS", .string(keys.nodes)]).flatMap { reply in
            let incarnations = (reply.array ?? []).compactMap { $0.string.flatMap { Incarnation($0) } }.sorted()
            let records = incarnations.map { incarnation in
                redis.evaluate(ClusterScripts.nodeRead, keys: [.string(keys.node(incarnation))], arguments: [])
                    .map { NodeRecord(incarnation: incarnation, reply: $0) }
            }
            return EventLoopFuture.whenAllSucceed(records, on: redis.eventLoop).map { $0.compactMap(\.self) }
        }
    }

    /// Asks a node to drain: written, so that its next heartbeat says so, then published. False when it is dead or
    /// unknown.
    package func requestDrain(_ incarnation: Incarnation) -> EventLoopFuture<Bool> {
        redis.evaluate(
            ClusterScripts.nodeDrain, keys: [.string(keys.node(incarnation))],
            arguments: [.string(keys.controlChannel), .string(incarnation.description)]
        ).map { $0.int == 1 }
    }

    /// Takes such an order back: written, so that its next heartbeat says so, then published.
    package func takeBackDrain(_ incarnation: Incarnation) -> EventLoopFuture<UndrainResult> {
        redis.evaluate(
            ClusterScripts.nodeUndrain, keys: [.string(keys.node(incarnation))],
            arguments: [.string(keys.controlChannel), .string(incarnation.description)]
        ).flatMapThrowing { reply in
            switch reply.int {
            case 1: .takenBack
            case 2: .wasNotOrdered
            case 0: .isDead
            case -1: .isEnding
            case -2: .isUnable
            default: throw ClusterStateError.unexpectedReply(of: "node_undrain")
            }
        }
    }

    // MARK: what an incarnation owns

    /// Writes the room into the index, before the first membership there; false when the incarnation is dead.
    package func addRoom(_ incarnation: Incarnation, _ room: RoomName) -> EventLoopFuture<Bool> {
        redis.evaluate(
            ClusterScripts.nodeAddRoom,
            keys: [.string(keys.node(incarnation)), .string(keys.nodeRooms(incarnation))],
            arguments: [.string(room.string)]
        ).map { $0.int == 1 }
    }

    /// Takes the room out of the index. The caller must know that no join of its own to this room is under way.
    package func removeRoom(_ incarnation: Incarnation, _ room: RoomName) -> EventLoopFuture<Void> {
        redis.command(["SREM", .string(keys.nodeRooms(incarnation)), .string(room.string)]).map { _ in }
    }

    /// The sessions of an incarnation, in no order.
    package func sessions(of incarnation: Incarnation) -> EventLoopFuture<[(SessionID, UserName)]> {
        redis.eventLoop.makeFutureWithTask {
            var sessions: [SessionID: UserName] = [:]
            try await redis.scan("HSCAN", keys.nodeSessions(incarnation)) { page in
                for (session, user) in Self.sessionsAndUsers(page) { sessions[session] = user }
            }
            return sessions.map { ($0.key, $0.value) }
        }
    }

    /// Every session of a user and where it is, in no order.
    package func sessions(ofUser user: UserName) -> EventLoopFuture<[(SessionID, Incarnation)]> {
        redis.eventLoop.makeFutureWithTask {
            var sessions: [SessionID: Incarnation] = [:]
            try await redis.scan("HSCAN", keys.userSessions(user)) { page in
                for index in stride(from: 0, to: page.count - 1, by: 2) {
                    guard let session = page[index].string.flatMap({ SessionID($0) }),
                        let value = page[index + 1].string,
                        let incarnation = Incarnation(String(value.prefix { $0 != " " }))
                    else { continue }
                    sessions[session] = incarnation
                }
            }
            return sessions.map { ($0.key, $0.value) }
        }
    }

    /// The rooms in which an incarnation may have sessions, in no order.
    package func rooms(of incarnation: Incarnation) -> EventLoopFuture<[RoomName]> {
        redis.eventLoop.makeFutureWithTask {
            var rooms: Set<RoomName> = []
            try await redis.scan("SSCAN", keys.nodeRooms(incarnation)) { page in
                rooms.formUnion(page.compactMap { $0.string.flatMap { try? RoomName(validating: $0) } })
            }
            return Array(rooms)
        }
    }

    /// Tells every node that the user must leave `room`, or everything. Not stored: who is deaf does not hear it.
    package func kick(user: UserName, room: RoomName?, reason: String) -> EventLoopFuture<Void> {
        redis.command([
            "PUBLISH", .string(keys.userChannel(user)), .string(RelayMessage.encodeKick(room: room, reason: reason)),
        ]).map { _ in }
    }

    /// Tells every node that the user is barred. Not stored: it is over before long.
    package func bar(_ user: UserName, seconds: Int) {
        let message = ControlMessage.barred(user, seconds: seconds).description
        _ = redis.command(["PUBLISH", .string(keys.controlChannel), .string(message)])
    }

    // MARK: pieces

    static func sessionsAndUsers(_ page: [RESPValue]) -> [(SessionID, UserName)] {
        stride(from: 0, to: page.count - 1, by: 2).compactMap { index in
            guard let session = page[index].string.flatMap({ SessionID($0) }),
                let user = page[index + 1].string.flatMap({ try? UserName(validating: $0) })
            else { return nil }
            return (session, user)
        }
    }

    func hinted() async throws -> [Incarnation] {
        let reply = try await redis.command(["HKEYS", .string(keys.nodes)]).get()
        return (reply.array ?? []).compactMap { $0.string.flatMap { Incarnation($0) } }
    }

    private func hint(_ incarnation: Incarnation, _ figures: NodeFigures) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.nodesHint, keys: [.string(keys.nodes)],
            arguments: [
                .string(incarnation.description), .string("\(figures.address) \(figures.sessions) \(figures.rooms)"),
            ]
        ).map { _ in }
    }

    private func announce(_ message: ControlMessage) async throws {
        _ = try await redis.command(["PUBLISH", .string(keys.controlChannel), .string(message.description)]).get()
    }
}

extension NodeRecord {
    /// Reads the reply of `node_read.lua`; `nil` when the incarnation is unknown.
    init?(incarnation: Incarnation, reply: RESPValue) {
        guard let fields = reply.array, fields.count == 15, let leaseMs = fields[1].int else { return nil }
        let draining = fields[6].int == 1
        let weight = Int(fields[9].int ?? 0)
        let url = fields[10].string ?? ""
        self.init(
            incarnation: incarnation,
            figures: NodeFigures(
                address: fields[2].string ?? "", version: fields[3].string ?? "", sessions: Int(fields[4].int ?? 0),
                rooms: Int(fields[5].int ?? 0), draining: draining, startedAt: fields[8].int ?? 0,
                weight: NodeFigures.weights.contains(weight) ? weight : NodeFigures.defaultWeight,
                url: url.isEmpty ? nil : url,
                silenceMs: fields[14].int.flatMap { $0 > 0 ? min($0, 1_000_000_000) : nil },
                traffic: fields[13].string.flatMap { NodeTraffic(text: $0) }),
            state: fields[0].string != "live" ? .dead : draining || fields[7].int == 1 ? .draining : .ready,
            leaseMs: leaseMs, figuresAgeMs: fields[11].int ?? 0, ageMs: fields[12].int)
    }
}

extension TimeAmount {
    var milliseconds: Int64 { nanoseconds / 1_000_000 }
}

extension NodeFigures {
    fileprivate var silenceArgument: RedisArgument { silenceMs.map { .integer($0) } ?? "" }
}

extension NodeFigures.Ending {
    fileprivate var argument: RedisArgument {
        switch self {
        case .no: "0"
        case .yes: "1"
        case .unlessTakenBack: "2"
        }
    }
}
