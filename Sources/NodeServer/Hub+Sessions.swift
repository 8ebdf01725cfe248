import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Sessions and users: the directory entries of a session, the channel of its user, status.
extension Hub {
    func open(_ opening: SessionOpening) {
        let id = opening.session
        sessions[id] = HubSession(
            user: opening.user, shard: opening.shard, info: opening.info, status: opening.status,
            openDeadline: .now() + NodeConfiguration.joinDeadline)
        openings.insert(id)
        hear(opening.user, for: id, on: opening.shard)
        directory[id] = DirectoryEntry(user: opening.user, registration: Registration(wanting: generation))
        settleEntry(id)
    }

    private func hear(_ user: UserName, for id: SessionID, on shard: Int) {
        if users[user] == nil {
            let channel = keys.userChannel(user)
            users[user] = HubUser(channel: channel)
            usersByChannel[channel] = user
            subscriber?.subscribe(channel).assumeIsolated().whenSuccess {
                guard self.users[user] != nil else { return }
                self.users[user]?.isHeard = true
                for id in self.users[user]?.sessions.keys.map({ $0 }) ?? [] { self.openIfReady(id) }
            }
        }
        users[user]?.sessions[id] = shard
    }

    /// The session is open once its user's channel is heard and its entries are written.
    private func openIfReady(_ id: SessionID) {
        guard let session = sessions[id], !session.isOpen, users[session.user]?.isHeard == true,
            directory[id]?.registration.isEstablished == true
        else { return }
        sessions[id]?.isOpen = true
        openings.remove(id)
        emit(.opened(id), to: session.shard)
    }

    /// Sessions that could not be opened by their deadline are refused.
    func expireOpenings(_ now: NIODeadline) {
        for id in openings {
            guard let session = sessions[id], session.openDeadline <= now else { continue }
            emit(.refused(id, unavailable("the cluster's store cannot be reached; reconnect later")), to: session.shard)
            forget(id)
        }
    }

    /// A full Redis says so at once; all else may pass before the deadline.
    private func refuseOpening(_ id: SessionID, _ error: any Error) {
        guard let session = sessions[id], !session.isOpen, (error as? RedisError)?.isOutOfMemory == true else { return }
        emit(.refused(id, wireError(error)), to: session.shard)
        forget(id)
    }

    /// The connection is gone: its rooms were left by commands before this one.
    func close(_ id: SessionID) {
        guard let session = sessions[id] else { return }
        for room in session.rooms { leave(room, id) }
        forget(id)
    }

    private func forget(_ id: SessionID) {
        guard let session = sessions.removeValue(forKey: id) else { return }
        openings.remove(id)
        users[session.user]?.sessions[id] = nil
        if let user = users[session.user], user.sessions.isEmpty {
            users[session.user] = nil
            usersByChannel[user.channel] = nil
            subscriber?.unsubscribe(user.channel)
        }
        _ = directory[id]?.registration.wantNothing()
        settleEntry(id)
    }

    // MARK: The directory

    /// Sends what is due for an entry, if anything.
    func settleEntry(_ id: SessionID) {
        guard let entry = directory[id] else { return }
        if entry.registration.isVoid {
            directory[id] = nil
            pendingEntries.remove(id)
            return
        }
        if entry.registration.isSettled {
            pendingEntries.remove(id)
            return
        }
        pendingEntries.insert(id)
        guard let incarnation, mayWrite(), let action = directory[id]?.registration.next() else { return }
        commandNumber += 1
        directory[id]?.touched = commandNumber
        switch action {
        case .none, .forget:
            break
        case .write(_, let attempt), .update(_, let attempt):
            nodes.addSession(incarnation, id, user: entry.user, generation: generation)
                .assumeIsolated().whenComplete { result in
                    switch result {
                    case .success(true):
                        _ = self.directory[id]?.registration.wrote(attempt)
                        self.openIfReady(id)
                        self.settleEntry(id)
                    case .success(false):
                        self.directory[id]?.registration.refused(attempt)
                        self.fenced(incarnation)
                    case .failure(let error):
                        self.logger.debug("session not entered yet", metadata: ["error": "\(error)"])
                        _ = self.directory[id]?.registration.writeFailed(attempt, outcomeIsUnknown: true)
                        self.refuseOpening(id, error)
                    }
                }
        case .remove(let attempt):
            nodes.removeSession(incarnation, id, user: entry.user).assumeIsolated().whenComplete { result in
                switch result {
                case .success:
                    self.directory[id]?.registration.removed(attempt)
                    self.settleEntry(id)
                case .failure:
                    self.directory[id]?.registration.removeFailed(attempt)
                }
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

    // MARK: Status and typing

    func setStatus(_ id: SessionID, _ status: PresenceStatus) {
        guard let session = sessions[id] else { return }
        sessions[id]?.status = status
        for name in session.rooms {
            guard let room = rooms[name], room.members[id]?.registration.wanted != nil else { continue }
            room.members[id]?.registration.want(status)
            settle(id, in: room)
        }
    }

    func typing(_ name: RoomName, _ session: SessionID, _ frame: [UInt8]) {
        guard let room = rooms[name], room.members[session]?.isDelivered == true else { return }
        // Ephemeral: what cannot go now is dropped.
        _ = store.typing(room: name, origin: session, frame: ByteBuffer(bytes: frame))
    }
}
