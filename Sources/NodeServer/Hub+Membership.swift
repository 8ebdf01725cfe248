import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Joins and leaves: SUBSCRIBE is confirmed and the index written before a room's first membership.
extension Hub {
    func join(_ request: JoinRequest) {
        guard sessions[request.session] != nil else { return }
        let room = rooms[request.room] ?? openRoom(request.room)
        sessions[request.session]?.rooms.insert(request.room)
        if room.phase == .open, mayWrite() {
            sendJoin(request, to: room)
        } else {
            room.waitingJoins.append(request)
            pursue(room)
        }
    }

    private func openRoom(_ name: RoomName) -> HubRoom {
        let room = HubRoom(
            name: name, channel: keys.roomChannel(name), handle: makeHandle(), shardCount: shards.count)
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
                switch result {
                case .success(true):
                    guard self.incarnation == incarnation else { return self.pursue(room) }
                    room.isIndexed = true
                    self.pursue(room)
                case .success(false): self.fenced(incarnation)
                case .failure(let error):
                    self.logger.debug("room not indexed yet", metadata: ["room": "\(room.name)", "error": "\(error)"])
                    if let error = error as? RedisError, error.isOutOfMemory { self.failJoins(room, error) }
                }
            }
            return
        }
        guard room.isSubscribed else { return }
        room.phase = .open
        let waiting = room.waitingJoins
        room.waitingJoins = []
        for request in waiting { sendJoin(request, to: room) }
        markQueueDirty(room)
        scheduleTurn()
    }

    private func sendJoin(_ request: JoinRequest, to room: HubRoom) {
        guard let session = sessions[request.session], let incarnation else { return }
        let membership = Membership(
            room: room.name, session: request.session, user: session.user, incarnation: incarnation,
            generation: generation, joinedAt: 0, status: session.status, info: session.info)
        room.members[request.session] = HubRoom.Member(
            membership: membership, shard: session.shard, request: request,
            isDelivered: room.members[request.session]?.isDelivered ?? false)
        store.join(membership).assumeIsolated().whenComplete { result in
            // The member may have left, or the whole node may have a new incarnation by now.
            guard room.members[request.session]?.membership.generation == membership.generation else { return }
            switch result {
            case .success(let answer) where answer.refusal == .dead:
                self.fenced(incarnation)
            case .success(let answer) where answer.refusal == .older:
                self.remove(request.session, from: room)
                self.fail([request], room, self.unavailable("this session lives elsewhere by now"))
            case .success(let answer):
                self.joinAnswered(request, room, answer)
            case .failure(let error):
                self.remove(request.session, from: room)
                room.needsReconcile = true
                self.sessions[request.session]?.rooms.remove(room.name)
                self.emit(
                    .joinFailed(
                        room: room.name, session: request.session, id: request.id, error: self.wireError(error)),
                    to: session.shard)
                self.closeIfUnused(room)
            }
        }
    }

    private func joinAnswered(_ request: JoinRequest, _ room: HubRoom, _ answer: JoinResult) {
        let head = RoomPosition(epoch: answer.head.epoch, seq: answer.head.seq, tag: answer.head.tag)
        // Later the events alone move it: this answer may overtake those that tell the others of this join.
        if room.pv == 0 { room.pv = answer.head.pv }
        apply(room.sequencer.open(at: head), to: room)
        if room.sequencer.position?.epoch != head.epoch || (room.sequencer.position?.seq ?? 0) < head.seq {
            // The relay still owes something, or the room began anew: make sure that it comes.
            awaitRelay(room, seq: head.seq)
        }
        if let since = request.since {
            recover(request, room, answer, Recovery(since: since))
        } else {
            deliver(request, room, answer, recovered: nil, texts: [])
        }
    }

    /// From here on the shard gets the room's batches for this session, and they continue at the present position.
    private func deliver(
        _ request: JoinRequest, _ room: HubRoom, _ answer: JoinResult, recovered: Bool?, texts: [[UInt8]]
    ) {
        guard let member = room.members[request.session], let position = room.sequencer.position else { return }
        room.members[request.session]?.request = nil
        if !member.isDelivered {
            room.members[request.session]?.isDelivered = true
            room.interest[member.shard] += 1
        }
        let joined = ServerMessage.joined(
            room: room.name, id: request.id, epoch: position.epoch, seq: position.seq, tag: position.tag,
            pv: answer.head.pv, count: answer.head.count, members: answer.members, recovered: recovered)
        emit(
            .joined(
                room: room.name, handle: room.handle, session: request.session, echo: request.echo,
                texts: [joined] + texts),
            to: member.shard)
        // Who came in between is not in this list, and its event was sent before this session could get it.
        if answer.head.pv < room.pv { answerPresence(room.name, request.session, nil) }
    }

    // MARK: Recovery

    private struct Recovery {
        let since: ClientMessage.Position
        var texts: [[UInt8]] = []
        var seq: Int64
        var isProven: Bool

        init(since: ClientMessage.Position) {
            self.since = since
            self.seq = since.seq
            self.isProven = since.tag == nil || since.seq == 0
        }
    }

    /// More than this is not replayed: the client gets a `gap` and the newest page.
    private static var recoveryLimit: Int { 1000 }
    private static var recoveryPage: Int { 300 }

    /// Reads from the client's position on until it meets the room's own, which moves meanwhile: no hole, no repeat.
    private func recover(_ request: JoinRequest, _ room: HubRoom, _ answer: JoinResult, _ recovery: Recovery) {
        guard let position = room.sequencer.position, room.members[request.session] != nil else { return }
        guard recovery.since.epoch == position.epoch, recovery.since.seq <= position.seq,
            recovery.texts.count <= Self.recoveryLimit
        else {
            return refuseRecovery(request, room, answer)
        }
        if recovery.seq >= position.seq, recovery.isProven {
            return deliver(request, room, answer, recovered: true, texts: recovery.texts)
        }
        // The client's own last message is read too, when its tag is to prove that both mean the same story.
        let from = recovery.isProven ? recovery.seq + 1 : recovery.seq
        store.history(room: room.name, range: .range(from, .max), limit: Self.recoveryPage)
            .assumeIsolated().whenComplete { result in
                guard room.members[request.session] != nil, let position = room.sequencer.position else { return }
                guard case .success(let page) = result, page.head?.epoch == recovery.since.epoch,
                    page.messages.first?.seq == from
                else { return self.refuseRecovery(request, room, answer) }
                var recovery = recovery
                let user = self.sessions[request.session]?.user
                for message in page.messages where message.seq <= position.seq {
                    if message.seq == recovery.since.seq {
                        guard message.tag == recovery.since.tag else {
                            return self.refuseRecovery(request, room, answer)
                        }
                        continue
                    }
                    recovery.texts.append(self.text(of: message, in: room.name, for: user))
                    recovery.seq = message.seq
                }
                recovery.isProven = true
                self.recover(request, room, answer, recovery)
            }
    }

    /// All or nothing: what is missing is said, and the newest page shown.
    private func refuseRecovery(_ request: JoinRequest, _ room: HubRoom, _ answer: JoinResult) {
        guard let since = request.since else { return }
        store.history(room: room.name, range: .latest, limit: 50).assumeIsolated().whenComplete { result in
            guard let position = room.sequencer.position else { return }
            let from = since.epoch == position.epoch ? min(since.seq, position.seq) + 1 : 1
            var texts = [
                ServerMessage.gap(room: room.name, epoch: position.epoch, from: from, to: position.seq)
            ]
            if case .success(let page) = result, !page.messages.isEmpty {
                let user = self.sessions[request.session]?.user
                texts.append(
                    ServerMessage.history(
                        room: room.name, id: nil, epoch: position.epoch,
                        messages: page.messages.filter { $0.seq <= position.seq }
                            .map { self.element(of: $0, for: user) },
                        more: page.more))
            }
            self.deliver(request, room, answer, recovered: false, texts: texts)
        }
    }

    // MARK: Leaving

    func leave(_ name: RoomName, _ id: SessionID) {
        sessions[id]?.rooms.remove(name)
        guard let room = rooms[name] else { return }
        room.waitingJoins.removeAll { $0.session == id }
        if let member = remove(id, from: room) { sendLeave(member.membership, room) }
        closeIfUnused(room)
    }

    @discardableResult
    func remove(_ id: SessionID, from room: HubRoom) -> HubRoom.Member? {
        guard let member = room.members.removeValue(forKey: id) else { return nil }
        if member.isDelivered { room.interest[member.shard] -= 1 }
        return member
    }

    private func sendLeave(_ membership: Membership, _ room: HubRoom) {
        guard mayWrite() else {
            room.needsReconcile = true
            return
        }
        store.leave(membership).assumeIsolated().whenFailure { _ in room.needsReconcile = true }
    }

    func closeIfUnused(_ room: HubRoom) {
        guard room.isUnused, room.phase != .closed, !room.needsReconcile, !room.isReconciling else { return }
        room.phase = .closed
        rooms[room.name] = nil
        roomsByChannel[room.channel] = nil
        metrics.rooms = rooms.count
        subscriber?.unsubscribe(room.channel)
        // In the pipeline this stands behind the last leave and before the index entry of a later first join.
        guard let incarnation, room.isIndexed || room.isIndexing else { return }
        nodes.removeRoom(incarnation, room.name).assumeIsolated().whenFailure { _ in
            self.needsDirectoryReconcile = true
        }
    }

    /// The node ends: every membership that is still there goes now.
    func leaveAll() -> EventLoopFuture<Void> {
        let leaves = rooms.values.flatMap { room in
            room.members.values.map { store.leave($0.membership).map { _ in } }
        }
        return EventLoopFuture.andAllComplete(leaves, on: eventLoop)
    }

    func expireJoins(_ room: HubRoom, _ now: NIODeadline) {
        let expired = room.waitingJoins.filter { $0.deadline <= now }
        guard !expired.isEmpty else { return }
        room.waitingJoins.removeAll { $0.deadline <= now }
        fail(expired, room, unavailable())
    }

    private func failJoins(_ room: HubRoom, _ error: RedisError) {
        let failed = room.waitingJoins
        room.waitingJoins = []
        fail(failed, room, wireError(error))
    }

    private func fail(_ requests: [JoinRequest], _ room: HubRoom, _ error: WireError) {
        for request in requests {
            guard let session = sessions[request.session] else { continue }
            sessions[request.session]?.rooms.remove(room.name)
            emit(
                .joinFailed(room: room.name, session: request.session, id: request.id, error: error),
                to: session.shard)
        }
        closeIfUnused(room)
    }
}
