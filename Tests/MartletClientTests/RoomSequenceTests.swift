import Testing

@testable import MartletClient

struct RoomSequenceTests {
    private static func message(_ seq: Int64) -> ChatMessage {
        ChatMessage(room: "r", seq: seq, from: "bob", text: "\(seq)", timestamp: 0, isOwn: false, tag: "t\(seq)")
    }

    private static func joined(_ seq: Int64, epoch: String = "e", recovered: Bool? = nil) -> ServerFrame.Joined {
        ServerFrame.Joined(
            room: "r", epoch: epoch, seq: seq, tag: "t\(seq)", recovered: recovered,
            roster: ServerFrame.Roster(members: [], count: 0, pv: 0))
    }

    private func at(_ seq: Int64) -> RoomSequence {
        var sequence = RoomSequence()
        #expect(sequence.joined(Self.joined(seq), now: 0) == [])
        return sequence
    }

    private func seqs(_ deliveries: [RoomSequence.Delivery]) -> [Int64] {
        deliveries.compactMap { if case .message(let message) = $0 { message.seq } else { nil } }
    }

    @Test("Messages are delivered in order, each once")
    func orderAndOnce() {
        var sequence = at(4)
        #expect(seqs(sequence.received(Self.message(5), now: 0)) == [5])
        #expect(sequence.received(Self.message(5), now: 0) == [])
        #expect(sequence.received(Self.message(3), now: 0) == [])
        #expect(sequence.received(Self.message(7), now: 0) == [])
        #expect(sequence.received(Self.message(7), now: 0) == [])
        #expect(seqs(sequence.received(Self.message(6), now: 0)) == [6, 7])
        #expect(sequence.position == ClientFrame.Position(epoch: "e", seq: 7, tag: "t7"))
    }

    @Test("A rejoin with recovery goes on where it was, and live messages at the seam wait for the missed ones")
    func recovery() {
        var sequence = at(4)
        #expect(sequence.joined(Self.joined(6, recovered: true), now: 0) == [])
        #expect(sequence.received(Self.message(7), now: 0) == [])
        #expect(seqs(sequence.received(Self.message(5), now: 0)) == [5])
        #expect(seqs(sequence.received(Self.message(6), now: 0)) == [6, 7])
        #expect(sequence.overdue(now: 100_000) == nil)
    }

    @Test("A hole is asked for after a second, and what the history has fills it")
    func hole() {
        var sequence = at(4)
        _ = sequence.received(Self.message(7), now: 1000)
        #expect(sequence.overdue(now: 1999) == nil)
        #expect(sequence.overdue(now: 2000) == 4)
        #expect(sequence.overdue(now: 2001) == nil, "one question at a time")
        #expect(seqs(sequence.filled([Self.message(5), Self.message(6)], epoch: "e", now: 2100)) == [5, 6, 7])
        #expect(sequence.filled([Self.message(9)], epoch: "e", now: 2200) == [], "not asked for")
    }

    @Test("What the history does not have is a gap, and delivery goes on behind it")
    func finalHole() {
        var sequence = at(4)
        _ = sequence.received(Self.message(8), now: 0)
        #expect(sequence.overdue(now: 1000) == 4)
        #expect(
            sequence.filled([Self.message(7)], epoch: "e", now: 1010) == [
                .gap(from: 5, to: 6), .message(Self.message(7)), .message(Self.message(8)),
            ])
        _ = sequence.received(Self.message(11), now: 1020)
        #expect(sequence.overdue(now: 2020) == 8)
        #expect(sequence.filled([], epoch: "e", now: 2030) == [.gap(from: 9, to: 10), .message(Self.message(11))])
    }

    @Test("Messages that a recovery promised and never sent are asked for too")
    func missingTail() {
        var sequence = at(4)
        _ = sequence.joined(Self.joined(6, recovered: true), now: 0)
        #expect(sequence.overdue(now: 1000) == 4)
        #expect(sequence.filled([], epoch: "e", now: 1100) == [.gap(from: 5, to: 6)])
        #expect(sequence.overdue(now: 9000) == nil)
    }

    @Test("A gap frame moves on, says it once, and the newest page follows it", arguments: [true, false])
    func gapFrame(before: Bool) {
        var sequence = at(4)
        let gap: [RoomSequence.Delivery] = [.gap(from: 5, to: 90)]
        if before {
            #expect(sequence.gap(epoch: "e", from: 5, to: 90, now: 0) == gap)
            _ = sequence.joined(Self.joined(92, recovered: false), now: 0)
        } else {
            #expect(sequence.joined(Self.joined(92, recovered: false), now: 0) == [])
            #expect(sequence.gap(epoch: "e", from: 5, to: 90, now: 0) == gap)
        }
        #expect(sequence.gap(epoch: "e", from: 5, to: 90, now: 0) == [])
        #expect(seqs(sequence.received(Self.message(91), now: 0)) == [91])
        #expect(seqs(sequence.received(Self.message(92), now: 0)) == [92])
        #expect(sequence.overdue(now: 9000) == nil)
    }

    @Test("Another epoch is a gap and a new start, so an equal seq is another message")
    func epochTurns() {
        var sequence = at(40)
        #expect(sequence.joined(Self.joined(2, epoch: "f", recovered: false), now: 0) == [.gap(from: nil, to: 2)])
        #expect(seqs(sequence.received(Self.message(3), now: 0)) == [3])
        #expect(sequence.joined(Self.joined(1, epoch: "f", recovered: false), now: 0) == [.gap(from: nil, to: 1)])
        #expect(sequence.gap(epoch: "g", from: 1, to: 1, now: 0) == [.gap(from: 1, to: 1)])
        #expect(seqs(sequence.received(Self.message(2), now: 0)) == [2])
    }

    @Test("What a recovery owed is not waited for in the epoch after it")
    func turnDuringRecovery() {
        var sequence = at(4)
        _ = sequence.joined(Self.joined(100, recovered: true), now: 0)
        #expect(sequence.overdue(now: 1000) == 4)
        #expect(sequence.gap(epoch: "g", from: nil, to: 1, now: 1500) == [.gap(from: nil, to: 1)])
        #expect(sequence.overdue(now: 9000) == nil)
        #expect(sequence.filled([], epoch: "g", now: 9000) == [], "it was asked for before")
        #expect(seqs(sequence.received(Self.message(2), now: 9001)) == [2])
    }

    @Test("A history of another epoch fills no hole")
    func fillOfAnotherEpoch() {
        var sequence = at(4)
        _ = sequence.received(Self.message(7), now: 0)
        #expect(sequence.overdue(now: 1000) == 4)
        #expect(sequence.filled([Self.message(5)], epoch: "g", now: 1100) == [])
        #expect(sequence.overdue(now: 2000) == 4)
        #expect(seqs(sequence.filled([Self.message(5), Self.message(6)], epoch: "e", now: 2100)) == [5, 6, 7])
    }

    @Test("Before the room is joined it has no messages")
    func beforeTheJoin() {
        var sequence = RoomSequence()
        #expect(sequence.received(Self.message(3), now: 0) == [])
    }
}

struct RoomRosterTests {
    private static func member(_ user: String, _ status: String = "online") -> Member {
        Member(user: user, status: status)
    }

    @Test("Joins, leaves and new states are applied in the order of pv; an old event changes nothing")
    func changes() {
        var roster = RoomRoster()
        roster.replace(with: ServerFrame.Roster(members: [Self.member("a")], count: 1, pv: 4))
        let change = ServerFrame.RosterChange(joined: [Self.member("b")], left: ["a"], count: 1, pv: 6)
        #expect(roster.apply(change) == .applied)
        #expect(roster.apply(change) == .old)
        #expect(roster.members.keys.sorted() == ["b"])
        #expect(roster.apply(.init(updated: [Self.member("b", "away")], count: 1, pv: 7)) == .applied)
        #expect(roster.members["b"]?.status == "away")
        roster.replace(with: ServerFrame.Roster(members: [Self.member("z")], count: 1, pv: 5))
        #expect(roster.members.keys.sorted() == ["z"], "a whole list counts, whatever was known")
    }

    @Test("A hole in pv is noticed, and counts alone are no hole")
    func hole() {
        var roster = RoomRoster()
        roster.replace(with: ServerFrame.Roster(members: [], count: 0, pv: 1))
        #expect(roster.apply(.init(count: 700, pv: 300)) == .applied)
        #expect(roster.apply(.init(joined: [Self.member("c")], count: 702, pv: 302)) == .appliedWithHole)
    }

    @Test("Typing ends after six seconds, with a message, and with the user")
    func typing() {
        var roster = RoomRoster()
        for user in ["a", "b", "c"] { roster.setTyping(user, true, now: 0) }
        #expect(roster.endTyping(now: 10, of: "a") == true)
        _ = roster.apply(.init(left: ["b"], count: 1, pv: 1))
        #expect(roster.typingUsers == ["c"])
        #expect(roster.endTyping(now: 5999) == false)
        #expect(roster.endTyping(now: 6000) == true)
    }
}

struct OutboxTests {
    private static func entry(_ id: String, in room: String = "r", bytes: Int = 1) -> Outbox.Entry {
        Outbox.Entry(id: id, to: .room(room), text: String(repeating: "x", count: bytes), data: nil)
    }

    private func due(_ outbox: inout Outbox, now: Int64) -> [String] {
        outbox.takeDue(now: now) { $0 != .room("closed") }.entries.map(\.id)
    }

    @Test("What is in flight is not sent again until the connection or the ack's patience ends")
    func resend() {
        var outbox = Outbox()
        outbox.add(Self.entry("0", in: "closed"))
        outbox.add(Self.entry("1"))
        outbox.add(Self.entry("2"))
        #expect(due(&outbox, now: 0) == ["1", "2"])
        #expect(due(&outbox, now: 1) == [])
        outbox.remove("1")
        outbox.connectionLost()
        #expect(due(&outbox, now: 2) == ["2"])
        #expect(due(&outbox, now: 2 + Outbox.ackPatience) == [])
        #expect(due(&outbox, now: 3 + Outbox.ackPatience) == ["2"])
    }

    @Test("Nothing is sent again once the server may have forgotten its id; what was never sent may wait for ever")
    func window() {
        var outbox = Outbox()
        outbox.add(Self.entry("sent"))
        _ = due(&outbox, now: 0)
        outbox.add(Self.entry("waiting"))
        outbox.connectionLost()
        #expect(outbox.expire(now: Outbox.resendWindow) == [])
        #expect(outbox.expire(now: Outbox.resendWindow + 1).map(\.id) == ["sent"])
        #expect(due(&outbox, now: 900_000) == ["waiting"])
    }

    @Test("After a refusal the first of the room goes alone, also when others passed; other rooms go on")
    func hold() {
        var outbox = Outbox()
        for id in ["1", "2", "3"] { outbox.add(Self.entry(id)) }
        #expect(due(&outbox, now: 0) == ["1", "2", "3"])
        outbox.putBack("2", .notStored, now: 1, until: 100)
        outbox.add(Self.entry("4"))
        outbox.add(Self.entry("5", in: "q"))
        #expect(due(&outbox, now: 2) == ["5"])
        outbox.remove("1")
        outbox.remove("3")
        #expect(outbox.takeDue(now: 99) { _ in true }.wait == 1)
        #expect(due(&outbox, now: 100) == ["2"])
        #expect(due(&outbox, now: 200) == [])
        outbox.remove("2")
        #expect(due(&outbox, now: 201) == ["4"])
    }

    @Test("Large messages go one after the other")
    func bytes() {
        var outbox = Outbox()
        outbox.add(Self.entry("1", bytes: 300_000))
        outbox.add(Self.entry("2", bytes: 10))
        #expect(due(&outbox, now: 0) == ["1"])
        outbox.remove("1")
        #expect(due(&outbox, now: 0) == ["2"])
    }

    @Test(
        "Only what was refused each time is known not to be stored",
        arguments: [(Outbox.Refusal.tooFast, true), (.notStored, true), (.perhapsStored, false)])
    func doubt(refusal: Outbox.Refusal, isCertain: Bool) {
        var outbox = Outbox()
        outbox.add(Self.entry("1"))
        _ = due(&outbox, now: 7)
        outbox.putBack("1", refusal, now: 8, until: 8)
        #expect(outbox["1"]?.doubtfulSince == (isCertain ? nil : 7))
    }
}

struct BackoffTests {
    @Test("The bound starts at 1 s and doubles to 30 s, with full jitter")
    func bounds() {
        var backoff = Backoff()
        let longest = (0..<8).map { _ in backoff.next(.resume, random: 0.999999) }
        #expect(longest == [999, 1999, 3999, 7999, 15999, 29999, 29999, 29999])
        #expect(backoff.next(.resume, random: 0) == 0)
        backoff.reset()
        #expect(backoff.next(.resume, random: 0.5) == 500)
    }

    @Test(
        "Close codes say what to do",
        arguments: [(4000, 0), (4099, 0), (1006, 0), (4100, 1), (4199, 1), (4200, 2), (4299, 2)])
    func advice(code: Int, expected: Int) {
        let advice = [Backoff.Advice.resume, .backOffFirst, .stop]
        #expect(Backoff.Advice(closeCode: code) == advice[expected])
    }

    @Test("Told to back off, a client waits at least two seconds")
    func backOffFirst() {
        var backoff = Backoff()
        #expect(backoff.next(.backOffFirst, random: 0) == 2000)
    }
}
