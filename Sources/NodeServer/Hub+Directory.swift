import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import TokenAuth
import WireProtocol

/// What Redis holds of each session of this node: `P:{s:S}`, the line in its user's list, and the index of the incarnation.
extension Hub {
    var mayResume: Bool { configuration.resumeGrace > .zero }

    /// Whether what Redis holds of this session is this incarnation's, so that its rooms may be written.
    func owns(_ id: SessionID) -> Bool {
        guard let entry = directory[id], let incarnation else { return false }
        return entry.owner == incarnation && entry.registration.isEstablished
    }

    func stake(of id: SessionID, _ status: PresenceStatus) -> MemberStake {
        MemberStake(generation: directory[id]?.generation ?? 1, status: status)
    }

    /// The entry is to hold what the session is now.
    func wantEntry(_ id: SessionID) {
        guard let entry = directory[id], entry.registration.wanted != nil else { return }
        directory[id]?.registration.want(entry.content)
        settleEntry(id)
    }

    /// Another node may have the session since its entry was last written, and the word of it (``moved(_:generation:)``) was
    /// not heard: Redis is asked.
    func doubt(_ id: SessionID) {
        guard directory[id] != nil else { return }
        directory[id]?.registration.doubt()
        settleEntry(id)
    }

    /// As ``doubt(_:)`` for all that can be resumed elsewhere, so many a tick.
    func doubtAll() {
        for (id, entry) in directory where entry.secret != nil || entry.isDetached {
            directory[id]?.registration.doubt()
            pendingEntries.insert(id)
        }
    }

    /// Sends what is due for an entry, if anything.
    func settleEntry(_ id: SessionID) {
        guard let entry = directory[id] else { return }
        if entry.registration.isVoid {
            // Redis holds nothing of it under this incarnation, so nobody can take its rooms over from here.
            directory[id] = nil
            pendingEntries.remove(id)
            return leaveRooms(of: id)
        }
        if entry.registration.isSettled {
            pendingEntries.remove(id)
            return
        }
        pendingEntries.insert(id)
        guard !entry.registration.isUnderWay, let incarnation, mayWrite(),
            let action = directory[id]?.registration.next()
        else { return }
        commandNumber += 1
        directory[id]?.touched = commandNumber
        let command = EntryCommand(id: id, number: commandNumber, incarnation: incarnation)
        switch action {
        case .none, .forget: break
        case .write(let content, let attempt), .update(let content, let attempt):
            write(content, attempt, command)
        case .remove(let attempt): remove(attempt, command)
        }
    }

    /// A command about an entry; its answer counts while no later one went out.
    struct EntryCommand {
        let id: SessionID
        let number: UInt64
        let incarnation: Incarnation
    }

    private func isCurrent(_ command: EntryCommand) -> Bool {
        directory[command.id]?.touched == command.number && incarnation == command.incarnation
    }

    /// What Redis has already is changed where it differs. One that an earlier incarnation of this node had is taken back by
    /// its secret: a survivor may have adopted it, and a client may have gone on with it elsewhere.
    private func write(_ content: SessionContent, _ attempt: Int, _ command: EntryCommand) {
        guard let entry = directory[command.id] else { return }
        if let written = entry.written {
            change(from: written, to: content, attempt, command)
        } else if entry.mustReclaim, let secret = entry.secret {
            reclaim(entry, secret, content, attempt, command)
        } else {
            put(content, attempt, command)
        }
    }

    private func reclaim(
        _ entry: DirectoryEntry, _ secret: SessionSecret.Digest, _ content: SessionContent, _ attempt: Int,
        _ command: EntryCommand
    ) {
        let id = command.id
        resumesUnderWay[id, default: 0] += 1
        sessionStore.resume(id, by: command.incarnation, presented: secret.hex, next: secret.hex, user: entry.user)
            .assumeIsolated().whenComplete { result in
                self.endedResume(of: id)
                guard self.isCurrent(command) else { return }
                switch result {
                case .success(.resumed(let record, _)):
                    self.directory[id]?.owner = command.incarnation
                    self.directory[id]?.generation = record.generation
                    self.directory[id]?.mustReclaim = false
                    // What has changed here meanwhile, also that the connection is gone, is written behind it.
                    self.entryWritten(
                        SessionContent(
                            generation: record.generation, status: record.status, rooms: FewMap(record.rooms)),
                        attempt, command)
                    self.rejoinRooms(of: id)
                case .success(.refused(.unknown)):
                    // It was ended for us: it begins anew, where it was.
                    self.directory[id]?.generation += 1
                    self.put(content, attempt, command)
                case .success(.refused(.dead)):
                    self.directory[id]?.registration.refused(attempt)
                    self.fenced(command.incarnation)
                case .success(.refused):
                    self.abandon(id)
                case .failure(let error):
                    self.writeFailed(attempt, command, error)
                }
            }
    }

    /// The whole entry.
    private func put(_ content: SessionContent, _ attempt: Int, _ command: EntryCommand) {
        let id = command.id
        guard let entry = directory[id] else { return }
        // Redis forgot it, or gave it to another: without a connection there is nothing to begin anew.
        guard !entry.isDetached else { return abandon(id) }
        var record = entry.record(id, owner: command.incarnation)
        record.status = content.status
        record.rooms = content.rooms.dictionary
        sessionStore.open(record, secret: entry.secret?.hex).assumeIsolated().whenComplete { result in
            guard self.isCurrent(command) else { return }
            switch result {
            case .success(let moment?):
                self.directory[id]?.owner = command.incarnation
                self.directory[id]?.mustReclaim = false
                if let opening = self.sessions[id]?.opening, opening.begunAt == nil { opening.begunAt = moment }
                var written = content
                written.generation = record.generation
                self.entryWritten(written, attempt, command)
                self.rejoinRooms(of: id)
            case .success(nil):
                self.directory[id]?.registration.refused(attempt)
                self.notOwned(command)
            case .failure(let error):
                self.writeFailed(attempt, command, error)
            }
        }
    }

    /// Redis did not take the entry: the incarnation is dead, or another has the session.
    private func notOwned(_ command: EntryCommand) {
        nodes.isAlive(command.incarnation).assumeIsolated().whenSuccess { isAlive in
            guard self.isCurrent(command) else { return }
            if isAlive { self.abandon(command.id) } else { self.fenced(command.incarnation) }
        }
    }

    private func writeFailed(_ attempt: Int, _ command: EntryCommand, _ error: any Error) {
        logger.debug("session not entered yet", metadata: ["error": "\(error)"])
        _ = directory[command.id]?.registration.writeFailed(attempt, outcomeIsUnknown: true)
        // A full Redis says so at once; all else may pass before the deadline.
        if (error as? RedisError)?.isOutOfMemory == true { refuse(command.id, wireError(error)) }
    }

    private func entryWritten(_ content: SessionContent, _ attempt: Int, _ command: EntryCommand) {
        let id = command.id
        guard directory[id]?.registration.wrote(attempt) != nil else { return }
        directory[id]?.written = content
        directory[id]?.uncertainRooms = []
        if let entry = directory[id], entry.registration.wanted != nil {
            directory[id]?.registration.want(entry.content)
        }
        openIfReady(id)
        settleEntry(id)
    }

    private func change(
        from written: SessionContent, to content: SessionContent, _ attempt: Int, _ command: EntryCommand
    ) {
        let id = command.id
        guard let entry = directory[id] else { return }
        var record = entry.record(id, owner: command.incarnation)
        record.status = content.status
        let uncertain = entry.uncertainRooms
        var changes: [RoomName: Bool?] = [:]
        for (room, echo) in content.rooms where written.rooms[room] != echo || uncertain.contains(room) {
            changes[room] = echo
        }
        for room in uncertain.union(written.rooms.keys) where content.rooms[room] == nil { changes[room] = .some(nil) }
        directory[id]?.uncertainRooms.formUnion(changes.keys)
        // The status stands for the whole: with it the answer always tells whether the session is still ours.
        var steps = [sessionStore.setStatus(of: record)]
        if !changes.isEmpty { steps.append(sessionStore.setRooms(changes, of: record)) }
        if content.isDetached { steps.append(sessionStore.detach(record, grace: graceLeft(id))) }
        EventLoopFuture.whenAllSucceed(steps, on: eventLoop).assumeIsolated().whenComplete { result in
            guard self.isCurrent(command) else { return }
            switch result {
            case .success(let answers) where answers.allSatisfy({ $0 }):
                self.entryWritten(content, attempt, command)
            case .success:
                // Forgotten, or another's: written whole, which tells.
                self.directory[id]?.written = nil
                self.put(content, attempt, command)
            case .failure(let error):
                self.writeFailed(attempt, command, error)
            }
        }
    }

    private func remove(_ attempt: Int, _ command: EntryCommand) {
        let id = command.id
        guard let entry = directory[id] else { return }
        sessionStore.end(entry.record(id, owner: command.incarnation)).assumeIsolated().whenComplete { result in
            guard self.isCurrent(command) else { return }
            switch result {
            case .success(true):
                self.directory[id]?.registration.removed(attempt)
                self.settleEntry(id)
            case .success(false):
                self.directory[id] = nil
                self.pendingEntries.remove(id)
                self.leaveRoomsLater(of: id)
            case .failure:
                self.directory[id]?.registration.removeFailed(attempt)
            }
        }
    }

    /// What failed is tried again, so many a tick.
    func settleEntries() {
        guard mayWrite(), redis.isConnected else { return }
        for id in pendingEntries where repairCommands < Self.repairCommandsPerTick {
            guard directory[id]?.registration.isUnderWay == false else { continue }
            repairCommands += 1
            settleEntry(id)
        }
    }

    // MARK: The rooms of a session

    /// Under the generation that the session has now.
    private func rejoinRooms(of id: SessionID) {
        guard let entry = directory[id] else { return }
        for room in rooms(of: id) {
            guard room.members[id]?.registration.wanted != nil else { continue }
            room.members[id]?.registration.want(stake(of: id, entry.status))
            settle(id, in: room)
        }
    }

    /// The session is ended, and was ours to end.
    private func leaveRooms(of id: SessionID) {
        guard directory[id] == nil else { return }
        for room in rooms(of: id) { leave(room.name, id) }
    }

    /// Another has the session and takes its memberships over. Which it did not take after a while nobody stands behind.
    func leaveRoomsLater(of id: SessionID) {
        guard roomsOf[id] != nil else { return }
        leaving.append((id, .now() + NodeConfiguration.takeoverPatience))
    }

    func expireLeaving(_ now: NIODeadline) {
        let due = leaving.prefix { $0.at <= now }
        leaving.removeFirst(due.count)
        for (id, _) in due { leaveRooms(of: id) }
    }
}
