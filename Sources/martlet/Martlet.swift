import Admin
import ArgumentParser
import Glibc
import RedisClient

#if !FUZZING
@main
#endif
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "A chat cluster whose nodes keep nothing: whatever must outlive a process lives in Redis.",
        version: Version.current,
        subcommands: [
            DevCommand.self,
            NodeCommand.self,
            RouterCommand.self,
            AdminCommand.self,
            BenchCommand.self,
            ChatCommand.self,
            ConfigCommand.self,
            TokenCommand.self,
            HealthcheckCommand.self,
            ShimCommand.self,
        ]
    )

    static func main() async {
        if CommandLine.arguments.dropFirst().first.map(["node", "router"].contains) == true {
            // To read files again, as it is asked to do while it starts, or waits for Redis.
            Signals.hold([SIGHUP])
        }
        signal(SIGPIPE, SIG_IGN)
        do {
            var command = try parseAsRoot()
            if !CommandLine.arguments.contains(where: ["-h", "--help", "help"].contains) {
                try Settings.refuseUnknownKeys(of: Settings.processEnvironment())
            }
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
            Logs.flush()
        } catch {
            end(with: error)
        }
    }

    /// Exit codes: 0 done (help and version too), 1 not found or failed, 2 usage, 3 Redis unreachable.
    /// Everything but 0 comes with one sentence on stderr that begins with `martlet: `.
    private static func end(with error: any Error) -> Never {
        let outcome = Outcome(of: error)
        Logs.flush()
        if let text = outcome.output { Terminal.write(text + "\n", to: STDOUT_FILENO) }
        if let sentence = outcome.sentence { Terminal.write("martlet: \(sentence)\n", to: STDERR_FILENO) }
        Glibc.exit(outcome.code)
    }

    struct Outcome: Equatable {
        var code: Int32
        var output: String?
        var sentence: String?

        init(of error: any Error) {
            if let failure = error as? Failure {
                code = failure.code.rawValue
                sentence = failure.sentence
                return
            }
            if let missing = error as? NotFound {
                code = Failure.Code.failed.rawValue
                sentence = Printable.text(missing.description)
                return
            }
            if let refused = error as? RedisConfigurationError {
                code = Failure.Code.usage.rawValue
                sentence = refused.description
                return
            }
            let parserCode = Martlet.exitCode(for: error)
            if parserCode == .success {
                code = 0
                output = Martlet.fullMessage(for: error)
            } else if parserCode == .validationFailure {
                code = Failure.Code.usage.rawValue
                sentence = Outcome.usageSentence(Martlet.message(for: error), full: Martlet.fullMessage(for: error))
            } else if let bare = error as? ExitCode {
                code = bare.rawValue
            } else {
                code = Failure.Code.failed.rawValue
                sentence = Printable.text("\(error)")
            }
        }

        /// The parser's message on one line, then where help is; the parser knows which subcommand it was in and
        /// says so in the last line of its full message: "  See 'martlet node --help' for more information."
        private static func usageSentence(_ message: String, full: String) -> String {
            let line = message.split(whereSeparator: \.isNewline).joined(separator: " ")
            let help = full.split(separator: "'").first { $0.hasSuffix("--help") } ?? "martlet --help"
            let ended = line.hasSuffix(".") || line.hasSuffix("?") ? line : line + "."
            return "\(Printable.text(ended)) See '\(help)'."
        }
    }
}
