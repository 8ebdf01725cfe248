import ChatCore
import Testing

private typealias Sequencer = RoomSequencer<String>

extension Sequencer {
    /// A message of epoch "e" whose tag is its number, unless said otherwise.
    fileprivate static func message(
        _ seq: Int64, epoch: String = "e", tag: String? = nil, previous: String? = nil
    ) -> Message {
        Message(
            epoch: epoch, seq: seq, tag: tag ?? "t\(seq)", previousTag: previous ?? "t\(seq - 1)", element: "m\(seq)")
    }

    fileprivate static func logged(_ seqs: ClosedRange<Int64>, tag: (Int64) -> String = { "t\($0)" }) -> [Message] {
        seqs.map { Message(epoch: "e", seq: $0, tag: tag($0), previousTag: nil, element: "m\($0)") }
    }

    fileprivate static func live(at seq: Int64) -> Sequencer {
        var sequencer = Sequencer()
        _ = sequencer.open(at: RoomPosition(epoch: "e", seq: seq, tag: "t\(seq)"))
        return sequencer
    }
}

/// Reads like the protocol: `+5` delivered, `?4` the log asked from 4 on, `gap 1-3` said.
private func spell(_ events: [Sequencer.Event]) -> String {
    events.map { event in
        switch event {
        case .deliver(let message): "+\(message.seq)"
        case .gap(let epoch, let from, let to): "gap \(epoch) \(from)-\(to)"
        case .read(let from): "?\(from)"
        case .turn(let epoch, let from): "turn \(epoch) ?\(from)"
        }
    }.joined(separator: " ")
}

@Suite("G1: one order without holes or repeats")
struct RoomSequencerTests {
    @Test("what comes before the position is known is held, then delivered behind it")
    func opening() {
        var sequencer = Sequencer()
        #expect(spell(sequencer.receive(.init(epoch: "e", seq: 4, tag: "t4", previousTag: "t3", element: ""))).isEmpty)
        #expect(spell(sequencer.receive(Sequencer.message(5))).isEmpty)
        #expect(spell(sequencer.open(at: RoomPosition(epoch: "e", seq: 4, tag: "t4"))) == "+5")
    }

    @Test("the next one is delivered, a known one is dropped")
    func inStep() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(5))) == "+5")
        #expect(spell(sequencer.receive(Sequencer.message(5))).isEmpty)
        #expect(spell(sequencer.receive(Sequencer.message(4))).isEmpty)
        #expect(spell(sequencer.receive(Sequencer.message(6))) == "+6")
    }

    @Test("a hole is read from the log, and what came meanwhile follows without a repeat")
    func hole() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(7))) == "?4")
        #expect(spell(sequencer.receive(Sequencer.message(8))).isEmpty)
        let head = RoomPosition(epoch: "e", seq: 7, tag: "t7")
        #expect(spell(sequencer.logRead(Sequencer.logged(4...7), head: head)) == "+5 +6 +7 +8")
        #expect(sequencer.position == RoomPosition(epoch: "e", seq: 8, tag: "t8"))
    }

    @Test("a read that found a longer log than one page is continued")
    func pages() {
        var sequencer = Sequencer.live(at: 1)
        #expect(spell(sequencer.receive(Sequencer.message(6))) == "?1")
        let head = RoomPosition(epoch: "e", seq: 6, tag: "t6")
        #expect(spell(sequencer.logRead(Sequencer.logged(1...3), head: head)) == "+2 +3 ?3")
        #expect(spell(sequencer.logRead(Sequencer.logged(3...6), head: head)) == "+4 +5 +6")
    }

    @Test("what the log no longer has is said as a gap, never skipped in silence")
    func trimmed() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(9))) == "?4")
        let head = RoomPosition(epoch: "e", seq: 9, tag: "t9")
        #expect(spell(sequencer.logRead(Sequencer.logged(8...9), head: head)) == "gap e 5-7 +8 +9")
    }

    @Test("in a room without history a hole is a gap, and the next message is delivered")
    func withoutHistory() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(6))) == "?4")
        let head = RoomPosition(epoch: "e", seq: 6, tag: "t6")
        #expect(spell(sequencer.logRead([], head: head)) == "gap e 5-6")
        #expect(spell(sequencer.receive(Sequencer.message(7))) == "+7")
    }

    @Test("a log that ends before its head does not make an endless reading")
    func shortLog() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(6))) == "?4")
        let head = RoomPosition(epoch: "e", seq: 6, tag: "t6")
        #expect(spell(sequencer.logRead(Sequencer.logged(4...4), head: head)) == "gap e 5-6")
    }

    @Test("the right number with another predecessor is looked up before it is believed")
    func wrongPredecessor() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(5, previous: "other"))) == "?4")
        let head = RoomPosition(epoch: "e", seq: 5, tag: "t5")
        #expect(spell(sequencer.logRead(Sequencer.logged(4...5), head: head)) == "+5")
    }

    @Test(
        "a log that tells another story of a delivered message is a fork: the epoch turns, and the gap is said in the new one"
    )
    func fork() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(5, previous: "other"))) == "?4")
        let head = RoomPosition(epoch: "e", seq: 5, tag: "x5")
        #expect(spell(sequencer.logRead(Sequencer.logged(4...5, tag: { "x\($0)" }), head: head)) == "turn e ?4")
        let turned = Sequencer.logged(4...5, tag: { "x\($0)" }).map {
            Sequencer.Message(epoch: "f", seq: $0.seq, tag: $0.tag, previousTag: nil, element: "")
        }
        let after = RoomPosition(epoch: "f", seq: 5, tag: "x5")
        // What was held from before the turn is in the log that was read behind it.
        #expect(spell(sequencer.logRead(turned, head: after)) == "gap f 1-3 +4 +5")
        #expect(spell(sequencer.receive(Sequencer.message(6, epoch: "f", previous: "x5"))) == "+6")
    }

    @Test("Redis forgot a tail and others wrote over it: the same number with another tag is looked up, and is a fork")
    func overwrittenTail() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(5))) == "+5")
        #expect(spell(sequencer.receive(Sequencer.message(6))) == "+6")
        #expect(spell(sequencer.receive(Sequencer.message(5, tag: "x5"))) == "?6")
        let head = RoomPosition(epoch: "e", seq: 5, tag: "x5")
        #expect(spell(sequencer.logRead([], head: head)) == "turn e ?6")
        #expect(
            spell(sequencer.logRead([], head: RoomPosition(epoch: "f", seq: 5, tag: "x5"))) == "gap f 1-5")
        #expect(spell(sequencer.receive(Sequencer.message(6, epoch: "f", previous: "x5"))) == "+6")
    }

    @Test("a late copy of a repaired message is not a fork")
    func lateCopy() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(7))) == "?4")
        let head = RoomPosition(epoch: "e", seq: 7, tag: "t7")
        #expect(spell(sequencer.logRead(Sequencer.logged(4...7), head: head)) == "+5 +6 +7")
        for seq in Int64(4)...7 { #expect(spell(sequencer.receive(Sequencer.message(seq))).isEmpty) }
    }

    @Test("a number from before all memory is looked up, once")
    func longKnown() {
        var sequencer = Sequencer.live(at: 4)
        for seq in Int64(5)...100 { #expect(spell(sequencer.receive(Sequencer.message(seq))) == "+\(seq)") }
        #expect(spell(sequencer.receive(Sequencer.message(37))).isEmpty)
        #expect(spell(sequencer.receive(Sequencer.message(36))) == "?100")
        #expect(
            spell(sequencer.logRead(Sequencer.logged(100...100), head: RoomPosition(epoch: "e", seq: 100, tag: "t100")))
                .isEmpty)
        #expect(spell(sequencer.receive(Sequencer.message(101))) == "+101")
    }

    @Test("whether a message went by is told by its tag, not by its number alone")
    func passed() {
        var sequencer = Sequencer.live(at: 4)
        for seq in Int64(5)...100 { _ = sequencer.receive(Sequencer.message(seq)) }
        #expect(sequencer.passed(100, tag: "t100") == true)
        #expect(sequencer.passed(99, tag: "of a story that Redis forgot") == false)
        #expect(sequencer.passed(101, tag: "t101") == false)
        #expect(sequencer.passed(5, tag: "t5") == nil)
    }

    @Test("Redis forgot a tail: the epoch turns, and what was said stays behind in the old one")
    func shorterHead() {
        var sequencer = Sequencer.live(at: 9)
        #expect(spell(sequencer.verify()) == "?9")
        #expect(spell(sequencer.logRead([], head: RoomPosition(epoch: "e", seq: 7, tag: "t7"))) == "turn e ?9")
        #expect(spell(sequencer.logRead([], head: RoomPosition(epoch: "f", seq: 7, tag: "t7"))) == "gap f 1-7")
        #expect(spell(sequencer.receive(Sequencer.message(8, epoch: "f"))) == "+8")
        #expect(spell(sequencer.receive(Sequencer.message(8, epoch: "e"))).isEmpty)
    }

    @Test("a new epoch is said before its first message, and late copies of the old one are dropped")
    func newEpoch() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.receive(Sequencer.message(1, epoch: "f", previous: "-"))) == "gap f 1-0 +1")
        #expect(spell(sequencer.receive(Sequencer.message(5, epoch: "e"))).isEmpty)
        #expect(spell(sequencer.receive(Sequencer.message(2, epoch: "f"))) == "+2")
    }

    @Test("a read that failed leaves the room as it was, to be asked for again")
    func readFailed() {
        var sequencer = Sequencer.live(at: 4)
        #expect(spell(sequencer.verify()) == "?4")
        sequencer.readFailed()
        #expect(spell(sequencer.receive(Sequencer.message(5))) == "+5")
    }

    @Test("more than can be held during a repair is read again afterwards")
    func overflow() {
        var sequencer = Sequencer.live(at: 0)
        _ = sequencer.verify()
        let many = Int64(Sequencer.maximumHeld)
        for seq in 1...(many + 5) { _ = sequencer.receive(Sequencer.message(seq)) }
        let events = sequencer.logRead([], head: RoomPosition(epoch: "e", seq: 0, tag: "t0"))
        #expect(spell(events).hasSuffix("+\(many) ?\(many)"))
    }
}
