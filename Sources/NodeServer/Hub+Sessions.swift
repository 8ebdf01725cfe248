import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import TokenAuth
import WireProtocol

/// Connections as sessions: opened, ended, the channel of their user, status.
extension Hub {
    func open(_ opening: SessionOpening) {
        let id = opening.connection
        sessions[id] = HubSession(
            user: opening.user, connection: opening.connection, lane: opening.lane, status: opening.status ?? .online,
            opening: .init(opening, deadline: .now() + NodeConfiguration.joinDeadline))
        openings.insert(id)
        hear(opening.user, for: id)
        if let asked = opening.resume, mayResume {
            resume(opening, asked)
        } else {
            enter(opening)
        }
    }

    /// A session that begins.
    func enter(_ opening: SessionOpening) {
        let id = opening.connection
        guard let session = sessions[id] else { return }
        limitSessions(of: opening.user, id)
        let secret = mayResume ? SessionSecret() : nil
        sessions[id]?.opening?.secret = secret
        directory[id] = DirectoryEntry(
            user: opening.user, client: opening.client ?? "", info: opening.info, status: session.status,
            secret: secret?.digest)
        settleEntry(id)
    }

    /// Messages for the user are wanted for this session, and orders.
    func hear(_ user: UserName, for id: SessionID) {
        if users[user] == nil {
            users[user] = HubUser()
            subscriber?.subscribe(keys.userChannel(user)).assumeIsolated().whenSuccess {
                guard self.users[user] != nil else { return }
                self.users[user]?.isHeard = true
                for id in self.users[user]?.sessions.keys.map({ $0 }) ?? [] {
                    if self.sessions[id]?.isResumed == true { self.doubt(id) }
                    self.openIfReady(id)
                }
            }
        }
        if let session = sessions[id] {
            users[user]?.sessions[id] = session.lane
            users[user]?.detached.remove(id)
        } else {
            users[user]?.sessions[id] = nil
            users[user]?.detached.insert(id)
        }
    }

    func stopHearing(_ user: UserName, for id: SessionID) {
        users[user]?.sessions[id] = nil
        users[user]?.detached.remove(id)
        guard let known = users[user], known.sessions.isEmpty, known.detached.isEmpty else { return }
        users[user] = nil
        subscriber?.unsubscribe(keys.userChannel(user))
    }

    /// The session is open once its user's channel is heard and its entries are written.
    func openIfReady(_ id: SessionID) {
        guard let session = sessions[id], let opening = session.opening, users[session.user]?.isHeard == true,
            let entry = directory[id], let owner = entry.owner, entry.registration.isEstablished
        else { return }
        sessions[id]?.opening = nil
        openings.remove(id)
        emit(
            .opened(
                connection: session.connection,
                SessionOpened(
                    session: id, secret: opening.secret,
                    resumed: session.isResumed ? entry.record(id, owner: owner) : nil,
                    begunAt: session.isResumed ? nil : opening.begunAt)),
            to: session.lane.shard)
        if let asked = opening.directs { beginReplays(id, asked) }
    }

    /// Sessions that could not be opened by their deadline are refused.
    func expireOpenings(_ now: NIODeadline) {
        for id in openings {
            guard let opening = sessions[id]?.opening, opening.deadline <= now else { continue }
            refuse(id, unavailable("the cluster's store cannot be reached; reconnect later"))
        }
    }

    func refuse(_ id: SessionID, _ error: WireError) {
        guard let session = sessions[id], !session.isOpen else { return }
        emit(.refused(connection: session.connection, error), to: session.lane.shard)
        // One that goes on keeps its place: the client may try again.
        if session.isResumed { detach(id, session.opening?.origin) } else { end(id) }
    }

    /// The session of this connection; `nil` when another connection has it by now.
    func session(of id: SessionID, connection: SessionID) -> SessionID? {
        if sessions[id]?.connection == connection { return id }
        guard let resumed = resumedBy[connection], sessions[resumed]?.connection == connection else { return nil }
        return resumed
    }

    /// The client is done, or was sent away.
    func close(_ id: SessionID, _ connection: SessionID) {
        guard let known = session(of: id, connection: connection) else { return }
        if resumingConnections.contains(connection) { goodbyes.insert(connection) }
        end(known)
    }

    /// Nobody can come back to it. Its rooms are left once it is certain that no other node has it.
    func end(_ id: SessionID) {
        unbind(id)
        guard let entry = directory[id] else { return }
        detached[id] = nil
        stopHearing(entry.user, for: id)
        _ = directory[id]?.registration.wantNothing()
        settleEntry(id)
    }

    /// The connection is gone, whatever becomes of the session.
    func unbind(_ id: SessionID) {
        guard let session = sessions.removeValue(forKey: id) else { return }
        openings.remove(id)
        resumedBy[session.connection] = nil
        stopHearing(session.user, for: id)
        for room in rooms(of: id) {
            guard let member = room.members[id] else { continue }
            room.setDelivered(false, id)
            room.members[id]?.lane = nil
            room.members[id]?.connection = nil
            // Who was still waiting for a first answer is in no room that could be kept.
            if !member.registration.isEstablished, directory[id]?.rooms[room.name] == nil { leave(room.name, id) }
        }
    }

    /// What a resume will find.
    func noteRoom(_ room: RoomName, echo: Bool?, of id: SessionID) {
        guard let entry = directory[id], entry.rooms[room] != echo else { return }
        directory[id]?.rooms[room] = echo
        wantEntry(id)
    }

    // MARK: Status and typing

    func setStatus(_ id: SessionID, _ status: PresenceStatus) {
        guard sessions[id] != nil else { return }
        sessions[id]?.status = status
        directory[id]?.status = status
        wantEntry(id)
        for room in rooms(of: id) {
            guard room.members[id]?.registration.wanted != nil else { continue }
            room.members[id]?.registration.want(stake(of: id, status))
            settle(id, in: room)
        }
    }

    func typing(_ name: RoomName, _ session: SessionID, _ frame: [UInt8]) {
        guard let room = rooms[name], room.members[session]?.isDelivered == true else { return }
        // Ephemeral: what cannot go now is dropped.
        _ = store.typing(room: name, origin: session, frame: ByteBuffer(bytes: frame))
    }
}
