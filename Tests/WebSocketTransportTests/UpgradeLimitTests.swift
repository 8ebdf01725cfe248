import Testing
import WebSocketTransport

@Suite("New connections a second")
struct UpgradeLimitTests {
    private let second: UInt64 = 1_000_000_000

    private func taken(_ rate: inout UpgradeRate, of count: Int, at now: UInt64) -> Int {
        (0..<count).count { _ in rate.take(now: now) }
    }

    @Test("as many at once as a second's, then no more than come back by time")
    func burst() {
        var rate = UpgradeRate(perSecond: 2000, now: 0)
        let counts = [0, second / 2, second / 2, 100 * second].map { taken(&rate, of: 5000, at: $0) }
        #expect(counts == [2000, 1000, 0, 2000])
    }

    @Test("a clock that stands still or goes back gives nothing")
    func clock() {
        var rate = UpgradeRate(perSecond: 1, now: 5 * second)
        let taken = [5 * second, 0, 6 * second - 1, 6 * second].map { rate.take(now: $0) }
        #expect(taken == [true, false, false, true])
    }

    @Test("any rate is kept for long", arguments: [1, 3, 7, 999, 1_000_000])
    func rates(perSecond: Int) {
        var rate = UpgradeRate(perSecond: perSecond, now: 0)
        let atOnce = taken(&rate, of: perSecond + 1, at: 0)
        let afterASecond = taken(&rate, of: 2 * perSecond, at: second)
        #expect(atOnce == perSecond)
        #expect((perSecond...(perSecond + 1)).contains(afterASecond))
    }

    @Test("who is sent away is told 1 to 3 seconds and counted; 0 takes all")
    func limit() {
        let open = UpgradeLimit(perSecond: 0)
        #expect((0..<10_000).allSatisfy { _ in open.take() == nil })
        let limit = UpgradeLimit(perSecond: 1)
        let answers = (0..<1000).compactMap { _ in limit.take() }
        #expect(answers.allSatisfy { (1...3).contains($0) })
        #expect(Set(answers) == [1, 2, 3])
        #expect(limit.refused == answers.count)
    }
}
