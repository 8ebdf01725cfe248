package import ChatCore

/// What a verified token says.
package struct TokenClaims: Sendable, Equatable {
    package let subject: String
    /// Seconds since 1970.
    package let expiresAt: Int64
    package let issuedAt: Int64?
    /// The token's own name (`jti`), by which it can be revoked.
    package var id: String?
    /// Nil: the token says nothing of rooms, and namespaces decide alone.
    package var capabilities: Capabilities?
}

/// Checks JSON Web Tokens in JWS compact form (RFC 7515, RFC 7519) by the rules of RFC 8725.
///
/// The algorithm belongs to the key, never to the token: an `alg` that its key is not for is refused before a signature is
/// computed. Signature first, then the claims.
package struct TokenVerifier: Sendable {
    /// How far clocks may be apart, in seconds.
    package static let leeway: Int64 = 30
    /// Longer tokens are malformed.
    package static let maximumBytes = 8192
    /// Of a `jti`.
    package static let maximumIDBytes = 256

    package let keys: TokenKeyRing
    private let issuer: String?
    private let audience: String?

    /// - Parameters:
    ///   - issuer: what `iss` must be; any, or none, when `nil`.
    ///   - audience: what `aud` must be or contain; when `nil`, a token that names an audience is for somebody else (RFC 7519
    ///     section 4.1.3).
    package init(keys: TokenKeyRing, issuer: String? = nil, audience: String? = nil) {
        self.keys = keys
        self.issuer = issuer
        self.audience = audience
    }

    /// With one HS256 key.
    package init(secret: [UInt8]) throws(TokenKeyError) {
        self.init(keys: TokenKeyRing([try TokenKey(secret: secret)]))
    }

    /// The claims of `token` at the time `nowSeconds` (since 1970).
    package func verify(_ token: String, nowSeconds: Int64) throws(TokenError) -> TokenClaims {
        let parts = try TokenParts(token)
        let header = try JOSEHeader(parts.header)
        guard let algorithm = header.algorithm.flatMap(TokenAlgorithm.init(rawValue:)) else {
            throw TokenError(.wrongAlgorithm)
        }
        guard !header.hasCritical else { throw TokenError(.unsupportedHeader) }
        guard header.isForAccess else { throw TokenError(.wrongType) }
        try keys.check(parts.signature, of: parts.signingInput, algorithm: algorithm, keyID: header.keyID)
        return try check(try RawClaims(parts.payload), nowSeconds)
    }

    private func check(_ claims: RawClaims, _ nowSeconds: Int64) throws(TokenError) -> TokenClaims {
        guard let expiresAt = claims.expiresAt else { throw TokenError(.missingExpiry) }
        if nowSeconds - Self.leeway >= expiresAt { throw TokenError(.expired) }
        // One that is made in the future would outlive an order against all that were made until now.
        if let starts = [claims.notBefore, claims.issuedAt].compactMap(\.self).max(), nowSeconds + Self.leeway < starts
        {
            throw TokenError(.notYetValid)
        }
        if let issuer, claims.issuer != issuer { throw TokenError(.wrongIssuer) }
        switch (audience, claims.audience) {
        case (nil, nil): break
        case (let audience?, let named?) where named.contains(audience): break
        default: throw TokenError(.wrongAudience)
        }
        guard let subject = claims.subject, !subject.isEmpty else { throw TokenError(.missingSubject) }
        return TokenClaims(
            subject: subject, expiresAt: expiresAt, issuedAt: claims.issuedAt, id: claims.id,
            capabilities: claims.capabilities)
    }

    /// The `sub` of anything that looks like a token, nothing of it checked: for choosing a node, never for letting in.
    package static func unverifiedSubject(of token: String) -> String? {
        guard let parts = try? TokenParts(token), let claims = try? RawClaims(parts.payload) else { return nil }
        return claims.subject.flatMap { $0.isEmpty ? nil : $0 }
    }
}
