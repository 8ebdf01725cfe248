import COpenSSL
package import ChatCore
import WireProtocol

/// What a verified token says.
package struct TokenClaims: Sendable, Equatable {
    package let subject: String
    /// Seconds since 1970; nil: it does not expire.
    package let expiresAt: Int64?
    package let issuedAt: Int64?
    /// The token's own name (`jti`), by which it can be revoked.
    package var id: String?
    /// Nil: the token says nothing of rooms, and namespaces decide alone.
    package var capabilities: Capabilities?
}

/// Checks JSON Web Tokens in JWS compact form (RFC 7515, RFC 7519) that are signed with HS256.
///
/// The algorithm belongs to the key, never to the token: any other `alg` is refused before a signature is computed.
package struct TokenVerifier: Sendable {
    /// How far clocks may be apart, in seconds.
    package static let leeway: Int64 = 30
    /// Longer tokens are malformed.
    package static let maximumBytes = 8192

    private let secret: [UInt8]

    /// Throws `weakSecret` for fewer than 32 bytes.
    package init(secret: [UInt8]) throws(TokenError) {
        guard secret.count >= 32 else { throw TokenError(.weakSecret) }
        self.secret = secret
    }

    /// The claims of `token` at the time `nowSeconds` (since 1970).
    package func verify(_ token: String, nowSeconds: Int64) throws(TokenError) -> TokenClaims {
        let parts = try TokenParts(token)
        let header = try JOSEHeader(parts.header)
        guard header.algorithm == "HS256" else { throw TokenError(.wrongAlgorithm) }
        guard !header.hasCritical else { throw TokenError(.unsupportedHeader) }
        guard let expected = HMACSHA256.code(key: secret, message: parts.signingInput),
            HMACSHA256.areEqual(expected, parts.signature)
        else { throw TokenError(.badSignature) }
        let claims = try RawClaims(parts.payload)
        if let expiresAt = claims.expiresAt, nowSeconds - Self.leeway >= expiresAt { throw TokenError(.expired) }
        if let notBefore = claims.notBefore, nowSeconds + Self.leeway < notBefore { throw TokenError(.notYetValid) }
        guard let subject = claims.subject, !subject.isEmpty else { throw TokenError(.missingSubject) }
        return TokenClaims(subject: subject, expiresAt: claims.expiresAt, issuedAt: claims.issuedAt)
    }

    /// The `sub` of anything that looks like a token, nothing of it checked: for choosing a node, never for letting in.
    package static func unverifiedSubject(of token: String) -> String? {
        guard let parts = try? TokenParts(token), let claims = try? RawClaims(parts.payload) else { return nil }
        return claims.subject.flatMap { $0.isEmpty ? nil : $0 }
    }
}

/// Makes tokens that `TokenVerifier` accepts with the same secret: for tests and for people who have no issuer yet.
package struct TokenMinter: Sendable {
    private let secret: [UInt8]

    /// Throws `weakSecret` for fewer than 32 bytes.
    package init(secret: [UInt8]) throws(TokenError) {
        guard secret.count >= 32 else { throw TokenError(.weakSecret) }
        self.secret = secret
    }

    /// Times in seconds since 1970.
    package func mint(
        subject: String,
        issuedAt: Int64? = nil,
        expiresAt: Int64? = nil,
        notBefore: Int64? = nil
    ) throws(TokenError) -> String {
        var claims = JSONWriter()
        claims.beginObject()
        claims.member("sub", subject)
        if let issuedAt { claims.member("iat", issuedAt) }
        if let notBefore { claims.member("nbf", notBefore) }
        if let expiresAt { claims.member("exp", expiresAt) }
        claims.endObject()
        let header = Base64URL.encode(Array("{\"alg\":\"HS256\",\"typ\":\"JWT\"}".utf8))
        let input = header + "." + Base64URL.encode(claims.bytes)
        guard let signature = HMACSHA256.code(key: secret, message: Array(input.utf8)) else {
            throw TokenError(.badSignature)
        }
        return input + "." + Base64URL.encode(signature)
    }
}

enum HMACSHA256 {
    /// RFC 2104 with SHA-256, by libcrypto; nil only when libcrypto fails.
    static func code(key: [UInt8], message: [UInt8]) -> [UInt8]? {
        var code = [UInt8](repeating: 0, count: 32)
        var length: UInt32 = 0
        let result = HMAC(EVP_sha256(), key, Int32(key.count), message, message.count, &code, &length)
        return result != nil && length == 32 ? code : nil
    }

    /// Takes the same time wherever two codes differ.
    static func areEqual(_ one: [UInt8], _ other: [UInt8]) -> Bool {
        one.count == other.count && CRYPTO_memcmp(one, other, one.count) == 0
    }
}
