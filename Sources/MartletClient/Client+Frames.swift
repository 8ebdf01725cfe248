import WireProtocol

// What the server says.
extension ClientStateMachine {
    mutating func received(_ frame: ServerFrame, now: Int64) -> [Effect] {
        guard !isClosed else { return [] }
        heardAt = now
        pingedAt = nil
        switch frame {
        case .welcome(let welcome):
            renewal = nil  // on an open connection it says that the new token holds
            return self.welcome(welcome, now: now)
        case .joined(let joined): return self.joined(joined, now: now)
        case .left(let name, let id, let reason): return left(name, id: id, reason)
        case .message(let message): return place(message, now: now)
        case .ack(let ack): return acknowledged(ack, now: now)
        case .gap(let name, let epoch, let from, let to):
            if Self.isDirect(name) { return directGap(name, epoch: epoch, from: from, to: to, now: now) }
            return gap(name, epoch: epoch, from: from, to: to, now: now)
        case .members(let name, let list):
            guard rooms[name]?.isJoined == true else { return [] }
            rooms[name]?.roster.replace(with: list)
            rooms[name]?.rosterReadAt = now
            return presence(name)
        case .membersChanged(let name, let change):
            guard rooms[name]?.isJoined == true, let result = rooms[name]?.roster.apply(change), result != .old else {
                return []
            }
            return presence(name) + (result == .appliedWithHole ? [say(ClientFrame.presence(name))] : [])
        case .typing(let name, let user, let isTyping):
            guard user != self.user, rooms[name] != nil else { return [] }
            rooms[name]?.roster.setTyping(user, isTyping, now: now)
            return [.emit(.typing(room: name, users: rooms[name]?.roster.typingUsers ?? []))]
        case .history(let id, let page): return history(id, page, now: now)
        case .error(let refusal): return refused(refusal, now: now)
        case .reconnect:
            isToldToMove = true
            return []
        case .tokenExpiring(let milliseconds): return tokenExpiring(in: milliseconds, now: now)
        case .pong:
            if let measuredFrom { roundTrip = now - measuredFrom }
            measuredFrom = nil
            return []
        case .other: return []
        }
    }

    private mutating func left(_ name: String, id: String?, _ reason: String?) -> [Effect] {
        if let leave = leaving[name] { return leave.id == id ? ended(leaveOf: name) : [] }
        guard id == nil, rooms[name] != nil else { return [] }
        let why = reason ?? "the server took the client out of the room"
        return forget(name, reason: why) + [.emit(.left(room: name, reason: why))]
    }

    /// The server knows of it: the room may be joined again.
    private mutating func ended(leaveOf name: String) -> [Effect] {
        leaving[name] = nil
        return rooms[name] == nil ? [] : sendJoin([name])
    }

    private mutating func joined(_ frame: ServerFrame.Joined, now: Int64) -> [Effect] {
        let name = frame.room
        guard var room = rooms[name], leaving[name] == nil else { return [] }
        room.isJoined = true
        room.joinAgainAt = nil
        room.rosterReadAt = now
        room.roster.replace(with: frame.roster)
        let deliveries = room.sequence.joined(frame, now: now)
        rooms[name] = room
        let answer = JoinedRoom(room: name, seq: frame.seq, recovered: frame.recovered)
        return [.answerJoin(room: name, .success(answer)), .emit(.joined(answer))] + presence(name)
            + deliver(deliveries, in: name, now: now) + flush(now: now)
    }

    private mutating func gap(_ name: String, epoch: String?, from: Int64?, to: Int64, now: Int64) -> [Effect] {
        guard let known = rooms[name]?.sequence.position?.epoch else { return [] }
        let deliveries = rooms[name]?.sequence.gap(epoch: epoch, from: from, to: to, now: now) ?? []
        let effects = deliver(deliveries, in: name, now: now)
        guard epoch ?? known != known else { return effects }
        // Who is there was counted in the epoch before.
        rooms[name]?.roster.forgetVersion()
        rooms[name]?.rosterReadAt = now
        return effects + [say(ClientFrame.presence(name))]
    }

    private mutating func place(_ message: ChatMessage, now: Int64) -> [Effect] {
        var message = message
        message.isOwn = message.from == user
        var effects: [Effect] = []
        if message.isOwn, let id = message.id, outbox.remove(id) != nil {
            let ack = Acknowledgement(seq: message.seq, timestamp: message.timestamp)
            effects.append(.acknowledge(id: id, .success(ack)))
        }
        let room = message.room
        if Self.isDirect(room) {
            effects += placeDirect(message, now: now)
        } else if let deliveries = rooms[room]?.sequence.received(message, now: now) {
            effects += deliver(deliveries, in: room, now: now)
        }
        return effects + flush(now: now)
    }

    /// The ack takes the place of the own message in the room's order.
    private mutating func acknowledged(_ ack: ServerFrame.Ack, now: Int64) -> [Effect] {
        guard let entry = outbox.remove(ack.id) else { return [] }
        var message = ChatMessage(
            room: ack.room, seq: ack.seq, from: user, text: entry.text, data: entry.data, timestamp: ack.timestamp,
            isOwn: true, id: ack.id, tag: ack.tag, epoch: ack.epoch)
        let answer = Acknowledgement(seq: ack.seq, timestamp: ack.timestamp)
        var effects: [Effect] = [.acknowledge(id: ack.id, .success(answer))]
        if case .user(let name) = entry.to {
            message.to = name
            effects += placeDirect(message, now: now)
        } else {
            let deliveries = rooms[ack.room]?.sequence.received(message, now: now) ?? []
            effects += deliver(deliveries, in: ack.room, now: now)
        }
        return effects + flush(now: now)
    }

    mutating func deliver(_ deliveries: [RoomSequence.Delivery], in name: String, now: Int64) -> [Effect] {
        var effects: [Effect] = []
        for delivery in deliveries {
            switch delivery {
            case .gap(let from, let to): effects.append(.emit(.gap(room: name, from: from, to: to)))
            case .message(let message):
                effects.append(.emit(.message(message)))
                if rooms[name]?.roster.endTyping(now: now, of: message.from) == true {
                    effects.append(.emit(.typing(room: name, users: rooms[name]?.roster.typingUsers ?? [])))
                }
            }
        }
        return effects
    }

    private func presence(_ name: String) -> [Effect] {
        guard let roster = rooms[name]?.roster else { return [] }
        let members = roster.members.values.sorted { $0.user < $1.user }
        return [.emit(.presence(RoomPresence(room: name, members: members, count: roster.count)))]
    }

    private mutating func history(_ id: String?, _ frame: ServerFrame.History, now: Int64) -> [Effect] {
        let isOfClient = Self.isDirect(frame.room) || rooms[frame.room]?.isJoined == true
        guard id.map({ reads.remove($0) != nil }) ?? isOfClient else { return [] }
        let messages = frame.messages.map { message in
            var message = message
            message.isOwn = message.from == user
            return message
        }
        let page = HistoryPage(messages: messages, hasMore: frame.hasMore)
        guard let id else { return [.emit(.newest(room: frame.room, page))] }
        guard id.hasPrefix(Self.fillPrefix) else { return [.answerHistory(id: id, .success(page))] }
        let deliveries =
            directs[frame.room]?.sequence.filled(messages, epoch: frame.epoch, now: now)
            ?? rooms[frame.room]?.sequence.filled(messages, epoch: frame.epoch, now: now) ?? []
        return deliver(deliveries, in: frame.room, now: now)
    }

    private mutating func refused(_ refusal: ServerFrame.Refusal, now: Int64) -> [Effect] {
        let code = WireError.Code(rawValue: refusal.number)
        let isRetryable = refusal.retryAfter != nil || code?.isRetryable == true
        let again = now + (refusal.retryAfter ?? Self.defaultRetry)
        let error = MartletError(.refused, refusal.message, number: refusal.number)
        if case .connecting = phase, let effects = refusedBeforeWelcome(refusal, code, isRetryable, now: now) {
            return effects
        }
        guard let id = refusal.id else { return [.emit(.refused(error))] }
        if id == Self.authID { return authFailed(refusal, now: now) }
        if let entry = outbox[id] {
            let left = code == .notInRoom ? entry.room.flatMap { rooms[$0] == nil ? nil : $0 } : nil
            guard isRetryable || left != nil else {
                outbox.remove(id)
                return [.acknowledge(id: id, .failure(error))]
            }
            outbox.putBack(id, .init(code), now: now, until: again)
            if let left {
                rooms[left]?.isJoined = false
                rooms[left]?.joinAgainAt = again
            }
            return flush(now: now)
        }
        if reads.remove(id) != nil {
            return id.hasPrefix(Self.fillPrefix) ? [] : [.answerHistory(id: id, .failure(error))]
        }
        if id.hasPrefix(Self.leavePrefix) {
            guard let name = leaving.first(where: { $0.value.id == id })?.key else { return [] }
            guard isRetryable else { return ended(leaveOf: name) }
            leaving[name]?.sendAgainAt = again
            return []
        }
        guard id.hasPrefix("join-") else { return [.emit(.refused(error))] }
        return joinRefused(refusal, id, error, again: isRetryable ? again : nil)
    }

    /// Without a welcome there is nothing to go on with. The answer to `auth` decides; who sent none hears by the answer to
    /// another frame that one is wanted.
    private mutating func refusedBeforeWelcome(
        _ refusal: ServerFrame.Refusal, _ code: WireError.Code?, _ isRetryable: Bool, now: Int64
    ) -> [Effect]? {
        let final = Int(CloseCode.authenticationFailed.rawValue)
        switch code {
        case .authenticationFailed, .invalidUser: return finish(code: final, reason: refusal.message)
        case .notAuthenticated:
            return identity.isUser ? finish(code: final, reason: "this server asks for a token") : []
        default: break
        }
        guard let id = refusal.id, id == introduction?.id, refusal.room == nil else { return nil }
        guard isRetryable else { return resumeRefused(refusal.message, now: now) }
        return [.giveUp(reason: refusal.message, wait: refusal.retryAfter ?? 0)]
    }

    /// The server named the room at fault, or did not.
    private mutating func joinRefused(
        _ refusal: ServerFrame.Refusal, _ id: String, _ error: MartletError, again: Int64?
    ) -> [Effect] {
        let joining = rooms.keys.sorted().filter { rooms[$0]?.joinID == id && rooms[$0]?.isJoined == false }
        let refused = joining.filter { $0 == refusal.room ?? $0 }
        if let again {
            for name in refused { rooms[name]?.joinAgainAt = again }
            return []
        }
        // One room that cannot be is refused with its whole frame. If it is not said which, each goes on alone.
        if refused.count > 1 { return refused.flatMap { sendJoin([$0]) } }
        var effects: [Effect] = []
        for name in refused {
            let wasJoined = rooms[name]?.sequence.position != nil
            rooms[name] = nil
            effects.append(.answerJoin(room: name, .failure(error)))
            if wasJoined { effects.append(.emit(.left(room: name, reason: refusal.message))) }
            effects += outbox.removeAll(in: name).map { .acknowledge(id: $0.id, .failure(fate($0, error))) }
        }
        guard refusal.number == WireError.Code.invalidRoom.rawValue else { return effects }
        return effects + sendJoin(joining.filter { !refused.contains($0) })
    }
}

extension Outbox.Refusal {
    init(_ code: WireError.Code?) {
        switch code {
        case .rateLimited: self = .tooFast
        case .unavailable, nil: self = .perhapsStored
        default: self = .notStored
        }
    }
}
