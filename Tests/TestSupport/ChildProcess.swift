import Foundation
import Glibc
import Synchronization

/// A process that a test started. It dies with the test process, whatever that dies of: `setpriv` (util-linux) sets
/// PR_SET_PDEATHSIG and becomes the program.
package final class ChildProcess: Sendable {
    package enum Exit: Sendable, Equatable {
        case status(Int32)
        case signal(Int32)
    }

    package struct Output: Sendable {
        package var standardOutput: [UInt8] = []
        package var standardErrorLines: [String] = []
        package var exit: Exit?
        fileprivate var openPipes = 2

        package var text: String { String(decoding: standardOutput, as: UTF8.self) }
        package var errorText: String { standardErrorLines.joined(separator: "\n") }
    }

    package let name: String
    package let pid: Int32
    package let output = Watched(Output())

    private init(name: String, pid: Int32) {
        self.name = name
        self.pid = pid
    }

    /// - Parameters:
    ///   - environment: all of it; the child inherits nothing else.
    ///   - socket: the child has it as its descriptor 3.
    package static func spawn(
        _ executable: String,
        _ arguments: [String],
        name: String,
        environment: [String: String] = [:],
        passing socket: Int32? = nil
    ) async throws -> ChildProcess {
        let standardOutput = try Pipe()
        let standardError = try Pipe()
        let result = await withCheckedContinuation { continuation in
            Spawner.shared.run {
                let result = Result {
                    try start(
                        executable,
                        arguments,
                        environment: environment,
                        output: standardOutput.write,
                        error: standardError.write,
                        passing: socket
                    )
                }
                continuation.resume(returning: result)
            }
        }
        close(standardOutput.write)
        close(standardError.write)
        let pid: pid_t
        do {
            pid = try result.get()
        } catch {
            close(standardOutput.read)
            close(standardError.read)
            throw error
        }
        let child = ChildProcess(name: name, pid: pid)
        child.collect(standardOutput.read) { $0.standardOutput.append(contentsOf: $1) }
        let rest = Mutex<[UInt8]>([])
        child.collect(standardError.read) { output, bytes in
            rest.withLock { rest in
                rest.append(contentsOf: bytes)
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    output.standardErrorLines.append(String(decoding: rest[..<end], as: UTF8.self))
                    rest.removeSubrange(...end)
                }
            }
        }
        child.reap()
        return child
    }

    package var isRunning: Bool { output.current.exit == nil }

    /// Does nothing once the process has ended: its number may be another's by then.
    package func send(_ signal: Int32) {
        output.update { output in
            if output.exit == nil { kill(pid, signal) }
        }
    }

    /// Waits for the end and for all that was written before it.
    @discardableResult
    package func waitForExit(within limit: Duration = .seconds(10)) async throws -> Exit {
        try await output.wait(within: limit, "\(self.name) to end") { $0.openPipes == 0 ? $0.exit : nil }
    }

    package func end() async {
        send(SIGKILL)
        _ = try? await output.wait(within: .seconds(5), "\(self.name) to end") { $0.exit }
    }

    /// Runs a program to its end.
    package static func run(
        _ executable: String,
        _ arguments: [String],
        environment: [String: String] = [:],
        within limit: Duration = .seconds(20)
    ) async throws -> Output {
        let child = try await spawn(executable, arguments, name: executable, environment: environment)
        do {
            try await child.waitForExit(within: limit)
        } catch {
            await child.end()
            throw TimedOut("\(error); its standard error: \(child.output.current.errorText)")
        }
        return child.output.current
    }

    private func collect(_ fd: Int32, _ take: @escaping @Sendable (inout Output, ArraySlice<UInt8>) -> Void) {
        Thread.detachNewThread { [output] in
            var buffer = [UInt8](repeating: 0, count: 65536)
            while true {
                let count = read(fd, &buffer, buffer.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { break }
                output.update { take(&$0, buffer[..<count]) }
            }
            close(fd)
            output.update { $0.openPipes -= 1 }
        }
    }

    private func reap() {
        Thread.detachNewThread { [output, pid] in
            var info = siginfo_t()
            while waitid(P_PID, id_t(pid), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
            output.update { output in
                var status: Int32 = 0
                waitpid(pid, &status, 0)
                output.exit = status & 0x7F == 0 ? .status(status >> 8 & 0xFF) : .signal(status & 0x7F)
            }
        }
    }

    private static func start(
        _ executable: String,
        _ arguments: [String],
        environment: [String: String],
        output: Int32,
        error: Int32,
        passing socket: Int32?
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, error, 2)
        if let socket { posix_spawn_file_actions_adddup2(&actions, socket, 3) }
        closeInherited(&actions, from: socket == nil ? 3 : 4)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        let words = ["setpriv", "--pdeathsig", "KILL", executable] + arguments
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        defer { for pointer in argv + envp { free(pointer) } }
        var pid: pid_t = 0
        let code = posix_spawnp(&pid, "setpriv", &actions, &attributes, &argv, &envp)
        guard code == 0 else { throw SystemCallFailed("posix_spawn of setpriv (package util-linux)", code) }
        return pid
    }
}

package struct SystemCallFailed: Error, CustomStringConvertible {
    package let description: String

    package init(_ call: String, _ code: Int32 = errno) {
        description = "\(call): \(String(cString: strerror(code)))"
    }
}

/// NIO's sockets are inherited: a listener that a test closes would go on taking connections in the child, to which
/// nobody there ever answers.
func closeInherited(_ actions: inout posix_spawn_file_actions_t, from first: Int32 = 3) {
    var limit = rlimit()
    // Closing one that is not open is no error, closing one over the limit is.
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    for descriptor in first..<Int32(min(limit.rlim_cur, 8192)) {
        posix_spawn_file_actions_addclose(&actions, descriptor)
    }
}

/// A socket pair, because its descriptors are made with close-on-exec set: no other child can hold an end open.
private struct Pipe {
    let read: Int32
    let write: Int32

    init() throws {
        var ends: [Int32] = [0, 0]
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw SystemCallFailed("socketpair") }
        (read, write) = (ends[0], ends[1])
    }
}

/// The parent-death signal comes when the parent's *thread* ends, so all children start from one that never does.
private final class Spawner: Sendable {
    static let shared = Spawner()

    private let jobs = Mutex<[@Sendable () -> Void]>([])
    private let signal = DispatchSemaphore(value: 0)

    private init() {
        Thread.detachNewThread { [self] in
            while true {
                signal.wait()
                let job = jobs.withLock { $0.isEmpty ? nil : $0.removeFirst() }
                job?()
            }
        }
    }

    func run(_ job: @escaping @Sendable () -> Void) {
        jobs.withLock { $0.append(job) }
        signal.signal()
    }
}
