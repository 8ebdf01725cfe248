import Glibc

/// `.martlet/`, where a dev cluster of this checkout keeps its state. Who holds the lock on `dev.lock` is the cluster:
/// the kernel says its process id and forgets it with the process, so nothing stale is ever believed or killed.
struct DevFolder: Sendable {
    /// Absolute.
    let path: String
    private var lockPath: String { path + "/dev.lock" }

    /// The folder of the current directory, whether or not it exists.
    static func here() -> DevFolder {
        var buffer = [CChar](repeating: 0, count: 4096)
        let directory = getcwd(&buffer, buffer.count).map { String(cString: $0) } ?? "."
        return DevFolder(path: directory + "/.martlet")
    }

    struct Running: Equatable, Sendable {
        let pid: pid_t
        let redisURL: String?
        let redisPrefix: String?
        /// Where its router takes WebSockets.
        let chatURL: String?
        /// A file of PEM: who signed its certificate, where it made one.
        let authority: String?
        /// That of its router's hash.
        let secret: String?
    }

    /// Makes the folders, private to the user, and takes the lock for as long as this process lives.
    /// - Throws: when a cluster runs here already.
    func occupy() throws(Failure) -> Int32 {
        for folder in [path, path + "/redis"] where mkdir(folder, 0o700) != 0 && errno != EEXIST {
            throw Failure(.failed, "\(folder) cannot be made: \(ChildProcess.reason(errno))")
        }
        let descriptor = open(lockPath, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw Failure(.failed, "\(lockPath) cannot be written: \(ChildProcess.reason(errno))")
        }
        var request = wholeFile()
        guard fcntl(descriptor, F_SETLK, &request) == 0 else {
            let owner = running().map { " (process \($0.pid))" } ?? ""
            close(descriptor)
            throw Failure(
                .failed, "a dev cluster runs in this directory already\(owner): end it with `make down` or Ctrl-C")
        }
        return descriptor
    }

    /// Says to `martlet admin` and `martlet chat` in this directory where the cluster is.
    func publish(_ plan: DevPlan, authority: String?, lock: Int32) {
        let lines = [plan.redisURL, plan.redisPrefix, plan.chatURL, authority ?? "", plan.secret]
        let text = Array(lines.map { $0 + "\n" }.joined().utf8)
        ftruncate(lock, 0)
        _ = pwrite(lock, text, text.count, 0)
    }

    /// nil when no cluster runs here. In the process that called `occupy` the answer is nil, and the lock is lost.
    func running() -> Running? {
        let descriptor = open(lockPath, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var request = wholeFile()
        guard fcntl(descriptor, F_GETLK, &request) == 0, request.l_type != Int16(F_UNLCK), request.l_pid > 0 else {
            return nil
        }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = pread(descriptor, &bytes, bytes.count, 0)
        let lines = String(decoding: bytes[..<max(0, count)], as: UTF8.self)
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        func line(_ index: Int) -> String? { index < lines.count && !lines[index].isEmpty ? lines[index] : nil }
        return Running(
            pid: request.l_pid, redisURL: line(0), redisPrefix: line(1), chatURL: line(2), authority: line(3),
            secret: line(4))
    }

    /// Asks the cluster of this folder to end and waits for it.
    /// - Returns: a sentence that says what happened.
    func end(within seconds: Int) throws(Failure) -> String {
        guard let cluster = running() else { return "No cluster runs here." }
        guard kill(cluster.pid, SIGTERM) == 0 || errno == ESRCH else {
            throw Failure(.failed, "process \(cluster.pid) cannot be ended: \(ChildProcess.reason(errno))")
        }
        for _ in 0..<(seconds * 20) {
            guard running()?.pid == cluster.pid else { return "The cluster (process \(cluster.pid)) has ended." }
            usleep(50_000)
        }
        throw Failure(.failed, "the cluster (process \(cluster.pid)) has not ended within \(seconds) s")
    }

    private func wholeFile() -> flock {
        var request = flock()
        request.l_type = Int16(F_WRLCK)
        request.l_whence = Int16(SEEK_SET)
        return request
    }
}
