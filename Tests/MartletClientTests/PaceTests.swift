import Testing

@testable import MartletClient

struct PaceTests {
    @Test("A burst, and then a little fewer than the server lets pass")
    func rate() {
        var pace = Pace(perSecond: 30, now: 0)
        #expect((1...20).allSatisfy { _ in pace.take(now: 0) == nil })
        #expect(pace.take(now: 0) == 38)
        #expect(pace.take(now: 37) == 1)
        #expect(pace.take(now: 38) == nil)
        #expect((1...21).filter { _ in pace.take(now: 1_000_000_000) == nil }.count == 20)
        pace.refused(now: 1_000_000_000)
        #expect(pace.take(now: 1_000_000_000) == 38)
    }

    @Test("No limit, a slow one and an absurd one", arguments: [(Int64(0), Int64?.none), (1, 1112), (1 << 53, .none)])
    func extremes(perSecond: Int64, wait: Int64?) {
        var pace = Pace(perSecond: perSecond, now: 0)
        #expect(pace.take(now: 0) == nil)
        #expect(pace.take(now: 0) == wait)
    }

    @Test("A frame that is no message counts too: the messages wait for it")
    func otherFrames() {
        var pace = Pace(perSecond: 20, now: 0)
        for _ in 0..<19 { pace.count() }
        #expect(pace.hasCredit(now: 0) == true)
        #expect(pace.take(now: 0) == nil)
        #expect(pace.hasCredit(now: 0) == false)
        #expect(pace.take(now: 0) == 56, "one of eighteen a second")
        #expect(pace.hasCredit(now: 56) == true)
    }

    @Test("Where the server does not count, nothing waits")
    func unlimited() {
        var pace = Pace(perSecond: nil, now: 0)
        for _ in 0..<100 { pace.count() }
        #expect(pace.hasCredit(now: 0) == true)
        #expect(pace.take(now: 0) == nil)
    }

    @Test("Typing is left out while messages have to wait")
    func typing() {
        var machine = ClientStateMachine(client: "c1", identity: .user("alice"))
        _ = machine.start(now: 0)
        for room in ["a", "b"] { _ = machine.join(room) }
        let limits = ServerFrame.Limits(messagesPerSecond: 20)
        _ = machine.received(.welcome(.init(session: "s", user: "u", node: "n", limits: limits)), now: 0)
        for room in ["a", "b"] {
            let roster = ServerFrame.Roster(members: [], count: 0, pv: 1)
            _ = machine.received(.joined(.init(room: room, epoch: "e", seq: 0, roster: roster)), now: 0)
        }
        #expect(machine.setTyping(true, in: "a", now: 0).count == 1)
        for number in 0..<30 {
            _ = machine.publish(Outbox.Entry(id: "\(number)", to: .room("a"), text: "x", data: nil), now: 0)
        }
        #expect(machine.outbox.entries.filter { $0.sentAt != nil }.count == 17, "20 but status, join and typing")
        #expect(machine.setTyping(true, in: "b", now: 0) == [])
        #expect(machine.setTyping(true, in: "b", now: 56).count == 1)
    }
}
