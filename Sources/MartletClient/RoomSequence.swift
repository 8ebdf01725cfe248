/// The order of one room as this client has it: which message was the last one delivered, and what waits for its
/// predecessors. Every message is delivered once, in the order of `seq`; what cannot be had becomes a gap.
struct RoomSequence: Equatable {
    /// The last delivered message; `nil` before the first join.
    private(set) var position: ClientFrame.Position?
    /// Arrived before their predecessors.
    private var held: [Int64: ChatMessage] = [:]
    /// What the server said will follow, up to this `seq`.
    private var target: Int64 = 0
    /// Since when something is missing, in milliseconds; `nil` when nothing is, or while it is being asked for.
    private var missingSince: Int64?
    /// The `seq` after which the history is being asked for.
    private var askedAfter: Int64?

    /// How long a message may wait for the ones before it until they are read from the history.
    static let patience: Int64 = 1000

    enum Delivery: Equatable {
        case message(ChatMessage)
        case gap(from: Int64?, to: Int64)
    }

    /// A first join starts at the room's newest message. A later one goes on where it was: the missed messages follow,
    /// or a gap frame says which do not.
    mutating func joined(_ frame: ServerFrame.Joined, now: Int64) -> [Delivery] {
        guard let position else {
            self.position = ClientFrame.Position(epoch: frame.epoch, seq: frame.seq, tag: frame.tag)
            return []
        }
        if frame.recovered != true, frame.epoch != position.epoch || frame.seq < position.seq {
            // Redis forgot what was seen here.
            self = RoomSequence()
            self.position = ClientFrame.Position(epoch: frame.epoch, seq: frame.seq, tag: frame.tag)
            return [.gap(from: nil, to: frame.seq)]
        }
        target = frame.seq
        return drain(now: now)
    }

    /// A private room begins with the first message that is heard of it, and turns with one of another epoch.
    mutating func receivedDirect(_ message: ChatMessage, now: Int64) -> [Delivery] {
        let epoch = message.epoch ?? ""
        var deliveries: [Delivery] = []
        if position == nil {
            position = ClientFrame.Position(epoch: epoch, seq: message.seq - 1, tag: nil)
        } else if position?.epoch != epoch {
            deliveries = gap(epoch: epoch, from: nil, to: message.seq - 1, now: now)
        }
        return deliveries + received(message, now: now)
    }

    mutating func received(_ message: ChatMessage, now: Int64) -> [Delivery] {
        guard let position else { return [] }
        if message.seq > position.seq { held[message.seq] = message }
        return drain(now: now)
    }

    /// The server said that `from`…`to` are lost, and perhaps that the room counts anew in another epoch.
    mutating func gap(epoch: String?, from: Int64?, to: Int64, now: Int64) -> [Delivery] {
        guard let position else {
            // Of a private room that this client knows nothing of.
            self.position = ClientFrame.Position(epoch: epoch ?? "", seq: to, tag: nil)
            return [.gap(from: from, to: to)]
        }
        let turned = epoch != nil && epoch != position.epoch
        guard turned || to > position.seq else { return [] }
        if turned {
            // What was promised, held or asked for is of the time before.
            self = RoomSequence()
        }
        self.position = ClientFrame.Position(epoch: epoch ?? position.epoch, seq: to, tag: nil)
        return [.gap(from: from, to: to)] + drain(now: now)
    }

    /// The `seq` after which messages are missing for longer than ``patience``. Asking starts the patience anew.
    mutating func overdue(now: Int64) -> Int64? {
        guard let position, let since = missingSince, now - since >= Self.patience else { return nil }
        missingSince = now
        askedAfter = position.seq
        return position.seq
    }

    /// What the history has after the `seq` of ``overdue(now:)``, oldest first. Its absence is final.
    mutating func filled(_ messages: [ChatMessage], epoch: String?, now: Int64) -> [Delivery] {
        guard let position, askedAfter != nil, epoch ?? position.epoch == position.epoch else { return [] }
        askedAfter = nil
        let found = messages.filter { $0.seq > position.seq }
        guard let end = found.first?.seq ?? held.keys.min() ?? (target > position.seq ? target + 1 : nil) else {
            return []
        }
        var deliveries: [Delivery] = []
        if end > position.seq + 1 {
            deliveries = gap(epoch: nil, from: position.seq + 1, to: end - 1, now: now)
        }
        for message in found { deliveries += received(message, now: now) }
        return deliveries
    }

    private mutating func drain(now: Int64) -> [Delivery] {
        var deliveries: [Delivery] = []
        while let position, let next = held.removeValue(forKey: position.seq + 1) {
            self.position = ClientFrame.Position(epoch: position.epoch, seq: next.seq, tag: next.tag)
            missingSince = nil
            deliveries.append(.message(next))
        }
        let seq = position?.seq ?? 0
        held = held.filter { $0.key > seq }
        let isMissing = !held.isEmpty || target > seq
        missingSince = isMissing ? missingSince ?? now : nil
        return deliveries
    }
}
