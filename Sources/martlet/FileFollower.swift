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

/// One side of TLS; warns before its certificate ends, and then each day.
final class FollowedTLS<Side: Sendable>: Followed {
    private static var warnsBefore: Int64 { 14 }

    private let files: FollowedFiles<Side, TLSFailure>
    private let certificate: @Sendable (Side) -> OwnCertificate?
    /// The days that were left at the last look.
    private let daysLeft = Mutex<Int64?>(nil)

    init?(_ files: FollowedFiles<Side, TLSFailure>?, _ certificate: @escaping @Sendable (Side) -> OwnCertificate?) {
        guard let files else { return nil }
        self.files = files
        self.certificate = certificate
    }

    func look(isForced: Bool, _ logger: Logger) {
        switch files.look(isForced: isForced) {
        case .unchanged: break
        case .loaded(let side):
            logger.notice("TLS files loaded; they hold for new connections", metadata: metadata(certificate(side)))
        case .failed(let failure):
            logger.error(
                "TLS files cannot be used; what was loaded before stays in force", metadata: ["error": "\(failure)"])
        }
        warn(logger)
    }

    private func warn(_ logger: Logger) {
        guard let own = certificate(files.value) else { return }
        let left = own.daysLeft
        let isNew = daysLeft.withLock { last in
            defer { last = left }
            return last != left
        }
        guard isNew, left <= Self.warnsBefore else { return }
        logger.warning(
            left < 0 ? "a TLS certificate has expired" : "a TLS certificate expires soon", metadata: metadata(own))
    }

    private func metadata(_ own: OwnCertificate?) -> Logger.Metadata {
        own.map { ["certificate": "\($0.file)", "days_left": .stringConvertible($0.daysLeft)] } ?? [:]
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
