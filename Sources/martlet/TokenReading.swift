import ArgumentParser
import Glibc
import NIOCore
import NIOPosix
import NodeServer
import TokenAuth
import WireProtocol

struct TokenInspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Shows what a token says, without checking anything of it.")

    @Argument(help: "The token; - reads it from standard input, which keeps it out of ps and the shell's history.")
    var token = "-"

    func run() throws {
        let token = try TokenArgument.read(token)
        let text: TokenText
        do throws(TokenError) {
            text = try TokenText(unverified: token)
        } catch {
            throw Failure(.failed, error.description)
        }
        let now = Int64(time(nil))
        Terminal.write(
            "Not checked: this is what the token says (`martlet token verify` checks it).\n"
                + TokenReport.lines(text, now: now).joined(separator: "\n") + "\n", to: STDOUT_FILENO)
    }
}

struct TokenVerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Checks a token as a node does: exit code 0 when it is good, 1 and the reason when it is not.",
        discussion: """
            It takes the keys, the issuer and the audience from the MARTLET_TOKEN_* settings that a node reads, and fetches \
            MARTLET_TOKEN_JWKS_URL once.
            """
    )

    @Argument(help: "The token; - reads it from standard input, which keeps it out of ps and the shell's history.")
    var token = "-"

    func run() async throws {
        let settings = try Settings.read()
        let checks = try settings.tokenChecks()
        let token = try TokenArgument.read(token)
        var lack = ""
        if let source = checks.source {
            do {
                let fetched = try await source.fetchOnce(on: MultiThreadedEventLoopGroup.singleton.next()).get()
                if fetched.keys.isEmpty { lack = Self.lack(fetched.ignored) }
            } catch {
                throw Failure(.failed, "MARTLET_TOKEN_JWKS_URL \(Printable.text("\(error)"))")
            }
        }
        let now = Int64(time(nil))
        do throws(TokenError) {
            let claims = try checks.verifier.verify(token, nowSeconds: now)
            guard (try? UserName(validating: claims.subject)) != nil else {
                throw TokenError(.badClaim, claim: "sub")
            }
            let text = try TokenText(unverified: token)
            Terminal.write(
                "Good: a node takes it.\n" + TokenReport.lines(text, now: now).joined(separator: "\n") + "\n",
                to: STDOUT_FILENO)
        } catch {
            throw Failure(.failed, error.description + lack)
        }
    }

    /// - Parameter ignored: why keys of the set cannot be used.
    private static func lack(_ ignored: [String]) -> String {
        let reasons = ignored.isEmpty ? "" : " (\(Printable.text(ignored.joined(separator: "; "))))"
        return ", and MARTLET_TOKEN_JWKS_URL publishes no key that can be used" + reasons
    }
}

enum TokenArgument {
    /// The token without the white space around it.
    static func read(_ argument: String) throws(Failure) -> String {
        guard argument == "-" else { return argument }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while bytes.count <= 4 * TokenVerifier.maximumBytes {
            let count = Glibc.read(STDIN_FILENO, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        let blanks: Set<UInt8> = [0x20, 0x09, 0x0A, 0x0D]
        let text = bytes.drop { blanks.contains($0) }.reversed().drop { blanks.contains($0) }.reversed()
        guard !text.isEmpty else { throw Failure(.usage, "standard input held no token") }
        return String(decoding: Array(text), as: UTF8.self)
    }
}

enum TokenReport {
    private static let times: Set<String> = ["exp", "nbf", "iat", "auth_time"]

    /// One line a member, the header's first; nothing in it reaches the terminal as control characters.
    static func lines(_ text: TokenText, now: Int64) -> [String] {
        let members = text.header.map { ("header", $0) } + text.claims.map { ("claim", $0) }
        let width = members.map { Printable.text($0.1.name).count }.max() ?? 0
        return members.map { kind, member in
            let name = Printable.text(member.name)
            let padding = String(repeating: " ", count: width - name.count)
            var line = "\(kind == "header" ? "header" : "claim ")  \(name)\(padding)  "
            line += Printable.text(member.string ?? member.json)
            if kind == "claim", times.contains(name), let seconds = member.number, abs(seconds) < 1 << 40 {
                line += "  \(Amounts.time(milliseconds: seconds * 1000)), \(distance(seconds - now))"
            }
            return line
        }
    }

    private static func distance(_ seconds: Int64) -> String {
        let text = Amounts.age(milliseconds: abs(seconds) * 1000)
        return seconds >= 0 ? "in \(text)" : "\(text) ago"
    }
}
