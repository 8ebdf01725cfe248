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
        #expect(seqs(sequence.filled([Self.message(5), Self.message(6)], now: 2100)) == [5, 6, 7])
    }

    @Test("What the history does not have is a gap, and delivery goes on behind it")
    func finalHole() {
        var sequence = at(4)
        _ = sequence.received(Self.message(8), now: 0)
        #expect(
            sequence.filled([Self.message(7)], now: 10) == [
                .gap(from: 5, to: 6), .message(Self.message(7)), .message(Self.message(8)),
            ])
        _ = sequence.received(Self.message(11), now: 20)
        #expect(sequence.filled([], now: 30) == [.gap(from: 9, to: 10), .message(Self.message(11))])
    }

    @Test("Messages that a recovery promised and never sent are asked for too")
    func missingTail() {
        var sequence = at(4)
        _ = sequence.joined(Self.joined(6, recovered: true), now: 0)
        #expect(sequence.overdue(now: 1000) == 4)
        #expect(sequence.filled([], now: 1100) == [.gap(from: 5, to: 6)])
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
}

struct RoomRosterTests {
    private static func member(_ user: String, _ status: String = "online") -> Member {
        Member(user: user, status: status)
    }

    @Test("Joins, leaves and new states are applied in the order of pv; an old event changes nothing")
    func changes() {
        var roster = RoomRoster()
        #expect(roster.replace(with: ServerFrame.Roster(members: [Self.member("a")], count: 1, pv: 4)) == true)
        let change = ServerFrame.RosterChange(joined: [Self.member("b")], left: ["a"], count: 1, pv: 6)
        #expect(roster.apply(change) == .applied)
        #expect(roster.apply(change) == .old)
        #expect(roster.members.keys.sorted() == ["b"])
        #expect(roster.apply(.init(updated: [Self.member("b", "away")], count: 1, pv: 7)) == .applied)
        #expect(roster.members["b"]?.status == "away")
        #expect(roster.replace(with: ServerFrame.Roster(members: [], count: 0, pv: 5)) == false)
    }

    @Test("A hole in pv is noticed, and counts alone are no hole")
    func hole() {
        var roster = RoomRoster()
        _ = roster.replace(with: ServerFrame.Roster(members: [], count: 0, pv: 1))
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
    private static func entry(_ id: String) -> Outbox.Entry { Outbox.Entry(id: id, room: "r", text: id, data: nil) }

    @Test("What is in flight is not sent again until the connection or the ack's patience ends")
    func resend() {
        var outbox = Outbox()
        outbox.add(Self.entry("1"))
        outbox.add(Self.entry("2"))
        #expect(outbox.takeDue(in: "r", now: 0).map(\.id) == ["1", "2"])
        #expect(outbox.takeDue(in: "r", now: 1) == [])
        outbox.remove("1")
        outbox.connectionLost()
        #expect(outbox.takeDue(in: "r", now: 2).map(\.id) == ["2"])
        #expect(outbox.expire(now: 2 + Outbox.ackPatience + 1) == [])
        #expect(outbox.takeDue(in: "r", now: 20_000).map(\.id) == ["2"])
    }

    @Test("Nothing is sent again once the server may have forgotten its id; what was never sent may wait for ever")
    func window() {
        var outbox = Outbox()
        outbox.add(Self.entry("sent"))
        _ = outbox.takeDue(in: "r", now: 0)
        outbox.add(Self.entry("waiting"))
        outbox.connectionLost()
        #expect(outbox.expire(now: Outbox.resendWindow) == [])
        #expect(outbox.expire(now: Outbox.resendWindow + 1).map(\.id) == ["sent"])
        #expect(outbox.takeDue(in: "r", now: 900_000).map(\.id) == ["waiting"])
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
