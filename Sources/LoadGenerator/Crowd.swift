import Synchronization
import Telemetry
import WireProtocol

/// What the threads of a run know of one room.
final class RoomTally: Sendable {
    /// Deliveries of messages to all members.
    let delivered = Atomic(0)
    let sent = Atomic(0)
    let acked = Atomic(0)
    /// Whether a publisher waits for deliveries.
    let isAwaited = Atomic(false)
}

/// Members of rooms, of whom some publish. Each checks that it sees every `seq` once and in order, where the `ack` of an own
/// message stands in its place, and in each message what its publisher sent next, unchanged.
struct Crowd: Driver {
    struct Member {
        /// Over all threads; names the user, chooses the endpoint.
        let number: Int
        let target: Int
        let rooms: [String]
        /// Index of the one room in which there are messages.
        let room: Int
        var publisher: Int?
        var joined = 0
        /// That of the last message before it joined.
        var firstSeq: Int64 = 0
        var lastSeq: Int64 = 0
        /// By publisher of the room, how many of its messages came.
        var heard: [Int] = []
    }

    struct Publisher {
        let slot: Int
        /// Its turn in the schedule, over all publishers.
        let turn: Int
        var text: Text
        var sent = 0
        var acked = 0
        /// When each message on its way was due, by number modulo the length.
        var due: [UInt64]
        /// Whether it waits for its room's deliveries.
        var isHeld = false
    }

    struct Room {
        let tally: RoomTally
        /// How many get each message: all but its sender.
        let receivers: Int
        let publishers: Int
        var name: [UInt8] = []
        /// Length of each text.
        var bytes = Text.stampBytes
        /// By publisher, whom its first message came from: so the server calls it.
        var senders: [[UInt8]?] = []
        /// Deliveries of this burst.
        var burst = 0
    }

    private let control: Control
    /// Handshakes and joins at once, while connecting.
    private let window: Int
    private let inFlight: Int
    private(set) var members: [Member]
    private var rooms: [Room]
    private var publishers: [Publisher]
    private var schedule: Schedule
    private var phase = Control.Phase.ramp
    private var started = 0
    /// Rooms with deliveries in this burst.
    private var touched: [Int] = []
    /// Publishers that wait for their room's deliveries.
    private var held: [Int] = []
    private var open = OpenPage()
    private var frames: [UInt8] = []
    private var hint = Scan.Hint()

    init(
        members: [Member],
        publishers: [Publisher],
        rooms: [Room],
        schedule: Schedule,
        inFlight: Int,
        window: Int,
        control: Control
    ) {
        (self.members, self.publishers, self.rooms) = (members, publishers, rooms)
        for room in self.rooms.indices {
            self.rooms[room].senders = Array(repeating: nil, count: rooms[room].publishers)
        }
        (self.schedule, self.inFlight, self.window) = (schedule, inFlight, window)
        self.control = control
    }

    mutating func begin(_ wire: inout Wire) {
        for _ in 0..<window { startNext(&wire) }
    }

    private mutating func startNext(_ wire: inout Wire) {
        guard started < members.count else { return }
        let member = members[started]
        wire.open(started, to: member.target, user: Scan.userName(member.number))
        started += 1
    }

    mutating func received(_ message: Scan, on slot: Int, at now: UInt64, _ wire: inout Wire) {
        if message.isType("message") {
            guard takes(message, on: slot) else { return }
            open.page.deliveries += 1
            let room = members[slot].room
            if rooms[room].burst == 0 { touched.append(room) }
            rooms[room].burst += 1
            guard let stamp = verified(message, on: slot) else {
                return control.fail(
                    "member \(members[slot].number) got what nobody sent next: \(message.text.prefix(300))")
            }
            open.page.deliveryLatency.record(now > stamp.due ? now - stamp.due : 0)
        } else if message.isType("ack") {
            acknowledged(message, on: slot, at: now)
        } else if message.isType("joined") {
            joined(message, on: slot, &wire)
        } else if message.isType("welcome") {
            for room in members[slot].rooms { wire.send(text: joinText(room), on: slot) }
            if members[slot].rooms.isEmpty { becameReady(&wire) }
        } else if message.isType("error") {
            control.fail(message.refusal)
        } else if message.isType("gap") || message.isType("reconnect") || message.isType("left") {
            control.fail("member \(members[slot].number) got \(message.text)")
        }
    }

    private mutating func joined(_ message: Scan, on slot: Int, _ wire: inout Wire) {
        members[slot].joined += 1
        members[slot].firstSeq = message.seq ?? 0
        members[slot].lastSeq = members[slot].firstSeq
        if members[slot].joined == members[slot].rooms.count { becameReady(&wire) }
    }

    private mutating func becameReady(_ wire: inout Wire) {
        control.becameReady()
        startNext(&wire)
    }

    private func roomName(_ slot: Int) -> String { members[slot].rooms.first ?? "no room" }

    /// Whether this is the next message of the room.
    private mutating func takes(_ message: Scan, on slot: Int) -> Bool {
        let due = members[slot].lastSeq + 1
        guard message.seq(&hint) == due else {
            control.fail("member \(members[slot].number) expected seq \(due) and got \(message.text.prefix(120))")
            return false
        }
        members[slot].lastSeq = due
        return true
    }

    /// Nil when this is not the next message of one of the room's publishers, as that one sent it.
    private mutating func verified(_ message: Scan, on slot: Int) -> Text.Stamp? {
        let room = members[slot].room
        guard let stamp = message.stamp(&hint, bytes: rooms[room].bytes), stamp.publisher < rooms[room].publishers,
            message.isRoom(rooms[room].name, &hint)
        else { return nil }
        if members[slot].heard.isEmpty {
            members[slot].heard = [Int](repeating: 0, count: rooms[room].publishers)
        }
        members[slot].heard[stamp.publisher] += 1
        guard Text.isID(Int64(stamp.number), members[slot].heard[stamp.publisher]) else { return nil }
        if let sender = rooms[room].senders[stamp.publisher] {
            return message.isFrom(sender, &hint) ? stamp : nil
        }
        let sender = message.from
        rooms[room].senders[stamp.publisher] = sender
        return sender == nil ? nil : stamp
    }

    private mutating func acknowledged(_ message: Scan, on slot: Int, at now: UInt64) {
        guard takes(message, on: slot), let index = members[slot].publisher else { return }
        let publisher = publishers[index]
        guard publisher.acked < publisher.sent, Text.isID(message.id, publisher.acked + 1) else {
            return control.fail("message \(publisher.acked + 1) was due, and acknowledged was \(message.text)")
        }
        let due = publisher.due[publisher.acked % publisher.due.count]
        publishers[index].acked += 1
        rooms[members[slot].room].tally.acked.add(1, ordering: .relaxed)
        open.page.answers += 1
        open.page.answerLatency.record(now > due ? now - due : 0)
    }

    mutating func finishedRead(on slot: Int, _ wire: inout Wire) {
        if let index = members[slot].publisher { pump(index, &wire) }
    }

    /// Sends what is due and may be on its way.
    private mutating func pump(_ index: Int, _ wire: inout Wire) {
        guard phase != .ramp else { return }
        let slot = publishers[index].slot
        let room = members[slot].room
        let now = nanoseconds()
        frames.removeAll(keepingCapacity: true)
        while publishers[index].sent - publishers[index].acked < inFlight,
            let due = schedule.due(publishers[index].sent, of: publishers[index].turn, at: now)
        {
            guard mayGo(room) else {
                hold(index)
                break
            }
            let number = publishers[index].sent
            publishers[index].due[number % publishers[index].due.count] = due
            publishers[index].sent += 1
            rooms[room].tally.sent.add(1, ordering: .relaxed)
            wire.append(publishers[index].text.message(due: due, id: number + 1), to: &frames)
        }
        if !frames.isEmpty { wire.send(frames, on: slot) }
    }

    private mutating func hold(_ index: Int) {
        guard !publishers[index].isHeld else { return }
        publishers[index].isHeld = true
        held.append(index)
    }

    /// Whether less is on its way to the room's members than its publishers may have.
    private func mayGo(_ index: Int) -> Bool {
        let room = rooms[index]
        guard room.receivers > 0 else { return true }
        let limit = inFlight * room.publishers
        let sent = room.tally.sent.load(ordering: .relaxed)
        if sent - room.tally.delivered.load(ordering: .relaxed) / room.receivers < limit { return true }
        room.tally.isAwaited.store(true, ordering: .sequentiallyConsistent)
        // Who delivered before it was set did not ring.
        return sent - room.tally.delivered.load(ordering: .sequentiallyConsistent) / room.receivers < limit
    }

    mutating func finishedBurst(_ wire: inout Wire) -> UInt64? {
        var someoneWaits = false
        for index in touched {
            let room = rooms[index]
            let before = room.tally.delivered.add(room.burst, ordering: .sequentiallyConsistent).oldValue
            let finishesRound = before / room.receivers < (before + room.burst) / room.receivers
            rooms[index].burst = 0
            if finishesRound, room.tally.isAwaited.exchange(false, ordering: .sequentiallyConsistent) {
                someoneWaits = true
            }
        }
        touched.removeAll(keepingCapacity: true)
        open.turn(control)
        if someoneWaits && publishers.isEmpty { control.ringBell() }
        guard !publishers.isEmpty else { return nil }
        let before = phase
        phase = control.phase.load(ordering: .sequentiallyConsistent)
        guard phase != .ramp else { return nil }
        if before != phase {
            schedule.follow(phase, of: control)
            held = Array(publishers.indices)
        }
        let next = publish(&wire)
        if phase == .drain { control.behind.store(publishersBehind, ordering: .releasing) }
        return next
    }

    /// Those that have not sent all that was due, though the load has ended.
    private var publishersBehind: Int {
        publishers.count { schedule.due($0.sent, of: $0.turn, at: .max) != nil }
    }

    private mutating func publish(_ wire: inout Wire) -> UInt64? {
        let released = held
        held.removeAll(keepingCapacity: true)
        for index in released {
            publishers[index].isHeld = false
            pump(index, &wire)
        }
        var due: [Int] = []
        let next = schedule.turn(at: nanoseconds()) { due.append($0) }
        for index in due { pump(index, &wire) }
        return next
    }

    mutating func closed(_ slot: Int, _ wire: inout Wire) {}

    mutating func lost(_ slot: Int, because reason: String) {
        control.fail("connection \(members[slot].number) was lost: \(reason)")
    }
}

func joinText(_ room: String) -> [UInt8] { roomText("join", room) }

func roomText(_ type: String, _ room: String) -> [UInt8] {
    var json = JSONWriter()
    json.beginObject()
    json.member("type", type)
    json.member("room", room)
    json.endObject()
    return json.bytes
}
