import ArgumentParser
import Glibc

/// Runs a program that knows nothing of us, so that it never outlives its supervisor: `martlet shim --exit-with-fd 3 --
/// redis-server …`.
///
/// 1. SIGTERM and SIGINT are passed on, and so is the program's exit code.
/// 2. At EOF of the descriptor the program gets SIGTERM, after 5 s SIGKILL, and is reaped.
/// 3. When the shim itself is killed, the kernel ends the program: it is started through `shim --exec`, which asks for
///    that (PR_SET_PDEATHSIG) and becomes the program.
struct ShimCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "shim", shouldDisplay: false)

    @Option(name: .customLong("exit-with-fd"))
    var exitWithDescriptor: Int32?

    @Flag(name: .customLong("exec"))
    var becomesProgram = false

    @Argument(parsing: .postTerminator)
    var command: [String] = []

    func run() throws {
        guard let program = command.first else { throw Failure(.usage, "shim needs a program after --") }
        if becomesProgram { throw becomeProgram(program) }
        guard let watch = exitWithDescriptor, fcntl(watch, F_SETFD, FD_CLOEXEC) == 0 else {
            throw Failure(.usage, "shim needs --exit-with-fd and an open descriptor")
        }
        let pid = try start()
        Signals.handle([SIGTERM, SIGINT]) { number in kill(pid, number) }
        ParentWatch.onEnd(of: watch) {
            kill(pid, SIGTERM)
            sleep(5)
            kill(pid, SIGKILL)
        }
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        switch ProcessEnd(status: status) {
        case .exit(let code): throw ExitCode(code)
        case .signal(let number): throw ExitCode(128 + number)
        }
    }

    /// In our process group, with our output, so that the supervisor's SIGKILL to the group reaches it too.
    private func start() throws(Failure) -> pid_t {
        var pid: pid_t = 0
        let program = ChildProcess.ownProgram()
        let result = ChildProcess.withStrings(["martlet", "shim", "--exec", "--"] + command) { argv in
            ChildProcess.withStrings(Settings.processEnvironment().map { "\($0.key)=\($0.value)" }) { envp in
                var attributes = posix_spawnattr_t()
                posix_spawnattr_init(&attributes)
                defer { posix_spawnattr_destroy(&attributes) }
                var defaults = sigset_t()
                sigemptyset(&defaults)
                sigaddset(&defaults, SIGPIPE)
                posix_spawnattr_setsigdefault(&attributes, &defaults)
                posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGDEF))
                return posix_spawn(&pid, program, nil, &attributes, argv, envp)
            }
        }
        guard result == 0 else { throw Failure(.failed, "the shim does not start: \(ChildProcess.reason(result))") }
        return pid
    }

    /// Returns only when it failed.
    private func becomeProgram(_ program: String) -> Failure {
        signal(SIGPIPE, SIG_DFL)
        dieWithParent()
        let result = ChildProcess.withStrings(command) { argv in
            execvp(program, argv)
        }
        return Failure(.failed, "\(program) does not start (\(result)): \(ChildProcess.reason(errno))")
    }

    /// prctl(2) is variadic, which Swift does not call; on Linux (x86-64 and arm64 alike) integers are passed to a
    /// variadic function as to any other. Without it the pipe alone has to do.
    private func dieWithParent() {
        typealias Prctl = @convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32
        guard let symbol = dlsym(nil, "prctl") else { return }
        let setParentDeathSignal: Int32 = 1
        _ = unsafeBitCast(symbol, to: Prctl.self)(setParentDeathSignal, UInt(SIGTERM), 0, 0, 0)
        if getppid() == 1 { _exit(EXIT_FAILURE) }
    }
}
