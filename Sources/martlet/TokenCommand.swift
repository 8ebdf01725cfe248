import ArgumentParser
import Glibc
import TokenAuth
import WireProtocol

struct TokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Makes the signed tokens with which clients prove who they are.",
        subcommands: [TokenMintCommand.self]
    )
}

struct TokenMintCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mint",
        abstract: "Prints a token for one user, signed with MARTLET_TOKEN_SECRET.",
        discussion: """
            Clients send it as ?token=…, as Authorization: Bearer …, or in an auth message. Any library for JSON Web \
            Tokens makes the same: algorithm HS256, the user in sub, the end in exp.
            """
    )

    @Argument(help: "Who the holder of the token is.")
    var user: String

    @Option(help: "Hours until it expires.")
    var hours = 12.0

    func validate() throws {
        guard hours > 0, hours <= 87_600 else { throw ValidationError("--hours is more than 0 and at most 87600.") }
    }

    func run() throws {
        guard (try? UserName(validating: user)) != nil else {
            throw Failure(.usage, "\(Printable.text(user)) is no user name: 1 to 128 bytes without control characters")
        }
        guard let secret = try Settings.read().tokenSecret else {
            throw Failure(.usage, "MARTLET_TOKEN_SECRET is not set: the token must be signed with the nodes' secret")
        }
        let now = Int64(time(nil))
        let token = try TokenMinter(secret: Array(secret.utf8)).mint(
            subject: user,
            issuedAt: now,
            expiresAt: now + Int64(hours * 3600)
        )
        Terminal.write(token + "\n", to: STDOUT_FILENO)
    }
}
