import Telemetry
import Testing

@Suite("What a lasting trouble says")
struct LogThrottleTests {
    @Test("the first at once, then one in each interval, with the count of what was left unsaid")
    func intervals() {
        var throttle = LogThrottle(seconds: 5)
        func say(_ seconds: Double) -> Int? { throttle.say(now: UInt64(seconds * 1e9)) }
        #expect(say(100) == 0)
        #expect(say(100) == nil && say(101) == nil && say(104.999) == nil)
        #expect(say(105) == 3)
        #expect(say(109) == nil)
        #expect(say(200) == 1)
        #expect(say(205) == 0)
    }
}
