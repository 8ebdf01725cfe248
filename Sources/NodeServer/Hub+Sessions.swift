import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Sessions and users: the directory entries of a session, the channel of its user, status.
extension Hub {
    func open(_ opening: SessionOpening) {
        sessions[opening.session] = HubSession(
            user: opening.user, shard: opening.shard, info: opening.info, joinedAt: 0, status: opening.status,
            openDeadline: .now() + NodeConfiguration.joinDeadline)
        openings.insert(opening.session)
        pursueOpening(opening.session)
    }

    /// The session is open once its user's channel is heard and its entries are written.
    private func pursueOpening(_ id: SessionID) {
        guard let session = sessions[id] else { return }
        let user = session.user
        let subscribed: EventLoopFuture<Void>
        if users[user] == nil {
            let channel = keys.userChannel(user)
            users[user] = HubUser(channel: channel)
            usersByChannel[channel] = user
        }
        users[user]?.sessions[id] = session.shard
        guard let subscriber, let incarnation, mayWrite() else { return }
        subscribed = subscriber.subscribe(keys.userChannel(user))
        subscribed.and(nodes.addSession(incarnation, id, user: user)).assumeIsolated().whenComplete { result in
            guard self.sessions[id]?.isOpen == false else { return }
            switch result {
            case .success((_, true)):
                self.sessions[id]?.isOpen = true
                self.openings.remove(id)
                self.emit(.opened(id), to: session.shard)
            case .success((_, false)):
                self.fenced(incarnation)
            case .failure(let error):
                self.logger.debug("session could not be opened yet", metadata: ["error": "\(error)"])
            }
        }
    }

    /// Sessions that could not be opened are tried again until their deadline, then refused.
    func expireOpenings(_ now: NIODeadline) {
        for id in openings {
            guard let session = sessions[id] else { continue }
            if session.openDeadline <= now {
                emit(
                    .refused(id, unavailable("the cluster's store cannot be reached; reconnect later")),
                    to: session.shard)
                forget(id)
            } else if mayWrite() {
                pursueOpening(id)
            }
        }
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
        guard let incarnation else { return }
        nodes.removeSession(incarnation, id, user: session.user).assumeIsolated().whenFailure { error in
            self.logger.debug("session entry not removed", metadata: ["session": "\(id)", "error": "\(error)"])
            self.needsDirectoryReconcile = true
        }
    }

    func setStatus(_ id: SessionID, _ status: PresenceStatus) {
        guard let session = sessions[id] else { return }
        sessions[id]?.status = status
        for name in session.rooms {
            guard let room = rooms[name], room.members[id] != nil else { continue }
            room.members[id]?.membership.status = status
            guard let membership = room.members[id]?.membership, mayWrite() else {
                room.needsReconcile = true
                continue
            }
            store.setStatus(membership).assumeIsolated().whenFailure { _ in room.needsReconcile = true }
        }
    }

    func typing(_ name: RoomName, _ session: SessionID, _ frame: [UInt8]) {
        guard let room = rooms[name], room.members[session] != nil else { return }
        // Ephemeral: what cannot go now is dropped.
        _ = store.typing(room: name, origin: session, frame: ByteBuffer(bytes: frame))
    }
}
