import Glibc
import Synchronization

/// What stands in some files, as it was when they were last read. From any thread.
package final class FollowedFiles<Value: Sendable, Failure: Error>: Sendable {
    package enum Look: Sendable {
        /// The files are as they were, or are still being written.
        case unchanged
        case loaded(Value)
        /// What was read before stays in force.
        case failed(Failure)
    }

    private struct State {
        var value: Value
        /// Of the files when they were last read, also in vain.
        var seen: [FileVersion?]
        /// Another one that was met once. Two files are not replaced in one instant.
        var met: [FileVersion?]?
        /// They were read in vain, and are read again after so many looks.
        var looksToRetry: Int?
    }

    /// What was in the way of reading them may go without a change of theirs: no descriptor was left, a folder was closed.
    package static var retryLooks: Int { 30 }

    private let paths: [String]
    private let load: @Sendable () throws(Failure) -> Value
    private let state: Mutex<State>

    /// - Parameter load: reads the files, now and whenever they have changed.
    package init(_ paths: [String], load: @escaping @Sendable () throws(Failure) -> Value) throws(Failure) {
        self.paths = paths
        self.load = load
        // What is written from here on is a change.
        let seen = FileVersion.of(paths)
        state = Mutex(State(value: try load(), seen: seen))
    }

    package var value: Value { state.withLock { $0.value } }

    /// Reads the files again when they are others than before, and have been the same at two looks; when that failed, also
    /// at each ``retryLooks``th look from there. Blocks on the disk.
    ///
    /// - Parameter isForced: at once, whatever they are.
    package func look(isForced: Bool = false) -> Look {
        let seen = FileVersion.of(paths)
        let isDue = state.withLock { state in
            let isStable = state.met == seen
            state.met = seen
            state.looksToRetry = state.looksToRetry.map { $0 - 1 }
            return isForced || (seen != state.seen && isStable) || state.looksToRetry == 0
        }
        guard isDue else { return .unchanged }
        do throws(Failure) {
            let value = try load()
            state.withLock { ($0.value, $0.seen, $0.looksToRetry) = (value, seen, nil) }
            return .loaded(value)
        } catch {
            state.withLock { ($0.seen, $0.looksToRetry) = (seen, Self.retryLooks) }
            return .failed(error)
        }
    }
}

/// What tells one content of a path from another without reading it; symbolic links are followed.
private struct FileVersion: Equatable {
    let device: UInt
    let inode: UInt
    let size: Int
    /// Of the last change, be it of its owner or mode alone: what could not be read may be readable by then.
    let seconds: Int
    let nanoseconds: Int

    /// nil for a path where nothing can be seen.
    static func of(_ paths: [String]) -> [FileVersion?] {
        paths.map { path in
            var status = stat()
            guard stat(path, &status) == 0 else { return nil }
            return FileVersion(
                device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
                seconds: status.st_ctim.tv_sec, nanoseconds: status.st_ctim.tv_nsec)
        }
    }
}
