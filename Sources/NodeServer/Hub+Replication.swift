import ChatCore
import ClusterState
import NIOCore
import WireProtocol

/// What the relay brought behind an own message of which it is not known yet whether the replicas have it.
struct RelayHold {
    private(set) var messages: [RoomSequencer<HubRoom.Relayed>.Message] = []
    /// The log has what is not in ``messages``.
    var mustVerify = false

    mutating func add(_ message: RoomSequencer<HubRoom.Relayed>.Message) {
        if messages.count < RoomSequencer<HubRoom.Relayed>.maximumHeld {
            messages.append(message)
        } else {
            mustVerify = true
        }
    }
}

/// With `MARTLET_ACK_REPLICAS` an ack comes only for what the replicas have, and still in the place of its message (G1):
/// an own message, and all behind it in its room, waits on this node until the replicas were counted. When too few have it in
/// time, its sender gets an error, and the message like anybody's.
extension Hub {
    private func isUndecided(_ tag: String, _ queue: PublishQueue<HubRoom.PendingPublish>?) -> Bool {
        queue?.mayBeStored { $0.publication.tag == tag } ?? false
    }

    private func isUndecided(_ page: HistoryPage, _ queue: PublishQueue<HubRoom.PendingPublish>?) -> Bool {
        page.messages.contains { isUndecided($0.tag, queue) }
    }

    /// Whether this message is one that the replicas have, and whose sender has not been answered.
    static func isOwed(_ tag: String, _ seq: Int64, _ owed: [(seq: Int64, publish: HubRoom.OwedAck)]) -> Bool {
        owed.contains { $0.seq == seq && $0.publish.tag == tag && !$0.publish.isDuplicate }
    }

    // MARK: Rooms

    func holds(_ message: RelayMessage.Message, in room: HubRoom) -> Bool {
        guard room.hold != nil || isUndecided(message.tag, room.queue) else { return false }
        let relayed = HubRoom.Relayed(
            text: ByteBuffer(bytes: message.frame), origin: message.originSession, id: message.id, ts: message.ts)
        room.hold = room.hold ?? RelayHold()
        room.hold?.add(
            .init(
                epoch: message.epoch, seq: message.seq, tag: message.tag, previousTag: message.previousTag,
                element: relayed))
        return true
    }

    /// Whether what was read of the log must not be delivered yet. Then it is read again later.
    func holds(_ page: HistoryPage, in room: HubRoom) -> Bool {
        guard isUndecided(page, room.queue) else { return false }
        room.sequencer.readFailed()
        room.hold = room.hold ?? RelayHold()
        room.hold?.mustVerify = true
        return true
    }

    /// To be called whenever publishes of the room were answered.
    func release(_ room: HubRoom) {
        guard let hold = room.hold else { return }
        room.hold = nil
        for message in hold.messages {
            if room.hold != nil || isUndecided(message.tag, room.queue) {
                room.hold = room.hold ?? RelayHold()
                room.hold?.add(message)
            } else {
                apply(room.sequencer.receive(message), to: room)
            }
        }
        guard hold.mustVerify else { return }
        if room.hold == nil { apply(room.sequencer.verify(), to: room) } else { room.hold?.mustVerify = true }
    }

    // MARK: Private rooms

    func holds(_ message: RoomSequencer<HubRoom.Relayed>.Message, of stream: DirectStream) -> Bool {
        guard stream.hold != nil || isUndecided(message.tag, directs[stream.room]?.queue) else { return false }
        stream.hold = stream.hold ?? RelayHold()
        stream.hold?.add(message)
        return true
    }

    func holds(_ page: HistoryPage, of stream: DirectStream) -> Bool {
        guard isUndecided(page, directs[stream.room]?.queue) else { return false }
        stream.sequencer.readFailed()
        stream.hold = stream.hold ?? RelayHold()
        stream.hold?.mustVerify = true
        return true
    }

    func releaseDirect(_ room: RoomName) {
        guard replicaWait != nil else { return }
        for user in directs[room]?.users ?? [] {
            guard let stream = users[user]?.directs[room], let hold = stream.hold else { continue }
            stream.hold = nil
            for message in hold.messages { receive(message, of: stream) }
            guard hold.mustVerify else { continue }
            if stream.hold == nil {
                apply(stream.sequencer.verify(), to: stream)
            } else {
                stream.hold?.mustVerify = true
            }
        }
    }
}

extension HubRoom {
    func noteReplicated(_ outcomes: [PublishOutcome]) {
        for outcome in outcomes {
            switch outcome {
            case .stored(let seq, _, let epoch), .duplicate(let seq, _, _, let epoch):
                guard replicated?.epoch != epoch || replicated.map({ $0.seq < seq }) ?? true else { continue }
                replicated = RoomPosition(epoch: epoch, seq: seq, tag: "")
            case .idReused: break
            }
        }
    }

    func isReplicated(_ seq: Int64) -> Bool {
        replicated.map { $0.epoch == sequencer.position?.epoch && seq <= $0.seq } ?? false
    }
}
