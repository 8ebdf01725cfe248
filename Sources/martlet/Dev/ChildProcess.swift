import Glibc

/// Starts programs with posix_spawn(3). Call it from one thread alone: between making a pipe and marking it
/// close-on-exec a spawn elsewhere would inherit it.
enum ChildProcess {
    struct Running: Sendable {
        let pid: pid_t
        /// What the child writes to stdout and stderr; EOF when it and all its heirs are gone.
        let output: Int32
    }

    /// The descriptor under which a child finds the pipe to watch (`--exit-with-fd 3`).
    static let watchDescriptor: Int32 = 3

    /// The child leads a process group of its own, so that a terminal's Ctrl-C reaches only us. Its stdin is empty, its
    /// signals are as at boot, but SIGHUP waits until it is taken (``Signals/handle(_:_:)``), and of our descriptors it inherits
    /// `watch` alone.
    static func spawn(
        _ program: String, _ arguments: [String], environment: [String: String], watch: Int32
    ) throws(Failure) -> Running {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw Failure(.failed, "no pipe for \(program): \(reason(errno))") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO)
        posix_spawn_file_actions_adddup2(&actions, watch, watchDescriptor)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var all = sigset_t()
        sigfillset(&all)
        sigdelset(&all, SIGKILL)
        sigdelset(&all, SIGSTOP)
        posix_spawnattr_setsigdefault(&attributes, &all)
        var waiting = sigset_t()
        sigemptyset(&waiting)
        sigaddset(&waiting, SIGHUP)
        posix_spawnattr_setsigmask(&attributes, &waiting)
        posix_spawnattr_setpgroup(&attributes, 0)
        let flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP
        posix_spawnattr_setflags(&attributes, Int16(flags))

        var pid: pid_t = 0
        let result = withStrings([program] + arguments) { argv in
            withStrings(environment.map { "\($0.key)=\($0.value)" }) { envp in
                posix_spawnp(&pid, program, &actions, &attributes, argv, envp)
            }
        }
        close(ends[1])
        guard result == 0 else {
            close(ends[0])
            throw Failure(.failed, "\(program) does not start: \(reason(result))")
        }
        return Running(pid: pid, output: ends[0])
    }

    /// Lends a NULL-terminated array of C strings for the call.
    static func withStrings<Result>(
        _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
    ) -> Result {
        let copies = strings.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        return body(copies + [nil])
    }

    static func reason(_ error: Int32) -> String { String(cString: strerror(error)) }

    /// The file this process runs; the link itself when the file was replaced under it (a rebuild).
    static func ownProgram() -> String {
        var path = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        let text = count > 0 ? String(decoding: path[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self) : ""
        return access(text, X_OK) == 0 ? text : "/proc/self/exe"
    }

    /// Where a shell would find the program; nil when it is not installed.
    static func find(_ program: String, path: String) -> String? {
        path.split(separator: ":").map { "\($0)/\(program)" }.first { access($0, X_OK) == 0 }
    }
}

/// How a process ended, from waitpid(2).
enum ProcessEnd: Equatable, Sendable, CustomStringConvertible {
    case exit(Int32)
    case signal(Int32)

    init(status: Int32) {
        let signal = status & 0x7F
        self = signal == 0 ? .exit((status >> 8) & 0xFF) : .signal(signal)
    }

    var description: String {
        switch self {
        case .exit(let code): "with exit code \(code)"
        case .signal(let number):
            "by signal \(number) (\(String(cString: strsignal(number))))"
        }
    }
}
