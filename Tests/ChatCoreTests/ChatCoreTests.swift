import ChatCore
import Testing
import WireProtocol

private let second: UInt64 = 1_000_000_000

@Suite("Message limit")
struct TokenBucketTests {
    @Test("a burst passes, then the rate holds, and the wait that is told is enough")
    func burstThenRate() throws {
        var bucket = try #require(TokenBucket(ratePerSecond: 30, burst: 60, now: 0))
        for _ in 0..<60 { #expect(bucket.take(now: 0) == .pass) }
        guard case .refuse(let milliseconds) = bucket.take(now: 0) else { return #expect(Bool(false)) }
        #expect(milliseconds >= 33 && milliseconds <= 35)
        #expect(bucket.take(now: UInt64(milliseconds) * 1_000_000) == .pass)
    }

    @Test("what is left unused never exceeds the burst")
    func idle() throws {
        var bucket = try #require(TokenBucket(ratePerSecond: 10, burst: 3, now: 0))
        for _ in 0..<3 { #expect(bucket.take(now: 1_000_000 * second) == .pass) }
        #expect(bucket.take(now: 1_000_000 * second) != .pass)
    }

    @Test("0 lifts the limit")
    func lifted() {
        #expect(TokenBucket(ratePerSecond: 0, burst: 1, now: 0) == nil)
    }

    @Test("many tokens are taken together or not at all, and the wait that is told is enough for all")
    func many() throws {
        var bucket = try #require(TokenBucket(ratePerSecond: 10, burst: 30, now: 0))
        #expect(bucket.take(20, now: 0) == .pass)
        guard case .refuse(let milliseconds) = bucket.take(30, now: 0) else { return #expect(Bool(false)) }
        #expect((2000...2001).contains(milliseconds))
        #expect(bucket.take(10, now: 0) == .pass)
        #expect(bucket.take(30, now: 3 * second) == .pass)
    }
}

@Suite("G1, G3, G5: publishes of one room on one node")
struct PublishQueueTests {
    @Test("one batch at a time, in order")
    func batches() {
        var queue = PublishQueue<Int>()
        for number in 1...5 { queue.append(number, bytes: 10, deadline: 9) }
        #expect(queue.nextBatch(maximumCount: 3, maximumBytes: 1000, id: \.description).map(\.element) == [1, 2, 3])
        #expect(queue.nextBatch(maximumCount: 3, maximumBytes: 1000, id: \.description).isEmpty)
        #expect(queue.answered().map(\.element) == [1, 2, 3])
        #expect(queue.nextBatch(maximumCount: 3, maximumBytes: 1000, id: \.description).map(\.element) == [4, 5])
        #expect(queue.bytes == 20)
    }

    @Test("a batch is bounded in bytes, but one message always goes")
    func bytes() {
        var queue = PublishQueue<Int>()
        for number in 1...3 { queue.append(number, bytes: 600, deadline: 9) }
        #expect(queue.nextBatch(maximumCount: 64, maximumBytes: 1000, id: \.description).map(\.element) == [1])
        _ = queue.answered()
        #expect(queue.nextBatch(maximumCount: 64, maximumBytes: 100, id: \.description).map(\.element) == [2])
    }

    @Test("a batch ends before an id that it has already")
    func repeatedID() {
        var queue = PublishQueue<Int>()
        for number in [1, 2, 1, 1, 3] { queue.append(number, bytes: 1, deadline: 9) }
        var batches: [[Int]] = []
        while !queue.isEmpty {
            batches.append(queue.nextBatch(maximumCount: 64, maximumBytes: 100, id: \.description).map(\.element))
            _ = queue.answered()
        }
        #expect(batches == [[1, 2], [1], [1, 3]])
    }

    @Test("what may or may not be stored goes out again before everything else")
    func unknown() {
        var queue = PublishQueue<Int>()
        queue.append(1, bytes: 1, deadline: 9)
        _ = queue.nextBatch(maximumCount: 64, maximumBytes: 1000, id: \.description)
        queue.append(2, bytes: 1, deadline: 9)
        #expect(queue.outcomeUnknown().isEmpty)
        let batch = queue.nextBatch(maximumCount: 64, maximumBytes: 1000, id: \.description)
        #expect(batch.map(\.element) == [1, 2])
        #expect(batch.map(\.attempts) == [1, 0])
    }

    @Test("what the relay brought is neither sent again nor refused")
    func relayed() {
        var queue = PublishQueue<Int>()
        for number in 1...3 { queue.append(number, bytes: 1, deadline: 9) }
        _ = queue.nextBatch(maximumCount: 2, maximumBytes: 1000, id: \.description)
        #expect(queue.relayed { $0 == 1 }.isEmpty, "its answer is under way")
        #expect(queue.outcomeUnknown().map(\.element) == [1])
        #expect(queue.relayed { $0 == 3 }.isEmpty, "it never went out")
        #expect(queue.relayed { $0 == 2 }.map(\.element) == [2])
        #expect(queue.expire(now: 9).map(\.element) == [3])
        #expect(queue.isEmpty && queue.bytes == 0)
    }

    @Test("what waits past its deadline is handed back, what is under way is not")
    func expiry() {
        var queue = PublishQueue<Int>()
        queue.append(1, bytes: 1, deadline: 5)
        _ = queue.nextBatch(maximumCount: 1, maximumBytes: 1000, id: \.description)
        queue.append(2, bytes: 1, deadline: 5)
        queue.append(3, bytes: 1, deadline: 6)
        #expect(queue.expire(now: 5).map(\.element) == [2])
        #expect(queue.outcomeUnknown().isEmpty)
        #expect(queue.expire(now: 5).map(\.element) == [1])
        #expect(queue.count == 1 && queue.bytes == 1)
    }
}

@Suite("G4: what a node believes of its lease")
struct LeaseClockTests {
    @Test("A renewal that failed puts sweeping off for a whole period, and leaves the lease as it is")
    func failedRenewal() {
        var clock = LeaseClock(duration: 10)
        for time in stride(from: UInt64(0), through: 20, by: 4) { clock.renewed(sentAt: time) }
        #expect(clock.maySweep(now: 21))
        clock.renewalFailed()
        #expect(clock.isHeld(now: 22) && !clock.maySweep(now: 22))
        for time in stride(from: UInt64(24), through: 32, by: 4) { clock.renewed(sentAt: time) }
        #expect(!clock.maySweep(now: 33))
        #expect(clock.maySweep(now: 34))
    }

    @Test("a renewal counts from when it was sent")
    func fromSending() {
        var clock = LeaseClock(duration: 10)
        #expect(!clock.isHeld(now: 0))
        clock.renewed(sentAt: 100)
        #expect(clock.isHeld(now: 109))
        #expect(!clock.isHeld(now: 110))
    }

    @Test("only who held its own lease for a whole period may sweep others")
    func sweep() {
        var clock = LeaseClock(duration: 10)
        clock.renewed(sentAt: 100)
        #expect(!clock.maySweep(now: 105))
        clock.renewed(sentAt: 106)
        #expect(clock.maySweep(now: 110))
    }

    @Test("after a break, a pause of Redis for all, everybody renews before anybody sweeps")
    func broken() {
        var clock = LeaseClock(duration: 10)
        clock.renewed(sentAt: 100)
        clock.renewed(sentAt: 108)
        clock.renewed(sentAt: 130)
        #expect(clock.isHeld(now: 131) && !clock.maySweep(now: 131))
        clock.renewed(sentAt: 138)
        #expect(clock.maySweep(now: 140))
    }

    @Test("a late answer to an early renewal takes nothing back")
    func lateAnswer() {
        var clock = LeaseClock(duration: 10)
        clock.renewed(sentAt: 108)
        clock.renewed(sentAt: 100)
        #expect(clock.isHeld(now: 117))
    }
}

@Suite("Presence of one tick")
struct PresenceTickTests {
    private func tick(_ changes: [(PresenceTick.Change, String)]) -> PresenceTick {
        var tick = PresenceTick()
        for (offset, (change, user)) in changes.enumerated() {
            tick.add(change, key: Array(user.utf8), member: user, count: 1, pv: Int64(offset + 1))
        }
        return tick
    }

    @Test("who came and went is not mentioned, who went and came is updated, but pv tells")
    func folding() {
        let tick = tick([(.joined, "a"), (.left, "b"), (.left, "a"), (.joined, "b"), (.updated, "c")])
        #expect(tick.members(.joined).isEmpty && tick.members(.left).isEmpty)
        #expect(tick.members(.updated) == ["b", "c"])
        #expect(tick.pv == 5)
    }

    @Test("an old event changes nothing")
    func old() {
        var tick = tick([(.joined, "a"), (.joined, "b")])
        tick.add(.left, key: Array("a".utf8), member: "a", count: 9, pv: 2)
        #expect(tick.members(.joined) == ["a", "b"] && tick.count == 1)
    }
}

@Suite("G5: heartbeat")
struct HeartbeatWheelTests {
    private final class Client: WheelElement {
        var wheelPlace = WheelPlace()
        static func == (left: Client, right: Client) -> Bool { left === right }
        func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
    }

    private func wheel() -> HeartbeatWheel<Client> {
        HeartbeatWheel(
            interval: Int64(5 * second), timeout: Int64(2 * second), authenticationTimeout: Int64(3 * second))
    }

    @Test("each is pinged once an interval and checked one timeout later")
    func pingAndCheck() {
        var wheel = wheel()
        let client = Client()
        wheel.add(client, now: 0, slot: 2)
        wheel.authenticated(client)
        var pings: [UInt64] = []
        var checks: [UInt64] = []
        for tick in 1...10 {
            let now = UInt64(tick) * second
            let actions = wheel.advance(now: now)
            if !actions.ping.isEmpty { pings.append(now / second) }
            if !actions.check.isEmpty { checks.append(now / second) }
        }
        #expect(pings == [2, 7] && checks == [4, 9])
    }

    @Test("an answer to one ping counts though the next ping is out already")
    func overlapping() {
        var wheel = HeartbeatWheel<Client>(
            interval: Int64(2 * second), timeout: Int64(3 * second), authenticationTimeout: Int64(3 * second))
        let client = Client()
        wheel.add(client, now: 0, slot: 1)
        wheel.authenticated(client)
        var checks: [UInt64] = []
        for tick in 1...6 {
            checks += wheel.advance(now: UInt64(tick) * second).check.map { $0.pingedAt / second }
        }
        #expect(checks == [1, 3])
    }

    @Test("a process that stood still finds nobody dead by that")
    func stall() {
        var wheel = wheel()
        let client = Client()
        wheel.add(client, now: 0, slot: 2)
        wheel.authenticated(client)
        _ = wheel.advance(now: 1 * second)
        #expect(wheel.advance(now: 2 * second).ping == [client])
        #expect(wheel.advance(now: 22 * second).check.isEmpty)
        #expect(wheel.advance(now: 24 * second).check.map(\.element) == [client])
    }

    @Test("who sends no auth in time is named once, who left is not")
    func unauthenticated() {
        var wheel = wheel()
        let (first, other) = (Client(), Client())
        wheel.add(first, now: 0, slot: 0)
        wheel.add(other, now: 0, slot: 0)
        wheel.remove(other)
        #expect(wheel.advance(now: 2 * second).unauthenticated.isEmpty)
        #expect(wheel.advance(now: 3 * second).unauthenticated == [first])
        #expect(wheel.advance(now: 4 * second).unauthenticated.isEmpty)
    }

    @Test("T19: of those who sent no auth the one that came first is taken, who did or left is not")
    func longestUnauthenticated() {
        var wheel = wheel()
        let clients = (0..<4).map { _ in Client() }
        for (index, client) in clients.enumerated() { wheel.add(client, now: UInt64(index), slot: 0) }
        wheel.authenticated(clients[0])
        wheel.remove(clients[2])
        #expect(wheel.takeLongestUnauthenticated() == clients[1])
        #expect(wheel.takeLongestUnauthenticated() == clients[3])
        #expect(wheel.takeLongestUnauthenticated() == nil)
        #expect(wheel.advance(now: 9 * second).unauthenticated.isEmpty)
    }

    @Test("who has proved who it is, and is waited for all the same, is not taken")
    func givesNoWay() {
        var wheel = wheel()
        let (known, stranger) = (Client(), Client())
        wheel.add(known, now: 0, slot: 0, givesWay: false)
        wheel.add(stranger, now: 1, slot: 0)
        #expect(wheel.takeLongestUnauthenticated() == stranger)
        #expect(wheel.takeLongestUnauthenticated() == nil)
        #expect(wheel.advance(now: 4 * second).unauthenticated == [known])
    }

    @Test("no more of those who are gone are kept than wait")
    func keepsNobody() {
        var wheel = wheel()
        let count = 1000
        weak var first: Client?
        do {
            let clients = (0..<count).map { _ in Client() }
            first = clients[0]
            for client in clients { wheel.add(client, now: 0, slot: 0) }
            for client in clients { wheel.remove(client) }
        }
        _ = wheel.advance(now: second)
        #expect(first == nil)
    }
}

@Suite("What a session may do")
struct SessionStateTests {
    private func open(roomLimit: Int = 2) throws -> SessionState {
        var state = SessionState(roomLimit: roomLimit)
        #expect(
            state.authenticate(as: try UserName(validating: "alice"), status: nil)
                == .open(try UserName(validating: "alice")))
        #expect(state.opened() == true)
        return state
    }

    private func room(_ name: String) throws -> RoomName { try RoomName(validating: name) }

    @Test("nothing but auth before the session is open")
    func anonymous() throws {
        var state = SessionState(roomLimit: 2)
        #expect(state.join(try room("a"), Rights()) == .refuse(WireError(.notAuthenticated)))
        #expect(throws: WireError(.notAuthenticated)) { try state.requireOpen() }
    }

    @Test("a second auth as somebody else is refused, as the same user it changes nothing")
    func secondAuth() throws {
        var state = try open()
        #expect(
            state.authenticate(as: try UserName(validating: "bob"), status: nil)
                == .refuse(WireError(.identityConflict)))
        #expect(
            state.authenticate(as: try UserName(validating: "alice"), status: .busy)
                == .acknowledge(try UserName(validating: "alice")))
        #expect(state.status == .online)
    }

    @Test("one room more than allowed is refused, until one is left")
    func roomLimit() throws {
        var state = try open()
        #expect(state.join(try room("a"), Rights()) == .join)
        #expect(state.join(try room("b"), Rights()) == .join)
        #expect(state.join(try room("b"), Rights()) == .again)
        guard case .refuse(let error) = state.join(try room("c"), Rights()) else { return #expect(Bool(false)) }
        #expect(error.code == .tooManyRooms)
        #expect(state.leave(try room("a"))?.isJoined == false)
        #expect(state.join(try room("c"), Rights()) == .join)
    }

    @Test("publishing needs a finished join")
    func membership() throws {
        var state = try open()
        _ = state.join(try room("a"), Rights())
        #expect(throws: WireError.self) { try state.requireMember(of: try self.room("a"), who: .publish, Rights()) }
        #expect(try state.joined(room("a")) == true)
        #expect(try state.requireMember(of: room("a"), who: .publish, Rights()).0.string == "alice")
        #expect(try state.joined(room("b")) == false)
    }

    @Test("what comes before its turn waits: for the session to open, then for the room's join to be answered")
    func turns() throws {
        func message(_ text: String) throws -> ClientMessage {
            try Array(text.utf8).withUnsafeBytes { bytes throws(ClientMessageError) in
                try ClientMessage(decoding: bytes)
            }
        }
        let join = try message(#"{"type":"join","room":"a"}"#)
        let speak = try message(#"{"type":"message","room":"a","text":"hi"}"#)
        let elsewhere = try message(#"{"type":"message","room":"b","text":"hi"}"#)
        let ping = try message(#"{"type":"ping"}"#)
        var state = SessionState(roomLimit: 2)
        #expect(!state.mustWait(join))
        _ = state.authenticate(as: try UserName(validating: "alice"), status: nil)
        #expect(state.mustWait(join) && state.mustWait(speak))
        #expect(!state.mustWait(ping))
        #expect(state.opened() == true)
        #expect(!state.mustWait(join) && !state.mustWait(speak))
        #expect(try state.join(room("a"), Rights()) == .join)
        #expect(state.mustWait(speak) && state.mustWait(join))
        #expect(!state.mustWait(elsewhere))
        #expect(try state.joined(room("a")) == true)
        #expect(!state.mustWait(speak))
        _ = state.close()
        #expect(!state.mustWait(speak))
    }

    @Test("a frame that joins a room twice joins it once; one with more rooms than a session may be in joins none")
    func joinsOfAFrame() throws {
        let state = try open(roomLimit: 2)
        func joins(_ names: [String]) throws -> [ClientMessage.Join] {
            let rooms = names.map { #"{"room":"\#($0)"}"# }.joined(separator: ",")
            let message = try Array(#"{"type":"join","rooms":[\#(rooms)]}"#.utf8).withUnsafeBytes { bytes in
                try ClientMessage(decoding: bytes)
            }
            guard case .join(let joins) = message.body else { return [] }
            return joins
        }
        #expect(try state.distinct(joins(["a", "b", "a"])).map(\.room.string) == ["a", "b"])
        #expect(throws: WireError.self) { _ = try state.distinct(try joins(["a", "b", "c"])) }
    }

    @Test("typing is told when it changes and every 2 s; a room that was left is forgotten")
    func typing() throws {
        var state = try open()
        let room = try room("a")
        func tells(_ isTyping: Bool, _ now: UInt64) throws -> Bool {
            try state.typing(isTyping, in: room, Rights(), now: now) != nil
        }
        #expect(throws: WireError.self) { try tells(true, 0) }
        func enter() {
            _ = state.join(room, Rights())
            _ = state.joined(room)
        }
        enter()
        #expect(try tells(true, 0) == true)
        #expect(try tells(true, second) == false)
        #expect(try tells(false, second) == true)
        #expect(try tells(true, second) == true)
        #expect(try tells(true, 3 * second) == true)
        _ = state.leave(room)
        enter()
        #expect(try tells(true, 3 * second) == true)
    }

    @Test("a private room is read by its two users alone, and joined by nobody")
    func direct() throws {
        var state = try open()
        #expect(try state.requireReader(of: room("dm:alice:bob"), Rights()).string == "alice")
        #expect(throws: WireError.self) { try state.requireReader(of: try self.room("dm:bob:carol"), Rights()) }
        guard case .refuse(let error) = state.join(try room("dm:bob:carol"), Rights()) else {
            return #expect(Bool(false))
        }
        #expect(error.code == .forbidden)
    }
}
