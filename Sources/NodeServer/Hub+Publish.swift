import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Publishes: queued by room, sent in batches, acknowledged by the relay, answered within their deadline whatever Redis
/// does (G3, G5).
extension Hub {
    private static var batchCount: Int { 256 }
    private static var batchBytes: Int { 256 << 10 }

    func publish(_ request: PublishRequest) {
        guard waitingPublishes < configuration.limits.waitingPublishes,
            waitingPublishBytes < configuration.limits.waitingPublishBytes
        else {
            metrics.publishesRefused += 1
            return reply(request.session, ServerMessage.error(unavailable(), id: request.id, room: request.room.string))
        }
        let tag = Base64URL.random(count: 4, using: &random)
        let body = ByteBuffer(bytes: request.body)
        let pending = HubRoom.PendingPublish(
            publication: Publication(
                dedupeKey: request.dedupeKey, tag: tag,
                origin: request.session, clientID: request.id.map(Self.escaped) ?? "", from: request.user, body: body),
            session: request.session, id: request.id)
        let deadline = request.deadline.uptimeNanoseconds
        let bytes = request.body.count
        if let recipient = request.recipient {
            let users = request.user == recipient ? [recipient] : [request.user, recipient]
            directs[
                request.room, default: DirectQueue(users: users, channels: users.map { keys.userChannel($0) })
            ].queue.append(pending, bytes: bytes, deadline: deadline)
            dirtyDirects.insert(request.room)
            scheduleTurn()
        } else {
            guard let room = rooms[request.room], room.members[request.session]?.registration.wanted != nil else {
                return reply(
                    request.session,
                    ServerMessage.error(WireError(.notInRoom), id: request.id, room: request.room.string))
            }
            room.queue.append(pending, bytes: bytes, deadline: deadline)
            markQueueDirty(room)
        }
        waitingPublishes += 1
        waitingPublishBytes += bytes
        pace.arrived(from: request.session, now: NIODeadline.now().uptimeNanoseconds)
        metrics.publishes += 1
    }

    /// The id as it stands inside JSON quotes.
    private static func escaped(_ id: String) -> String {
        String(JSONWriter.literal(id).dropFirst().dropLast())
    }

    func markQueueDirty(_ room: HubRoom) {
        guard !room.isQueueDirty else { return }
        room.isQueueDirty = true
        dirtyRooms.append(room)
        scheduleTurn()
    }

    /// One batch a room, all of a round. The next round goes when the store has answered this one and ``PublishPace`` says so:
    /// what gathers meanwhile shares a script a room, a write, and later a relay and a send a member.
    func sendBatches() {
        guard publishesInFlight == 0, mayWrite(), redis.isConnected, replicaWait?.mayPublish ?? true, isPublishDue()
        else { return }
        let dirty = dirtyRooms
        dirtyRooms = []
        // What the replicas could not have in time does not go out.
        let least = replicaWait.map { _ in NIODeadline.now() + ReplicaWait.leastLeft }
        for room in dirty {
            room.isQueueDirty = false
            guard room.phase == .open else { continue }
            if let least { expirePublishes(of: room, least) }
            let batch = room.queue.nextBatch(maximumCount: Self.batchCount, maximumBytes: Self.batchBytes) {
                $0.publication.dedupeKey
            }
            if !batch.isEmpty { send(batch, to: room) }
        }
        let dirtyNames = dirtyDirects
        dirtyDirects = []
        for name in dirtyNames where directs[name]?.queue.isInFlight == false {
            if let least { expireDirects(in: name, least) }
            let batch =
                directs[name]?.queue.nextBatch(maximumCount: Self.batchCount, maximumBytes: Self.batchBytes) {
                    $0.publication.dedupeKey
                } ?? []
            guard !batch.isEmpty, let direct = directs[name] else { continue }
            noteDirect(name, users: direct.users)
            send(batch, toDirect: name, channels: direct.channels)
        }
    }

    /// What waits goes now; else a turn is scheduled for when it does.
    private func isPublishDue() -> Bool {
        guard !dirtyRooms.isEmpty || !dirtyDirects.isEmpty else { return false }
        let now = NIODeadline.now().uptimeNanoseconds
        let wait = pace.wait(publishes: waitingPublishes, rooms: dirtyRooms.count + dirtyDirects.count, now: now)
        guard wait == 0 else {
            if !isPublishScheduled {
                isPublishScheduled = true
                eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(wait))) {
                    self.isPublishScheduled = false
                    self.endTurn()
                }
            }
            return false
        }
        pace.left()
        return true
    }

    private func send(_ batch: [PublishQueue<HubRoom.PendingPublish>.Entry], to room: HubRoom) {
        write(batch, room: room.name, channels: nil) { result in
            switch result {
            case .success(let outcomes):
                if self.replicaWait != nil { room.noteReplicated(outcomes) }
                self.settle(room.queue.answered(), outcomes, room: room.name) { seq, owed in
                    switch Self.due(seq, owed, swallowed: room.swallowed, room.sequencer) {
                    case .now: self.acknowledge(owed, seq, room: room.name)
                    case .past: return false
                    case .later:
                        room.owed.add(
                            owed, seq: seq, now: NIODeadline.now().uptimeNanoseconds, deadline: owed.deadline)
                        self.awaitRelay(room, seq: seq)
                    }
                    return true
                }
            case .failure(let error) where Self.isFinal(error):
                self.refuse(room.queue.answered(), self.wireError(error), room: room.name)
            case .failure:
                // Unknown: the same ids go out again, and the store knows what it has.
                self.forget(room.queue.outcomeUnknown())
                self.expirePublishes(of: room, .now())
                // Others may have waited for the end of the round.
                return self.scheduleTurn()
            }
            self.release(room)
            if !room.queue.isEmpty { self.markQueueDirty(room) } else { self.closeIfUnused(room) }
            self.scheduleTurn()
        }
    }

    private func send(
        _ batch: [PublishQueue<HubRoom.PendingPublish>.Entry], toDirect name: RoomName, channels: [String]
    ) {
        write(batch, room: name, channels: channels) { result in
            switch result {
            case .success(let outcomes):
                let entries = self.directs[name]?.queue.answered() ?? []
                self.noteAnew(name, outcomes)
                self.settle(entries, outcomes, room: name) { seq, owed in
                    let stream = self.users[owed.user]?.directs[name]
                    let sequencer = stream?.sequencer ?? RoomSequencer()
                    switch Self.due(seq, owed, swallowed: stream?.swallowed ?? 0, sequencer) {
                    case .now: self.acknowledge(owed, seq, room: name)
                    case .past: return false
                    case .later:
                        self.directs[name]?.owed.add(
                            owed, seq: seq, now: NIODeadline.now().uptimeNanoseconds, deadline: owed.deadline)
                    }
                    return true
                }
            case .failure(let error) where Self.isFinal(error):
                self.refuse(self.directs[name]?.queue.answered() ?? [], self.wireError(error), room: name)
            case .failure:
                self.forget(self.directs[name]?.queue.outcomeUnknown() ?? [])
                self.expireDirects(in: name, .now())
                return self.scheduleTurn()
            }
            self.releaseDirect(name)
            if self.directs[name]?.isEmpty == true { self.directs[name] = nil } else { self.dirtyDirects.insert(name) }
            self.scheduleTurn()
        }
    }

    /// When a stored publish is acknowledged.
    private enum Due {
        /// A gap swallowed its message.
        case now
        /// Its message went by, and the ack with it.
        case past
        /// In the place of its message, which is on its way; or that one is forgotten, which its deadline tells.
        case later
    }

    private static func due(
        _ seq: Int64, _ owed: HubRoom.OwedAck, swallowed: Int64, _ sequencer: RoomSequencer<HubRoom.Relayed>
    ) -> Due {
        if seq <= swallowed { return .now }
        return sequencer.passed(seq, tag: owed.tag) == false ? .later : .past
    }

    private func write(
        _ batch: [PublishQueue<HubRoom.PendingPublish>.Entry], room: RoomName, channels: [String]?,
        _ completion: @escaping (Result<[PublishOutcome], any Error>) -> Void
    ) {
        metrics.publishBatches += 1
        publishesInFlight += replicaWait == nil ? 1 : 0
        // Answered in time for the one that has waited longest.
        let now = NIODeadline.now().uptimeNanoseconds
        let deadline = batch.map(\.deadline).min() ?? now
        let newEpoch = Base64URL.random(count: 8, using: &random)
        func publish(to store: RoomStore, by deadline: UInt64) -> EventLoopFuture<[PublishOutcome]> {
            let left = deadline > now ? Int64(deadline - now) : 0
            return store.publish(
                to: room, channels: channels, batch.map(\.element.publication),
                limits: configuration.historyLimits(of: room), newEpoch: newEpoch,
                timeout: .nanoseconds(min(max(left, 100_000_000), 2_000_000_000)))
        }
        if let replicaWait {
            replicaWait.publish(deadline: deadline, publish(to:by:), completion)
        } else {
            publish(to: store, by: deadline).assumeIsolated().whenComplete { result in
                self.publishesInFlight -= 1
                completion(result)
            }
        }
    }

    /// Redis refused the batch as a whole, and would again at once. One that is loading its data, or hands over to
    /// another, is waited for.
    private static func isFinal(_ error: any Error) -> Bool {
        guard let error = error as? RedisError, error.code == .server else { return false }
        let passing = [
            "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY", "NOSCRIPT",
        ]
        let word = error.message.drop { $0 == "-" }.prefix { $0 != " " }
        return !passing.contains(String(word))
    }

    /// - Parameter owe: takes what is to be acknowledged in the place of its message; false when that has passed, and with
    ///   it the ack of its own session, unless the relay could not know that it is replicated.
    private func settle(
        _ entries: [PublishQueue<HubRoom.PendingPublish>.Entry], _ outcomes: [PublishOutcome], room: RoomName,
        owe: (Int64, HubRoom.OwedAck) -> Bool
    ) {
        forget(entries)
        for (entry, outcome) in zip(entries, outcomes) {
            let pending = entry.element
            func owed(_ ts: Int64, _ tag: String, _ epoch: String, isDuplicate: Bool) -> HubRoom.OwedAck {
                HubRoom.OwedAck(
                    session: pending.session, user: pending.publication.from, id: pending.id, ts: ts, epoch: epoch,
                    tag: tag, isDuplicate: isDuplicate, deadline: entry.deadline)
            }
            switch outcome {
            case .stored(let seq, let ts, let epoch),
                // Stored by an earlier try, whose answer was lost.
                .duplicate(let seq, let ts, pending.publication.tag, let epoch):
                let owed = owed(ts, pending.publication.tag, epoch, isDuplicate: false)
                if !owe(seq, owed), replicaWait != nil { acknowledge(owed, seq, room: room) }
            case .duplicate(let seq, let ts, let tag, let epoch):
                let owed = owed(ts, tag, epoch, isDuplicate: true)
                if !owe(seq, owed) { acknowledge(owed, seq, room: room) }
            case .idReused:
                reply(pending.session, ServerMessage.error(WireError(.idReused), id: pending.id, room: room.string))
            }
        }
    }

    private func refuse(
        _ entries: [PublishQueue<HubRoom.PendingPublish>.Entry], _ error: WireError, room: RoomName
    ) {
        forget(entries)
        // What the relay brought is acknowledged.
        for entry in entries where !entry.isRelayed {
            metrics.publishesRefused += 1
            reply(entry.element.session, ServerMessage.error(error, id: entry.element.id, room: room.string))
        }
    }

    private func forget(_ entries: [PublishQueue<HubRoom.PendingPublish>.Entry]) {
        waitingPublishes -= entries.count
        waitingPublishBytes -= entries.reduce(0) { $0 + $1.bytes }
    }

    func expirePublishes(_ now: NIODeadline) {
        guard waitingPublishes > 0 else { return }
        for room in rooms.values where !room.queue.isEmpty { expirePublishes(of: room, now) }
        for name in Array(directs.keys) {
            expireDirects(in: name, now)
            if directs[name] != nil { dirtyDirects.insert(name) }
        }
    }

    private func expirePublishes(of room: HubRoom, _ now: NIODeadline) {
        let expired = room.queue.expire(now: now.uptimeNanoseconds)
        guard !expired.isEmpty else { return }
        refuse(expired, unavailable(), room: room.name)
        release(room)
    }

    private func expireDirects(in name: RoomName, _ now: NIODeadline) {
        let expired = directs[name]?.queue.expire(now: now.uptimeNanoseconds) ?? []
        if !expired.isEmpty {
            refuse(expired, unavailable(), room: name)
            releaseDirect(name)
        }
        if directs[name]?.isEmpty == true { directs[name] = nil }
    }

    /// The relay brought a message of one of this node's sessions, with its ack.
    func noteRelayed(_ tag: String, by origin: SessionID, in room: HubRoom) {
        forget(room.queue.relayed { $0.publication.tag == tag && $0.session == origin })
    }

    func noteRelayed(_ tag: String, by origin: SessionID, inDirect name: RoomName) {
        forget(directs[name]?.queue.relayed { $0.publication.tag == tag && $0.session == origin } ?? [])
    }

    // MARK: What the relay owes

    /// The relay owes this `seq`; should it not come in time, the log is read.
    func awaitRelay(_ room: HubRoom, seq: Int64) {
        guard (room.sequencer.position?.seq ?? 0) < seq else {
            // Under this number another message went by: Redis forgot that one.
            return apply(room.sequencer.verify(), to: room)
        }
        let now = NIODeadline.now()
        room.awaited = HubRoom.Awaited(
            seq: max(room.awaited?.seq ?? 0, seq), since: room.awaited?.since ?? now,
            checked: room.awaited?.checked ?? now)
    }

    func checkAwaited(_ room: HubRoom, _ now: NIODeadline) {
        if let awaited = room.awaited, (room.sequencer.position?.seq ?? 0) >= awaited.seq { room.awaited = nil }
        // Neither relay nor log has it: Redis forgot it, or is away. The same id again tells.
        for (_, owed) in room.owed.takeOverdue(now: now.uptimeNanoseconds) { deny(owed, room: room.name) }
        guard let awaited = room.awaited else { return }
        if now - awaited.since > NodeConfiguration.publishDeadline, room.owed.isEmpty {
            room.awaited = nil
        } else if now - awaited.checked > NodeConfiguration.relayPatience {
            room.awaited?.checked = now
            metrics.relayMisses += 1
            apply(room.sequencer.verify(), to: room)
        }
    }

    /// Messages up to this `seq` will not be relayed. What is stored in the room's epoch is acknowledged all the same.
    func acknowledgeSwallowed(_ room: HubRoom, through seq: Int64, epochTurned: Bool) {
        for (seq, owed) in epochTurned ? room.owed.takeAll() : room.owed.take(through: seq) {
            if epochTurned {
                deny(owed, room: room.name)
            } else {
                acknowledge(owed, seq, room: room.name)
            }
        }
    }

    /// A private room has its sequencer with each of its users: the sender's is read on for what does not come.
    func checkOwedDirects(_ now: NIODeadline) {
        guard !directs.isEmpty else { return }
        let nanoseconds = now.uptimeNanoseconds
        func before(_ time: TimeAmount) -> UInt64 { nanoseconds - min(UInt64(time.nanoseconds), nanoseconds) }
        for name in Array(directs.keys) {
            for (_, owed) in directs[name]?.owed.takeOverdue(now: nanoseconds) ?? [] {
                deny(owed, room: name)
            }
            if subscriber?.hears == true,
                let (seq, owed) = directs[name]?.owed.overdue(
                    since: before(NodeConfiguration.relayPatience), where: { self.users[$0.user] != nil })
            {
                metrics.relayMisses += 1
                verifyDirect(name, of: owed.user, epoch: owed.epoch, seq: seq)
            }
            if directs[name]?.isEmpty == true { directs[name] = nil }
        }
    }

    /// The message of this `seq` came, and with it the ack of who sent it; duplicates are acknowledged behind. A publish
    /// of which no message came belongs to another story of the room: Redis forgot a tail, and numbers were given again.
    func settleOwed(
        _ owed: [(seq: Int64, publish: HubRoom.OwedAck)], by origin: SessionID?, _ seq: Int64, tag: String,
        room: RoomName
    ) {
        for (of, owed) in owed {
            if owed.isDuplicate {
                if of != seq || owed.session != origin { acknowledge(owed, of, room: room) }
            } else if of != seq || owed.tag != tag {
                deny(owed, room: room)
            }
        }
    }

    func acknowledge(_ owed: HubRoom.OwedAck, _ seq: Int64, room: RoomName) {
        let ack = ServerMessage.ack(
            room: room, id: owed.id, seq: seq, ts: owed.ts, tag: owed.tag, epoch: owed.epoch,
            duplicate: owed.isDuplicate)
        if !isReplayed(ack: ack, of: owed, seq, in: room) { reply(owed.session, ack) }
    }

    func deny(_ owed: HubRoom.OwedAck, room: RoomName) {
        metrics.publishesRefused += 1
        reply(owed.session, ServerMessage.error(unavailable(), id: owed.id, room: room.string))
    }
}
