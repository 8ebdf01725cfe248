import Admin
import ArgumentParser
import Glibc
import RedisClient

struct AdminTop: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top", abstract: "The whole cluster, live: nodes, routers, sessions, messages a second, p99.",
        discussion: """
            On a terminal it is redrawn in place; q or Ctrl-C ends it. Elsewhere, and with --json, it is one JSON object a \
            line.
            """)

    @OptionGroup var options: AdminOptions

    @Option(help: ArgumentHelp("How often it is read.", valueName: "seconds"))
    var interval = 1.0

    @Option(help: ArgumentHelp("End after so many times.", valueName: "times"))
    var count: Int?

    func validate() throws {
        guard (0.1...3600).contains(interval) else {
            throw ValidationError("--interval must be from 0.1 to 3600 seconds")
        }
        if let count, count < 1 { throw ValidationError("--count must be at least 1") }
    }

    func run() async throws {
        try await options.run { session in
            let pace = Pace(interval: .milliseconds(Int64(interval * 1000)), count: count)
            if isatty(STDOUT_FILENO) == 1, !session.json {
                try await TopView(session: session, pace: pace).run()
            } else {
                try await Self.printLines(session, pace)
            }
        }
    }

    /// How often the cluster is read, and when that ends.
    struct Pace: Sendable {
        let interval: Duration
        let count: Int?
    }

    private static func printLines(_ session: AdminSession, _ pace: Pace) async throws {
        AdminSession.endOnSignals()
        var top = ClusterTop(session.admin)
        var next = ContinuousClock.now
        var printed = 0
        while true {
            session.print(try await top.read(now: Amounts.now()))
            printed += 1
            if printed == pace.count { return }
            next = max(next + pace.interval, .now)
            try await Task.sleep(until: next)
        }
    }
}

/// `martlet admin top` on a terminal: what is read, typed and told by signals, one after the other.
private final class TopView {
    private enum Input: Sendable {
        case report(TopReport)
        case trouble(String)
        /// What no later try would change.
        case failed(any Error)
        case typed([UInt8])
        case signal(Int32)
        /// `--count` was reached.
        case done
    }

    private let session: AdminSession
    private let pace: AdminTop.Pace
    private let screen = AlternateScreen()
    private var latest: TopReport?
    private var trouble: String?

    init(session: AdminSession, pace: AdminTop.Pace) {
        self.session = session
        self.pace = pace
    }

    func run() async throws {
        let (inputs, feed) = AsyncStream<Input>.makeStream()
        // Before the terminal is changed, so that no signal finds it changed and nobody there to put it right.
        Signals.handle([SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGWINCH, SIGTSTP, SIGCONT]) { feed.yield(.signal($0)) }
        screen.enter()
        defer { screen.leave() }
        draw()
        screen.readKeys { feed.yield(.typed($0)) }
        let reading = Self.read(session, pace, feed)
        defer { reading.cancel() }
        for await input in inputs {
            switch input {
            case .report(let report): (latest, trouble) = (report, nil)
            case .trouble(let sentence): trouble = sentence
            case .failed(let error): throw error
            case .typed(let bytes):
                // Keys without a letter come as an escape and more, F2 with a Q in it.
                if bytes.first != 0x1B, bytes.contains(where: { $0 | 0x20 == UInt8(ascii: "q") }) { return }
                continue
            case .signal(SIGWINCH): break
            case .signal(SIGTSTP):
                screen.leave()
                kill(getpid(), SIGSTOP)
                continue
            case .signal(SIGCONT): screen.enter()
            case .signal, .done: return
            }
            draw()
        }
    }

    private static func read(
        _ session: AdminSession, _ pace: AdminTop.Pace, _ feed: AsyncStream<Input>.Continuation
    ) -> Task<Void, Never> {
        Task {
            var top = ClusterTop(session.admin)
            var next = ContinuousClock.now
            var times = 0
            while !Task.isCancelled {
                do {
                    feed.yield(.report(try await top.read(now: Amounts.now())))
                } catch let error as RedisError {
                    // Redis may come back; what was read last stays, below the sentence.
                    feed.yield(.trouble(session.failure(error).sentence))
                } catch {
                    feed.yield(.failed(error))
                    return
                }
                times += 1
                if times == pace.count { break }
                next = max(next + pace.interval, .now)
                try? await Task.sleep(until: next)
            }
            feed.yield(.done)
        }
    }

    private func draw() {
        let (width, height) = (Terminal.columns(STDOUT_FILENO) ?? 80, Terminal.rows(STDOUT_FILENO) ?? 24)
        guard let latest else {
            let sentence = ChatStyle.truncated(trouble.map { Printable.text($0) } ?? "Reading …", to: width)
            return screen.draw([session.style.mark(sentence, trouble == nil ? nil : .red)], height: height)
        }
        let view = TopScreen(
            report: latest, redis: session.client.configuration.addressDescription, trouble: trouble,
            style: session.style)
        screen.draw(view.lines(width: width, height: height, now: Amounts.now()), height: height)
    }
}
