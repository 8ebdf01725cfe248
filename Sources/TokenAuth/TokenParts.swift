import WireProtocol

/// The parts of a JWS in compact form (RFC 7515 section 7.1), decoded; what they say is not looked at.
struct TokenParts {
    let header: [UInt8]
    let payload: [UInt8]
    let signature: [UInt8]
    /// What the signature is over: the first two parts as they stand in the token.
    let signingInput: [UInt8]

    init(_ token: String) throws(TokenError) {
        let bytes = Array(token.utf8)
        guard bytes.count <= TokenVerifier.maximumBytes else { throw TokenError(.malformed) }
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

/// What of a JOSE header (RFC 7515 section 4) matters here.
struct JOSEHeader {
    private(set) var algorithm: String?
    private(set) var hasCritical = false

    init(_ json: [UInt8]) throws(TokenError) {
        try JSONObject.scan(json) { name, value, bytes in
            switch name {
            case "alg": algorithm = JSONText.string(value, in: bytes)
            case "crit": hasCritical = true
            default: break
            }
        }
    }
}

/// The registered claims (RFC 7519 section 4.1) that matter here.
struct RawClaims {
    private(set) var subject: String?
    private(set) var expiresAt: Int64?
    private(set) var notBefore: Int64?
    private(set) var issuedAt: Int64?

    init(_ json: [UInt8]) throws(TokenError) {
        var isSound = true
        try JSONObject.scan(json) { name, value, bytes in
            switch name {
            case "sub": subject = JSONText.string(value, in: bytes)
            case "exp": expiresAt = Self.seconds(value, bytes)
            case "nbf": notBefore = Self.seconds(value, bytes)
            case "iat": issuedAt = Self.seconds(value, bytes)
            default: return
            }
            let wasRead: Bool =
                switch name {
                case "sub": subject != nil
                case "exp": expiresAt != nil
                case "nbf": notBefore != nil
                default: issuedAt != nil
                }
            isSound = isSound && wasRead
        }
        guard isSound else { throw TokenError(.badClaim) }
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

private enum JSONObject {
    /// Calls `body` for each member; names that occur twice make the object malformed (RFC 7515 section 4).
    static func scan(
        _ json: [UInt8],
        _ body: (String, JSONValue, UnsafeRawBufferPointer) -> Void
    ) throws(TokenError) {
        guard String(validating: json, as: UTF8.self) != nil else { throw TokenError(.malformed) }
        var names: Set<String> = []
        var isSound = true
        let scanned = json.withUnsafeBytes { bytes in
            do throws(JSONError) {
                try JSONScanner.scanObject(bytes) { key, value in
                    guard let name = JSONText.string(key, in: bytes), names.insert(name).inserted else {
                        isSound = false
                        return
                    }
                    body(name, value, bytes)
                }
                return true
            } catch {
                return false
            }
        }
        guard scanned, isSound else { throw TokenError(.malformed) }
    }
}
