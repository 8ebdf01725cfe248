import ArgumentParser
import ChatCore
import Glibc
import NIOCore
import TokenAuth
import WireProtocol

struct TokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Makes, shows and checks the signed tokens with which clients prove who they are.",
        subcommands: [
            TokenMintCommand.self, TokenInspectCommand.self, TokenVerifyCommand.self, TokenKeygenCommand.self,
        ]
    )
}

struct TokenMintCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mint",
        abstract: "Prints a token for one user, signed with MARTLET_TOKEN_SECRET or the key of a file.",
        discussion: """
            Clients send it as ?token=…, as Authorization: Bearer …, or in an auth message. Any library for JSON Web \
            Tokens makes the same: the user in sub, the end in exp.
            """
    )

    @Argument(help: "Who the holder of the token is.")
    var user: String

    @Option(help: "Hours until it expires. (default: 12)")
    var hours: Double?

    @Option(help: ArgumentHelp("Time until it expires: 90s, 15m, 12h or 7d, instead of --hours.", valueName: "time"))
    var expiresIn: String?

    @Option(help: ArgumentHelp("What it may do in rooms, as the claim says it.", valueName: "json"))
    var rooms: String?

    @Option(
        help: ArgumentHelp(
            "What it may do in rooms of a pattern, e.g. 'team-7/*=join,publish'; as often as wanted.",
            valueName: "pattern=actions"))
    var allow: [String] = []

    @Option(help: "The claim iss. (default: MARTLET_TOKEN_ISSUER)")
    var issuer: String?

    @Option(help: "The claim aud. (default: MARTLET_TOKEN_AUDIENCE)")
    var audience: String?

    @Option(parsing: .unconditional, help: "The token's own name (the claim jti), by which it can be revoked.")
    var id: String?

    @Option(
        help: ArgumentHelp("A private key to sign with, PEM or JSON Web Key, instead of the secret.", valueName: "file")
    )
    var key: String?

    @Option(help: "The name of the key in the token. (default: that of the key in its file)")
    var kid: String?

    func validate() throws {
        if let hours {
            guard hours > 0, hours <= 87_600 else { throw ValidationError("--hours is more than 0 and at most 87600.") }
            guard expiresIn == nil else { throw ValidationError("--hours and --expires-in say the same: give one.") }
        }
        guard expiresIn.map({ Amounts.duration($0) != nil }) ?? true else {
            throw ValidationError("--expires-in is a whole number of s, m, h or d, as in 15m, and at most 3650d.")
        }
        guard rooms == nil || allow.isEmpty else {
            throw ValidationError("--rooms and --allow say the same: give one.")
        }
        guard id.map({ (1...TokenVerifier.maximumIDBytes).contains($0.utf8.count) }) ?? true else {
            throw ValidationError("--id has 1 to \(TokenVerifier.maximumIDBytes) bytes.")
        }
    }

    func run() throws {
        guard (try? UserName(validating: user)) != nil else {
            throw Failure(.usage, "\(Printable.text(user)) is no user name: 1 to 128 bytes without control characters")
        }
        let rooms = try roomsClaim()
        let settings = try Settings.read()
        let minter = try Self.minter(key: key, keyID: kid, settings)
        let now = Int64(time(nil))
        let life =
            expiresIn.flatMap(Amounts.duration).map { $0.nanoseconds / 1_000_000_000 } ?? Int64((hours ?? 12) * 3600)
        let token: String
        do throws(TokenKeyError) {
            token = try minter.mint(
                subject: user, issuedAt: now, expiresAt: now + max(life, 1),
                issuer: issuer ?? settings.tokens.issuer, audience: audience ?? settings.tokens.audience, id: id,
                rooms: rooms)
        } catch {
            throw Failure(.failed, "the key \(error)")
        }
        guard token.utf8.count <= TokenVerifier.maximumBytes else {
            throw Failure(
                .usage, "the token would have \(token.utf8.count) bytes, but nodes take \(TokenVerifier.maximumBytes)")
        }
        Terminal.write(token + "\n", to: STDOUT_FILENO)
    }

    private func roomsClaim() throws(Failure) -> String? {
        guard rooms != nil || !allow.isEmpty else { return nil }
        var json = rooms ?? ""
        if rooms == nil { json = try Self.claim(allow) }
        guard RoomsClaim.parse(json) != nil else {
            throw Failure(
                .usage,
                "the rooms must be as in {\"team-7/*\":[\"join\",\"publish\"]}: at most \(RoomsClaim.maximumPatterns)"
                    + " patterns, with * at the end alone, and of the actions "
                    + RoomActions.names.map(\.name).joined(separator: ", "))
        }
        return json
    }

    private static func claim(_ allow: [String]) throws(Failure) -> String {
        var json = JSONWriter()
        json.beginObject()
        for text in allow {
            guard let equals = text.lastIndex(of: "=") else {
                throw Failure(.usage, "--allow is “\(Printable.text(text))”, but must be as in 'team-7/*=join,publish'")
            }
            json.key(String(text[..<equals]))
            json.beginArray()
            for action in text[text.index(after: equals)...].split(separator: ",") {
                json.value(SettingSyntax.trim(action))
            }
            json.endArray()
        }
        json.endObject()
        return json.string
    }

    private static func minter(key path: String?, keyID: String?, _ settings: Settings) throws(Failure) -> TokenMinter {
        do throws(TokenKeyError) {
            if let path {
                guard let key = try TokenKeys(parsing: try KeyFile.read(path), from: .file).keys.first(where: \.canSign)
                else { throw TokenKeyError("holds public keys alone, which cannot sign") }
                return try TokenMinter(key: key, keyID: keyID)
            }
        } catch {
            throw Failure(.usage, "--key: \(Printable.text(path ?? "")) \(error)")
        }
        guard let secret = settings.tokenSecret else {
            throw Failure(
                .usage,
                "MARTLET_TOKEN_SECRET is not set: the token must be signed with the nodes' secret, or with a private key"
                    + " that --key names")
        }
        do throws(TokenKeyError) {
            return try TokenMinter(key: try TokenKey(secret: Array(secret.utf8)), keyID: keyID)
        } catch {
            throw Failure(.usage, "MARTLET_TOKEN_SECRET \(error)")
        }
    }
}

struct TokenKeygenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keygen",
        abstract: "Makes a key for tokens: the private part into a new file, the public part to standard output.",
        discussion: """
            The private part is for who signs: your application, or `martlet token mint --key FILE`. The public part, a JWK \
            Set, is for the nodes: into a file of MARTLET_TOKEN_KEYS, or behind MARTLET_TOKEN_JWKS_URL. HS256 has one \
            secret for both.
            """
    )

    @Option(help: "HS256, RS256, ES256 or EdDSA.")
    var alg = TokenAlgorithm.es256

    @Option(help: ArgumentHelp("The new file of the private part, for its owner alone.", valueName: "file"))
    var out: String

    @Option(help: ArgumentHelp("A new file of the public part, instead of standard output.", valueName: "file"))
    var `public`: String?

    @Flag(help: "Write the private part as PEM (PKCS #8), not as a JSON Web Key.")
    var pem = false

    @Option(help: "The key's name in tokens. (default: its thumbprint, RFC 7638)")
    var kid: String?

    func validate() throws {
        guard alg != .hs256 || (!pem && `public` == nil) else {
            throw ValidationError("HS256 has a secret alone: --pem and --public are for the others.")
        }
        guard !pem || kid == nil else { throw ValidationError("PEM holds no name: leave --kid or --pem out.") }
        guard kid.map({ (1...256).contains($0.utf8.count) }) ?? true else {
            throw ValidationError("--kid has 1 to 256 bytes.")
        }
    }

    func run() throws {
        let key: TokenKey
        do throws(TokenKeyError) {
            key = try TokenKey.generate(alg, id: kid)
        } catch {
            throw Failure(.failed, "the key \(error)")
        }
        let set = key.publicJWKS.map { $0 + "\n" }
        var files = [KeyFile.New(path: out, text: (pem ? key.privatePEM : nil) ?? key.privateJWK + "\n", mode: 0o600)]
        if let path = `public`, let set { files.append(.init(path: path, text: set, mode: 0o644)) }
        do throws(TokenKeyError) {
            try KeyFile.create(files)
        } catch {
            throw Failure(.failed, error.description)
        }
        if let set, `public` == nil { Terminal.write(set, to: STDOUT_FILENO) }
    }
}

extension TokenAlgorithm: ExpressibleByArgument {}
