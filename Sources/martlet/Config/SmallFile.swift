import Glibc

/// A file that a person writes, read whole.
struct SmallFile: Sendable {
    struct ReadError: Error, Equatable {
        /// `ENOENT` and so on; 0 for a file that is too large.
        let code: Int32
        /// What stands behind "cannot be read: ".
        let reason: String
    }

    let bytes: [UInt8]
    /// Every user of this machine may read it, by its mode.
    let isForEverybody: Bool

    /// - Parameter limit: bytes; a larger file is refused.
    init(_ path: String, limit: Int) throws(ReadError) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw ReadError(code: errno, reason: ChildProcess.reason(errno)) }
        defer { close(descriptor) }
        var status = stat()
        isForEverybody = fstat(descriptor, &status) == 0 && status.st_mode & 0o004 != 0
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw ReadError(code: errno, reason: ChildProcess.reason(errno)) }
            guard count > 0 else { break }
            bytes += chunk[..<count]
            guard bytes.count <= limit else { throw ReadError(code: 0, reason: "it has more than \(limit) bytes") }
        }
        self.bytes = bytes
    }
}

/// The value of a secret setting in a file of its own: all that the file has but one newline at its end.
enum SecretFile {
    /// - Throws: half a sentence that names the path, and never what stands in the file.
    static func read(_ path: String) throws(Failure) -> (text: String, isForEverybody: Bool) {
        let shown = Printable.text(path)
        do throws(SmallFile.ReadError) {
            let file = try SmallFile(path, limit: 65536)
            let bytes = file.bytes.last == UInt8(ascii: "\n") ? file.bytes.dropLast() : file.bytes[...]
            guard !bytes.isEmpty else { throw SmallFile.ReadError(code: 0, reason: "it is empty") }
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw SmallFile.ReadError(code: 0, reason: "it is not UTF-8 text")
            }
            return (text, file.isForEverybody)
        } catch {
            throw Failure(.usage, "\(shown) cannot be read: \(error.reason)")
        }
    }

    /// Stores what stands in the file as the value of the row; notes in the settings when too many may read it.
    static func apply(_ path: String, to row: SettingRow, in settings: inout Settings) throws(Failure) {
        let (text, isForEverybody) = try read(path)
        try row.store(text, as: "what stands in \(Printable.text(path))", in: &settings)
        guard isForEverybody else { return }
        settings.warnings.append("every user of this machine may read \(path), which holds \(row.key): chmod 600")
    }
}
