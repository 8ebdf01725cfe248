import ChatCore
import ClusterState
import NIOCore
import RedisClient
import WireProtocol

/// Those who come back with `since`: what they missed from the log, then live, without a hole or a repeat at the seam (G2).
///
/// 1. All or nothing: what cannot be proven or is no longer there is a `gap` and the newest page.
/// 2. A page at a time goes out, and the next when the client has taken it: a long absence costs the node no more than a
///    page, and closes nobody who reads.
/// 3. Clients that come back to one room at once share their reads, and only so many reads are under way in the node.
extension Hub {
    private static var recoveryPage: Int { 300 }
    private static var readsAtOnce: Int { 64 }

    private struct Recovery {
        let request: JoinRequest
        let since: ClientMessage.Position
        let answer: JoinResult
        /// The last message that went out.
        var seq: Int64
        /// `joined` was sent: what is missing from here on can only be said as a gap.
        var hasBegun = false
    }

    func recover(_ request: JoinRequest, _ since: ClientMessage.Position, _ room: HubRoom, _ answer: JoinResult) {
        proceed(Recovery(request: request, since: since, answer: answer, seq: since.seq), room)
    }

    private func proceed(_ recovery: Recovery, _ room: HubRoom) {
        let request = recovery.request
        let since = recovery.since
        guard room.member(of: request) != nil else { return giveUp(recovery) }
        guard let position = room.sequencer.position else { return }
        guard since.epoch == position.epoch else { return refuse(recovery, room, isSameStory: false) }
        if !recovery.hasBegun, room.members[request.session]?.isDelivered == true, since.seq != position.seq {
            // It is in the room and hears what is live; what was before cannot be put in front of that.
            return refuse(recovery, room)
        }
        if recovery.seq > position.seq {
            // Another node was faster with what this one is about to hear; more than Redis has is nonsense.
            guard recovery.seq <= recovery.answer.head.seq, request.deadline > .now() else {
                return refuse(recovery, room)
            }
            eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(20)) { self.proceed(recovery, room) }
            return
        }
        if recovery.seq == position.seq {
            if recovery.hasBegun {
                return insert(recovery, room)
            }
            if since.tag == nil || since.tag == position.tag || since.seq == 0 || position.tag.isEmpty {
                return deliver(request, room, recovery.answer, recovered: true, texts: [])
            }
            return refuse(recovery, room, isSameStory: false)
        }
        guard room.may(.history, request) else { return refuse(recovery, room) }
        guard position.seq - since.seq <= configuration.historyLimits(of: room.name).maxMessages else {
            return refuse(recovery, room)
        }
        // The client's own last message is read too, when its tag is to prove that both mean the same story.
        let proves = !recovery.hasBegun && since.tag != nil && since.seq > 0
        read(room, from: proves ? recovery.seq : recovery.seq + 1) { result in
            self.received(result, recovery, room)
        }
    }

    private func read(
        _ room: HubRoom, from: Int64,
        _ completion: @escaping (Result<HistoryPage, any Error>) -> Void
    ) {
        if room.recoveryReads[from] != nil {
            room.recoveryReads[from]?.append(completion)
            return
        }
        room.recoveryReads[from] = [completion]
        readPaced(room.name, .range(from, .max), limit: Self.recoveryPage) { result in
            for waiting in room.recoveryReads.removeValue(forKey: from) ?? [] { waiting(result) }
        }
    }

    /// What the room still keeps. What is met that it keeps no more goes in Redis, too, without anybody waiting for that.
    func history(of room: RoomName, _ range: HistoryRange, limit: Int) -> EventLoopFuture<HistoryPage> {
        let maxAge = configuration.historyLimits(of: room).maxAge
        let read = store.history(room: room, range: range, limit: limit, maxAge: maxAge)
        read.assumeIsolated().whenSuccess { page in
            guard let seq = page.tooOld else { return }
            // Where it fails, the next read meets it again.
            _ = self.store.trim(room: room, through: seq, maxAge: maxAge)
        }
        return read
    }

    /// When its turn comes: only so many reads for those who come back are under way.
    func readPaced(
        _ room: RoomName, _ range: HistoryRange, limit: Int,
        _ completion: @escaping (Result<HistoryPage, any Error>) -> Void
    ) {
        guard recoveryReads < Self.readsAtOnce else {
            return waitingRecoveryReads.append { self.readPaced(room, range, limit: limit, completion) }
        }
        recoveryReads += 1
        metrics.recoveryReads += 1
        history(of: room, range, limit: limit).assumeIsolated().whenComplete { result in
            self.recoveryReads -= 1
            if !self.waitingRecoveryReads.isEmpty { self.waitingRecoveryReads.removeFirst()() }
            completion(result)
        }
    }

    private func received(
        _ result: Result<HistoryPage, any Error>, _ recovery: Recovery, _ room: HubRoom
    ) {
        let request = recovery.request
        var recovery = recovery
        guard let member = room.member(of: request), let lane = member.lane else { return giveUp(recovery) }
        guard let position = room.sequencer.position else { return }
        // It was taken away while they were read.
        guard room.may(.history, request) else { return refuse(recovery, room) }
        switch result {
        case .failure(let error):
            // The messages are in the log, and Redis is not there to give them: the client asks again.
            return failRecovery(recovery, room, error)
        case .success(let page):
            let messages = page.messages
            guard let head = page.head, head.epoch == recovery.since.epoch, position.epoch == head.epoch else {
                return refuse(recovery, room, isSameStory: false)
            }
            if !recovery.hasBegun, let own = messages.first(where: { $0.seq == recovery.since.seq }),
                let tag = recovery.since.tag, own.tag != tag
            {
                return refuse(recovery, room, isSameStory: false)
            }
            let missed = messages.filter { $0.seq > recovery.seq && $0.seq <= position.seq }
            guard missed.first?.seq == recovery.seq + 1 else { return refuse(recovery, room) }
            var frames: [[UInt8]] = []
            if !recovery.hasBegun {
                frames.append(joined(request, room, position, recovery.answer, recovered: true))
                recovery.hasBegun = true
            }
            frames += missed.map {
                // With its id an own message counts as acknowledged.
                let isAck = replicaWait == nil || room.isReplicated($0.seq)
                return text(of: $0, in: room.name, epoch: position.epoch, for: isAck ? member.user : nil)
            }
            recovery.seq = missed.last?.seq ?? recovery.seq
            pageNumber += 1
            pagesUnderWay[pageNumber] = { self.proceed(recovery, room) }
            emit(.page(request.session, of: room.name, texts: frames, number: pageNumber), to: lane.shard)
        }
    }

    /// All that was missed went out, and nothing came since: live from here.
    private func insert(_ recovery: Recovery, _ room: HubRoom, texts: [[UInt8]] = []) {
        let request = recovery.request
        guard let lane = room.member(of: request)?.lane else { return }
        room.setDelivered(true, request.session)
        noteRoom(room.name, echo: request.echo, of: request.session)
        emit(.joined(entry(request, room, texts: texts)), to: lane.shard)
        tellPresenceSince(recovery.answer, request, room)
    }

    private func giveUp(_ recovery: Recovery) {
        if !recovery.hasBegun { giveUp(recovery.request) }
    }

    private func failRecovery(_ recovery: Recovery, _ room: HubRoom, _ error: any Error) {
        let request = recovery.request
        if room.members[request.session]?.isDelivered == true {
            return reply(request.session, ServerMessage.error(wireError(error), id: request.id, room: room.name.string))
        }
        guard let shard = sessions[request.session]?.lane.shard else { return }
        leave(room.name, request.session)
        emit(
            .joinFailed(room: room.name, session: request.session, id: request.id, error: wireError(error)), to: shard)
    }

    /// What is missing is said, and the newest page shown to who may read it.
    private func refuse(_ recovery: Recovery, _ room: HubRoom, isSameStory: Bool = true) {
        guard room.may(.history, recovery.request) else {
            return refuse(recovery, room, isSameStory: isSameStory, page: nil)
        }
        history(of: room.name, .latest, limit: 50).assumeIsolated().whenComplete { result in
            self.refuse(recovery, room, isSameStory: isSameStory, page: try? result.get())
        }
    }

    private func refuse(_ recovery: Recovery, _ room: HubRoom, isSameStory: Bool, page: HistoryPage?) {
        guard let position = room.sequencer.position else { return }
        // Of a client that knows another story, or a later one than Redis, nothing is proven.
        let from = isSameStory && recovery.seq <= position.seq ? recovery.seq + 1 : 1
        var texts = [ServerMessage.gap(room: room.name, epoch: position.epoch, from: from, to: position.seq)]
        if let page, !page.messages.isEmpty, room.may(.history, recovery.request) {
            let user = sessions[recovery.request.session]?.user
            texts.append(
                ServerMessage.history(
                    room: room.name, id: nil, epoch: position.epoch,
                    messages: page.messages.filter { $0.seq <= position.seq }.map { element(of: $0, for: user) },
                    more: page.more))
        }
        if recovery.hasBegun {
            insert(recovery, room, texts: texts)
        } else {
            deliver(recovery.request, room, recovery.answer, recovered: false, texts: texts)
        }
    }
}
