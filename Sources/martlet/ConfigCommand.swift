import ArgumentParser
import Glibc

struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "Shows the settings there are.",
        subcommands: [EnvExampleCommand.self]
    )
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
