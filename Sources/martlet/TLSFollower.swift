import Glibc
import Logging
import WebSocketTransport

/// Keeps credentials at what their files say, for as long as the process runs, and warns before they end.
final class TLSFollower: Sendable {
    private static let interval: UInt32 = 2
    private static let warnsBefore: Int64 = 14

    private let all: [TLSCredentials]
    private let logger: Logger

    /// nil when there is nothing to follow.
    static func start(_ all: [TLSCredentials?], logger: Logger) -> TLSFollower? {
        let all = all.compactMap { $0 }
        guard !all.isEmpty else { return nil }
        let follower = TLSFollower(all, logger)
        Threads.detach { follower.run() }
        return follower
    }

    private init(_ all: [TLSCredentials], _ logger: Logger) {
        self.all = all
        self.logger = logger
    }

    /// Reads the files again, whether or not they seem to have changed; blocks on the disk.
    func reload() {
        for credentials in all { reload(credentials, isForced: true) }
    }

    private func run() {
        var warned: Int64?
        while true {
            for credentials in all { reload(credentials, isForced: false) }
            let left = all.compactMap(Self.daysLeft).min()
            if left != warned, let left, left <= Self.warnsBefore {
                logger.warning(
                    left < 0 ? "a TLS certificate has expired" : "a TLS certificate expires soon",
                    metadata: ["days_left": .stringConvertible(left)])
            }
            warned = left
            sleep(Self.interval)
        }
    }

    private func reload(_ credentials: TLSCredentials, isForced: Bool) {
        switch credentials.reload(isForced: isForced) {
        case .unchanged: break
        case .loaded:
            var metadata: Logger.Metadata = [:]
            if let pair = credentials.files.pair { metadata["certificate"] = "\(pair.certificate)" }
            if let left = Self.daysLeft(credentials) { metadata["days_left"] = .stringConvertible(left) }
            logger.notice("TLS files loaded; they hold for new connections", metadata: metadata)
        case .failed(let failure):
            logger.error(
                "TLS files cannot be used; what was loaded before stays in force", metadata: ["error": "\(failure)"])
        }
    }

    /// Whole days, rounded down.
    private static func daysLeft(_ credentials: TLSCredentials) -> Int64? {
        credentials.notAfter.map { end in
            let seconds = end - Int64(time(nil))
            return seconds >= 0 ? seconds / 86400 : -1 - -seconds / 86400
        }
    }
}
