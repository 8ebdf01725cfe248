import Logging
import Telemetry

enum Logs {
    /// Sends every logger of the process to stderr as JSON lines. Call it once, before the first `Logger`.
    static func start(level: Logger.Level) {
        LoggingSystem.bootstrap { _ in JSONLogHandler(level: level) }
    }
}
