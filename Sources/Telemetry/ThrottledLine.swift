import Glibc
package import Logging
import Synchronization

/// The line of the log about a trouble that comes again with every request or connection while it lasts.
///
/// 1. Says it as often as ``LogThrottle`` lets it; `unsaid` in its metadata is how many were left out before it.
/// 2. Counts all of them.
package final class ThrottledLine: Sendable {
    private struct State {
        var throttle: LogThrottle
        var count = 0
    }

    private let level: Logger.Level
    private let message: Logger.Message
    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameter seconds: between two lines.
    package init(_ level: Logger.Level, _ message: Logger.Message, seconds: UInt64 = 5, logger: Logger) {
        (self.level, self.message, self.logger) = (level, message, logger)
        state = Mutex(State(throttle: LogThrottle(seconds: seconds)))
    }

    /// Those that were left unsaid, too.
    package var count: Int { state.withLock(\.count) }

    /// - Parameter now: nanoseconds of a clock that does not go back.
    package func say(now: UInt64 = ThrottledLine.nanoseconds(), _ metadata: @autoclosure () -> Logger.Metadata) {
        let unsaid = state.withLock { state in
            state.count += 1
            return state.throttle.say(now: now)
        }
        guard let unsaid else { return }
        var metadata = metadata()
        metadata["unsaid"] = .stringConvertible(unsaid)
        logger.log(level: level, message, metadata: metadata)
    }

    /// Since the machine started (clock_gettime(2), CLOCK_MONOTONIC).
    package static func nanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
