import Telemetry
import Testing

@Suite("How fast a counter rises")
struct RateWindowTests {
    private let second: UInt64 = 1_000_000_000

    @Test("before the second reading nothing is known; from then on it is what came between the readings of the span")
    func span() {
        var window = RateWindow(seconds: 5)
        #expect(window.perSecond == 0)
        for (at, total) in [(10, 1000), (11, 1010), (12, 1030)] { window.read(total, at: UInt64(at) * second) }
        #expect(window.perSecond == 15)
        // Of the first two seconds nothing counts any more.
        for at in 13...17 { window.read(1030, at: UInt64(at) * second) }
        #expect(window.perSecond == 0)
    }

    @Test("readings that come seldom are the span, and two of one moment are one")
    func seldom() {
        var window = RateWindow(seconds: 5)
        window.read(0, at: 0)
        window.read(300, at: 60 * second)
        #expect(window.perSecond == 5)
        window.read(360, at: 60 * second)
        #expect(window.perSecond == 6)
        window.read(360, at: 120 * second)
        #expect(window.perSecond == 0)
    }
}
