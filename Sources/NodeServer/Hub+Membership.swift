import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Joins and leaves: SUBSCRIBE is confirmed and the index written before a room's first membership, and the index entry goes
/// only when Redis holds no membership of this node there any more.
extension Hub {
    func join(_ request: JoinRequest) {
        let id = request.session
        guard let session = sessions[id], session.connection == request.connection else { return }
        let room = rooms[request.room] ?? openRoom(request.room)
        let stake = stake(of: id, session.status)
        note(room, of: id)
        room.members[
            id,
            default: HubRoom.Member(
                user: session.user, registration: Registration(wanting: stake))
        ].registration.want(stake, request)
        // An entry that was found in Redis before (``addStray(_:to:)``) is nobody's.
        room.members[id]?.user = session.user
        room.members[id]?.lane = session.lane
        room.members[id]?.connection = session.connection
        room.members[id]?.actions = request.actions
        room.members[id]?.recovers = request.since != nil
        settle(id, in: room)
    }

    /// It has a member for the session.
    func note(_ room: HubRoom, of id: SessionID) {
        if roomsOf[id] == nil { roomsOf[id] = FewSet() }
        roomsOf[id]?.insert(room.name)
    }

    /// Those that have one.
    func rooms(of id: SessionID) -> [HubRoom] { roomsOf[id]?.keys.compactMap { rooms[$0] } ?? [] }

    @discardableResult
    func openRoom(_ name: RoomName) -> HubRoom {
        let room = HubRoom(
            name: name, channel: keys.roomChannel(name), handle: makeHandle(),
            showsPresence: configuration.namespaces.rules(of: name)?.showsPresence ?? false, shardCount: shards.count)
        rooms[name] = room
        roomsByChannel[room.channel] = room
        metrics.rooms = rooms.count
        subscriber?.subscribe(room.channel).assumeIsolated().whenSuccess {
            room.isSubscribed = true
            self.pursue(room)
        }
        return room
    }

    /// Does the next thing that an opening room lacks. Called again whenever something changed, and each tick.
    func pursue(_ room: HubRoom) {
        guard room.phase == .opening, mayWrite(), let incarnation else { return }
        guard room.isIndexed else {
            guard !room.isIndexing else { return }
            room.isIndexing = true
            nodes.addRoom(incarnation, room.name).assumeIsolated().whenComplete { result in
                room.isIndexing = false
                guard self.incarnation == incarnation else { return self.pursue(room) }
                switch result {
                case .success(true):
                    room.isIndexed = true
                    self.pursue(room)
                case .success(false): self.fenced(incarnation)
                case .failure(let error):
                    self.logger.debug("room not indexed yet", metadata: ["room": "\(room.name)", "error": "\(error)"])
                    // A full Redis says so at once; all else waits for the joins' deadlines.
                    if let error = error as? RedisError, error.isOutOfMemory {
                        self.expireJoins(room, self.wireError(error)) { _ in true }
                    }
                }
            }
            return
        }
        guard room.isSubscribed else { return }
        room.phase = .open
        for id in room.pending { settle(id, in: room) }
        markQueueDirty(room)
        scheduleTurn()
    }

    // MARK: Memberships

    /// Sends what is due for a member, if anything.
    func settle(_ id: SessionID, in room: HubRoom) {
        guard let member = room.members[id] else { return }
        if member.registration.isVoid {
            room.members[id] = nil
            room.pending.remove(id)
            roomsOf[id]?.remove(room.name)
            if roomsOf[id]?.isEmpty == true { roomsOf[id] = nil }
            return closeIfUnused(room)
        }
        if member.registration.isSettled {
            room.pending.remove(id)
            return
        }
        room.pending.insert(id)
        guard room.phase == .open else { return pursue(room) }
        // A membership is written under the generation of a session that is certainly ours.
        guard mayWrite(), let incarnation, member.registration.wanted == nil || owns(id),
            let action = room.members[id]?.registration.next()
        else { return }
        commandNumber += 1
        room.members[id]?.touched = commandNumber
        switch action {
        case .none, .forget:
            break
        case .write(let stake, let attempt):
            let membership = membership(id, member, stake, room, incarnation)
            store.join(membership).assumeIsolated().whenComplete { result in
                self.joinCompleted(id, room, attempt, incarnation, result)
            }
        case .update(let stake, let attempt):
            let membership = membership(id, member, stake, room, incarnation)
            store.setStatus(membership).assumeIsolated().whenComplete { result in
                switch result {
                case .success(true):
                    _ = room.members[id]?.registration.wrote(attempt)
                    self.settle(id, in: room)
                case .success(false), .failure:
                    _ = room.members[id]?.registration.writeFailed(attempt, outcomeIsUnknown: true)
                }
            }
        case .remove(let attempt):
            store.leave(membership(id, member, .any, room, incarnation)).assumeIsolated().whenComplete { result in
                switch result {
                case .success:
                    room.members[id]?.registration.removed(attempt)
                    self.settle(id, in: room)
                case .failure:
                    room.members[id]?.registration.removeFailed(attempt)
                }
            }
        }
    }

    private func membership(
        _ id: SessionID, _ member: HubRoom.Member, _ stake: MemberStake, _ room: HubRoom, _ incarnation: Incarnation
    ) -> Membership {
        let isMuted =
            moderation.mute(
                of: ModerationSubject(user: member.user, session: id, token: nil, address: .unknown), in: room.name)
            != nil
        return Membership(
            room: room.name, session: id, user: member.user, incarnation: incarnation, generation: stake.generation,
            joinedAt: 0, status: stake.status, info: isMuted ? nil : directory[id]?.info)
    }

    /// What failed is tried again, so many a tick; joins that waited too long are answered.
    func settlePending(_ room: HubRoom, _ now: NIODeadline) {
        expireJoins(room, unavailable()) { $0.deadline <= now }
        guard room.phase == .open, mayWrite(), redis.isConnected else { return }
        for id in room.pending where repairCommands < Self.repairCommandsPerTick {
            guard room.members[id]?.registration.isUnderWay == false else { continue }
            repairCommands += 1
            settle(id, in: room)
        }
    }

    private func joinCompleted(
        _ id: SessionID, _ room: HubRoom, _ attempt: Int, _ incarnation: Incarnation,
        _ result: Result<JoinResult, any Error>
    ) {
        switch result {
        case .success(let answer) where answer.refusal == .dead:
            room.members[id]?.registration.refused(attempt)
            fenced(incarnation)
        case .success(let answer) where answer.refusal != nil:
            room.members[id]?.registration.refused(attempt)
            abandon(id)
        case .success(let answer):
            guard let answered = room.members[id]?.registration.wrote(attempt) else { return }
            follow(room, to: answer.head)
            for request in answered { joinAnswered(request, room, answer) }
            settle(id, in: room)
        case .failure(let error):
            let isUnknown = (error as? RedisError)?.outcomeIsUnknown ?? true
            let failed = room.members[id]?.registration.writeFailed(attempt, outcomeIsUnknown: isUnknown) ?? []
            fail(failed, room, wireError(error))
            if room.members[id]?.registration.isVoid == true { settle(id, in: room) }
        }
    }

    /// A join's answer tells where the room stands in Redis.
    private func follow(_ room: HubRoom, to head: RoomHead) {
        let position = RoomPosition(epoch: head.epoch, seq: head.seq, tag: head.tag)
        // Later the events alone move it: this answer may overtake those that tell the others of this join.
        if room.pv == 0 { room.pv = head.pv }
        apply(room.sequencer.open(at: position), to: room)
        guard let own = room.sequencer.position else { return }
        if own.epoch != head.epoch || own.seq > head.seq {
            // Redis may have forgotten the room, or a tail of it.
            room.needsPresenceText = true
            apply(room.sequencer.verify(), to: room)
            readPresence(room)
        } else if own.seq < head.seq {
            awaitRelay(room, seq: head.seq)
        }
    }

    private func joinAnswered(_ request: JoinRequest, _ room: HubRoom, _ answer: JoinResult) {
        if let since = request.since {
            recover(request, since, room, answer)
        } else {
            deliver(request, room, answer, recovered: nil, texts: [])
        }
    }

    /// From here on the shard gets the room's batches for this session, and they continue at the present position.
    func deliver(
        _ request: JoinRequest, _ room: HubRoom, _ answer: JoinResult, recovered: Bool?, texts: [[UInt8]]
    ) {
        guard let lane = room.member(of: request)?.lane else { return giveUp(request) }
        guard let position = room.sequencer.position else { return }
        room.setDelivered(true, request.session)
        noteRoom(room.name, echo: request.echo, of: request.session)
        emit(
            .joined(
                entry(request, room, texts: [joined(request, room, position, answer, recovered: recovered)] + texts)),
            to: lane.shard)
        tellPresenceSince(answer, request, room)
    }

    func joined(
        _ request: JoinRequest, _ room: HubRoom, _ position: RoomPosition, _ answer: JoinResult, recovered: Bool?
    ) -> [UInt8] {
        let (head, members) = (answer.head, answer.members)
        return ServerMessage.joined(
            room: room.name, id: request.id, epoch: position.epoch, seq: position.seq, tag: position.tag,
            recovered: recovered,
            present: room.may(.presence, request) ? (head.count, members, head.pv) : nil)
    }

    func entry(_ request: JoinRequest, _ room: HubRoom, texts: [[UInt8]]) -> RoomEntry {
        RoomEntry(
            room: room.name, handle: room.handle, session: request.session, id: request.id, echo: request.echo,
            seesPresence: room.may(.presence, request), texts: texts)
    }

    /// Who came in between is not in the list of the answer, and its event was sent before this session could get it.
    func tellPresenceSince(_ answer: JoinResult, _ request: JoinRequest, _ room: HubRoom) {
        guard answer.head.pv < room.pv, room.may(.presence, request) else { return }
        answerPresence(room.name, request.session, nil)
    }

    // MARK: Leaving

    func leave(_ name: RoomName, _ id: SessionID) {
        noteRoom(name, echo: nil, of: id)
        guard let room = rooms[name], room.members[id] != nil else { return }
        room.setDelivered(false, id)
        for request in room.members[id]?.registration.wantNothing() ?? [] { giveUp(request) }
        settle(id, in: room)
    }

    func closeIfUnused(_ room: HubRoom) {
        guard room.isUnused, room.phase != .closed else { return }
        room.phase = .closed
        rooms[room.name] = nil
        roomsByChannel[room.channel] = nil
        metrics.rooms = rooms.count
        subscriber?.unsubscribe(room.channel)
        // In the pipeline this stands before the index entry of a later first join.
        guard let incarnation, room.isIndexed || room.isIndexing else { return }
        nodes.removeRoom(incarnation, room.name).assumeIsolated().whenFailure { _ in
            self.needsDirectoryReconcile = true
        }
    }

    /// The node ends: every membership that is still there goes now.
    func leaveAll() -> EventLoopFuture<Void> {
        guard let incarnation else { return eventLoop.makeSucceededVoidFuture() }
        let leaves = rooms.values.flatMap { room in
            room.members.map { id, member in
                store.leave(membership(id, member, .any, room, incarnation)).map { _ in }
            }
        }
        return EventLoopFuture.andAllComplete(leaves, on: eventLoop)
    }

    // MARK: Joins that fail

    /// Its session is not to be in the room any more, and may have been put out of it.
    func giveUp(_ request: JoinRequest) {
        guard let id = request.id, sessions[request.session]?.connection == request.connection else { return }
        reply(
            request.session, ServerMessage.error(.leftBeforeAnswer(request.room), id: id, room: request.room.string))
    }

    private func expireJoins(_ room: HubRoom, _ error: WireError, where matches: (JoinRequest) -> Bool) {
        for id in room.pending {
            guard let expired = room.members[id]?.registration.expire(where: matches), !expired.isEmpty else {
                continue
            }
            fail(expired, room, error)
            if room.members[id]?.registration.isVoid == true { settle(id, in: room) }
        }
    }

    /// Who is in stays in, and only hears that it could not be done again.
    private func fail(_ requests: [JoinRequest], _ room: HubRoom, _ error: WireError) {
        for request in requests {
            guard let session = sessions[request.session] else { continue }
            if room.members[request.session]?.registration.wanted != nil {
                reply(request.session, ServerMessage.error(error, id: request.id, room: room.name.string))
                continue
            }
            noteRoom(room.name, echo: nil, of: request.session)
            emit(
                .joinFailed(room: room.name, session: request.session, id: request.id, error: error),
                to: session.lane.shard)
        }
    }
}

extension WireError {
    static func leftBeforeAnswer(_ room: RoomName) -> WireError {
        WireError(.notInRoom, "this session had to leave \(room) before its join was answered")
    }
}
