import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import TokenAuth
import WireProtocol

/// Sessions without a connection: kept for their grace, resumed here or elsewhere, adopted from nodes that died (G4).
///
/// A session moves upward only (`docs/decisions/0008-session-resume.md`): whoever finds that another owns it, by an answer of
/// Redis or by word on its user's channel, abandons it and touches nothing of it any more.
extension Hub {
    // MARK: Coming back

    func resume(_ opening: SessionOpening, _ asked: SessionOpening.Resume) {
        guard let incarnation, mayWrite() else {
            // Answered by the deadline of the opening; the client asks again.
            return
        }
        let id = asked.session
        let next = SessionSecret()
        resumesUnderWay[id, default: 0] += 1
        resumingConnections.insert(opening.connection)
        sessionStore.resume(
            id, by: incarnation, presented: asked.secret.digest.hex, next: next.digest.hex, user: opening.user
        ).assumeIsolated().whenComplete { result in
            self.endedResume(of: id)
            self.resumingConnections.remove(opening.connection)
            defer { self.goodbyes.remove(opening.connection) }
            switch result {
            case .success(.resumed(let record, _)) where self.incarnation == incarnation:
                self.goOn(record, next, opening)
            case .success(.refused(.dead)):
                self.fenced(incarnation)
            case .success(.refused):
                if self.sessions[opening.connection] != nil { self.enter(opening) }
            case .success(.resumed(let record, _)):
                // Of an incarnation that is dead by now. Whoever swept it may have passed: it ends with its grace, unless the
                // client, who asks again, comes before.
                _ = self.sessionStore.detach(record, grace: self.configuration.resumeGrace)
                self.refuse(opening.connection, self.unavailable())
            case .failure(let error):
                // It may be ours all the same: then the index has a line that nobody here stands behind.
                self.needsDirectoryReconcile = true
                self.refuse(opening.connection, self.wireError(error))
            }
        }
    }

    /// This incarnation owns the session now, with the record's generation.
    private func goOn(_ record: SessionRecord, _ secret: SessionSecret, _ opening: SessionOpening) {
        let id = record.session
        if let known = directory[id], known.generation >= record.generation {
            // A later one was answered first.
            return emit(.moved(id, connection: opening.connection), to: opening.lane.shard)
        }
        // The connection that had it here, if any, has it no more; the rooms stay.
        if let former = sessions[id] { emit(.moved(id, connection: former.connection), to: former.lane.shard) }
        unbind(id)
        detached[id] = nil

        var entry = DirectoryEntry(record, secret: secret.digest, isDetached: false)
        if let status = opening.status { entry.status = status }
        if let client = opening.client { entry.client = client }
        directory[id] = numbered(entry)
        takeOver(record)
        guard var session = sessions.removeValue(forKey: opening.connection) else {
            // Its client went away while Redis was asked, for good or not.
            return goodbyes.remove(opening.connection) == nil ? detach(id, opening.origin) : end(id)
        }
        openings.remove(opening.connection)
        session.status = entry.status
        session.opening?.secret = secret
        session.isResumed = true
        sessions[id] = session
        openings.insert(id)
        resumedBy[session.connection] = id
        hear(record.user, for: id)
        stopHearing(record.user, for: opening.connection)
        wantEntry(id)
        doubt(id)
        openIfReady(id)
    }

    /// The client has the new secret: the one before is good no more.
    func confirm(_ id: SessionID) {
        guard let entry = directory[id], let incarnation, owns(id) else { return }
        _ = sessionStore.confirm(entry.record(id, owner: incarnation))
    }

    // MARK: Without a connection

    /// Keeps the session's place for the grace, if it has one to keep.
    func detach(_ id: SessionID, _ origin: SessionOrigin?) {
        let wasOpen = sessions[id].map { $0.isOpen || $0.isResumed } ?? true
        guard wasOpen, let entry = directory[id], entry.secret != nil, entry.registration.wanted != nil,
            // An order may have come while the word of its connection was on its way.
            moderation.exclusion(of: ModerationSubject(id, entry.user, origin)) == nil
        else { return end(id) }
        unbind(id)
        detached[id] = DetachedSession(until: .now() + configuration.resumeGrace, origin: origin)
        directory[id]?.isDetached = true
        hear(entry.user, for: id)
        wantEntry(id)
    }

    /// Somebody may still come back to a session of this node.
    var keepsSessions: Bool { mayResume && directory.values.contains { $0.secret != nil || $0.isDetached } }

    func graceLeft(_ id: SessionID) -> TimeAmount {
        max(.zero, (detached[id]?.until ?? .now()) - .now())
    }

    func expireDetached(_ now: NIODeadline) {
        for (id, session) in detached where session.until <= now { end(id) }
    }

    /// This node was dead, and whoever swept it has its sessions without a connection, or has ended them.
    func forgetDetached(_ id: SessionID) {
        detached[id] = nil
        pendingEntries.remove(id)
        guard let entry = directory.removeValue(forKey: id) else { return }
        stopHearing(entry.user, for: id)
        for room in rooms(of: id) {
            room.members[id]?.registration.beginAnew()
            _ = room.members[id]?.registration.wantNothing()
            settle(id, in: room)
        }
    }

    /// An operator sends a user away, who may have no connection at the moment.
    func kickDetached(_ user: UserName, from room: RoomName?) {
        for id in users[user]?.detached ?? [] {
            guard let room else {
                end(id)
                continue
            }
            leave(room, id)
        }
    }

    // MARK: Elsewhere

    /// Word of another owner. While this node takes the session over itself it may be its own word; behind that it asks.
    func moved(_ id: SessionID, generation: Int64) {
        guard resumesUnderWay[id] == nil, let entry = directory[id], entry.generation < generation else { return }
        abandon(id)
    }

    /// Another owner has the session. Its client here hears so and is closed.
    func abandon(_ id: SessionID) {
        guard let entry = directory.removeValue(forKey: id) else { return }
        pendingEntries.remove(id)
        detached[id] = nil
        if let session = sessions[id] { emit(.moved(id, connection: session.connection), to: session.lane.shard) }
        unbind(id)
        stopHearing(entry.user, for: id)
        leaveRoomsLater(of: id)
        guard let incarnation, mayWrite(), resumesUnderWay[id] == nil else { return }
        // Unless Redis says that it is ours after all, as when the answer to a resume was lost.
        takeBack([id: entry.user], incarnation)
    }

    // MARK: Of the dead

    /// Sessions that this node took from a dead one: their memberships move here before the dead node is swept from its
    /// rooms, so that nobody sees them go. Succeeds when they have moved, or after ``NodeConfiguration/adoptionPatience``.
    func adopt(_ adopted: [AdoptedSession]) -> EventLoopFuture<Void> {
        eventLoop.assertInEventLoop()
        guard mayWrite(), adopted.allSatisfy({ $0.record.owner == incarnation }) else {
            return eventLoop.makeFailedFuture(AdoptionEnded())
        }
        var memberships: [(SessionID, RoomName)] = []
        for session in adopted {
            let id = session.record.session
            // Resumed here meanwhile.
            guard directory[id] == nil else { continue }
            directory[id] = numbered(DirectoryEntry(session.record, secret: nil, isDetached: true))
            guard session.graceLeft > .zero, mayKeep(session.record) else {
                end(id)
                continue
            }
            detached[id] = DetachedSession(until: .now() + session.graceLeft, origin: nil)
            hear(session.record.user, for: id)
            takeOver(session.record)
            leaveBannedRooms(session.record)
            memberships += session.record.rooms.keys.map { (id, $0) }
        }
        guard !memberships.isEmpty else { return eventLoop.makeSucceededVoidFuture() }
        let promise = eventLoop.makePromise(of: Void.self)
        adoptions.append(
            Adoption(
                memberships: memberships, deadline: .now() + NodeConfiguration.adoptionPatience, promise: promise))
        return promise.futureResult
    }

    /// The rooms of a session that is this incarnation's now: its memberships move here from wherever they were.
    private func takeOver(_ record: SessionRecord) {
        let id = record.session
        for name in record.rooms.keys {
            let room = rooms[name] ?? openRoom(name)
            let stake = stake(of: id, record.status)
            note(room, of: id)
            room.members[
                id,
                default: HubRoom.Member(
                    user: record.user, registration: Registration(wanting: stake))
            ].registration.want(stake)
            room.members[id]?.user = record.user
            settle(id, in: room)
        }
    }

    private func numbered(_ entry: DirectoryEntry) -> DirectoryEntry {
        var entry = entry
        commandNumber += 1
        entry.touched = commandNumber
        return entry
    }

    func endedResume(of id: SessionID) {
        let left = (resumesUnderWay[id] ?? 1) - 1
        resumesUnderWay[id] = left > 0 ? left : nil
        doubt(id)
    }

    /// The sweep that waits for them is not ours to go on with.
    func failAdoptions() {
        for adoption in adoptions { adoption.promise.fail(AdoptionEnded()) }
        adoptions = []
    }

    struct AdoptionEnded: Error, CustomStringConvertible {
        var description: String { "this node is dead or ends" }
    }

    func checkAdoptions(_ now: NIODeadline) {
        guard !adoptions.isEmpty else { return }
        var open: [Adoption] = []
        for adoption in adoptions {
            let isDone = adoption.memberships.allSatisfy { id, name in
                // Settled, or gone on elsewhere.
                guard directory[id]?.isDetached == true else { return true }
                return rooms[name]?.members[id]?.registration.isSettled ?? true
            }
            if isDone || adoption.deadline <= now {
                adoption.promise.succeed(())
            } else {
                open.append(adoption)
            }
        }
        adoptions = open
    }
}
