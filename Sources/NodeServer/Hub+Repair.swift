import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Puts right what an outage broke: holes in rooms from the log, memberships from what Redis holds against what this
/// process has, everything after the incarnation was declared dead (G2, G4, G5).
extension Hub {
    private static var logPage: Int { 300 }
    /// Rooms that are checked in one tick of 250 ms after the subscription was deaf.
    private static var repairsPerTick: Int { 200 }
    private static var samplingPeriod: TimeAmount { .seconds(45) }

    /// Does what the sequencer says, in its order.
    func apply(_ events: [RoomSequencer<HubRoom.Relayed>.Event], to room: HubRoom) {
        for event in events {
            switch event {
            case .deliver(let message): append(message, of: room)
            case .gap(let epoch, let from, let to):
                metrics.gaps += 1
                room.swallowed = to
                logger.warning(
                    "messages cannot be delivered",
                    metadata: ["room": "\(room.name)", "epoch": "\(epoch)", "from": "\(from)", "to": "\(to)"])
                append(ServerMessage.gap(room: room.name, epoch: epoch, from: from, to: to), to: room, as: .notice)
                acknowledgeSwallowed(room, through: to, epochTurned: epoch != room.epoch)
                if epoch != room.epoch {
                    // The numbers of presence may have fallen too.
                    room.needsPresenceText = true
                    readPresence(room)
                }
            case .read(let from): readLog(room, from: from)
            case .turn(let epoch, let from): turn(room, from: epoch, thenRead: from)
            }
        }
        room.epoch = room.sequencer.position?.epoch ?? room.epoch
        if !events.isEmpty { scheduleTurn() }
    }

    /// Redis forgot what it had given out. Whoever sees it first turns the epoch, so that nobody compares numbers of the two
    /// stories; then the log is read in the new one.
    private func turn(_ room: HubRoom, from epoch: String, thenRead from: Int64) {
        logger.warning("Redis forgot messages: the room's epoch turns", metadata: ["room": "\(room.name)"])
        store.turnEpoch(room: room.name, from: epoch, to: Base64URL.random(count: 8, using: &random))
            .assumeIsolated().whenComplete { result in
                switch result {
                case .success: self.readLog(room, from: from)
                case .failure:
                    room.sequencer.readFailed()
                    self.repairBacklog.append(room)
                }
            }
    }

    private func readLog(_ room: HubRoom, from: Int64) {
        metrics.logReads += 1
        history(of: room.name, .range(from, .max), limit: Self.logPage)
            .assumeIsolated().whenComplete { result in
                switch result {
                case .success(let page):
                    if self.replicaWait != nil, self.holds(page, in: room) { return }
                    let position = page.head.map { RoomPosition(epoch: $0.epoch, seq: $0.seq, tag: $0.tag) }
                    let relayed = page.messages.map {
                        self.relayed($0, epoch: position?.epoch ?? "", in: room.name)
                    }
                    self.apply(room.sequencer.logRead(relayed, head: position), to: room)
                case .failure:
                    room.sequencer.readFailed()
                    self.repairBacklog.append(room)
                }
            }
    }

    /// A stored message as the relay would have brought it.
    func relayed(
        _ message: StoredMessage, epoch: String, in room: RoomName
    ) -> RoomSequencer<HubRoom.Relayed>.Message {
        .init(
            epoch: epoch, seq: message.seq, tag: message.tag, previousTag: nil,
            element: HubRoom.Relayed(
                text: ByteBuffer(bytes: text(of: message, in: room, epoch: epoch, for: nil)),
                origin: SessionID(message.origin),
                id: message.clientID, ts: message.ts))
    }

    /// The subscription hears again: every room may have missed something.
    func repairAll() {
        repairBacklog = Array(rooms.values)
        continueRepair()
    }

    func continueRepair() {
        guard !repairBacklog.isEmpty, subscriber?.hears == true, redis.isConnected else { return }
        let count = min(repairBacklog.count, Self.repairsPerTick)
        for room in repairBacklog.suffix(count) where room.phase != .closed {
            apply(room.sequencer.verify(), to: room)
            readPresence(room)
        }
        repairBacklog.removeLast(count)
    }

    /// Every room is compared with Redis once in 45 s: a lost tail, a lost presence event or a lost membership is found even
    /// when nothing else happens there (G2, G4). As often the directory of sessions is.
    func sample() {
        guard subscriber?.hears == true, redis.isConnected else { return }
        if NIODeadline.now() - directorySampled > Self.samplingPeriod {
            directorySampled = .now()
            needsDirectoryReconcile = true
        }
        if samples.isEmpty { samples = Array(rooms.values) }
        let count = min(samples.count, rooms.count / 180 + 1)
        for room in samples.suffix(count) where room.phase == .open {
            room.needsReconcile = true
            guard let before = room.sequencer.position else { continue }
            store.head(room: room.name).assumeIsolated().whenSuccess { head in
                guard let head, let position = room.sequencer.position else { return }
                let isOther = head.seq == before.seq && head.tag != before.tag && !before.tag.isEmpty
                if head.epoch == position.epoch, head.seq < before.seq || isOther {
                    // Redis forgot what was delivered.
                    return self.apply(room.sequencer.verify(), to: room)
                }
                // What is still on its way through the relay is no loss: it must be missing a whole second later too.
                guard head.epoch != position.epoch || head.seq > position.seq || head.pv > room.pv else { return }
                self.eventLoop.assumeIsolated().scheduleTask(in: NodeConfiguration.relayPatience) {
                    guard room.phase == .open, let position = room.sequencer.position else { return }
                    if head.epoch != position.epoch || head.seq > position.seq {
                        self.apply(room.sequencer.verify(), to: room)
                    }
                    if room.pv < head.pv { self.readPresence(room) }
                }
            }
        }
        samples.removeLast(count)
    }

    /// After a hole in the events: everybody in the room gets the whole list.
    func readPresence(_ room: HubRoom) {
        guard !room.isReadingPresence, room.phase == .open else { return }
        room.isReadingPresence = true
        store.presence(room: room.name, limit: 100).assumeIsolated().whenComplete { result in
            room.isReadingPresence = false
            guard case .success((let head?, let members)) = result else { return }
            // An event came since; behind a turn of the epoch numbers may have fallen.
            if head.epoch == room.epoch, head.pv < room.pv {
                room.needsPresenceText = true
                self.eventLoop.assumeIsolated().scheduleTask(in: Self.presenceAgain) { self.readPresence(room) }
                return
            }
            guard head.pv != room.pv || room.needsPresenceText else { return }
            room.pv = head.pv
            room.needsPresenceText = false
            guard room.showsPresence else { return }
            self.append(
                ServerMessage.presence(
                    room: room.name, id: nil, members: members, count: head.count, pv: head.pv),
                to: room, as: .presence)
            self.scheduleTurn()
        }
    }

    // MARK: Memberships

    /// Redis was away: what it holds of this incarnation and what this process has may differ.
    func reconcileAll() {
        for room in rooms.values { room.needsReconcile = true }
        needsDirectoryReconcile = true
        notedDirects = [:]
    }

    /// What Redis holds of this node in the room, against what this process has. Members about whom a command went out
    /// since the read began are left alone: its answer tells.
    func reconcile(_ room: HubRoom) {
        guard !room.isReconciling, mayWrite(), redis.isConnected, room.phase == .open, let incarnation,
            repairCommands < Self.repairCommandsPerTick
        else { return }
        repairCommands += 1
        room.isReconciling = true
        room.needsReconcile = false
        let began = commandNumber
        store.sessionsOn(incarnation, room: room.name).assumeIsolated().whenComplete { result in
            room.isReconciling = false
            guard case .success(let present) = result, self.incarnation == incarnation else {
                room.needsReconcile = true
                return
            }
            for (id, member) in room.members where member.touched <= began {
                room.members[id]?.registration.found(present.contains(id.string))
                if room.members[id]?.registration.isSettled == false { room.pending.insert(id) }
            }
            for text in present {
                guard let id = SessionID(text), room.members[id] == nil else { continue }
                self.addStray(id, to: room)
            }
            self.closeIfUnused(room)
        }
    }

    /// An entry of a session that this process does not have: a leave whose answer was lost.
    private func addStray(_ id: SessionID, to room: HubRoom) {
        guard let nobody = try? UserName(validating: "-") else { return }
        room.members[id] = HubRoom.Member(
            user: nobody, registration: Registration(stray: ()))
        note(room, of: id)
        room.pending.insert(id)
    }

    /// The index of this incarnation against the rooms and sessions of this process.
    func reconcileDirectory() {
        guard needsDirectoryReconcile, mayWrite(), redis.isConnected, let incarnation else { return }
        needsDirectoryReconcile = false
        let began = commandNumber
        nodes.rooms(of: incarnation).and(nodes.sessions(of: incarnation)).assumeIsolated().whenComplete { result in
            guard case .success((let rooms, let sessions)) = result, self.incarnation == incarnation else {
                self.needsDirectoryReconcile = true
                return
            }
            let present = Dictionary(sessions) { $1 }
            for (id, entry) in self.directory where entry.touched <= began {
                self.directory[id]?.registration.found(present[id] != nil)
                if present[id] == nil { self.directory[id]?.written = nil }
                if self.directory[id]?.registration.isSettled == false { self.pendingEntries.insert(id) }
            }
            let strays = present.filter { self.directory[$0.key] == nil && self.resumesUnderWay[$0.key] == nil }
            // Behind that: what a session that is taken back has in a room is not removed from there.
            self.takeBack(strays, incarnation).whenComplete { _ in self.compareRooms(Set(rooms), incarnation) }
        }
    }

    /// Sessions in the index that nobody here stands behind. To one with a secret its client may still come back.
    @discardableResult
    func takeBack(_ strays: [SessionID: UserName], _ incarnation: Incarnation) -> EventLoopFuture<Void> {
        let looks = strays.map { id, user in
            sessionStore.takeBack(id, grace: configuration.resumeGrace, by: incarnation).assumeIsolated().map {
                result in
                guard self.incarnation == incarnation else { return }
                switch result {
                case .taken(let session): _ = self.adopt([session])
                case .none:
                    guard self.directory[id] == nil, self.resumesUnderWay[id] == nil else { return }
                    self.directory[id] = DirectoryEntry(stray: user)
                    self.pendingEntries.insert(id)
                case .changed: self.needsDirectoryReconcile = true
                }
            }.nonisolated()
        }
        return EventLoopFuture.andAllComplete(looks, on: eventLoop)
    }

    private func compareRooms(_ indexed: Set<RoomName>, _ incarnation: Incarnation) {
        guard self.incarnation == incarnation else { return }
        for name in indexed where rooms[name] == nil {
            // Nobody of this process is there: opened, what it holds is found and removed, and it is closed again.
            openRoom(name).needsReconcile = true
        }
        for room in rooms.values where room.isIndexed && !indexed.contains(room.name) {
            room.isIndexed = false
            if room.phase == .open { room.phase = .opening }
            pursue(room)
        }
    }

    // MARK: Incarnations

    /// Redis holds this incarnation for dead. Nothing of it may be written any more.
    func fenced(_ incarnation: Incarnation) {
        guard self.incarnation == incarnation else { return }
        self.incarnation = nil
        failAdoptions()
        onFenced()
    }

    /// Everything that this process has is written again under the new incarnation, with a higher generation. Who was
    /// swept comes back; nobody is disconnected.
    func begin(_ incarnation: Incarnation) {
        eventLoop.assertInEventLoop()
        self.incarnation = incarnation
        // Who has no connection here was adopted by the node that swept us, or its grace is over.
        for id in Array(detached.keys) { forgetDetached(id) }
        for (id, entry) in directory {
            directory[id]?.registration.beginAnew()
            directory[id]?.written = nil
            if entry.secret == nil { directory[id]?.generation += 1 } else { directory[id]?.mustReclaim = true }
            if let entry = directory[id], entry.registration.wanted != nil {
                directory[id]?.registration.want(entry.content)
            }
            pendingEntries.insert(id)
        }
        for room in rooms.values {
            room.phase = .opening
            room.isIndexed = false
            room.isIndexing = false
            room.needsReconcile = false
            for id in room.members.keys {
                room.members[id]?.registration.beginAnew()
                room.pending.insert(id)
            }
            pursue(room)
        }
        settleEntries()
    }
}
