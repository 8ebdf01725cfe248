import Foundation
import Glibc
import Synchronization

/// A private redis-server that can be paused, killed and started again on its port with its data.
package final class ClusterRedis: Sendable {
    package indirect enum Reply: Sendable, Equatable {
        case null
        case integer(Int64)
        case string(String)
        case error(String)
        case array([Reply])

        package var string: String? { if case .string(let value) = self { value } else { nil } }
        package var int: Int64? { if case .integer(let value) = self { value } else { string.flatMap { Int64($0) } } }
        package var strings: [String] {
            if case .array(let values) = self { values.compactMap(\.string) } else { [] }
        }
        /// Of HGETALL: fields and values in turn.
        package var dictionary: [String: String] {
            let strings = strings
            return Dictionary(
                stride(from: 0, to: strings.count - 1, by: 2).map { (strings[$0], strings[$0 + 1]) },
                uniquingKeysWith: { $1 }
            )
        }
    }

    package let port: Int
    private let directory: String
    private let arguments: [String]
    private let process: Mutex<ChildProcess>

    private let logins: [RedisAccess: String]

    package var url: String { url(of: .node, through: port) }

    /// As who reaches it behind a proxy that listens on the port.
    func url(of user: RedisAccess, through port: Int) -> String { "redis://\(logins[user] ?? "")127.0.0.1:\(port)" }

    private init(
        port: Int, logins: [RedisAccess: String], directory: String, arguments: [String], process: ChildProcess
    ) {
        (self.port, self.logins, self.directory, self.arguments) = (port, logins, directory, arguments)
        self.process = Mutex(process)
    }

    /// - Parameters:
    ///   - isDurable: an append-only file, written out with each command, so that a restart forgets nothing.
    ///   - sync: `appendfsync` of that file.
    ///   - prefix: the ``url`` logs in as ``RedisAccess/node`` for this prefix; nil: as one who may do anything, as
    ///     ``command(_:)`` always is.
    ///   - arguments: further ones of redis-server.
    package static func start(
        isDurable: Bool = false, sync: String = "always", prefix: String? = nil, arguments further: [String] = []
    ) async throws -> ClusterRedis {
        for _ in 0..<5 {
            do {
                return try await start(
                    port: FreePort.next(), isDurable: isDurable, sync: sync, prefix: prefix, arguments: further)
            } catch is PortTaken {}
        }
        throw SystemCallFailed("no free port for redis-server", EADDRINUSE)
    }

    /// Somebody else took the port after it was found to be free.
    private struct PortTaken: Error {}

    private static func start(
        port: Int, isDurable: Bool, sync: String, prefix: String?, arguments further: [String]
    ) async throws -> ClusterRedis {
        let directory = try TemporaryDirectory.make("redis")
        let arguments =
            [
                "--port", String(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--daemonize", "no",
                "--appendonly", isDurable ? "yes" : "no", "--appendfsync", sync, "--maxmemory-policy", "noeviction",
                "--client-output-buffer-limit", "pubsub 256mb 64mb 60", "--loglevel", "warning",
                "--repl-diskless-sync-delay", "0",
            ] + further + (try prefix.map { try RedisAccess.arguments(prefix: $0) } ?? [])
        let logins = try prefix.map { _ in
            try Dictionary(uniqueKeysWithValues: RedisAccess.allCases.map { ($0, try $0.login()) })
        }
        let process = try await spawn(arguments)
        let redis = ClusterRedis(
            port: port, logins: logins ?? [:], directory: directory, arguments: arguments, process: process)
        do {
            try await redis.waitUntilItAnswers()
        } catch {
            await redis.stop()
            throw error
        }
        return redis
    }

    package func pause() { process.withLock { $0 }.send(SIGSTOP) }
    package func resume() { process.withLock { $0 }.send(SIGCONT) }

    package func kill() async { await process.withLock { $0 }.end() }

    /// Starts again what ``kill()`` ended: same port, same folder.
    package func startAgain() async throws {
        let process = try await Self.spawn(arguments)
        self.process.withLock { $0 = process }
        try await waitUntilItAnswers()
    }

    /// Keeps the data of this moment, to come back to it with ``restore()``. Of a durable server: as its disk has it.
    package func keep() throws {
        try? FileManager.default.removeItem(atPath: directory + ".kept")
        try FileManager.default.copyItem(atPath: directory, toPath: directory + ".kept")
    }

    /// The killed server forgets what came after ``keep()``.
    package func restore() throws {
        try FileManager.default.removeItem(atPath: directory)
        try FileManager.default.copyItem(atPath: directory + ".kept", toPath: directory)
    }

    /// Becomes a replica of the server that answers at this port, and is in step with it when this returns.
    package func follow(_ port: Int) async throws {
        try await command("REPLICAOF", "127.0.0.1", String(port))
        _ = try await poll(within: .seconds(20), "the replica to be in step") {
            try await self.command("INFO", "replication").string?.contains("master_link_status:up") == true ? true : nil
        }
    }

    package func stop() async {
        await kill()
        try? FileManager.default.removeItem(atPath: directory + ".kept")
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// - Throws: a ``ServerError`` for an error reply.
    @discardableResult
    package func command(_ words: String...) async throws -> Reply { try await command(words) }

    /// - Throws: a ``ServerError`` for an error reply.
    @discardableResult
    package func command(_ words: [String]) async throws -> Reply {
        let port = port
        let reply = try await offPool {
            let socket = try BlockingSocket(port: port, timeout: 5)
            var request = Array("*\(words.count)\r\n".utf8)
            for word in words { request += Array("$\(word.utf8.count)\r\n\(word)\r\n".utf8) }
            try socket.write(request)
            var bytes: [UInt8] = []
            while true {
                var index = 0
                if let reply = Self.parse(bytes, &index) { return reply }
                guard try socket.read(into: &bytes) else { throw ServerError(description: "Redis closed") }
            }
        }
        if case .error(let text) = reply { throw ServerError(description: "\(words[0]): \(text)") }
        return reply
    }

    package struct ServerError: Error, CustomStringConvertible {
        package let description: String
    }

    private func waitUntilItAnswers() async throws {
        let process = process.withLock { $0 }
        let answers: Bool = try await poll(within: .seconds(20), "redis-server to answer") {
            guard process.isRunning else { return false }
            return try await self.command("PING").string == "PONG" ? true : nil
        }
        if answers { return }
        let said = process.output.current.text + process.output.current.errorText
        throw said.contains("already in use") ? PortTaken() : ServerError(description: "redis-server ended: \(said)")
    }

    private static func spawn(_ arguments: [String]) async throws -> ChildProcess {
        try await ChildProcess.spawn(
            "redis-server",
            arguments,
            name: "redis-server",
            environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"]
        )
    }

    /// RESP2; `nil` while the reply is not whole.
    private static func parse(_ bytes: [UInt8], _ index: inout Int) -> Reply? {
        guard let end = bytes[index...].firstIndex(of: 10), end > index else { return nil }
        let kind = bytes[index]
        let line = String(decoding: bytes[(index + 1)..<(end - 1)], as: UTF8.self)
        index = end + 1
        switch kind {
        case UInt8(ascii: "+"): return .string(line)
        case UInt8(ascii: "-"): return .error(line)
        case UInt8(ascii: ":"): return .integer(Int64(line) ?? 0)
        case UInt8(ascii: "$"):
            guard let count = Int(line), count >= 0 else { return .null }
            guard bytes.count >= index + count + 2 else { return nil }
            defer { index += count + 2 }
            return .string(String(decoding: bytes[index..<(index + count)], as: UTF8.self))
        case UInt8(ascii: "*"):
            guard let count = Int(line), count >= 0 else { return .null }
            var elements: [Reply] = []
            for _ in 0..<count {
                guard let element = parse(bytes, &index) else { return nil }
                elements.append(element)
            }
            return .array(elements)
        default: return .error("a reply that starts with byte \(kind)")
        }
    }
}

/// Folders that go when the test process ends.
package enum TemporaryDirectory {
    private static let made = Mutex<[String]?>(nil)

    package static func make(_ name: String) throws -> String {
        let path = FileManager.default.temporaryDirectory
            .appendingPathComponent("martlet-\(name)-\(UInt64.random(in: 0...UInt64.max))").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        let isFirst = made.withLock { made in
            defer { made = (made ?? []) + [path] }
            return made == nil
        }
        if isFirst {
            atexit { TemporaryDirectory.removeAll() }
        }
        return path
    }

    private static func removeAll() {
        for path in made.withLock({ $0 ?? [] }) { try? FileManager.default.removeItem(atPath: path) }
    }
}
