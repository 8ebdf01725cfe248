import WireProtocol

// What the user asks for.
extension ClientStateMachine {
    mutating func join(_ name: String) -> [Effect] {
        guard !isClosed else {
            return [.answerJoin(room: name, .failure(MartletError(.closed, "the client is closed")))]
        }
        if let room = rooms[name], room.isJoined {
            let joined = JoinedRoom(room: name, seq: room.sequence.position?.seq ?? 0, recovered: nil)
            return [.answerJoin(room: name, .success(joined))]
        }
        guard rooms[name] == nil else { return [] }
        rooms[name] = Room()
        return sendJoin([name])
    }

    /// One frame for all of them that may be joined now.
    mutating func sendJoin(_ names: [String]) -> [Effect] {
        let names = names.filter { leaving[$0] == nil }
        guard isOnline, !names.isEmpty else { return [] }
        let id = nextID("join-")
        for name in names {
            rooms[name]?.joinID = id
            rooms[name]?.isOfSession = true
            rooms[name]?.joinAgainAt = nil
        }
        return [say(ClientFrame.join(names.map { ($0, rooms[$0]?.sequence.position) }, id: id))]
    }

    mutating func leave(_ name: String, now: Int64) -> [Effect] {
        guard let room = rooms[name] else { return [] }
        var leave: [Effect] = []
        if room.isOfSession, isOnline {
            leave = [sendLeave(name, id: nextID(Self.leavePrefix), now: now)]
        } else if room.isOfSession || introduction?.rooms.contains(name) == true {
            leaving[name] = Leave(id: nextID(Self.leavePrefix), sendAgainAt: .max)
        }
        return leave + forget(name, reason: "the client left the room")
    }

    mutating func sendLeave(_ name: String, id: String, now: Int64) -> Effect {
        leaving[name] = Leave(id: id, sendAgainAt: now + Outbox.ackPatience)
        return say(ClientFrame.leave(name, id: id))
    }

    mutating func forget(_ name: String, reason: String) -> [Effect] {
        rooms[name] = nil
        let why = MartletError(.refused, reason)
        return outbox.removeAll(in: name).map { .acknowledge(id: $0.id, .failure(fate($0, why))) }
            + [.answerJoin(room: name, .failure(why))]
    }

    /// The message goes out as soon as the room is joined, and again until it is acknowledged.
    mutating func publish(_ entry: Outbox.Entry, now: Int64) -> [Effect] {
        guard !isClosed else {
            return [.acknowledge(id: entry.id, .failure(MartletError(.closed, "the client is closed")))]
        }
        if let room = entry.room, rooms[room] == nil {
            return [.acknowledge(id: entry.id, .failure(MartletError(.invalidArgument, "join the room first")))]
        }
        outbox.add(entry)
        if let room = entry.room { rooms[room]?.lastTypingAt = nil }
        return refuseTooLarge() + flush(now: now)
    }

    mutating func setTyping(_ isTyping: Bool, in name: String, now: Int64) -> [Effect] {
        guard isOnline, let room = rooms[name], room.isJoined else { return [] }
        let isFresh = room.lastTypingAt.map { now - $0 < Self.typingRefresh } ?? false
        guard isTyping ? !isFresh : room.lastTypingAt != nil else { return [] }
        guard outbox.pace.hasCredit(now: now) else { return [] }  // messages are worth more
        rooms[name]?.lastTypingAt = isTyping ? now : nil
        return [say(ClientFrame.typing(name, isTyping: isTyping))]
    }

    mutating func setPresence(_ presence: Presence) -> [Effect] {
        self.presence = presence
        return isOnline ? [say(ClientFrame.status(presence.rawValue))] : []
    }

    mutating func history(_ name: String, before: Int64?, after: Int64?, limit: Int, id: String) -> [Effect] {
        guard isOnline else {
            return [.answerHistory(id: id, .failure(MartletError(.disconnected, "there is no connection now")))]
        }
        reads.insert(id)
        return [say(ClientFrame.history(name, before: before, after: after, limit: limit, id: id))]
    }

    /// Sends what may go, and asks to be called again when there is more that only has to wait.
    mutating func flush(now: Int64) -> [Effect] {
        guard isOnline else { return [] }
        let rooms = rooms
        let (due, wait) = outbox.takeDue(now: now) { destination in
            switch destination {
            case .room(let name): rooms[name]?.isJoined == true
            case .user: true
            }
        }
        var effects: [Effect] = due.map { .send($0.frame) }
        if let wait, !isWakingLater {
            isWakingLater = true
            effects.append(.wakeLater(milliseconds: min(wait, Self.longestSleep)))
        }
        return effects
    }

    mutating func wake(now: Int64) -> [Effect] {
        isWakingLater = false
        return flush(now: now)
    }

    /// A message over the limit would end the connection, each time it is sent.
    mutating func refuseTooLarge() -> [Effect] {
        limits.messageBytes.map { refuse(outbox.removeAll(over: $0)) } ?? []
    }

    func refuse(_ tooLarge: [Outbox.Entry]) -> [Effect] {
        tooLarge.map { entry in
            let limit = limits.messageBytes.map { "at most \($0)" } ?? "fewer"
            let error = MartletError(
                .refused, "the message has \(entry.frame.count) bytes; this server takes \(limit)",
                number: WireError.Code.tooLarge.rawValue)
            return .acknowledge(id: entry.id, .failure(error))
        }
    }
}
