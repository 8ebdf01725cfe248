import Logging
import Synchronization
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

    @Test("its line is written as often, with that count, and all are counted")
    func line() {
        let writer = Lines()
        let line = ThrottledLine(.error, "no more", logger: Logger(label: "test") { _ in writer })
        for second in [100, 101, 102, 106] as [UInt64] {
            line.say(now: second * 1_000_000_000, ["second": "\(second)"])
        }
        #expect(
            writer.said.withLock(\.self) == ["error no more second=100 unsaid=0", "error no more second=106 unsaid=2"])
        #expect(line.count == 4)
    }

    private final class Lines: LogHandler, Sendable {
        let said = Mutex<[String]>([])
        var logLevel: Logger.Level {
            get { .info }
            set {}
        }
        var metadata: Logger.Metadata {
            get { [:] }
            set {}
        }
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { nil }
            set {}
        }

        func log(event: LogEvent) {
            let metadata = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { " \($0.key)=\($0.value)" }
            said.withLock { $0.append("\(event.level) \(event.message)\(metadata.joined())") }
        }
    }
}
