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

    /// One that is to be made.
    struct New {
        let path: String
        let text: String
        let mode: mode_t
    }

    /// All of the files, or none: nothing is written before each of them is made, and those that were made go again when one
    /// fails.
    ///
    /// - Throws: also when there is one already (a key that is written over is lost); a sentence that begins with its path.
    static func create(_ files: [New]) throws(TokenKeyError) {
        var made: [(file: New, descriptor: Int32)] = []
        do throws(TokenKeyError) {
            for file in files {
                let descriptor = open(file.path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, file.mode)
                guard descriptor >= 0 else {
                    throw errno == EEXIST
                        ? .of(file, "is there already, and is not written over") : .system(file, "cannot be made")
                }
                made.append((file, descriptor))
            }
            for (file, descriptor) in made {
                let bytes = Array(file.text.utf8)
                // A full disk may be told by fsync(2) alone, and close(2) could not be taken back.
                guard write(descriptor, bytes, bytes.count) == bytes.count, fsync(descriptor) == 0 else {
                    throw .system(file, "cannot be written")
                }
            }
        } catch {
            for (file, descriptor) in made {
                close(descriptor)
                unlink(file.path)
            }
            throw error
        }
        for (_, descriptor) in made { close(descriptor) }
    }
}

extension TokenKeyError {
    fileprivate static func of(_ file: KeyFile.New, _ what: String) -> TokenKeyError {
        TokenKeyError("\(Printable.text(file.path)) \(what)")
    }

    fileprivate static func system(_ file: KeyFile.New, _ what: String) -> TokenKeyError {
        of(file, "\(what): \(String(cString: strerror(errno)))")
    }
}
