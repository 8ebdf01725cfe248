import NodeServer
import TLSClient
import TokenAuth

/// What a node is told of tokens beside MARTLET_TOKEN_SECRET.
struct TokenSettings: Sendable, Equatable {
    var keyFiles: [String] = []
    var jwksURL: String?
    var jwksAuthorities: String?
    var issuer: String?
    var audience: String?
}

extension Settings {
    static let tokenRows: [SettingRow] = [
        SettingRow(
            key: "MARTLET_TOKEN_KEYS", allowed: "a comma-separated list of files", readers: tokenReaders,
            doc:
                "Files of keys for tokens, PEM or JSON Web Key (Set): RS256 (RSA from 2048 bits), ES256 (P-256), EdDSA (Ed25519),"
                + " HS256. Public halves are enough. Read again when they change.",
            defaultText: nil, unset: "none", form: .list,
            apply: { settings, text in
                let files = text.split(separator: ",").map { SettingSyntax.trim($0) }
                guard !files.isEmpty, files.allSatisfy({ !$0.isEmpty }) else { return false }
                settings.tokens.keyFiles = files
                return true
            }),
        .optionalText(
            "MARTLET_TOKEN_JWKS_URL", flag: nil, \.tokens.jwksURL, jwksURL, tokenReaders,
            "Where the issuer of tokens publishes its keys (a JWK Set). They are fetched again as its Cache-Control says, else"
                + " each 5 minutes, and when a token names a new one.", unset: "nothing is fetched"),
        .optionalText(
            "MARTLET_TOKEN_JWKS_CA", flag: nil, \.tokens.jwksAuthorities, SettingSyntax.path, tokenReaders,
            "A PEM file of authorities that may vouch for MARTLET_TOKEN_JWKS_URL; read at the start.",
            unset: "those of the system"),
        .optionalText(
            "MARTLET_TOKEN_ISSUER", flag: nil, \.tokens.issuer, anyText, tokenReaders,
            "What the claim iss of tokens must be, to the letter.", unset: "any issuer, or none"),
        .optionalText(
            "MARTLET_TOKEN_AUDIENCE", flag: nil, \.tokens.audience, anyText, tokenReaders,
            "What the claim aud of tokens must be or contain.",
            unset: "tokens that name an audience are for somebody else, and are refused"),
    ]

    private static let tokenReaders: Set<SettingRow.Reader> = [.node, .dev, .token]
    private static let anyText = SettingSyntax(allowed: "at most 4096 bytes") { $0.utf8.count <= 4096 }
    /// What is wrong with a URL is said without showing it, and one that is right is shown without its query: either may
    /// hold a secret.
    private static let jwksURL = SettingSyntax(
        allowed: "https://host/path, or http:// on this machine", refusal: { jwksProblem($0) ?? "" },
        redacted: { (try? JWKSAddress($0))?.description ?? "" }, accepts: { jwksProblem($0) == nil })

    private static func jwksProblem(_ text: String) -> String? {
        do throws(JWKSAddress.Refusal) {
            _ = try JWKSAddress(text)
            return nil
        } catch {
            return error.description
        }
    }

    /// The keys of files and settings, those of the JWKS address not yet among them. Blocks on the disk.
    func tokenKeys() throws(Failure) -> [TokenKey] {
        var keys: [TokenKey] = []
        if let tokenSecret {
            do throws(TokenKeyError) {
                keys.append(try TokenKey(secret: Array(tokenSecret.utf8)))
            } catch {
                throw Failure(.usage, "\(name(of: "MARTLET_TOKEN_SECRET")) \(error)")
            }
        }
        for path in tokens.keyFiles {
            do throws(TokenKeyError) {
                keys += try TokenKeys(parsing: try KeyFile.read(path), from: .file).keys
            } catch {
                throw Failure(.usage, "\(name(of: "MARTLET_TOKEN_KEYS")): \(Printable.text(path)) \(error)")
            }
        }
        return keys
    }

    /// Checks tokens as a node does.
    struct TokenChecks {
        let verifier: TokenVerifier
        /// The files of its keys, where there are some.
        let files: FollowedKeys?
        /// What fetches keys for it.
        let source: JWKSSource?
    }

    /// Blocks on the disk.
    func tokenChecks() throws(Failure) -> TokenChecks {
        guard tokenSecret != nil || !tokens.keyFiles.isEmpty || tokens.jwksURL != nil else {
            throw Failure(
                .usage,
                "there is no key for tokens: set MARTLET_TOKEN_SECRET, MARTLET_TOKEN_KEYS or MARTLET_TOKEN_JWKS_URL")
        }
        guard tokens.jwksURL != nil || tokens.jwksAuthorities == nil else {
            throw Failure(.usage, "\(name(of: "MARTLET_TOKEN_JWKS_CA")) is set, which needs MARTLET_TOKEN_JWKS_URL")
        }
        let files = try FollowedFiles(tokens.keyFiles) { () throws(Failure) in try tokenKeys() }
        let ring = TokenKeyRing(files.value)
        return TokenChecks(
            verifier: TokenVerifier(keys: ring, issuer: tokens.issuer, audience: tokens.audience),
            files: tokens.keyFiles.isEmpty ? nil : FollowedKeys(files: files, ring: ring),
            source: try jwksSource(for: ring))
    }

    private func jwksSource(for ring: TokenKeyRing) throws(Failure) -> JWKSSource? {
        guard let url = tokens.jwksURL else { return nil }
        let address: JWKSAddress
        do throws(JWKSAddress.Refusal) {
            address = try JWKSAddress(url)
        } catch {
            throw Failure(.usage, "\(name(of: "MARTLET_TOKEN_JWKS_URL")): \(error)")
        }
        do throws(TLSFailure) {
            return try JWKSSource(address, authorities: tokens.jwksAuthorities, for: ring)
        } catch {
            throw Failure(.usage, "\(name(of: "MARTLET_TOKEN_JWKS_CA")): \(Printable.text(error.description))")
        }
    }
}
