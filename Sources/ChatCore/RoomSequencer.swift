/// Where a room stands: the last message that was delivered, and the proof of it (the tag).
package struct RoomPosition: Sendable, Equatable {
    package var epoch: String
    package var seq: Int64
    package var tag: String

    package init(epoch: String, seq: Int64, tag: String) {
        self.epoch = epoch
        self.seq = seq
        self.tag = tag
    }
}

/// Turns what a relay brings, in whatever order and with whatever holes, into one stream without holes or repeats (G1).
///
/// 1. Before the room's position is known everything is held.
/// 2. The next message with the right predecessor tag is delivered; a known one is dropped.
/// 3. A hole, or a predecessor that does not match, asks for one read of the log from the last delivered message on;
///    what arrives meanwhile is held and merged behind the read.
/// 4. What the log no longer has is said as a gap, never skipped in silence (G2).
/// 5. A message under a delivered number but with another tag, or a head below the delivered one, proves that Redis forgot a
///    tail: the epoch has to turn, so that numbers of the two stories are never compared.
package struct RoomSequencer<Element: Sendable>: Sendable {
    package struct Message: Sendable {
        package var epoch: String
        package var seq: Int64
        package var tag: String
        /// The tag of the message before; `nil` when it came from the log, which is in order by itself.
        package var previousTag: String?
        package var element: Element

        package init(epoch: String, seq: Int64, tag: String, previousTag: String?, element: Element) {
            self.epoch = epoch
            self.seq = seq
            self.tag = tag
            self.previousTag = previousTag
            self.element = element
        }
    }

    package enum Event: Sendable {
        case deliver(Message)
        /// `from`…`to` of `epoch` cannot be delivered. With a new epoch, `from` is 1.
        case gap(epoch: String, from: Int64, to: Int64)
        /// Read the log from this `seq` on, and answer with ``logRead(_:head:)``.
        case read(from: Int64)
        /// Redis forgot what was delivered in this epoch: end it (compare and set), then read the log from `seq` on.
        case turn(epoch: String, from: Int64)
    }

    private enum State {
        /// Nothing is known yet. Goes to `live` when the first join was answered.
        case unopened
        /// In step with the relay. Goes to `reading` at a hole.
        case live
        /// One read of the log is under way. Goes to `live` when its answer leaves no hole, else stays.
        case reading
    }

    /// So that a room under repair cannot grow without bound; what is dropped is read from the log afterwards.
    package static var maximumHeld: Int { 1024 }
    /// Tags of so many last messages tell a late copy from a fork; an older number is looked up.
    private static var remembered: Int { 64 }

    private var state: State = .unopened
    package private(set) var position: RoomPosition?
    private var held: [Message] = []
    private var heldOverflowed = false
    /// An epoch that was left behind: late copies of its messages are dropped.
    private var formerEpoch: String?
    /// A ring of the tags of the last messages of this epoch, ``packed(_:)``; it grows as they come, since most rooms see few.
    private var tags: [UInt32] = []
    /// The `seq` of the first tag that was remembered.
    private var ringStart: Int64 = 0
    /// The first `seq` of which ``tags`` tells.
    private var firstRemembered: Int64 = 0

    package init() {}

    package mutating func open(at position: RoomPosition) -> [Event] {
        guard state == .unopened else { return [] }
        move(to: position)
        state = .live
        return releaseHeld()
    }

    /// The hot path: moves on when this is simply the next message, and else leaves everything to ``receive(_:)``.
    package mutating func advanceIfNext(epoch: String, seq: Int64, tag: String, previousTag: String) -> Bool {
        guard state == .live, let current = position, seq == current.seq + 1, previousTag == current.tag,
            epoch == current.epoch
        else { return false }
        position = RoomPosition(epoch: epoch, seq: seq, tag: tag)
        remember(tag, of: seq)
        return true
    }

    package mutating func receive(_ message: Message) -> [Event] {
        switch state {
        case .unopened, .reading:
            hold(message)
            return []
        case .live:
            return step(message)
        }
    }

    /// Asks for a read though no hole was seen: after deafness, or when an own message did not come back.
    package mutating func verify() -> [Event] {
        guard state == .live, let position else { return [] }
        state = .reading
        return [.read(from: position.seq)]
    }

    /// The read could not be done; it has to be asked for again with ``verify()``.
    package mutating func readFailed() {
        if state == .reading { state = .live }
    }

    /// - Parameters:
    ///   - messages: the log from the asked `seq` on, oldest first, or the first page of it.
    ///   - head: where the room stands in Redis; `nil` when Redis knows no such room.
    package mutating func logRead(_ messages: [Message], head: RoomPosition?) -> [Event] {
        guard state == .reading, let start = position else { return [] }
        state = .live
        guard let head else {
            // Redis knows no such room any more: its next message opens a new epoch, and says so then.
            return releaseHeld()
        }
        var events: [Event] = []
        if head.epoch != start.epoch {
            formerEpoch = start.epoch
            let first = messages.first?.seq ?? head.seq + 1
            events.append(.gap(epoch: head.epoch, from: 1, to: first - 1))
            move(to: RoomPosition(epoch: head.epoch, seq: first - 1, tag: ""))
        } else if isFork(start, messages, head) {
            state = .reading
            return [.turn(epoch: head.epoch, from: start.seq)]
        }
        let before = seq
        for message in messages where message.seq > seq {
            if message.seq > seq + 1 {
                events.append(.gap(epoch: head.epoch, from: seq + 1, to: message.seq - 1))
            }
            advance(to: message)
            events.append(.deliver(message))
        }
        if head.seq > seq, seq == before {
            // Nothing is kept of what was missed: a room without history, or a log that was cut.
            events.append(.gap(epoch: head.epoch, from: seq + 1, to: head.seq))
            move(to: head)
        } else if head.seq > seq {
            state = .reading
            return events + [.read(from: seq)]
        }
        return events + releaseHeld()
    }

    /// Whether the message of this `seq` went by with this tag; `nil` when that is too long ago to be told.
    package func passed(_ seq: Int64, tag: String) -> Bool? {
        guard seq <= self.seq else { return false }
        return seq < firstRemembered ? nil : self.tag(of: seq) == Self.packed(tag)
    }

    private var seq: Int64 { position?.seq ?? 0 }

    /// The log ends before the last delivered message, or tells another story of it.
    private func isFork(_ start: RoomPosition, _ messages: [Message], _ head: RoomPosition) -> Bool {
        if head.seq < start.seq { return true }
        guard !start.tag.isEmpty else { return false }
        if head.seq == start.seq { return head.tag != start.tag }
        return messages.contains { $0.seq == start.seq && $0.tag != start.tag }
    }

    private mutating func step(_ message: Message) -> [Event] {
        guard let position else { return [] }
        guard message.epoch == position.epoch else {
            guard message.epoch != formerEpoch else { return [] }
            formerEpoch = position.epoch
            advance(to: message)
            return [.gap(epoch: message.epoch, from: 1, to: message.seq - 1), .deliver(message)]
        }
        if message.seq <= position.seq {
            // A late copy, as behind a repair, or the same number given twice.
            guard message.seq < firstRemembered || tag(of: message.seq) != Self.packed(message.tag) else { return [] }
            state = .reading
            return [.read(from: position.seq)]
        }
        let follows = message.previousTag == nil || position.tag.isEmpty || message.previousTag == position.tag
        if message.seq == position.seq + 1, follows {
            advance(to: message)
            return [.deliver(message)]
        }
        state = .reading
        hold(message)
        return [.read(from: position.seq)]
    }

    private mutating func advance(to message: Message) {
        if message.epoch != position?.epoch || message.seq != seq + 1 {
            move(to: RoomPosition(epoch: message.epoch, seq: message.seq, tag: message.tag))
        } else {
            position = RoomPosition(epoch: message.epoch, seq: message.seq, tag: message.tag)
            remember(message.tag, of: message.seq)
        }
    }

    /// Somewhere else than one further: of what lies before nothing is remembered.
    private mutating func move(to position: RoomPosition) {
        self.position = position
        tags = []
        firstRemembered = position.seq
        if position.tag.isEmpty { firstRemembered += 1 } else { remember(position.tag, of: position.seq) }
    }

    /// Of the message behind the last one, or of the first after ``move(to:)``.
    private mutating func remember(_ tag: String, of seq: Int64) {
        if tags.isEmpty { ringStart = seq }
        if tags.count < Self.remembered {
            tags.append(Self.packed(tag))
        } else {
            tags[place(of: seq)] = Self.packed(tag)
        }
        firstRemembered = max(firstRemembered, seq - Int64(Self.remembered) + 1)
    }

    private func tag(of seq: Int64) -> UInt32? {
        tags.isEmpty ? nil : tags[place(of: seq)]
    }

    /// Tells tags of four bytes, as the nodes give them, apart for certain; a longer one shares its value with few.
    private static func packed(_ tag: String) -> UInt32 {
        tag.utf8.reduce(0) { ($0 << 8 | $0 >> 24) ^ UInt32($1) }
    }

    private func place(of seq: Int64) -> Int { Int((seq - ringStart) % Int64(Self.remembered)) }

    private mutating func hold(_ message: Message) {
        if held.count < Self.maximumHeld { held.append(message) } else { heldOverflowed = true }
    }

    private mutating func releaseHeld() -> [Event] {
        var events: [Event] = []
        var waiting = held
        held = []
        let overflowed = heldOverflowed
        heldOverflowed = false
        waiting.reverse()
        while state == .live, let message = waiting.popLast() {
            // Behind a read of the log all is proven up to the position: known numbers are copies, a hole is found by `seq`.
            if message.epoch == position?.epoch, message.seq <= seq { continue }
            events += step(message)
        }
        if state == .reading {
            held += waiting.reversed()
        } else if overflowed {
            events += verify()
        }
        return events
    }
}
