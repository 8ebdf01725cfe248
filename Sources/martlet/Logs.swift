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

extension Settings {
    /// The internal port beside `port`, the first of `count` in a row.
    func internalPort(besides port: Int, count: Int = 1) -> Int {
        if let internalPort { return internalPort }
        guard port > 0 else { return 0 }
        return port + 1000 + count - 1 <= 65535 ? port + 1000 : port - 1000
    }

    func warn(_ logger: Logger) {
        for warning in warnings { logger.warning("\(warning)") }
    }
}
