import ChatCore
import ClusterState
import NIOCore
import WireProtocol

/// What the relay brought behind an own message of which it is not known yet whether the replicas have it. At most
/// 1,024 messages, and 256 KiB and one message.
struct RelayHold {
    typealias Message = RoomSequencer<HubRoom.Relayed>.Message

    private static var maximumBytes: Int { 256 << 10 }

    private(set) var messages: [Message] = []
    private var bytes = 0
    /// The log has what is not in ``messages``.
    var mustVerify = false

    mutating func add(_ message: Message) {
        guard messages.count < RoomSequencer<HubRoom.Relayed>.maximumHeld, bytes < Self.maximumBytes else {
            mustVerify = true
            return
        }
        messages.append(message)
        bytes += message.element.text.readableBytes + message.element.id.utf8.count
    }

    /// Delivers, in their order, those before the first that is undecided.
    ///
    /// - Parameter isUndecided: of a tag. Asked when all before were delivered.
    /// - Returns: what waits on; `nil` when all was delivered, and the log is to be read if ``mustVerify``.
    func release(isUndecided: (String) -> Bool, deliver: (Message) -> Void) -> RelayHold? {
        var rest: RelayHold?
        for message in messages {
            if rest == nil, !isUndecided(message.tag) {
                deliver(message)
            } else {
                rest = rest ?? RelayHold()
                rest?.add(message)
            }
        }
        if mustVerify { rest?.mustVerify = true }
        return rest
    }
}

/// A room as this node hears it, or a private one as one of its users does.
protocol RelayHolder: AnyObject {
    var sequencer: RoomSequencer<HubRoom.Relayed> { get set }
    var hold: RelayHold? { get set }
    /// What sessions of this node publish there.
    func publishes(of hub: Hub) -> PublishQueue<HubRoom.PendingPublish>?
}

extension HubRoom: RelayHolder {
    func publishes(of hub: Hub) -> PublishQueue<PendingPublish>? { queue }
}

extension DirectStream: RelayHolder {
    func publishes(of hub: Hub) -> PublishQueue<HubRoom.PendingPublish>? { hub.directs[room]?.queue }
}

/// With `MARTLET_ACK_REPLICAS` an ack comes only for what the replicas have, and still in the place of its message (G1):
/// an own message, and all behind it in its room, waits on this node until the replicas were counted. When too few have it in
/// time, its sender gets an error, and the message like anybody's.
extension Hub {
    private func isUndecided(_ tag: String, in holder: some RelayHolder) -> Bool {
        holder.publishes(of: self)?.mayBeStored { $0.publication.tag == tag } ?? false
    }

    /// Whether this message is one that the replicas have, and whose sender has not been answered.
    static func isOwed(_ tag: String, _ seq: Int64, _ owed: [(seq: Int64, publish: HubRoom.OwedAck)]) -> Bool {
        owed.contains { $0.seq == seq && $0.publish.tag == tag && !$0.publish.isDuplicate }
    }

    /// Whether what the relay brought must not be delivered yet.
    func holds(_ message: @autoclosure () -> RelayHold.Message, tag: String, in holder: some RelayHolder) -> Bool {
        guard holder.hold != nil || isUndecided(tag, in: holder) else { return false }
        holder.hold = holder.hold ?? RelayHold()
        holder.hold?.add(message())
        return true
    }

    /// Whether what was read of the log must not be delivered yet. Then it is read again later.
    func holds(_ page: HistoryPage, in holder: some RelayHolder) -> Bool {
        guard page.messages.contains(where: { isUndecided($0.tag, in: holder) }) else { return false }
        holder.sequencer.readFailed()
        holder.hold = holder.hold ?? RelayHold()
        holder.hold?.mustVerify = true
        return true
    }

    /// To be called whenever publishes of the room were answered.
    func release(_ room: HubRoom) {
        let mustVerify = release(room) { apply(room.sequencer.receive($0), to: room) }
        if mustVerify { apply(room.sequencer.verify(), to: room) }
    }

    /// As ``release(_:)``.
    func releaseDirect(_ room: RoomName) {
        guard replicaWait != nil else { return }
        for user in directs[room]?.users ?? [] {
            guard let stream = users[user]?.directs[room] else { continue }
            let mustVerify = release(stream) { receive($0, of: stream) }
            if mustVerify { apply(stream.sequencer.verify(), to: stream) }
        }
    }

    /// - Returns: whether nothing waits any more, and the log is to be read.
    private func release(_ holder: some RelayHolder, deliver: (RelayHold.Message) -> Void) -> Bool {
        guard let hold = holder.hold else { return false }
        holder.hold = nil
        let rest = hold.release(isUndecided: { isUndecided($0, in: holder) }, deliver: deliver)
        holder.hold = rest
        return hold.mustVerify && rest == nil
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
