import Glibc
import Synchronization

/// A redis-server of one test: on a free port and a Unix socket, with its data in a directory of its own.
///
/// 1. Starts it and waits until it answers.
/// 2. Pauses, resumes, kills and restarts it, on the same port, socket and data.
/// 3. Ends it, and removes its directory, with `stop`, with its own end, and with the end of the test process, however
///    that comes.
package final class RedisServerProcess: Sendable {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    package let port: Int
    /// Holds `redis.conf`, `redis.sock`, `redis.log` and the data.
    package let directory: String
    private let running = Mutex<Running?>(nil)

    /// redis-server stands under a shell that ends it when the pipe it reads from is closed, which the kernel does when
    /// this process ends.
    private struct Running {
        var redis: pid_t
        var shell: pid_t
        var pipe: Int32
    }

    /// - Parameter configuration: further lines of redis.conf, for instance `appendonly yes` or `user bob on >secret ~*
    ///   &* +@all`.
    package init(configuration: [String] = []) throws {
        var template = Array("/tmp/martlet-redis-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(description: "cannot make a directory in /tmp") }
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.directory = directory
        var attempt = 0
        while true {
            attempt += 1
            let port = try FreePort.next()
            try Self.writeConfiguration(configuration, port: port, directory: directory)
            do {
                let started = try Self.spawn(directory: directory)
                running.withLock { $0 = started }
                self.port = port
                return
            } catch {
                // Another process may have taken the port between the look and the start.
                guard attempt < 3 else { throw error }
            }
        }
    }

    deinit {
        stop()
    }

    /// The one server of this test process that needs nothing special; each test takes a key prefix of its own.
    package static func shared() throws -> RedisServerProcess {
        try sharedServer.withLock { server in
            if let server { return server }
            let new = try RedisServerProcess()
            server = new
            return new
        }
    }

    private static let sharedServer = Mutex<RedisServerProcess?>(nil)

    package var url: String { "redis://127.0.0.1:\(port)" }
    package var socketPath: String { "\(directory)/redis.sock" }
    package var unixURL: String { "unix://\(socketPath)" }

    /// SIGSTOP: connections stay, nothing is answered.
    package func pause() {
        signal(SIGSTOP)
    }

    package func resume() {
        signal(SIGCONT)
    }

    /// SIGKILL. Returns when the process is gone.
    package func kill() {
        signal(SIGKILL)
        end(keepingDirectory: true)
    }

    /// Starts it again after `kill`, on the same port, socket and data; ends it first when it runs. Returns when it
    /// answers.
    package func restart() throws {
        kill()
        let started = try Self.spawn(directory: directory)
        running.withLock { $0 = started }
    }

    /// Ends it and removes its directory.
    package func stop() {
        end(keepingDirectory: false)
    }

    private func signal(_ number: Int32) {
        running.withLock { running in
            if let running {
                _ = Glibc.kill(running.redis, number)
            }
        }
    }

    private func end(keepingDirectory: Bool) {
        let running = self.running.withLock { running in
            defer { running = nil }
            return running
        }
        if let running {
            if keepingDirectory {
                _ = write(running.pipe, "keep\n", 5)
            }
            close(running.pipe)
            var status: Int32 = 0
            while waitpid(running.shell, &status, 0) == -1, errno == EINTR {}
        } else if !keepingDirectory {
            Self.removeDirectory(directory)
        }
    }

    // MARK: - Starting

    private static let shell = """
        redis-server "$0/redis.conf" >>"$0/redis.log" 2>&1 </dev/null &
        redis=$!
        echo $redis
        exec >/dev/null
        read -r keep
        kill -9 $redis 2>/dev/null
        wait $redis 2>/dev/null
        [ "$keep" = keep ] || rm -rf "$0"
        """

    private static func spawn(directory: String) throws -> Running {
        var input: [Int32] = [0, 0]
        var output: [Int32] = [0, 0]
        guard pipe(&input) == 0, pipe(&output) == 0 else { throw Failure(description: "cannot make a pipe") }
        for descriptor in input + output {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }
        defer {
            close(input[0])
            close(output[0])
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, input[0], 0)
        posix_spawn_file_actions_adddup2(&actions, output[1], 1)
        // Otherwise one server's shell holds the pipe of another, and neither ends with this process.
        closeInherited(&actions)

        // The threads of a test block signals; a shell that inherits that never hears of its child's end.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var child: pid_t = 0
        let result = withCStrings(["sh", "-c", shell, directory]) { arguments in
            posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, environ)
        }
        close(output[1])
        guard result == 0 else {
            close(input[1])
            throw Failure(description: "cannot run /bin/sh")
        }
        let redis = pid_t(readLine(from: output[0])) ?? 0
        let running = Running(redis: redis, shell: child, pipe: input[1])
        guard redis > 0, waitUntilItAnswers(running, directory: directory) else {
            let log = tail(of: "\(directory)/redis.log")
            _ = write(running.pipe, "keep\n", 5)
            close(running.pipe)
            var status: Int32 = 0
            waitpid(child, &status, 0)
            throw Failure(description: "redis-server does not start: \(log)")
        }
        return running
    }

    private static func writeConfiguration(_ lines: [String], port: Int, directory: String) throws {
        let text =
            ([
                "port \(port)", "bind 127.0.0.1", "unixsocket \(directory)/redis.sock", "dir \(directory)", "save \"\"",
                "daemonize no", "logfile \"\"", "client-output-buffer-limit pubsub 256mb 64mb 60",
            ] + lines).joined(separator: "\n") + "\n"
        guard let file = fopen("\(directory)/redis.conf", "we") else {
            throw Failure(description: "cannot write \(directory)/redis.conf")
        }
        fputs(text, file)
        fclose(file)
    }

    private static func waitUntilItAnswers(_ running: Running, directory: String) -> Bool {
        for _ in 0..<4000 {
            if answers("\(directory)/redis.sock") { return true }
            if hasEnded(running.redis) { return false }
            usleep(5000)
        }
        return false
    }

    /// A PING is answered, or refused for want of a password; not while the data is still loading.
    private static func answers(_ path: String) -> Bool {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0, send(descriptor, "PING\r\n", 6, Int32(MSG_NOSIGNAL)) == 6 else { return false }
        var reply = [UInt8](repeating: 0, count: 64)
        let count = read(descriptor, &reply, reply.count)
        guard count > 0 else { return false }
        let text = String(decoding: reply.prefix(count), as: UTF8.self)
        return text.hasPrefix("+PONG") || text.hasPrefix("-NOAUTH") || text.hasPrefix("-NOPERM")
    }

    private static func hasEnded(_ process: pid_t) -> Bool {
        guard let file = fopen("/proc/\(process)/stat", "re") else { return true }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, Int32(line.count), file) != nil else { return true }
        return String(decoding: line.map { UInt8(bitPattern: $0) }, as: UTF8.self).contains(") Z ")
    }

    private static func readLine(from descriptor: Int32) -> String {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while read(descriptor, &byte, 1) == 1, byte != UInt8(ascii: "\n") {
            bytes.append(byte)
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static func tail(of path: String) -> String {
        guard let file = fopen(path, "re") else { return "no log" }
        defer { fclose(file) }
        fseek(file, 0, SEEK_END)
        fseek(file, max(0, ftell(file) - 1000), SEEK_SET)
        var bytes = [UInt8](repeating: 0, count: 1000)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    /// Only what `init` made: a directory under /tmp with files and no directories but Redis' own.
    private static func removeDirectory(_ path: String) {
        guard path.hasPrefix("/tmp/martlet-redis-") else { return }
        var child: pid_t = 0
        let result = withCStrings(["rm", "-rf", path]) { posix_spawnp(&child, "rm", nil, nil, $0, environ) }
        guard result == 0 else { return }
        var status: Int32 = 0
        waitpid(child, &status, 0)
    }

    private static func withCStrings(
        _ strings: [String],
        _ body: ([UnsafeMutablePointer<CChar>?]) -> Int32
    ) -> Int32 {
        let pointers = strings.map { strdup($0) }
        defer { pointers.forEach { free($0) } }
        return body(pointers + [nil])
    }
}
