import ChatCore
import WireProtocol

/// The parts of a JWS in compact form (RFC 7515 section 7.1), decoded; what they say is not looked at.
struct TokenParts {
    let header: [UInt8]
    let payload: [UInt8]
    let signature: [UInt8]
    /// What the signature is over: the first two parts as they stand in the token.
    let signingInput: [UInt8]

    init(_ token: String) throws(TokenError) {
        guard token.utf8.count <= TokenVerifier.maximumBytes else { throw TokenError(.malformed) }
        let bytes = Array(token.utf8)
        let parts = bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, let header = Base64URL.decode(parts[0]), let payload = Base64URL.decode(parts[1]),
            let signature = Base64URL.decode(parts[2])
        else { throw TokenError(.malformed) }
        self.header = header
        self.payload = payload
        self.signature = signature
        self.signingInput = Array(bytes[..<parts[1].endIndex])
    }
}

/// What of a JOSE header (RFC 7515 section 4) matters here. Keys that a token brings along or points to (`jwk`, `jku`,
/// `x5c`, `x5u`) do not.
struct JOSEHeader {
    private(set) var algorithm: String?
    private(set) var keyID: String?
    private(set) var type: String?
    private(set) var hasCritical = false

    init(_ json: [UInt8]) throws(TokenError) {
        var isSound = true
        let scanned = JSONObject.scan(json) { name, value, bytes in
            switch name {
            case "alg": algorithm = JSONText.string(value, in: bytes)
            case "kid":
                keyID = JSONText.string(value, in: bytes)
                isSound = isSound && keyID != nil
            case "typ":
                type = JSONText.string(value, in: bytes)
                isSound = isSound && type != nil
            case "crit": hasCritical = true
            default: break
            }
        }
        guard scanned, isSound else { throw TokenError(.malformed) }
    }

    /// A JWT (RFC 7519 section 5.1) or an access token (RFC 9068 section 2.1): an issuer's tokens for other purposes, as
    /// those of a logout, are signed with the same keys.
    var isForAccess: Bool {
        guard let type = type?.lowercased() else { return true }
        return ["jwt", "at+jwt", "application/jwt", "application/at+jwt"].contains(type)
    }
}

/// The claims (RFC 7519 section 4.1) that matter here.
struct RawClaims {
    private(set) var subject: String?
    private(set) var expiresAt: Int64?
    private(set) var notBefore: Int64?
    private(set) var issuedAt: Int64?
    private(set) var issuer: String?
    private(set) var audience: [String]?
    private(set) var id: String?
    private(set) var capabilities: Capabilities?

    init(_ json: [UInt8]) throws(TokenError) {
        var bad: String?
        let scanned = JSONObject.scan(json) { name, value, bytes in
            if !read(name, value, bytes), bad == nil { bad = name }
        }
        guard scanned else { throw TokenError(.malformed) }
        if let bad { throw TokenError(.badClaim, claim: bad) }
    }

    /// - Returns: false when a claim that matters has the wrong form.
    private mutating func read(_ name: String, _ value: JSONValue, _ bytes: UnsafeRawBufferPointer) -> Bool {
        switch name {
        case "sub":
            subject = JSONText.string(value, in: bytes)
            return subject != nil
        case "exp":
            expiresAt = Self.seconds(value, bytes)
            return expiresAt != nil
        case "nbf":
            notBefore = Self.seconds(value, bytes)
            return notBefore != nil
        case "iat":
            issuedAt = Self.seconds(value, bytes)
            return issuedAt != nil
        case "iss":
            issuer = JSONText.string(value, in: bytes)
            return issuer != nil
        case "aud":
            audience = JSONText.string(value, in: bytes).map { [$0] } ?? JSONObject.strings(value, in: bytes)
            return audience != nil
        case "jti":
            id = JSONText.string(value, in: bytes)
            // What an operator could not write could not be revoked.
            return id.map { (1...TokenVerifier.maximumIDBytes).contains($0.utf8.count) && !$0.hasControlCharacters }
                == true
        case RoomsClaim.name:
            capabilities = RoomsClaim.read(value, in: bytes)
            return capabilities != nil
        default: return true
        }
    }

    /// A NumericDate (RFC 7519 section 2), which may have a fraction: rounded down.
    private static func seconds(_ value: JSONValue, _ bytes: UnsafeRawBufferPointer) -> Int64? {
        guard value.kind == .number else { return nil }
        if let whole = JSONText.integer(value, in: bytes) { return whole.magnitude < 1 << 53 ? whole : nil }
        guard let number = Double(String(decoding: bytes[value.range], as: UTF8.self)), abs(number) < 0x1p53 else {
            return nil
        }
        return Int64(number.rounded(.down))
    }
}
