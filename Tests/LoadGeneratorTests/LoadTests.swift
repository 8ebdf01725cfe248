import Synchronization
import Testing

@testable import LoadGenerator

@Suite("Schedule")
struct ScheduleTests {
    @Test("takers come in turns, evenly spread, and what was not asked for in time comes all at once")
    func turns() {
        var schedule = Schedule(takers: 3, rate: 1000)
        schedule.beganAt = 5_000_000
        var seen: [Int] = []
        #expect(schedule.turn(at: 5_000_000) { seen.append($0) } == 6_000_000)
        #expect(schedule.turn(at: 5_999_999) { seen.append($0) } == 6_000_000)
        #expect(schedule.turn(at: 10_000_000) { seen.append($0) } == 11_000_000)
        #expect(seen == [0, 1, 2, 0, 1, 2])
    }

    @Test("an action keeps the moment at which it was due, however late it is done")
    func due() {
        var schedule = Schedule(takers: 2, rate: 1000)
        schedule.beganAt = 1_000_000
        #expect(schedule.due(0, of: 0, at: 1_000_000) == 1_000_000)
        #expect(schedule.due(0, of: 1, at: 1_999_999) == nil)
        #expect(schedule.due(3, of: 1, at: 90_000_000) == 8_000_000)
    }

    @Test("what was due before the end is due still, however late; what is due later is not")
    func end() {
        var schedule = Schedule(takers: 2, rate: 1000)
        schedule.beganAt = 1_000_000
        schedule.endsAt = 4_000_000
        #expect(schedule.due(1, of: 0, at: 90_000_000) == 3_000_000)
        #expect(schedule.due(1, of: 1, at: 90_000_000) == nil)
        var seen: [Int] = []
        #expect(schedule.turn(at: 90_000_000) { seen.append($0) } == nil)
        #expect(seen == [0, 1, 0])
        var free = Schedule(takers: 1, rate: 0)
        free.endsAt = 4_000_000
        #expect(free.due(0, of: 0, at: 5_000_000) == nil)
    }

    @Test("without a rate everything is due now, and nobody has turns")
    func noRate() {
        var schedule = Schedule(takers: 2, rate: 0)
        #expect(schedule.due(7, of: 1, at: 42) == 42)
        #expect(schedule.turn(at: 42) { _ in Issue.record("nobody has a turn") } == nil)
    }
}

@Suite("What the load generator checks")
struct CheckTests {
    private let control: Control
    private let tally = RoomTally()
    private var crowd: Crowd
    private var wire = Wire(epoll: -1, targets: [])

    init() throws {
        control = try Control()
        // They wait for another room, so that nothing is ready and no next connection begins.
        let members = [
            Crowd.Member(number: 0, target: 0, rooms: ["a", "b"], room: 0, publisher: 0),
            Crowd.Member(number: 1, target: 0, rooms: ["a", "b"], room: 0, publisher: nil),
        ]
        let publisher = Crowd.Publisher(
            slot: 0, turn: 0, text: Text(room: "a", publisher: 0, bytes: 30), sent: 2, due: [0, 0])
        crowd = Crowd(
            members: members, publishers: [publisher],
            rooms: [Crowd.Room(tally: tally, receivers: 1, publishers: 1, name: Array("a".utf8), bytes: 30)],
            schedule: Schedule(takers: 1, rate: 0), inFlight: 2, window: 0, control: control)
        for slot in 0...1 { feed(#"{"type":"joined","room":"a","seq":41}"#, to: slot) }
    }

    private mutating func feed(_ text: String, to slot: Int) {
        Array(text.utf8).withUnsafeBytes { crowd.received(Scan(payload: $0), on: slot, at: 100, &wire) }
    }

    private mutating func message(
        _ seq: Int, to slot: Int = 1, room: String = "a", from: String = "u0", number: Int? = nil, rest: String = "xx"
    ) {
        let text = "aaaaaaaaaaaaaaaaaaaa0000000\(number ?? seq - 41)\(rest)"
        feed(#"{"type":"message","room":"\#(room)","seq":\#(seq),"from":"\#(from)","text":"\#(text)"}"#, to: slot)
    }

    private mutating func ack(_ id: Int, _ seq: Int) {
        feed(#"{"type":"ack","room":"a","id":"0000000\#(id)","seq":\#(seq),"ts":1}"#, to: 0)
    }

    private var failure: String? {
        do throws(LoadError) {
            try control.check()
            return nil
        } catch {
            return error.description
        }
    }

    @Test("what is right fails nothing and is counted")
    mutating func right() {
        message(42)
        ack(1, 42)
        message(43)
        ack(2, 43)
        _ = crowd.finishedBurst(&wire)
        #expect(failure == nil)
        #expect(tally.delivered.load(ordering: .relaxed) == 2)
        #expect(tally.acked.load(ordering: .relaxed) == 2)
    }

    @Test("the right seq with what another message was, with a changed text, room or sender fails the run")
    mutating func content() throws {
        for index in 0..<6 {
            var other = try CheckTests()
            other.message(42)
            switch index {
            case 0: other.message(43, number: 1)
            case 1: other.message(43, number: 3)
            case 2: other.message(43, rest: "xy")
            case 3: other.message(43, rest: "x")
            case 4: other.message(43, room: "b")
            default: other.message(43, from: "u1")
            }
            #expect(other.failure?.contains("nobody sent next") == true, "\(index)")
        }
    }

    @Test("a message that is left out fails the run")
    mutating func hole() {
        message(43)
        #expect(failure?.contains("expected seq 42") == true)
    }

    @Test("a message that comes twice fails the run")
    mutating func twice() {
        message(42)
        message(42)
        #expect(failure?.contains("expected seq 43") == true)
    }

    @Test("an ack of another message than the next fails the run")
    mutating func wrongAck() {
        ack(2, 42)
        #expect(failure?.contains("message 1 was due") == true)
    }

    @Test("an own message fails the run: its ack stands in its place")
    mutating func ownMessage() {
        message(42, to: 0)
        ack(1, 42)
        #expect(failure?.contains("expected seq 43") == true)
    }

    @Test("an error, a gap and a lost connection fail the run", arguments: ["error", "gap", "reconnect"])
    mutating func trouble(type: String) {
        feed(#"{"type":"\#(type)","room":"a"}"#, to: 1)
        #expect(failure?.contains(type) == true)
    }
}

@Suite("Roster")
struct RosterTests {
    private func take(_ roster: inout Roster, _ text: String) -> Bool {
        Array(text.utf8).withUnsafeBytes { roster.take(Scan(payload: $0)) }
    }

    @Test("a list is kept by events; an old one is ignored, and a hole is seen")
    func events() {
        var roster = Roster()
        #expect(!take(&roster, #"{"type":"joined","pv":6,"count":2,"members":[{"user":"u1"},{"user":"u12"}]}"#))
        #expect(roster.users == [1, 12])
        let change = #"{"type":"presence","joined":[{"user":"u3"}],"left":[{"user":"u1"}],"count":2,"pv":8}"#
        #expect(!take(&roster, change))
        #expect(roster.users == [3, 12])
        #expect(!take(&roster, #"{"type":"presence","joined":[],"left":[{"user":"u3"}],"count":1,"pv":7}"#))
        #expect(roster.users == [3, 12])
        #expect(take(&roster, #"{"type":"presence","joined":[],"left":[{"user":"u3"}],"count":1,"pv":11}"#))
        #expect(!take(&roster, #"{"type":"presence","members":[{"user":"u5"}],"count":1,"pv":11}"#))
        #expect(roster.users == [5])
        #expect(
            take(&roster, #"{"type":"presence","members":[{"user":"u6"}],"count":1,"pv":10}"#), "too old: ask again")
        #expect(roster.users == [5])
    }
}
