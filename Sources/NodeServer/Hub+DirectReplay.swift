import ChatCore
import ClusterState
import NIOCore
import RedisClient
import WireProtocol

/// Clients that come back with `directs`: what they missed in the private rooms of their user, then live, without a hole or a
/// repeat at the seam (G1, G2, G3).
///
/// 1. Rooms that the client named go on behind the message it named. Of the others, which it knows nothing of, it gets all since
///    the moment it gave: `P:{u:USER}:directs` tells which rooms those may be.
/// 2. Until that list is read everything live waits, and then what is of a room that is still being read.
/// 3. One room after the other, a page at a time, as the client takes them. What the log does not have is a gap; a Redis that
///    is away is waited for.
/// 4. Acks of the session's own publishes wait too, for order's sake, but only until these must be answered (G5): then the
///    answer is `unavailable`, and the same id sent again is acknowledged.
/// 5. What does not follow live, or is of another epoch, is looked up in the log: it may be of one that was left behind.
extension Hub {
    private static var replayPage: Int { 300 }
    /// So long the relay may take with what a replay has brought already.
    private static var replayMemory: TimeAmount { NodeConfiguration.publishDeadline }

    /// The session is open, and its user's channel heard: what the log does not show comes by the relay.
    func beginReplays(_ id: SessionID, _ asked: DirectsAsked) {
        guard let session = sessions[id] else { return }
        sessions[id]?.replays = DirectReplays(
            maximumBytes: configuration.limits.outboundBytes / 2, rights: asked.rights)
        replaying.insert(id)
        for (room, place) in asked.places.rooms {
            replay(room, of: id)?.position = RoomPosition(epoch: place.epoch, seq: place.seq, tag: place.tag ?? "")
        }
        lookUp(id, session.connection, asked.places)
    }

    private func lookUp(_ id: SessionID, _ connection: SessionID, _ asked: ClientMessage.Directs) {
        guard let session = sessions[id], session.connection == connection else { return }
        let margin = (NodeConfiguration.clockMargin + NodeConfiguration.directNotesEvery).nanoseconds / 1_000_000
        // A note is a little older than the messages that it stands for.
        userStore.directs(of: session.user, since: asked.since - margin).assumeIsolated().whenComplete { result in
            guard let replays = self.sessions[id]?.replays, self.sessions[id]?.connection == connection else { return }
            guard case .success(let noted) = result else {
                return self.later { self.lookUp(id, connection, asked) }
            }
            for room in noted { _ = self.replay(room, of: id) }
            replays.isLookingUp = false
            replays.waiting = Array(replays.rooms.values)
            self.nextReplay(of: id, since: asked.since)
        }
    }

    private func nextReplay(of id: SessionID, since moment: Int64) {
        guard let next = sessions[id]?.replays?.waiting.popLast() else { return }
        next.whenLive = { self.nextReplay(of: id, since: moment) }
        if next.position != nil { proceed(next) } else { place(next, since: moment) }
    }

    /// The replay of this room, if the session has to wait for one.
    private func replay(_ room: RoomName, of id: SessionID) -> DirectReplay? {
        guard let session = sessions[id], let replays = session.replays else { return nil }
        if let known = replays.rooms[room] { return known }
        // What a session is not to hear it has not missed.
        guard replays.isLookingUp, replays.rights.allow(.join, in: room),
            moderation.ban(of: session.user, from: room) == nil
        else { return nil }
        let new = DirectReplay(
            room: room, user: session.user, session: id, connection: session.connection,
            mayRead: replays.rights.allow(.history, in: room), budget: replays.budget)
        replays.rooms[room] = new
        return new
    }

    private func isWanted(_ replay: DirectReplay) -> Bool {
        sessions[replay.session]?.replays?.rooms[replay.room] === replay
    }

    private func later(_ body: @escaping () -> Void) {
        eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(NodeConfiguration.retryAfterMilliseconds)) { body() }
    }

    /// Of a room that the client did not name.
    private func place(_ replay: DirectReplay, since moment: Int64) {
        place(in: replay.room, before: moment) { result in
            guard self.isWanted(replay) else { return }
            guard case .success(let found) = result else {
                return self.later { self.place(replay, since: moment) }
            }
            replay.position = found.position ?? RoomPosition(epoch: "", seq: 0, tag: "")
            if let position = found.position, !found.isWhole {
                self.tell(replay, gap: position.epoch, from: 1, to: position.seq)
                replay.hasBegun = true
            }
            self.proceed(replay)
        }
    }

    private func proceed(_ replay: DirectReplay) {
        guard isWanted(replay), let position = replay.position else { return }
        // The client's own last message is read too, when its tag is to prove that both mean the same story.
        let proves = !replay.hasBegun && !position.tag.isEmpty && position.seq > 0
        let range = HistoryRange.range(proves ? position.seq : position.seq + 1, .max)
        let number = replay.lastNumber
        readPaced(replay.room, range, limit: Self.replayPage) { result in
            guard self.isWanted(replay) else { return }
            switch result {
            case .success(let page): self.received(page, replay, position, readThrough: number)
            case .failure: self.later { self.proceed(replay) }
            }
        }
    }

    /// - Parameter number: what came live up to it was published before the log was read.
    private func received(
        _ page: HistoryPage, _ replay: DirectReplay, _ position: RoomPosition, readThrough number: Int
    ) {
        replay.isRoomKnown = page.head != nil
        // Redis knows no such room: the next message opens another epoch.
        guard let head = page.head else {
            replay.readThrough = number
            return goLive(replay)
        }
        let isSameStory =
            position.epoch.isEmpty
            || head.epoch == position.epoch && head.seq >= position.seq
                && (replay.hasBegun || isProven(position, page, head))
        guard isSameStory else { return refuse(replay, from: 1) }
        if !replay.mayRead, head.seq > position.seq { return refuse(replay, from: position.seq + 1) }
        let missed = page.messages.filter { $0.seq > position.seq }
        if missed.isEmpty, head.seq == position.seq {
            replay.readThrough = number
            return goLive(replay)
        }
        let limit = configuration.historyLimits(of: replay.room).maxMessages
        guard missed.first?.seq == position.seq + 1, replay.hasBegun || head.seq - position.seq <= limit
        else { return refuse(replay, from: position.seq + 1) }
        let texts = missed.map { message in
            replay.takeAck(of: message.seq, in: head.epoch)
                ?? text(of: message, in: replay.room, epoch: head.epoch, for: acknowledged(replay.user))
        }
        replay.hasBegun = true
        replay.position = missed.last.map { RoomPosition(epoch: head.epoch, seq: $0.seq, tag: $0.tag) }
        let isLast = missed.last?.seq == head.seq
        if isLast { replay.readThrough = number }
        send(texts, replay) { if isLast { self.goLive(replay) } else { self.proceed(replay) } }
    }

    /// With its id an own message counts as acknowledged, and nothing here knows what the replicas have.
    private func acknowledged(_ user: UserName) -> UserName? { replicaWait == nil ? user : nil }

    /// - Parameter next: done when the client has taken them.
    private func send(_ texts: [[UInt8]], _ replay: DirectReplay, next: @escaping () -> Void) {
        guard let shard = sessions[replay.session]?.lane.shard else { return }
        pageNumber += 1
        pagesUnderWay[pageNumber] = { if self.isWanted(replay) { next() } }
        emit(.page(replay.session, texts: texts, number: pageNumber), to: shard)
    }

    private func isProven(_ position: RoomPosition, _ page: HistoryPage, _ head: RoomHead) -> Bool {
        guard !position.tag.isEmpty, position.seq > 0 else { return true }
        if head.seq == position.seq { return head.tag == position.tag }
        return page.messages.first { $0.seq == position.seq }.map { $0.tag == position.tag } ?? true
    }

    /// What is missing is said, and the newest page shown to who may read it.
    private func refuse(_ replay: DirectReplay, from: Int64) {
        let number = replay.lastNumber
        history(of: replay.room, .latest, limit: 50).assumeIsolated().whenComplete { result in
            guard self.isWanted(replay) else { return }
            guard case .success(let page) = result else { return self.later { self.refuse(replay, from: from) } }
            replay.readThrough = number
            replay.isRoomKnown = page.head != nil
            guard let head = page.head else { return self.goLive(replay) }
            // What came live meanwhile is no loss for who reads nothing of the log.
            let live = replay.mayRead ? nil : replay.held.first { $0.held.epoch == head.epoch }
            let to = min(head.seq, live.map { $0.held.seqs.from - 1 } ?? head.seq)
            replay.position = RoomPosition(epoch: head.epoch, seq: to, tag: to == head.seq ? head.tag : "")
            replay.hasBegun = true
            var texts: [[UInt8]] = []
            if from == 1 || from <= to {
                self.metrics.gaps += 1
                texts.append(ServerMessage.gap(room: replay.room, epoch: head.epoch, from: from, to: to))
            }
            if !page.messages.isEmpty, replay.mayRead {
                texts.append(
                    ServerMessage.history(
                        room: replay.room, id: nil, epoch: head.epoch,
                        messages: page.messages.map { self.element(of: $0, for: self.acknowledged(replay.user)) },
                        more: page.more))
            }
            self.send(texts, replay) { self.goLive(replay) }
        }
    }

    private func tell(_ replay: DirectReplay, gap epoch: String, from: Int64, to: Int64) {
        metrics.gaps += 1
        reply(replay.session, ServerMessage.gap(room: replay.room, epoch: epoch, from: from, to: to))
    }

    /// All that the log had went out: behind it what came live, unless the log has to tell more.
    private func goLive(_ replay: DirectReplay) {
        replay.hasBegun = true
        guard replay.release(while: { pass($0, of: replay) }), !replay.hasOverflowed else { return proceed(replay) }
        for ack in replay.takeAcks() { reply(replay.session, ack) }
        replay.liveSince = .now()
        dropIfHeard(replay)
        let next = replay.whenLive
        replay.whenLive = {}
        next()
    }

    /// - Returns: false when the log has to be read before it.
    private func pass(_ entry: DirectReplay.Entry, of replay: DirectReplay) -> Bool {
        let held = entry.held
        if replay.hasPassed(held) {
            if case .message(_, let ack, .some) = held { reply(replay.session, ack) }
            return true
        }
        let position = replay.position ?? RoomPosition(epoch: "", seq: 0, tag: "")
        let isSameEpoch = held.epoch == position.epoch
        if !replay.isNext(held), !isSameEpoch || held.seqs.from > position.seq + 1 {
            guard entry.number <= replay.readThrough else { return false }
            if !isSameEpoch, replay.isRoomKnown {
                // The log, read since, goes on in the epoch of the replay: the other one was left behind.
                if let publish = held.publish { deny(publish, replay) }
                return true
            }
        }
        let first = isSameEpoch ? position.seq + 1 : 1
        switch held {
        case .message(let place, let text, _):
            if !replay.isNext(held) { tell(replay, gap: place.epoch, from: first, to: place.seq - 1) }
            replay.position = place
            reply(replay.session, text)
        case .gap(let epoch, let from, let to):
            replay.position = RoomPosition(epoch: epoch, seq: to, tag: "")
            tell(replay, gap: epoch, from: position.epoch.isEmpty ? from : first, to: to)
        }
        return true
    }

    private func deny(_ publish: DirectReplay.Publish, _ replay: DirectReplay) {
        metrics.publishesRefused += 1
        reply(replay.session, ServerMessage.error(unavailable(), id: publish.id, room: replay.room.string))
    }

    // MARK: What comes live

    /// Whether something of this room has to wait for what the session missed, or went out with that.
    func isReplayed(_ held: @autoclosure () -> DirectReplay.Held, in room: RoomName, to id: SessionID) -> Bool {
        guard let replay = replay(room, of: id) else { return false }
        let held = held()
        if replay.hasPassed(held) {
            // Its place has gone by.
            if case .message(_, let ack, .some) = held { reply(id, ack) }
            return true
        }
        if replay.isLive, replay.isNext(held) {
            // Once the relay is ahead it stays so.
            drop(replay)
            return false
        }
        replay.hold(held)
        if replay.isLive {
            replay.liveSince = nil
            proceed(replay)
        }
        return true
    }

    /// Whether this ack of a private message has to wait.
    func isReplayed(ack: [UInt8], of owed: HubRoom.OwedAck, _ seq: Int64, in room: RoomName) -> Bool {
        guard room.isDirect, let replay = replay(room, of: owed.session), !replay.isLive,
            !replay.hasPassed(seq, in: owed.epoch)
        else { return false }
        replay.hold(ack: ack, of: .init(id: owed.id, deadline: owed.deadline))
        return true
    }

    /// Who waits for the ack of an own message that the relay brought.
    func waitingPublish(
        _ tag: String, _ seq: Int64, in room: RoomName, _ owed: [(seq: Int64, publish: HubRoom.OwedAck)]
    ) -> DirectReplay.Publish {
        if let known = owed.first(where: { $0.seq == seq && $0.publish.tag == tag })?.publish {
            return .init(id: known.id, deadline: known.deadline)
        }
        if let known = directs[room]?.queue.sent(where: { $0.publication.tag == tag }) {
            return .init(id: known.element.id, deadline: known.deadline)
        }
        // Sent through another node: nobody here owes an answer.
        return .init(id: nil, deadline: .max)
    }

    // MARK: The end

    /// Answers the publishes whose time is over, and forgets what the relay cannot bring again.
    func checkReplays(_ now: NIODeadline) {
        for id in replaying {
            guard let replays = sessions[id]?.replays else {
                replaying.remove(id)
                continue
            }
            for replay in replays.rooms.values {
                for publish in replay.takeOverdue(now: now.uptimeNanoseconds) { deny(publish, replay) }
                if let since = replay.liveSince, now - since > Self.replayMemory { end(replay, now) }
            }
            if replays.isOver {
                sessions[id]?.replays = nil
                replaying.remove(id)
            }
        }
    }

    private func drop(_ replay: DirectReplay) {
        sessions[replay.session]?.replays?.rooms[replay.room] = nil
    }

    /// Whether its user's stream is as far: it brings nothing twice.
    @discardableResult
    private func dropIfHeard(_ replay: DirectReplay) -> Bool {
        if let position = replay.position, !position.epoch.isEmpty {
            let heard = users[replay.user]?.directs[replay.room]?.sequencer.position
            guard let heard, heard.epoch == position.epoch, heard.seq >= position.seq else { return false }
        }
        drop(replay)
        return true
    }

    /// The relay had its time.
    private func end(_ replay: DirectReplay, _ now: NIODeadline) {
        guard !dropIfHeard(replay), subscriber?.hears == true, let known = users[replay.user],
            known.missedSince == nil
        else { return }
        let stream = known.directs[replay.room]
        guard let stream, stream.hold != nil || stream.sequencer.position != nil else { return drop(replay) }
        // It lost what the log has.
        replay.liveSince = now
        apply(stream.sequencer.verify(), to: stream)
    }
}
