import Dispatch
import Logging
import Synchronization
import TLSClient
import Telemetry
import TokenAuth

/// What a process takes from files, and goes on to when they change.
protocol Followed: Sendable {
    /// Reads the files again when they have changed, or in any case; blocks on the disk. What cannot be used changes nothing.
    func look(isForced: Bool, _ logger: Logger)
}

/// Looks at files every 2 s, and when it is told, for as long as the process runs; on a thread of its own.
final class FileFollower: Sendable {
    private let all: [any Followed]
    private let logger: Logger
    private let told = DispatchSemaphore(value: 0)

    static func start(_ all: [(any Followed)?], logger: Logger) -> FileFollower {
        let follower = FileFollower(all.compactMap(\.self), logger)
        Threads.detach { follower.run() }
        return follower
    }

    private init(_ all: [any Followed], _ logger: Logger) {
        self.all = all
        self.logger = logger
    }

    /// All files are read again, whether or not they seem to have changed.
    func reload() {
        if all.isEmpty { logger.notice("there is no file that is read again while the process runs") }
        told.signal()
    }

    private func run() {
        var isForced = false
        while true {
            for each in all { each.look(isForced: isForced, logger) }
            isForced = told.wait(timeout: .now() + .seconds(2)) == .success
        }
    }
}

/// One side of TLS; warns before one of its certificates ends, and then each day.
final class FollowedTLS<Side: Sendable>: Followed {
    private static var warnsBefore: Int64 { 14 }

    private let files: FollowedFiles<Side, TLSFailure>
    private let certificates: @Sendable (Side) -> [OwnCertificate]
    /// The days that were left at the last look, by file.
    private let daysLeft = Mutex<[String: Int64]>([:])

    init?(_ files: FollowedFiles<Side, TLSFailure>?, _ certificates: @escaping @Sendable (Side) -> [OwnCertificate]) {
        guard let files else { return nil }
        self.files = files
        self.certificates = certificates
    }

    func look(isForced: Bool, _ logger: Logger) {
        switch files.look(isForced: isForced) {
        case .unchanged: break
        case .loaded(let side):
            let own = certificates(side)
            if own.isEmpty { logger.notice(Self.loaded) }
            for certificate in own { logger.notice(Self.loaded, metadata: metadata(certificate)) }
        case .failed(let failure):
            logger.error(
                "TLS files cannot be used; what was loaded before stays in force", metadata: ["error": "\(failure)"])
        }
        for certificate in certificates(files.value) { warn(certificate, logger) }
    }

    private static var loaded: Logger.Message { "TLS files loaded; they hold for new connections" }

    private func warn(_ own: OwnCertificate, _ logger: Logger) {
        let left = own.daysLeft
        let isNew = daysLeft.withLock { $0.updateValue(left, forKey: own.file) != left }
        guard isNew, left <= Self.warnsBefore else { return }
        logger.warning(
            left < 0 ? "a TLS certificate has expired" : "a TLS certificate expires soon", metadata: metadata(own))
    }

    private func metadata(_ own: OwnCertificate) -> Logger.Metadata {
        ["certificate": "\(own.file)", "days_left": .stringConvertible(own.daysLeft)]
    }
}

extension OwnCertificate {
    /// Rounded down.
    fileprivate var daysLeft: Int64 {
        Int64((Double(notAfter * 1000 - WallClock.milliseconds()) / 86_400_000).rounded(.down))
    }
}

/// The own keys of a ring.
struct FollowedKeys: Followed {
    let files: FollowedFiles<[TokenKey], Failure>
    let ring: TokenKeyRing

    func look(isForced: Bool, _ logger: Logger) {
        switch files.look(isForced: isForced) {
        case .unchanged: break
        case .loaded(let keys):
            ring.replace(own: keys)
            logger.notice(
                "token keys read anew", metadata: ["keys": "\(keys.map { $0.id ?? "-" }.joined(separator: " "))"])
        case .failed(let failure):
            logger.error("token keys stay as they were", metadata: ["error": "\(failure.sentence)"])
        }
    }
}
