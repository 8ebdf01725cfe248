import Synchronization
import Telemetry

/// Connections that are opened, welcomed and closed again, as often as possible or at a rate.
package struct Handshakes: Sendable {
    package var options: LoadOptions
    /// Connections that may be open at once.
    package var clients = 32
    /// Handshakes a second; 0 is as many as the clients can.
    package var rate = 0.0

    package init(_ options: LoadOptions) {
        self.options = options
    }

    /// Blocks for the whole run.
    package func run(_ listener: LoadListener) throws(LoadError) -> LoadReport {
        guard (1...100_000).contains(clients), rate >= 0 else {
            throw LoadError("connect needs 1 to 100000 clients")
        }
        try requireDescriptors(clients)
        var meter = try LoadMeter(options)
        let control = try Control()
        let driver = Handshaker(clients: clients, rate: rate, control: control)
        let threads = try Threads([driver], targets: try options.targets(), control: control)
        var measured = try meter.measure(threads, listener)
        let isDone = { control.ready.load(ordering: .relaxed) == clients }
        let late = try threads.drain(seconds: 10, until: isDone) { "handshakes were not finished within 10 s" }
        if rate > 0 { measured.add(late: late) }
        guard measured.page.answers > 0 else {
            throw LoadError("no handshake ended in the time, so that nothing was checked (--rate, --seconds)")
        }
        _ = try threads.stop()
        return LoadReport(
            scenario: "connect", parameters: [("clients", Double(clients))], operation: "handshake",
            checked: "every handshake welcomed, every close answered", operations: measured.page.answers, rate: rate,
            connections: clients, measured: measured)
    }
}

/// The clients of a handshake run; each connection is a slot.
private struct Handshaker: Driver {
    private let control: Control
    private var schedule: Schedule
    private var phase = Control.Phase.ramp
    private var isBusy: [Bool]
    private var due: [UInt64]
    private var started: [Int]
    private var users = 0
    private var open = OpenPage()

    init(clients: Int, rate: Double, control: Control) {
        self.control = control
        schedule = Schedule(takers: clients, rate: rate)
        isBusy = Array(repeating: false, count: clients)
        due = Array(repeating: 0, count: clients)
        started = Array(repeating: 0, count: clients)
    }

    mutating func begin(_ wire: inout Wire) {}

    private mutating func start(_ slot: Int, _ wire: inout Wire) {
        guard phase != .ramp, !isBusy[slot], let due = schedule.due(started[slot], of: slot, at: nanoseconds()) else {
            return
        }
        isBusy[slot] = true
        self.due[slot] = due
        started[slot] += 1
        users += 1
        wire.open(slot, to: users, user: Scan.userName(users % 100_000))
    }

    mutating func received(_ message: Scan, on slot: Int, at now: UInt64, _ wire: inout Wire) {
        if message.isType("welcome"), wire.phase(of: slot) == .open {
            open.page.answers += 1
            open.page.answerLatency.record(now > due[slot] ? now - due[slot] : 0)
            wire.close(slot)
        } else if message.isType("error") {
            control.fail(message.refusal)
        }
    }

    mutating func finishedRead(on slot: Int, _ wire: inout Wire) {}

    mutating func closed(_ slot: Int, _ wire: inout Wire) {
        isBusy[slot] = false
        start(slot, &wire)
        if phase == .drain && !isBusy[slot] { control.becameReady() }
    }

    mutating func lost(_ slot: Int, because reason: String) {
        control.fail("a handshake failed: \(reason)")
    }

    mutating func finishedBurst(_ wire: inout Wire) -> UInt64? {
        open.turn(control)
        let before = phase
        phase = control.phase.load(ordering: .sequentiallyConsistent)
        if phase != before { schedule.follow(phase, of: control) }
        if phase == .drain && before != .drain {
            for slot in isBusy.indices where !isBusy[slot] {
                start(slot, &wire)
                if !isBusy[slot] { control.becameReady() }
            }
        }
        guard phase == .load else { return nil }
        var ready: [Int] = []
        if before != .load {
            ready = Array(isBusy.indices)
        }
        let next = schedule.turn(at: nanoseconds()) { ready.append($0) }
        for slot in ready { start(slot, &wire) }
        return next
    }
}
