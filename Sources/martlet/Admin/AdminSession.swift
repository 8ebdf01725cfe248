import Admin
import ArgumentParser
import ChatCore
import ClusterState
import Glibc
import Logging
import NIOCore
import NIOPosix
import RedisClient
import WireProtocol

/// What every admin command takes.
struct AdminOptions: ParsableArguments {
    @OptionGroup var redis: RedisOptions

    @Flag(help: "Print JSON with stable fields, for programs.")
    var json = false

    /// Connects, runs the body, closes.
    /// - Throws: `Failure` with exit code 3 when Redis does not answer within two seconds.
    func run(_ body: (AdminSession) async throws -> Void) async throws {
        let session = try await AdminSession.open(self)
        do {
            try await body(session)
        } catch let error as RedisError {
            throw session.failure(error)
        }
        try? await session.client.close().get()
    }
}

struct WatchOptions: ParsableArguments {
    @Flag(help: "Show it again and again, until Ctrl-C; with --json one line each time.")
    var watch = false

    @Option(help: ArgumentHelp("How often, with --watch.", valueName: "seconds"))
    var every = 1.0

    func validate() throws {
        guard (0.1...3600).contains(every) else { throw ValidationError("--every must be from 0.1 to 3600 seconds") }
    }
}

struct AdminSession: Sendable {
    let client: RedisClient
    let admin: ClusterAdmin
    let keys: ClusterKeys
    let settings: Settings
    let json: Bool
    let style: Style

    /// Silent: what goes wrong is said once, in the sentence that ends the command.
    static let logger = Logger(label: "martlet.admin") { _ in SwiftLogNoOpLogHandler() }

    static func open(_ options: AdminOptions) async throws -> AdminSession {
        let flags = options.redis.flags
        var environment = Settings.processEnvironment()
        var settings = try Settings(environment: environment, flags: flags)
        if settings.given["MARTLET_REDIS_URL"] == nil, let cluster = DevFolder.here().running() {
            // A cluster of `martlet dev` in this directory is what is meant, unless something else is said.
            environment["MARTLET_REDIS_URL"] = cluster.redisURL
            if settings.given["MARTLET_REDIS_PREFIX"] == nil {
                environment["MARTLET_REDIS_PREFIX"] = cluster.redisPrefix
            }
            if settings.secret == nil { environment["MARTLET_SECRET"] = cluster.secret }
            settings = try Settings(environment: environment, flags: flags)
        }
        var configuration = try settings.redisConfiguration()
        configuration.clientName = "martlet-admin"
        let client = RedisClient(
            configuration: configuration, scripts: ClusterScripts.all,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(), logger: logger)
        let keys = ClusterKeys(prefix: settings.redisPrefix)
        let session = AdminSession(
            client: client, admin: ClusterAdmin(redis: client, keys: keys), keys: keys, settings: settings,
            json: options.json,
            style: Style(colour: Terminal.wantsColour(STDOUT_FILENO, environment: environment)))
        client.start()
        do {
            try await client.whenConnected(within: .seconds(2)).get()
        } catch let error as RedisError {
            throw session.failure(error)
        }
        return session
    }

    /// No answer is exit code 3; an answer that refuses is 1.
    func failure(_ error: RedisError) -> Failure {
        let address = client.configuration.addressDescription
        switch error.code {
        case .notConnected, .closed, .timeout:
            return Failure(.redisUnreachable, "Redis at \(address) does not answer: \(error.message)")
        case .server:
            return Failure(.failed, "Redis at \(address) refused: \(error.message)")
        }
    }

    /// What the configuration says of the room.
    func rules(of room: RoomName) throws(Failure) -> NamespaceRules {
        guard let rules = settings.namespaces.rules(of: room) else {
            throw Failure(
                .usage, "there is no namespace \(room.namespace ?? ""); declare it in the configuration first")
        }
        return rules
    }

    var width: Int? { Terminal.columns(STDOUT_FILENO) }

    /// For what runs until Ctrl-C, which is then its proper end: exit code 0.
    static func endOnSignals(_ atEnd: @escaping @Sendable () -> Void = {}) {
        Signals.handle([SIGINT, SIGTERM, SIGHUP]) { _ in
            atEnd()
            _exit(0)
        }
    }

    // MARK: output

    func print(_ report: some Report) {
        var writer = JSONWriter()
        report.write(to: &writer)
        Terminal.write(writer.string + "\n", to: STDOUT_FILENO)
    }

    func print(_ lines: [String]) {
        Terminal.write(lines.map { $0 + "\n" }.joined(), to: STDOUT_FILENO)
    }

    /// Shows what the query says, once or as often as `watch` asks for.
    func show<Answer: Report>(
        _ watch: WatchOptions? = nil, _ query: () async throws -> Answer, lines: (Answer) -> [String]
    ) async throws {
        guard let watch, watch.watch else {
            let answer = try await query()
            if json { print(answer) } else { print(lines(answer)) }
            return
        }
        let isTerminal = isatty(STDOUT_FILENO) == 1 && !json
        if isTerminal { Screen.enter() } else { AdminSession.endOnSignals() }
        var isFirst = true
        while true {
            do {
                let answer = try await query()
                if json {
                    print(answer)
                } else if isTerminal {
                    Screen.redraw(lines(answer), width: width)
                } else {
                    print((isFirst ? [] : [""]) + lines(answer))
                }
            } catch let error as RedisError where isTerminal && !isFirst {
                // Redis may come back: what stands on the screen says so and stays. A program that reads is told by the
                // end of the command.
                let sentence = Printable.text(failure(error).sentence)
                Screen.redraw([style.mark(sentence, .red)], width: nil)
            } catch {
                if isTerminal { Screen.leave() }
                throw error
            }
            isFirst = false
            try await Task.sleep(for: .milliseconds(Int64(watch.every * 1000)))
        }
    }
}

/// A terminal that is drawn over and over.
enum Screen {
    /// Clears, hides the cursor, and gives it back when the process is interrupted.
    static func enter() {
        AdminSession.endOnSignals { leave() }
        Terminal.write("\u{1B}[?25l\u{1B}[2J", to: STDOUT_FILENO)
    }

    static func leave() {
        Terminal.write("\u{1B}[?25h", to: STDOUT_FILENO)
    }

    /// As many lines as `rows` have room for above the cursor's, the last of them a count of those left out.
    static func fitting(_ lines: [String], rows: Int) -> [String] {
        guard lines.count > rows - 1 else { return lines }
        let shown = lines.prefix(max(0, rows - 2))
        return shown + ["… \(lines.count - shown.count) more"]
    }

    static func redraw(_ lines: [String], width: Int?) {
        let text = fitting(lines, rows: Terminal.rows(STDOUT_FILENO) ?? 24).map { $0 + "\u{1B}[K\n" }.joined()
        Terminal.write("\u{1B}[H" + text + "\u{1B}[J", to: STDOUT_FILENO)
    }
}
