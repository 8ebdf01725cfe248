import Glibc
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

    /// A new file that holds the text.
    ///
    /// - Throws: also when there is such a file: a key that is written over is lost.
    static func create(_ path: String, _ text: String, mode: mode_t) throws(TokenKeyError) {
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
