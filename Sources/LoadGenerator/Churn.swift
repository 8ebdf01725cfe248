import Synchronization
import Telemetry
import WireProtocol

/// Users that join rooms and leave them again, before observers that keep each room's list of members by its presence events
/// alone, as a client does. At the end all lists must be the true one.
package struct Churn: Sendable {
    package var options: LoadOptions
    package var rooms = 10
    /// Of each room; they stay.
    package var observers = 5
    /// Of each room; they come and go.
    package var churners = 10
    /// Joins a second of all together, each with a leave; 0 is as many as they can.
    package var rate = 0.0
    private let prefix = "bench." + String(UInt32.random(in: 0 ... .max), radix: 36)

    package init(_ options: LoadOptions) {
        self.options = options
    }

    /// Blocks for the whole run.
    package func run(_ listener: LoadListener) throws(LoadError) -> LoadReport {
        let size = observers + churners
        guard rooms > 0, churners > 0, observers > 0, size <= 100, rooms * size <= 1_000_000, rate >= 0 else {
            throw LoadError(
                "presence needs a room, an observer and a churner, and at most 100 members a room, whom lists show")
        }
        try requireDescriptors(rooms * size)
        var meter = try LoadMeter(options)
        let control = try Control()
        let settled = (0..<rooms).map { _ in Settled() }
        let driver = Churners(self, prefix: prefix, settled: settled, control: control)
        let threads = try Threads([driver], targets: try options.targets(), control: control)
        try threads.ramp(to: rooms * size, "connected", progress: listener.progress)
        var measured = try meter.measure(threads, listener)
        let late = try threads.drain(seconds: 20, until: { settled.allSatisfy { $0.isTrue(observers) } }) {
            let wrong = settled.filter { !$0.isTrue(observers) }.count
            return "in \(wrong) of \(rooms) rooms the observers' lists did not become the true one within 20 s"
        }
        if rate > 0 { measured.add(late: late) }
        guard measured.page.answers > 0 else {
            throw LoadError("nobody joined in the time, so that nothing was checked (--rate, --seconds)")
        }
        _ = try threads.stop()
        return LoadReport(
            scenario: "presence",
            parameters: [("rooms", rooms), ("observers", observers), ("churners", churners)].map { ($0, Double($1)) },
            operation: "join", checked: "all observers' lists of all rooms are the true ones at the end",
            operations: measured.page.answers, rate: rate, connections: rooms * size, measured: measured)
    }
}

/// Whether the load on a room has ended, and how many of its observers know who is there.
final class Settled: Sendable {
    let isQuiet = Atomic(false)
    let agreeing = Atomic(0)

    func isTrue(_ observers: Int) -> Bool {
        isQuiet.load(ordering: .acquiring) && agreeing.load(ordering: .acquiring) == observers
    }
}

/// The list of a room's members as its presence events tell it (docs/protocol.md).
struct Roster {
    private(set) var users: Set<Int> = []
    private var version: Int64 = 0

    /// - Returns: whether the event tells less than happened, so that the whole list must be asked for.
    mutating func take(_ event: Scan) -> Bool {
        guard let version = event.presenceVersion else { return false }
        if let all = event.users(in: "\"members\":[") {
            // Read before an event that is known already: of no use.
            guard version >= self.version else { return true }
            users = Set(all)
            self.version = version
            return false
        }
        guard version > self.version else { return false }
        let joined = event.users(in: "\"joined\":[") ?? []
        let left = event.users(in: "\"left\":[") ?? []
        let updated = event.users(in: "\"updated\":[") ?? []
        users.formUnion(joined)
        users.subtract(left)
        let hasHole = version - self.version > Int64(joined.count + left.count + updated.count)
        self.version = version
        return hasHole
    }
}

private struct Churners: Driver {
    private enum State {
        case connecting
        case outside
        case joining
        case inside
        case leaving
    }

    private struct Client {
        let room: Int
        /// Nil for observers.
        let turn: Int?
        var state = State.connecting
        var joins = 0
        var due: UInt64 = 0
        /// Whether the join is one of the load, not that of the end.
        var isTimed = false
        var roster = Roster()
        /// Whether the answer to a request for the whole list is due.
        var isAsking = false
        /// Whether a hole was seen since that request, so that its answer may be too old.
        var asksAgain = false
        var agrees = false
    }

    private let control: Control
    private let settled: [Settled]
    private let names: [String]
    private let window = 32
    private var clients: [Client] = []
    private var schedule: Schedule
    private var phase = Control.Phase.ramp
    private var started = 0
    private var open = OpenPage()

    init(_ scenario: Churn, prefix: String, settled: [Settled], control: Control) {
        (self.control, self.settled) = (control, settled)
        names = (0..<scenario.rooms).map { "\(prefix).\($0)" }
        var turns = 0
        for room in 0..<scenario.rooms {
            for place in 0..<(scenario.observers + scenario.churners) {
                clients.append(Client(room: room, turn: place < scenario.observers ? nil : turns))
                if place >= scenario.observers { turns += 1 }
            }
        }
        schedule = Schedule(takers: turns, rate: scenario.rate)
    }

    mutating func begin(_ wire: inout Wire) {
        for _ in 0..<window { connectNext(&wire) }
    }

    private mutating func connectNext(_ wire: inout Wire) {
        guard started < clients.count else { return }
        wire.open(started, to: started + clients[started].room, user: Scan.userName(started))
        started += 1
    }

    mutating func received(_ message: Scan, on slot: Int, at now: UInt64, _ wire: inout Wire) {
        if message.isType("presence") {
            perceived(message, on: slot, &wire)
        } else if message.isType("joined") {
            joined(message, on: slot, at: now, &wire)
        } else if message.isType("left") {
            clients[slot].state = .outside
            move(slot, &wire)
        } else if message.isType("welcome") {
            guard clients[slot].turn == nil else {
                clients[slot].state = .outside
                return becameReady(&wire)
            }
            clients[slot].state = .joining
            wire.send(text: joinText(names[clients[slot].room]), on: slot)
        } else if message.isType("error") {
            control.fail(message.refusal)
        }
    }

    private mutating func becameReady(_ wire: inout Wire) {
        control.becameReady()
        connectNext(&wire)
    }

    private mutating func joined(_ message: Scan, on slot: Int, at now: UInt64, _ wire: inout Wire) {
        clients[slot].state = .inside
        guard clients[slot].turn != nil else {
            _ = clients[slot].roster.take(message)
            return becameReady(&wire)
        }
        guard message.users(in: "\"members\":[")?.contains(slot) == true else {
            return control.fail("user \(slot) joined and is not in the list: \(message.text.prefix(300))")
        }
        if clients[slot].isTimed {
            open.page.answers += 1
            open.page.answerLatency.record(now > clients[slot].due ? now - clients[slot].due : 0)
        }
        move(slot, &wire)
    }

    private mutating func perceived(_ event: Scan, on slot: Int, _ wire: inout Wire) {
        guard clients[slot].turn == nil else { return }
        let hasHole = clients[slot].roster.take(event)
        var mustAsk = hasHole
        if event.users(in: "\"members\":[") != nil {
            mustAsk = hasHole || clients[slot].asksAgain
            clients[slot].isAsking = false
        }
        clients[slot].asksAgain = clients[slot].isAsking && (clients[slot].asksAgain || hasHole)
        guard mustAsk, !clients[slot].isAsking else { return }
        clients[slot].isAsking = true
        wire.send(text: roomText("presence", names[clients[slot].room]), on: slot)
    }

    /// The next step of one who comes and goes; at the end those of even number stay.
    private mutating func move(_ slot: Int, _ wire: inout Wire) {
        guard let turn = clients[slot].turn else { return }
        switch clients[slot].state {
        case .connecting, .joining, .leaving: return
        case .inside:
            guard phase == .load || turn % 2 == 1 || nextJoin(of: slot, turn) != nil else { return }
            clients[slot].state = .leaving
            wire.send(text: roomText("leave", names[clients[slot].room]), on: slot)
        case .outside:
            let due = nextJoin(of: slot, turn)
            let isLast = phase == .drain && turn % 2 == 0
            guard isLast || due != nil else { return }
            clients[slot].due = due ?? nanoseconds()
            clients[slot].isTimed = due != nil
            clients[slot].joins += 1
            clients[slot].state = .joining
            wire.send(text: joinText(names[clients[slot].room]), on: slot)
        }
    }

    private func nextJoin(of slot: Int, _ turn: Int) -> UInt64? {
        phase == .ramp ? nil : schedule.due(clients[slot].joins, of: turn, at: nanoseconds())
    }

    mutating func finishedRead(on slot: Int, _ wire: inout Wire) {}
    mutating func closed(_ slot: Int, _ wire: inout Wire) {}

    mutating func lost(_ slot: Int, because reason: String) {
        control.fail("connection \(slot) was lost: \(reason)")
    }

    mutating func finishedBurst(_ wire: inout Wire) -> UInt64? {
        open.turn(control)
        let before = phase
        phase = control.phase.load(ordering: .sequentiallyConsistent)
        if phase != before {
            schedule.follow(phase, of: control)
            for slot in clients.indices { move(slot, &wire) }
        }
        if phase == .drain { settle() }
        guard phase == .load else { return nil }
        var due: [Int] = []
        let next = schedule.turn(at: nanoseconds()) { due.append($0) }
        for turn in due { move(slot(of: turn), &wire) }
        return next
    }

    private func slot(of turn: Int) -> Int {
        let churners = schedule.takers / names.count
        let size = clients.count / names.count
        return turn / churners * size + size - churners + turn % churners
    }

    /// Compares what observers know with what the churners were told.
    private mutating func settle() {
        let size = clients.count / names.count
        for room in names.indices {
            let slots = room * size..<(room + 1) * size
            let isQuiet = slots.allSatisfy { slot in
                guard let turn = clients[slot].turn else { return true }
                return clients[slot].state == (turn % 2 == 0 ? .inside : .outside)
            }
            guard isQuiet else { continue }
            let present = Set(slots.filter { clients[$0].state == .inside })
            for slot in slots where clients[slot].turn == nil {
                let agrees = clients[slot].roster.users == present
                guard agrees != clients[slot].agrees else { continue }
                clients[slot].agrees = agrees
                settled[room].agreeing.add(agrees ? 1 : -1, ordering: .releasing)
            }
            settled[room].isQuiet.store(true, ordering: .releasing)
        }
    }
}
