import WireProtocol

/// What a client has of one private room of its user.
struct DirectRoom: Equatable {
    var sequence = RoomSequence()
    var heardAt: Int64 = 0
}

// Private rooms: nobody joins them, and the server tells what was missed of them behind each welcome.
extension ClientStateMachine {
    static func isDirect(_ room: String) -> Bool { room.hasPrefix(RoomName.directPrefix) }

    mutating func placeDirect(_ message: ChatMessage, now: Int64) -> [Effect] {
        directs[message.room, default: DirectRoom()].heardAt = now
        let deliveries = directs[message.room]?.sequence.receivedDirect(message, now: now) ?? []
        return deliver(deliveries, in: message.room, now: now)
    }

    mutating func directGap(_ name: String, epoch: String?, from: Int64?, to: Int64, now: Int64) -> [Effect] {
        directs[name, default: DirectRoom()].heardAt = now
        let deliveries = directs[name]?.sequence.gap(epoch: epoch, from: from, to: to, now: now) ?? []
        return deliver(deliveries, in: name, now: now)
    }

    mutating func tickDirects(now: Int64) -> [Effect] {
        directs.keys.sorted().flatMap { name -> [Effect] in
            guard let after = directs[name]?.sequence.overdue(now: now) else { return [] }
            let id = nextID(Self.fillPrefix)
            reads.insert(id)
            return [say(ClientFrame.history(name, before: nil, after: after, limit: 100, id: id))]
        }
    }

    /// The rooms in which something was heard last, as many as the server takes in about half a frame. Of the others it tells
    /// all since this client began, and what came before is dropped here.
    var namedDirects: [(name: String, since: ClientFrame.Position?)] {
        var left = (limits.messageBytes ?? 65_536) / 2
        return directs.sorted { $0.value.heardAt > $1.value.heardAt }.prefix(ClientMessage.maximumDirects)
            .compactMap { name, room in
                left -= Int64(name.utf8.count + 100)
                return left > 0 ? room.sequence.position.map { (name, $0) } : nil
            }
    }
}
