import Glibc
import Logging
import TokenAuth

/// Files of keys.
enum KeyFile {
    /// - Throws: the end of a sentence that begins with the path.
    static func read(_ path: String) throws(TokenKeyError) -> [UInt8] {
        do throws(SmallFile.ReadError) {
            return try SmallFile(path, limit: TokenKeys.maximumBytes).bytes
        } catch {
            // Too large is said as whoever parses keys says it.
            guard error.code != 0 else { throw TokenKeyError("has more than \(TokenKeys.maximumBytes) bytes") }
            throw TokenKeyError("cannot be read: \(error.reason)")
        }
    }

    /// A new file with mode 0600 that holds the text.
    ///
    /// - Throws: also when there is such a file: a key that is written over is lost.
    static func create(_ path: String, _ text: String, mode: mode_t = 0o600) throws(TokenKeyError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard descriptor >= 0 else {
            throw errno == EEXIST
                ? TokenKeyError("is there already, and is not written over") : .system("cannot be made")
        }
        let bytes = Array(text.utf8)
        let written = write(descriptor, bytes, bytes.count)
        guard close(descriptor) == 0, written == bytes.count else {
            unlink(path)
            throw .system("cannot be written")
        }
    }
}

extension TokenKeyError {
    fileprivate static func system(_ what: String) -> TokenKeyError {
        TokenKeyError("\(what): \(String(cString: strerror(errno)))")
    }
}

/// Keeps the own keys of a ring at what their files say, for as long as the process runs.
final class TokenKeyFollower: Sendable {
    private static let interval: UInt32 = 2

    private let settings: Settings
    private let ring: TokenKeyRing
    private let logger: Logger

    /// nil where no file is named.
    static func start(_ settings: Settings, _ ring: TokenKeyRing, logger: Logger) -> TokenKeyFollower? {
        guard !settings.tokens.keyFiles.isEmpty else { return nil }
        let follower = TokenKeyFollower(settings, ring, logger)
        Threads.detach { follower.run() }
        return follower
    }

    private init(_ settings: Settings, _ ring: TokenKeyRing, _ logger: Logger) {
        self.settings = settings
        self.ring = ring
        self.logger = logger
    }

    /// What was read twice the same is whole: files are not replaced in one instant.
    private func run() {
        var loaded: [[UInt8]?]?
        var met: [[UInt8]?]?
        while true {
            let seen = settings.tokens.keyFiles.map { try? KeyFile.read($0) }
            if loaded == nil { loaded = seen }
            if seen != loaded, seen == met {
                reload()
                loaded = seen
            }
            met = seen
            sleep(Self.interval)
        }
    }

    /// Reads the files now; blocks on the disk. What cannot be used leaves the keys as they were.
    func reload() {
        do throws(Failure) {
            let keys = try settings.tokenKeys()
            ring.replace(own: keys)
            logger.notice(
                "token keys read anew", metadata: ["keys": "\(keys.map { $0.id ?? "-" }.joined(separator: " "))"])
        } catch {
            logger.error("token keys stay as they were", metadata: ["error": "\(error.sentence)"])
        }
    }
}
