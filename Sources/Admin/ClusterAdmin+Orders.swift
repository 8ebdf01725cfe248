package import ClusterState
package import NIOCore
import RedisClient
package import WireProtocol

extension ClusterAdmin {
    /// Writes a message into a room, with seq and history like any other, from a user who need not be connected.
    ///
    /// - Parameters:
    ///   - limits: for a room that has none of its own yet; a room keeps the age it has. The number of messages kept is
    ///     the nodes' affair: nothing is dropped here.
    ///   - creates: whether a room that does not exist is made.
    /// - Throws: `NotFound`; `OrderRefused` when the room is one of two users and `user` neither of them.
    package func publish(
        to room: RoomName, text: String, from user: UserName, limits: HistoryLimits, creates: Bool
    ) async throws -> PublishReport {
        let meta = try await redis.command(["HMGET", .string(keys.roomMeta(room)), "epoch", "age", "keep"]).get()
        let fields = meta.array ?? []
        guard creates || fields.first?.string != nil else { throw NotFound("there is no room \(room)") }
        var own = limits
        if own.maxMessages > 0 { own.maxMessages = max(own.maxMessages, 1_000_000) }
        if fields.count == 3, let age = fields[1].int, let keep = fields[2].int {
            own = HistoryLimits(maxMessages: own.maxMessages, maxAge: age, afterlife: keep)
        }
        var body = Array("\"from\":".utf8)
        JSONWriter.append(user.string, to: &body)
        if let pair = room.participants {
            guard pair.0 == user || pair.1 == user else {
                throw OrderRefused("\(room) is the room of two users, and \(user) is neither of them")
            }
            body += ",\"to\":".utf8
            JSONWriter.append((pair.0 == user ? pair.1 : pair.0).string, to: &body)
        }
        body += ",\"text\":".utf8
        JSONWriter.append(text, to: &body)
        let buffer = ByteBuffer(bytes: body)
        let publication = Publication(
            dedupeKey: "\(user.string)\nadmin\n\(Base64URL.random(count: 16))",
            tag: Base64URL.random(count: 4),
            origin: nil, clientID: "", from: user, body: buffer)
        let channels = room.participants.map { pair in
            Set([pair.0, pair.1]).map { keys.userChannel($0) }
        }
        let outcomes = try await roomStore.publish(
            to: room, channels: channels, [publication], limits: own,
            newEpoch: Base64URL.random(count: 8)
        ).get()
        switch outcomes.first {
        case .stored(let seq, let ts, let epoch), .duplicate(let seq, let ts, _, let epoch):
            return PublishReport(room: room, seq: seq, ts: ts, epoch: epoch)
        case .idReused, nil:
            throw OrderRefused("Redis did not take the message")
        }
    }

    /// Orders every node to put the user out of the room, or to close their sessions, and looks whether they do. A session
    /// that is to be closed cannot be resumed either, wherever it is.
    ///
    /// - Parameter patience: how long to look; the order of a room is given again each second, since a node may be deaf for a
    ///   moment. That of everything stands written.
    /// - Returns: the sessions there were, and those that are still there.
    /// - Throws: `NotFound` when the user is not there.
    package func kick(
        _ user: UserName, room: RoomName?, _ signature: OrderSignature, patience: TimeAmount
    ) async throws -> KickReport {
        let before = try await sessions(of: user, in: room)
        guard !before.isEmpty else {
            throw NotFound(
                room.map { "user \(user) is not in room \($0)" } ?? "no session of user \(user) is connected")
        }
        try await forbid(before, of: user, room: room, signature)
        try await nodeStore.kick(user: user, room: room, reason: signature.reason).get()
        return try await watchKick(of: user, room: room, before, signature.reason, patience: patience)
    }

    /// - Parameter before: the sessions that were told.
    func watchKick(
        of user: UserName, room: RoomName?, _ before: Set<SessionID>, _ reason: String, patience: TimeAmount
    ) async throws -> KickReport {
        let began = NIODeadline.now()
        var lastSaid = began
        var remaining = before
        while !remaining.isEmpty, NIODeadline.now() - began < patience {
            try await Task.sleep(for: .milliseconds(50))
            remaining = before.intersection(try await sessions(of: user, in: room))
            if let room, !remaining.isEmpty, NIODeadline.now() - lastSaid >= .seconds(1) {
                lastSaid = .now()
                try await nodeStore.kick(user: user, room: room, reason: reason).get()
            }
        }
        return KickReport(
            user: user, room: room, sessions: before.sorted { $0.string < $1.string },
            remaining: remaining.sorted { $0.string < $1.string })
    }

    private func sessions(of user: UserName, in room: RoomName?) async throws -> Set<SessionID> {
        guard let room else { return Set(try await nodeStore.sessions(ofUser: user).get().map(\.0)) }
        return Set(try await roomStore.members(room: room).get().filter { $0.user == user }.map(\.session))
    }

    /// Asks the node to move its clients elsewhere and end. It is written first and published second.
    /// - Parameter text: see `node(_:)`.
    /// - Returns: the node as it was, and whether the audit knows of the order, which is in force in any case.
    /// - Throws: `NotFound` when there is no such node, or it is dead.
    package func drain(
        _ text: String, _ signature: OrderSignature
    ) async throws -> (node: NodeReport, isNoted: Bool) {
        let node = try await node(text)
        guard node.state != .dead, try await nodeStore.requestDrain(node.incarnation).get() else {
            throw Self.isDead(node)
        }
        return (node, await note(.drain, of: node, signature))
    }

    /// Takes such an order back: the node takes clients again, and who has not left it stays. It may be said again.
    /// - Parameter text: see `node(_:)`.
    /// - Returns: the node as it was, whether there was an order, and whether the audit knows that it is taken back.
    /// - Throws: `NotFound` as above; `OrderRefused` when the node is ending by now.
    package func undrain(
        _ text: String, _ signature: OrderSignature
    ) async throws -> (node: NodeReport, wasOrdered: Bool, isNoted: Bool) {
        let node = try await node(text)
        switch try await nodeStore.takeBackDrain(node.incarnation).get() {
        case .takenBack:
            return (node, true, await note(.undrain, of: node, signature))
        case .wasNotOrdered:
            // Told again, maybe as the answer to the first time was lost.
            return (node, false, await note(.undrain, of: node, signature))
        case .isUnable:
            throw OrderRefused(
                "node \(node.incarnation) is of a version that does not take an order to drain back; start it again")
        case .isEnding:
            throw OrderRefused(
                "node \(node.incarnation) is ending, by a signal or at the end of its drain, and cannot stay; start it again"
            )
        case .isDead: throw Self.isDead(node)
        }
    }

    private static func isDead(_ node: NodeReport) -> NotFound {
        NotFound(
            "node \(node.incarnation) is dead and takes no orders; should its process come back, it has a new number, and takes them"
        )
    }

    /// The audit stands in another slot than the order, so that one may be refused where the other was taken.
    private func note(_ order: NodeOrder, of node: NodeReport, _ signature: OrderSignature) async -> Bool {
        let noted = moderationStore.note(order, of: node.incarnation, by: signature.by, reason: signature.reason)
        return (try? await noted.get()) != nil
    }
}
