import Logging
import Synchronization
import Telemetry

enum Logs {
    private static let writer = Mutex<LogWriter?>(nil)

    /// Sends every logger of the process to stderr as JSON lines. Call it once, before the first `Logger`.
    static func start(level: Logger.Level) {
        let writer = LogWriter()
        Self.writer.withLock { $0 = writer }
        Threads.detach { writer.run() }
        LoggingSystem.bootstrap { _ in JSONLogHandler(level: level, write: { writer.write($0) }) }
    }

    /// Waits up to a second until what was logged is written. Call it wherever the process ends.
    static func flush() {
        writer.withLock { $0 }?.flush()
    }
}
