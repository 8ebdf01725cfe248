import ChatCore
import Testing

private let second: UInt64 = 1_000_000_000

@Suite("G7: what one session may ask for")
struct SessionLimitsTests {
    private func limits(roomLimit: Int = 100) throws -> SessionLimits {
        SessionLimits(try #require(SessionLimits.Rates(ratePerSecond: 10, burst: 20, roomLimit: roomLimit)), now: 0)
    }

    @Test("frames pass up to the burst; who goes on is refused four bursts long, then closed")
    func flood() throws {
        var limits = try limits()
        var actions: [SessionLimits.TakeAction] = []
        for _ in 0..<101 { actions.append(limits.takeFrame(now: 0)) }
        #expect(actions.prefix(20).allSatisfy { $0 == .pass })
        #expect(actions[20..<100].allSatisfy { if case .refuse = $0 { true } else { false } })
        #expect(actions.last == .close)
    }

    @Test("a client that is refused a little for hours is never closed")
    func patience() throws {
        var limits = try limits()
        for number in 0..<1000 {
            for _ in 0..<(10 + 40) {
                #expect(limits.takeFrame(now: UInt64(number) * 10 * second) != .close)
            }
        }
    }

    @Test("joining all rooms of a session is possible at once, and then only at the rate")
    func joins() throws {
        var limits = try limits()
        #expect(limits.takeJoins(100, now: 0) == .pass)
        guard case .refuse(let milliseconds) = limits.takeJoins(100, now: 0) else { return #expect(Bool(false)) }
        #expect((10_000...10_001).contains(milliseconds))
        #expect(limits.takeJoins(1, now: second / 10) == .pass)
        #expect(limits.takeJoins(100, now: 11 * second) == .pass)
    }

    @Test("where few rooms are allowed, single joins are limited as all frames are, no more")
    func fewRooms() throws {
        var limits = try limits(roomLimit: 1)
        for _ in 0..<20 { #expect(limits.takeJoins(1, now: 0) == .pass) }
        #expect(limits.takeJoins(1, now: 0) != .pass)
    }

    @Test("ten answers a second to refused frames that nobody waits for")
    func unnamed() throws {
        var limits = try limits()
        let answered = (0..<100).filter { _ in limits.mayAnswerUnnamed(now: 0) }
        #expect(answered.count == 10)
        #expect(limits.mayAnswerUnnamed(now: second / 5) == true)
    }

    @Test("0 lifts every limit")
    func lifted() {
        #expect(SessionLimits.Rates(ratePerSecond: 0, burst: 20, roomLimit: 100) == nil)
    }
}
