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

    /// Does what the sequencer says, in its order.
    func apply(_ events: [RoomSequencer<HubRoom.Relayed>.Event], to room: HubRoom) {
        for event in events {
            switch event {
            case .deliver(let message): append(message, of: room)
            case .gap(let epoch, let from, let to):
                metrics.gaps += 1
                logger.warning(
                    "messages cannot be delivered",
                    metadata: ["room": "\(room.name)", "epoch": "\(epoch)", "from": "\(from)", "to": "\(to)"])
                append(ServerMessage.gap(room: room.name, epoch: epoch, from: from, to: to), to: room, as: .notice)
            case .read(let from): readLog(room, from: from)
            }
        }
        if !events.isEmpty { scheduleTurn() }
    }

    private func readLog(_ room: HubRoom, from: Int64) {
        metrics.logReads += 1
        store.history(room: room.name, range: .range(from, .max), limit: Self.logPage)
            .assumeIsolated().whenComplete { result in
                switch result {
                case .success(let page):
                    let position = page.head.map { RoomPosition(epoch: $0.epoch, seq: $0.seq, tag: $0.tag) }
                    let relayed = page.messages.map { message in
                        RoomSequencer<HubRoom.Relayed>.Message(
                            epoch: position?.epoch ?? "", seq: message.seq, tag: message.tag, previousTag: nil,
                            element: HubRoom.Relayed(
                                text: ByteBuffer(bytes: self.text(of: message, in: room.name, for: nil)),
                                origin: SessionID(message.origin), id: message.clientID, ts: message.ts))
                    }
                    self.apply(room.sequencer.logRead(relayed, head: position), to: room)
                case .failure:
                    room.sequencer.readFailed()
                    self.repairBacklog.append(room)
                }
            }
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

    /// Every room is compared with Redis once in 45 s: a lost tail or a lost presence event is found even when nothing
    /// else happens there (G2, G4).
    func sample() {
        guard subscriber?.hears == true, redis.isConnected else { return }
        if samples.isEmpty { samples = Array(rooms.values) }
        let count = min(samples.count, rooms.count / 180 + 1)
        for room in samples.suffix(count) where room.phase == .open {
            guard let before = room.sequencer.position else { continue }
            store.head(room: room.name).assumeIsolated().whenSuccess { head in
                guard let head, let position = room.sequencer.position else { return }
                if head.epoch == position.epoch, head.seq < before.seq {
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
            guard head.pv != room.pv || room.needsPresenceText else { return }
            room.pv = head.pv
            room.needsPresenceText = false
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
    }

    func reconcile(_ room: HubRoom) {
        guard !room.isReconciling, mayWrite(), redis.isConnected, room.phase == .open, let incarnation else { return }
        room.isReconciling = true
        room.needsReconcile = false
        let before = room.members
        store.sessionsOn(incarnation, room: room.name).assumeIsolated().whenComplete { result in
            room.isReconciling = false
            guard case .success(let present) = result, self.incarnation == incarnation else {
                room.needsReconcile = true
                return
            }
            for (id, member) in room.members where before[id] != nil && !present.contains(id.string) {
                self.rejoin(member.membership, room)
            }
            for text in present {
                guard let id = SessionID(text), room.members[id] == nil, before[id] == nil else { continue }
                self.removeStray(id, room, incarnation)
            }
            self.closeIfUnused(room)
        }
    }

    private func rejoin(_ membership: Membership, _ room: HubRoom) {
        store.join(membership).assumeIsolated().whenComplete { result in
            switch result {
            case .success(let answer) where answer.refusal == .dead: self.fenced(membership.incarnation)
            case .success(let answer) where answer.refusal == .older: self.leave(room.name, membership.session)
            case .success(let answer):
                // Redis may have forgotten the room: its head tells.
                if room.sequencer.position?.epoch != answer.head.epoch
                    || (room.sequencer.position?.seq ?? 0) != answer.head.seq
                {
                    self.apply(room.sequencer.verify(), to: room)
                }
                if room.pv != answer.head.pv { self.readPresence(room) }
            case .failure: room.needsReconcile = true
            }
        }
    }

    /// An entry of a session that this process does not have in the room: a leave whose answer was lost.
    private func removeStray(_ id: SessionID, _ room: HubRoom, _ incarnation: Incarnation) {
        store.members(room: room.name).assumeIsolated().whenSuccess { memberships in
            for membership in memberships
            where membership.session == id && membership.incarnation == incarnation && room.members[id] == nil {
                self.store.leave(membership).assumeIsolated().whenFailure { _ in room.needsReconcile = true }
            }
        }
    }

    /// The index of this incarnation against the rooms and sessions of this process.
    func reconcileDirectory() {
        guard needsDirectoryReconcile, mayWrite(), redis.isConnected, let incarnation else { return }
        needsDirectoryReconcile = false
        nodes.rooms(of: incarnation).and(nodes.sessions(of: incarnation)).assumeIsolated().whenComplete { result in
            guard case .success((let indexedRooms, let indexedSessions)) = result, self.incarnation == incarnation
            else {
                self.needsDirectoryReconcile = true
                return
            }
            for name in indexedRooms where self.rooms[name] == nil {
                // Nobody of this process is there: open it, so that its reconciling removes what is left, then close.
                self.adoptForCleaning(name, incarnation)
            }
            for room in self.rooms.values where room.isIndexed && !indexedRooms.contains(room.name) {
                self.nodes.addRoom(incarnation, room.name).assumeIsolated().whenSuccess { alive in
                    if !alive { self.fenced(incarnation) }
                }
            }
            let present = Set(indexedSessions.map(\.0))
            for (id, session) in self.sessions where session.isOpen && !present.contains(id) {
                self.nodes.addSession(incarnation, id, user: session.user).assumeIsolated().whenFailure { _ in
                    self.needsDirectoryReconcile = true
                }
            }
            for (id, user) in indexedSessions where self.sessions[id] == nil {
                self.nodes.removeSession(incarnation, id, user: user).assumeIsolated().whenFailure { _ in
                    self.needsDirectoryReconcile = true
                }
            }
        }
    }

    private func adoptForCleaning(_ name: RoomName, _ incarnation: Incarnation) {
        store.sessionsOn(incarnation, room: name).and(store.members(room: name)).assumeIsolated().whenComplete {
            result in
            guard case .success((let present, let memberships)) = result else {
                self.needsDirectoryReconcile = true
                return
            }
            guard self.rooms[name] == nil else { return }
            for membership in memberships
            where membership.incarnation == incarnation && present.contains(membership.session.string) {
                self.store.leave(membership).assumeIsolated().whenFailure { _ in self.needsDirectoryReconcile = true }
            }
            self.nodes.removeRoom(incarnation, name).assumeIsolated().whenFailure { _ in
                self.needsDirectoryReconcile = true
            }
        }
    }

    // MARK: Incarnations

    /// Redis holds this incarnation for dead. Nothing of it may be written any more.
    func fenced(_ incarnation: Incarnation) {
        guard self.incarnation == incarnation else { return }
        self.incarnation = nil
        onFenced()
    }

    /// Everything that this process has is written again under the new incarnation, with a higher generation. Who was
    /// swept comes back; nobody is disconnected.
    func begin(_ incarnation: Incarnation) {
        eventLoop.assertInEventLoop()
        self.incarnation = incarnation
        generation += 1
        for (id, session) in sessions where session.isOpen {
            nodes.addSession(incarnation, id, user: session.user).assumeIsolated().whenFailure { _ in
                self.needsDirectoryReconcile = true
            }
        }
        for room in rooms.values {
            room.phase = .opening
            room.isIndexed = false
            room.isIndexing = false
            for (id, member) in room.members {
                if let request = member.request {
                    remove(id, from: room)
                    room.waitingJoins.append(request)
                } else {
                    room.members[id]?.membership.incarnation = incarnation
                    room.members[id]?.membership.generation = generation
                }
            }
            room.needsReconcile = true
            pursue(room)
        }
    }
}
