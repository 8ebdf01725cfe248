import Testing

@testable import NodeServer

@Suite("A room rests after a tick")
struct FanOutRestTests {
    private let ms: UInt64 = 1_000_000

    @Test("as long as all parts of its sending took, pauses between them not counted")
    func asLong() {
        var rest = FanOutRest()
        #expect(rest.until == 0)
        rest.sent(from: 100 * ms, to: 101 * ms, isWhole: false)
        #expect(rest.until == 0)
        rest.sent(from: 105 * ms, to: 107 * ms, isWhole: true)
        #expect(rest.until == 110 * ms)
        rest.sent(from: 110 * ms, to: 111 * ms, isWhole: true)
        #expect(rest.until == 112 * ms)
    }

    @Test("not at all when that was short, and never for longer than 8 ms")
    func bounded() {
        var rest = FanOutRest()
        rest.sent(from: 10 * ms, to: 10 * ms + 400_000, isWhole: true)
        #expect(rest.until == 0)
        rest.sent(from: 0, to: 50 * ms, isWhole: true)
        #expect(rest.until == 58 * ms)
    }
}
