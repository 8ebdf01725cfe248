import ArgumentParser
import Glibc

struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "Checks and shows the settings.",
        subcommands: [ConfigCheckCommand.self, ConfigShowCommand.self, EnvExampleCommand.self]
    )
}

struct ConfigCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Tells what is wrong in a configuration file, each with line and column.",
        discussion:
            """
            Exits 0 when nothing is, else 2. The file is looked at by itself; the certificates and keys that it names are then \
            read as a start would read them, with what the environment says.
            """
    )

    @Argument(help: "The file. (default: what MARTLET_CONFIG says)")
    var file: String?

    func run() throws {
        guard let path = file ?? Settings.processEnvironment()[Settings.configKey], !path.isEmpty else {
            throw Failure(.usage, "there is no file to check: name one, or set MARTLET_CONFIG")
        }
        let file = try ConfigurationFile(path: path)
        for problem in file.problems { Terminal.write("martlet: \(problem)\n", to: STDERR_FILENO) }
        guard file.problems.isEmpty else { throw ExitCode(Failure.Code.usage.rawValue) }
        let settings = try Settings(Sources(file: file))
        settings.showWarnings()
        // Halves of a pair may stand in the environment.
        let environment = Settings.processEnvironment().merging([Settings.configKey: path]) { $1 }
        try Settings(environment: environment).checkFiles()
        let counts = "\(file.settings.count) settings and \(file.namespaces.count) namespaces"
        Terminal.write("\(Printable.text(path)) is right: \(counts)\n", to: STDOUT_FILENO)
    }
}

extension Settings {
    /// That each process would start with the files that are named. Blocks on the disk.
    fileprivate func checkFiles() throws(Failure) {
        _ = try serverTLS()
        _ = try nodeTLS()
        _ = try redisConfiguration()
        if tokenSecret != nil || !tokens.keyFiles.isEmpty || tokens.jwksURL != nil || tokens.jwksAuthorities != nil {
            _ = try tokenChecks()
        }
    }
}

struct ConfigShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Shows what every setting is and where that comes from; of secrets the length alone.",
        discussion: """
            It reads the file, the environment and flags as `martlet node` and `martlet router` started here would. The \
            origin of a value is FILE:LINE, environment, a flag, what it is taken from, or default.
            """
    )

    @OptionGroup var redis: RedisOptions
    @OptionGroup var server: ServerOptions

    @Flag(help: "Print JSON with stable fields, for programs.")
    var json = false

    func run() throws {
        let environment = Settings.processEnvironment()
        let settings = try Settings(environment: environment, flags: redis.flags.merging(server.flags) { $1 })
        settings.showWarnings()
        let values = EffectiveValue.all(of: settings)
        if json {
            Terminal.write(EffectiveValue.json(values) + "\n", to: STDOUT_FILENO)
            return
        }
        var table = Table(columns: [
            .init(title: "setting"), .init(title: "value", isFlexible: true), .init(title: "from"),
        ])
        table.rows = values.map { value in
            [.init(value.name), .init(value.value ?? "-"), .init(value.origin, value.origin == "default" ? .dim : nil)]
        }
        let style = Style(colour: Terminal.wantsColour(STDOUT_FILENO, environment: environment))
        let lines = table.lines(width: Terminal.columns(STDOUT_FILENO), style: style)
        Terminal.write(lines.map { $0 + "\n" }.joined(), to: STDOUT_FILENO)
    }
}

struct EnvExampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "env-example",
        abstract: "Prints .env.example: every setting with its meaning, range and default."
    )

    func run() throws {
        Terminal.write(EnvExample.text, to: STDOUT_FILENO)
    }
}

/// The text of `.env.example`, made from `Settings.table`.
enum EnvExample {
    static var text: String {
        var lines = [
            "# Martlet's settings. Made by `martlet config env-example`; a test holds it to the code.",
            "# Copy it to .env and take the # away from what you change: `make up` and docker compose read .env.",
            "# A flag of the command line wins over the environment. A MARTLET_ name that is not here is an error.",
        ]
        for row in Settings.table {
            lines.append("")
            lines += wrap(row.doc, width: 117).map { "# " + $0 }
            let who = SettingRow.Reader.allCases.filter(row.readers.contains).map(\.rawValue).joined(separator: ", ")
            lines += wrap(
                "Must be \(row.allowed). Read by \(who)." + (row.flag.map { " Flag: \($0)." } ?? "")
                    + (row.unset.map { " Not set: \($0)." } ?? ""), width: 117
            ).map { "# " + $0 }
            lines.append("#\(row.key)=\(row.defaultText ?? "")")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func wrap(_ text: String, width: Int) -> [String] {
        var lines: [String] = []
        var line = ""
        for word in text.split(separator: " ") {
            if !line.isEmpty, line.count + word.count + 1 > width {
                lines.append(line)
                line = ""
            }
            line += (line.isEmpty ? "" : " ") + word
        }
        return line.isEmpty ? lines : lines + [line]
    }
}
