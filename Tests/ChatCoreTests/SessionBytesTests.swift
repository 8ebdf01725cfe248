import ChatCore
import Testing

private let second: UInt64 = 1_000_000_000

@Suite("G7: how many bytes one session may send")
struct SessionBytesTests {
    private func limits(frames: Int = 0) throws -> SessionLimits {
        let rates = SessionLimits.Rates(
            ratePerSecond: frames, burst: 10, roomLimit: 100, bytesPerSecond: 1000, byteBurst: 5000)
        return SessionLimits(try #require(rates), now: 0)
    }

    @Test("T21: bytes pass up to the burst, then at the rate, whatever the number of frames")
    func rate() throws {
        var limits = try limits()
        #expect(limits.takeFrame(bytes: 4000, now: 0) == .pass)
        for _ in 0..<1000 { #expect(limits.takeFrame(bytes: 1, now: 0) == .pass) }
        guard case .refuse(let milliseconds) = limits.takeFrame(bytes: 1000, now: 0) else {
            return #expect(Bool(false))
        }
        #expect((1000...1001).contains(milliseconds))
        #expect(limits.takeFrame(bytes: 1000, now: second) == .pass)
        #expect(limits.takeFrame(bytes: 1, now: second) != .pass)
    }

    @Test("a frame larger than the burst takes all of it, and is not refused for ever")
    func large() throws {
        var limits = try limits()
        #expect(limits.takeFrame(bytes: 100_000, now: 0) == .pass)
        #expect(limits.takeFrame(bytes: 100_000, now: 4 * second) != .pass)
        #expect(limits.takeFrame(bytes: 100_000, now: 5 * second) == .pass)
    }

    @Test("either limit refuses by itself, and what another refuses counts towards the end")
    func both() throws {
        var limits = try limits(frames: 10)
        for _ in 0..<10 { #expect(limits.takeFrame(bytes: 1, now: 0) == .pass) }
        #expect(limits.takeFrame(bytes: 1, now: 0) != .pass)
        var last = SessionLimits.TakeAction.pass
        for _ in 0..<40 { last = limits.refused(retryAfterMilliseconds: 7, now: 0) }
        #expect(last == .close)
    }
}
