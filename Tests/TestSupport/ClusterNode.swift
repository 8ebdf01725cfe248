import Foundation
import Glibc
import Synchronization

/// The program under test: beside the test bundle, or what TEST_PROGRAM names.
package enum MartletProgram {
    package static let path: String = {
        if let path = ProcessInfo.processInfo.environment["TEST_PROGRAM"] { return path }
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        return URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("martlet").path
    }()

    /// Runs a subcommand to its end, with no environment but the given.
    package static func run(
        _ arguments: [String],
        environment: [String: String] = [:],
        within limit: Duration = .seconds(20)
    ) async throws -> ChildProcess.Output {
        try await ChildProcess.run(path, arguments, environment: base.merging(environment) { $1 }, within: limit)
    }

    static var base: [String: String] {
        let own = ProcessInfo.processInfo.environment
        return ["PATH": own["PATH"] ?? "/usr/bin:/bin", "HOME": own["HOME"] ?? "/", "TMPDIR": own["TMPDIR"] ?? "/tmp"]
    }
}

/// A `martlet node` or `martlet router` that a test runs, kills, pauses and starts again.
package final class ClusterProcess: Sendable {
    package enum Role: String, Sendable {
        case node
        case router
    }

    package let role: Role
    package let name: String
    package let port: Int
    /// Where ``internals(_:)`` asks; 0 where the process takes any.
    package let internalPort: Int
    private let environment: [String: String]
    private let descriptors: Int?
    private let socket: Int32?
    private let running: Mutex<ChildProcess?> = Mutex(nil)

    /// - Parameters:
    ///   - descriptors: as many as it may open (`ulimit -n`).
    ///   - socket: a listening one, which it is passed (LISTEN_FDS) as systemd does.
    package init(
        _ role: Role, name: String, port: Int, internalPort: Int = 0, environment: [String: String],
        descriptors: Int? = nil, socket: Int32? = nil
    ) {
        self.descriptors = descriptors
        self.socket = socket
        (self.role, self.name, self.port, self.internalPort) = (role, name, port, internalPort)
        self.environment = environment.merging(["MARTLET_INTERNAL_PORT": String(internalPort)]) { $1 }
    }

    /// Starts it, or starts it again, under the same name and on the same port.
    package func start() async throws {
        var steps = descriptors.map { ["ulimit -n \($0)"] } ?? []
        if socket != nil { steps.append("export LISTEN_FDS=1 LISTEN_PID=$$") }
        let program = steps.isEmpty ? MartletProgram.path : "/bin/sh"
        steps.append("exec \"$0\" \"$1\"")
        let shell = steps.count == 1 ? [] : ["-c", steps.joined(separator: " && "), MartletProgram.path]
        let child = try await ChildProcess.spawn(
            program,
            shell + [role.rawValue],
            name: name,
            environment: MartletProgram.base.merging(environment) { $1 },
            passing: socket
        )
        running.withLock { $0 = child }
    }

    package var process: ChildProcess? { running.withLock { $0 } }

    package func kill() async { await process?.end() }
    package func pause() { process?.send(SIGSTOP) }
    package func resume() { process?.send(SIGCONT) }
    package func terminate() { process?.send(SIGTERM) }

    /// What it wrote to standard error so far. Lines that are no JSON are ``logViolations``.
    package var log: [JSON] { process?.output.current.standardErrorLines.compactMap { try? JSON(parsing: $0) } ?? [] }

    package var logViolations: [String] {
        process?.output.current.standardErrorLines.filter { (try? JSON(parsing: $0))?["level"]?.string == nil } ?? []
    }

    /// Waits for a log line that matches.
    package func logged(
        _ what: String,
        within limit: Duration = .seconds(10),
        where matches: @escaping @Sendable (JSON) -> Bool
    ) async throws -> JSON {
        guard let process else { throw TimedOut("\(name) is not running") }
        return try await process.output.wait(within: limit, "\(self.name) to log \(what)") { output in
            for line in output.standardErrorLines {
                if let json = try? JSON(parsing: line), matches(json) { return json }
            }
            return nil
        }
    }

    package func get(_ path: String) async throws -> HTTPAnswer { try await HTTPAnswer.of("GET", path, port: port) }

    /// The same on the internal port.
    package func internals(_ path: String) async throws -> HTTPAnswer {
        try await HTTPAnswer.of("GET", path, port: internalPort)
    }

    /// Whether `/readyz` (of a router: `/_router/healthz`) says 200; `nil` when nothing answers.
    package func readiness() async -> Int? {
        try? await get(role == .node ? "/readyz" : "/_router/healthz").status
    }

    /// - Throws: ``TimedOut`` with the process's last words, also as soon as it has ended.
    package func waitUntilReady(within limit: Duration = .seconds(30)) async throws {
        try await waitForReadiness(200, within: limit)
    }

    package func waitForReadiness(_ status: Int, within limit: Duration) async throws {
        _ = try await poll(within: limit, "\(name) to answer \(status)") {
            if let exit = self.process?.output.current.exit { return Result<Void, any Error>.failure(self.ended(exit)) }
            return await self.readiness() == status ? .success(()) : nil
        }.get()
    }

    private func ended(_ exit: ChildProcess.Exit) -> TimedOut {
        let words = process?.output.current.standardErrorLines.suffix(20).joined(separator: "\n") ?? ""
        return TimedOut("\(name) ended (\(exit)) with these last words:\n\(words)")
    }
}
