import WireProtocol

/// Makes tokens that ``TokenVerifier`` accepts: for tests and for people who have no issuer yet.
package struct TokenMinter: Sendable {
    private let key: TokenKey
    private let keyID: String?

    /// - Parameter keyID: the token's `kid`; the key's own name when `nil`.
    /// - Throws: for a key that cannot sign.
    package init(key: TokenKey, keyID: String? = nil) throws(TokenKeyError) {
        guard key.canSign else { throw TokenKeyError("is a public key, which cannot sign") }
        self.key = key
        self.keyID = keyID ?? key.id
    }

    /// With HS256, without a `kid`.
    package init(secret: [UInt8]) throws(TokenKeyError) {
        try self.init(key: try TokenKey(secret: secret))
    }

    /// - Parameters:
    ///   - issuedAt: seconds since 1970, as the other times.
    ///   - rooms: the claim of that name, as JSON (``RoomsClaim``).
    package func mint(
        subject: String, issuedAt: Int64? = nil, expiresAt: Int64? = nil, notBefore: Int64? = nil,
        issuer: String? = nil, audience: String? = nil, id: String? = nil, rooms: String? = nil
    ) throws(TokenKeyError) -> String {
        var claims = JSONWriter()
        claims.beginObject()
        claims.member("sub", subject)
        if let issuer { claims.member("iss", issuer) }
        if let audience { claims.member("aud", audience) }
        if let issuedAt { claims.member("iat", issuedAt) }
        if let notBefore { claims.member("nbf", notBefore) }
        if let expiresAt { claims.member("exp", expiresAt) }
        if let id { claims.member("jti", id) }
        if let rooms {
            claims.key(RoomsClaim.name)
            claims.raw(rooms.utf8)
        }
        claims.endObject()
        var header = JSONWriter()
        header.beginObject()
        header.member("alg", key.algorithm.rawValue)
        header.member("typ", "JWT")
        if let keyID { header.member("kid", keyID) }
        header.endObject()
        let input = Base64URL.encode(header.bytes) + "." + Base64URL.encode(claims.bytes)
        guard let signature = key.sign(Array(input.utf8)) else { throw TokenKeyError("cannot sign") }
        return input + "." + Base64URL.encode(signature)
    }
}
