import ChatCore
import NIOCore
import WireProtocol

/// What the user's token and the namespaces allow, and the end of the token.
extension Session {
    var rights: Rights { Rights(shard.configuration.namespaces, grant?.capabilities) }

    func sees(_ room: RoomName) -> Bool { state.rooms[room]?.actions.contains(.presence) ?? false }

    /// Whether messages of this private room of its user are for it.
    func hears(_ room: RoomName) -> Bool {
        guard ban(from: room) == nil else { return false }
        if grant?.capabilities == nil, shard.allowsDirects { return true }
        return rights.allow(.join, in: room)
    }

    /// What its token and the orders allow by now counts, not what they did when it asked.
    func hear(_ answer: RoomAnswer) {
        let room = answer.room
        do throws(WireError) {
            try refuseIfBanned(from: room)
            if !room.isDirect { try rights.require(.join, in: room) }
            try rights.require(answer.action, in: room)
            send(answer.text)
        } catch {
            if let id = answer.id { refuse(error, id: id, room: room.string) }
        }
    }

    // MARK: Another token

    /// From now on this one holds.
    ///
    /// - Returns: whether it changes what may be done in a room; joins that are under way are answered by it.
    /// - Throws: `authentication_failed` for one that is older than the one in force, which stays.
    func renew(_ new: Grant) throws(WireError) -> Bool {
        if let grant, new.isOlder(than: grant) {
            throw WireError(.authenticationFailed, "the token is older than the one in force; get a new one")
        }
        wasToldOfExpiry = wasToldOfExpiry && new.expiresAt == grant?.expiresAt
        grant = new
        guard state.isOpen else { return false }
        shard.watchToken(of: self)
        let changes = state.renew(rights)
        guard !changes.isEmpty else { return false }
        shard.catchUp(self)
        for change in changes {
            switch change {
            case .left(let room): lost(room)
            case .rights(let room, let actions): shard.send(.rights(room: room, session: id, actions))
            case .presence(let room, let isShown):
                // One whose join is under way hears so behind `joined`.
                guard state.rooms[room]?.isJoined == true else { continue }
                shard.show(presence: isShown, of: room, to: self)
                tellPresence(of: room, isShown: isShown)
            }
        }
        releaseHeld()
        return true
    }

    /// Of a room that it may not be in any more.
    func lost(_ room: RoomName) {
        shard.leave(self, room)
        send(ServerMessage.left(room: room, id: nil, reason: "no right to be here any more"))
    }

    func tellPresence(of room: RoomName, isShown: Bool) {
        if isShown {
            shard.send(.presence(room: room, session: id, id: nil))
        } else {
            send(ServerMessage.presence(room: room, id: nil, members: [], count: 0, pv: 0))
        }
    }

    // MARK: The end of the token

    /// When something is to be done about it: milliseconds since 1970.
    var tokenDue: Int64? { grant?.due(wasTold: wasToldOfExpiry) }

    /// - Parameter now: milliseconds since 1970.
    func tokenIsDue(now: Int64) {
        guard state.isOpen, let grant, let due = tokenDue, due <= now else { return }
        guard !wasToldOfExpiry else { return end(.tokenExpired) }
        wasToldOfExpiry = true
        shard.catchUp(self)
        send(ServerMessage.tokenExpiring(inMilliseconds: max(0, (grant.expiresAt ?? now) - now)))
        shard.watchToken(of: self)
    }
}
