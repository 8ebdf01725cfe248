package import NIOCore
package import RedisClient
package import WireProtocol

/// Sessions as Redis holds them, so that a client can come back on any node within its grace.
///
/// 1. A session has one owner, an incarnation and a generation, and moves upward only. Whatever an owner does is compared with
///    both in the script that does it; who finds out that it owns the session no more closes it and touches nothing.
/// 2. The index of the owner is written before the session, so that a sweep finds every one.
/// 3. Secrets come as SHA-256 in hex: who reads Redis can resume nobody.
///
/// Futures complete on the client's event loop and fail with ``RedisError``, or with ``ClusterStateError`` when Redis holds
/// what no version of this wrote.
package struct SessionStore: Sendable {
    private let redis: RedisClient
    private let keys: ClusterKeys

    package init(redis: RedisClient, keys: ClusterKeys) {
        self.redis = redis
        self.keys = keys
    }

    /// Writes a session of this owner, new, or again after Redis forgot it; whatever stood there of an earlier owner goes.
    /// `nil` when the incarnation is dead or a newer generation owns the session: then nothing is written. Fails when
    /// Redis is full.
    ///
    /// - Returns: when it was written, in milliseconds of Redis's clock.
    /// - Parameter secret: SHA-256 in hex; `nil`: the session cannot be resumed.
    package func open(_ record: SessionRecord, secret: String?) -> EventLoopFuture<Int64?> {
        addToIndex(of: record.owner, record.session, user: record.user).flatMap { isAlive in
            guard isAlive else { return redis.eventLoop.makeSucceededFuture(nil) }
            var arguments: [RedisArgument] = [
                .string(record.owner.description), .integer(record.generation), .string(record.user.string),
                .string(secret ?? ""), .string(record.client), .string(record.info ?? ""),
                .string(record.status.rawValue),
            ]
            for (room, echo) in record.rooms { arguments += Self.field(room, echo) }
            return redis.evaluate(
                ClusterScripts.sessionOwn, keys: [.string(keys.session(record.session))], arguments: arguments
            ).flatMap { reply in
                switch reply.int {
                case let moment? where moment > 0: list(record).map { moment }
                case 0: removeFromIndex(of: record.owner, record.session).map { nil }
                default: redis.eventLoop.makeSucceededFuture(nil)
                }
            }
        }
    }

    /// The session is in these rooms, or with `nil` no more. False when it is not this owner's any more. Works also when
    /// Redis is full.
    package func setRooms(_ rooms: [RoomName: Bool?], of record: SessionRecord) -> EventLoopFuture<Bool> {
        set(rooms.flatMap { Self.field($0.key, $0.value) }, of: record)
    }

    /// The session has the record's status. False when it is not this owner's any more. Works also when Redis is full.
    package func setStatus(of record: SessionRecord) -> EventLoopFuture<Bool> {
        set(["status", .string(record.status.rawValue)], of: record)
    }

    /// The connection is gone: from now on the session can be resumed for so long. Its owner ends it after that
    /// (``end(_:)``), or whoever sweeps its owner. False when it is not this owner's any more. Works also when Redis is full.
    package func detach(_ record: SessionRecord, grace: TimeAmount) -> EventLoopFuture<Bool> {
        evaluate(ClusterScripts.sessionDetach, record, [.integer(grace.milliseconds)])
    }

    /// Makes `incarnation` the owner if the secret is the session's, current or the one before; a session that is still
    /// attached elsewhere too. The node that had it hears so on the channel of its user (``RelayMessage/moved``), and the
    /// secret that was shown stays good until ``confirm(_:)``.
    ///
    /// - Parameters:
    ///   - presented: SHA-256 in hex of what the client showed.
    ///   - next: SHA-256 in hex of what it must show the next time. The same as `presented`, where a node takes back the
    ///     sessions of its own that were adopted.
    ///   - user: refused as `user` for another's session; `nil` where the secret alone says who it is.
    ///
    /// When it fails the session may have moved; the client's next attempt with either secret is then good. Fails when Redis
    /// is full.
    package func resume(
        _ session: SessionID, by incarnation: Incarnation, presented: String, next: String, user: UserName? = nil
    ) -> EventLoopFuture<ResumeResult> {
        redis.eventLoop.makeFutureWithTask {
            // A first look, so that nothing is written into the index for whom the script would refuse.
            let key: RedisArgument = .string(keys.session(session))
            let look = try await redis.command(["HMGET", key, "user", "secret", "previous"]).get().array ?? []
            guard look.count == 3, let name = look[0].string, let secret = look[1].string, !secret.isEmpty,
                let found = try? UserName(validating: name)
            else { return .refused(.unknown) }
            guard presented == secret || presented == look[2].string else { return .refused(.secret) }
            guard user == nil || user == found else { return .refused(.user) }
            guard try await addToIndex(of: incarnation, session, user: found).get() else { return .refused(.dead) }

            let reply = try await redis.evaluate(
                ClusterScripts.sessionResume, keys: [key],
                arguments: [
                    .string(incarnation.description), .string(presented), .string(next), .string(user?.string ?? ""),
                    .string(keys.userChannel(found)), .string(session.string),
                ]
            ).get()
            let fields = (reply.array ?? []).map { $0.string ?? "" }
            if fields.count == 2, fields[0] == "refused", let refusal = ResumeRefusal(rawValue: fields[1]) {
                // Another resumed or ended it since the look. What is left in the index is compared before anything is done.
                return .refused(refusal)
            }
            guard fields.count >= 7, fields[0] == "ok", let generation = Int64(fields[1]),
                let record = SessionRecord(
                    session, owner: incarnation, generation: generation, userAndRest: fields[3...])
            else { throw ClusterStateError.unexpectedReply(of: "session_resume") }
            _ = try await list(record).get()
            return .resumed(record, previousOwner: Incarnation(fields[2]))
        }
    }

    /// The client has shown that it has the new secret: the one before is good no more. False when the session is not this
    /// owner's any more.
    package func confirm(_ record: SessionRecord) -> EventLoopFuture<Bool> {
        evaluate(ClusterScripts.sessionConfirm, record, [])
    }

    /// Takes a session of a dead incarnation, detached until its last lease and the grace are over; `nil` when another has
    /// it, or it cannot be resumed. Again it gives the same, so that an answer that was lost costs nothing. The caller
    /// joins its rooms with the new generation, before the dead incarnation is swept from them, and ends it in time.
    ///
    /// Fails with ``ClusterStateError`` `dead` when the adopter is.
    package func adopt(
        _ session: SessionID, user: UserName, of dead: Incarnation, leaseEnd: Int64, grace: TimeAmount,
        by me: Incarnation
    ) -> EventLoopFuture<AdoptedSession?> {
        redis.eventLoop.makeFutureWithTask {
            guard try await addToIndex(of: me, session, user: user).get() else {
                throw ClusterStateError(code: .dead, message: "\(me) was declared dead and adopts nobody")
            }
            switch try await take(session, from: dead, by: me, [.integer(leaseEnd), .integer(grace.milliseconds), ""]) {
            case .adopted(let adopted): return adopted
            case .refused(let owner):
                // `me`, when its client came to the adopter meanwhile: then the index must go on naming it.
                if owner != me.description { try await removeFromIndex(of: me, session).get() }
                return nil
            }
        }
    }

    /// Takes a session that the index of `me` names and of which its process knows nothing, as when the answer to a resume
    /// was lost: detached, for a grace from now on, or as long as it was to be detached.
    package func takeBack(
        _ session: SessionID, grace: TimeAmount, by me: Incarnation
    ) -> EventLoopFuture<TakeBackResult> {
        redis.eventLoop.makeFutureWithTask {
            let look = try await redis.command(["HGET", .string(keys.session(session)), "generation"]).get()
            guard let generation = look.string else { return .none }
            // A client that comes to `me` since then has raised it.
            switch try await take(session, from: me, by: me, ["", .integer(grace.milliseconds), .string(generation)]) {
            case .adopted(let adopted): return .taken(adopted)
            case .refused(let owner):
                guard owner == me.description else { return .none }
                let now = try await redis.command(["HGET", .string(keys.session(session)), "generation"]).get()
                return now.string == generation ? .none : .changed
            }
        }
    }

    private enum Taken {
        case adopted(AdoptedSession)
        case refused(owner: String)
    }

    private func take(
        _ session: SessionID, from owner: Incarnation, by me: Incarnation, _ arguments: [RedisArgument]
    ) async throws -> Taken {
        let reply = try await redis.evaluate(
            ClusterScripts.sessionAdopt, keys: [.string(keys.session(session))],
            arguments: [.string(owner.description), .string(me.description)] + arguments
        ).get()
        let fields = (reply.array ?? []).map { $0.string ?? "" }
        if fields.count == 1 { return .refused(owner: fields[0]) }
        guard fields.count >= 6, let generation = Int64(fields[0]), let left = Int64(fields[1]),
            let record = SessionRecord(session, owner: me, generation: generation, userAndRest: fields[2...])
        else { throw ClusterStateError.unexpectedReply(of: "session_adopt") }
        try await list(record).get()
        return .adopted(AdoptedSession(record: record, graceLeft: .milliseconds(left)))
    }

    /// Ends a session: nobody can resume it any more. True when it was this owner's; then the caller leaves its rooms, behind
    /// this. False when another has it or the same incarnation resumed it: its rooms are not the caller's. Works also when
    /// Redis is full.
    package func end(_ record: SessionRecord) -> EventLoopFuture<Bool> {
        release(record.owner, record.session, user: record.user, generation: record.generation).flatMap { released in
            guard released != .resumedHere else { return redis.eventLoop.makeSucceededFuture(false) }
            return removeFromIndex(of: record.owner, record.session).map { released == .ended }
        }
    }

    // MARK: pieces

    enum Release: Int64 {
        case ended = 1
        case notOurs = 0
        /// The same incarnation owns it with a newer generation.
        case resumedHere = -1
    }

    /// The session's own key and its line in its user's list. `generation` nil: whatever the incarnation has of it.
    func release(
        _ incarnation: Incarnation, _ session: SessionID, user: UserName, generation: Int64? = nil
    ) -> EventLoopFuture<Release> {
        let owner: RedisArgument = .string(incarnation.description)
        return redis.evaluate(
            ClusterScripts.sessionRelease, keys: [.string(keys.session(session))],
            arguments: [owner, .integer(generation ?? -1)]
        ).flatMap { reply in
            guard let released = reply.int.flatMap({ Release(rawValue: $0) }) else {
                return redis.eventLoop.makeFailedFuture(ClusterStateError.unexpectedReply(of: "session_release"))
            }
            guard released != .resumedHere else { return redis.eventLoop.makeSucceededFuture(released) }
            return redis.evaluate(
                ClusterScripts.userRelease, keys: [.string(keys.userSessions(user))],
                arguments: [owner, .string(session.string)]
            ).map { _ in released }
        }
    }

    private func addToIndex(
        of incarnation: Incarnation, _ session: SessionID, user: UserName
    ) -> EventLoopFuture<Bool> {
        redis.evaluate(
            ClusterScripts.nodeAddSession,
            keys: [.string(keys.node(incarnation)), .string(keys.nodeSessions(incarnation))],
            arguments: [.string(session.string), .string(user.string)]
        ).map { $0.int == 1 }
    }

    package func removeFromIndex(of incarnation: Incarnation, _ session: SessionID) -> EventLoopFuture<Void> {
        redis.command(["HDEL", .string(keys.nodeSessions(incarnation)), .string(session.string)]).map { _ in }
    }

    /// Into the list of the user's sessions.
    private func list(_ record: SessionRecord) -> EventLoopFuture<Void> {
        redis.evaluate(
            ClusterScripts.userOwn, keys: [.string(keys.userSessions(record.user))],
            arguments: [
                .string(record.session.string), .string(record.owner.description), .integer(record.generation),
            ]
        ).map { _ in }
    }

    private func set(_ fields: [RedisArgument], of record: SessionRecord) -> EventLoopFuture<Bool> {
        evaluate(ClusterScripts.sessionSet, record, fields)
    }

    private func evaluate(
        _ script: RedisScript, _ record: SessionRecord, _ arguments: [RedisArgument]
    ) -> EventLoopFuture<Bool> {
        redis.evaluate(
            script, keys: [.string(keys.session(record.session))],
            arguments: [.string(record.owner.description), .integer(record.generation)] + arguments
        ).map { $0.int == 1 }
    }

    private static func field(_ room: RoomName, _ echo: Bool?) -> [RedisArgument] {
        [.string("r:" + room.string), echo.map { $0 ? "1" : "0" } ?? ""]
    }
}

extension SessionRecord {
    /// Reads user, client, info, status, then rooms and their echo in turn.
    fileprivate init?(
        _ session: SessionID, owner: Incarnation, generation: Int64, userAndRest fields: ArraySlice<String>
    ) {
        let fields = Array(fields)
        guard fields.count >= 4, let user = try? UserName(validating: fields[0]),
            let status = PresenceStatus(rawValue: fields[3])
        else { return nil }
        var rooms: [RoomName: Bool] = [:]
        for index in stride(from: 4, to: fields.count - 1, by: 2) {
            if let room = try? RoomName(validating: fields[index]) { rooms[room] = fields[index + 1] == "1" }
        }
        self.init(
            session: session, user: user, owner: owner, generation: generation, client: fields[1],
            info: fields[2].isEmpty ? nil : fields[2], status: status, rooms: rooms)
    }
}
