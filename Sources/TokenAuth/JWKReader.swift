import WireProtocol

/// One JSON Web Key (RFC 7517 section 4), read as far as it is one for signatures of tokens.
struct JWKReader {
    private var strings: [String: String] = [:]
    private var operations: [String]?
    private var unsound: String?

    private static let textMembers: Set<String> = [
        "kty", "kid", "use", "alg", "crv", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y", "k",
    ]

    /// - Parameter range: where in `json` the object stands.
    init(_ json: UnsafeRawBufferPointer, in range: Range<Int>) throws(TokenKeyError) {
        let scanned = JSONObject.scan(json, in: range) { name, value, bytes in
            if Self.textMembers.contains(name) {
                strings[name] = JSONText.string(value, in: bytes)
                if strings[name] == nil { unsound = name }
            } else if name == "key_ops" {
                operations = JSONObject.strings(value, in: bytes)
                if operations == nil { unsound = name }
            }
        }
        guard scanned else { throw TokenKeyError("is no JSON Web Key") }
        if let unsound { throw TokenKeyError("has a member \(unsound) of the wrong form") }
    }

    var id: String? { strings["kid"] }

    /// - Parameter source: what a key may be: nobody publishes a secret.
    func key(from source: TokenKeys.Source) throws(TokenKeyError) -> TokenKey {
        if let use = strings["use"], use != "sig" { throw TokenKeyError("is not for signatures (use)") }
        if let operations, !operations.contains("verify"), !operations.contains("sign") {
            throw TokenKeyError("is not for signatures (key_ops)")
        }
        if let id, !(1...TokenKeys.maximumIDBytes).contains(id.utf8.count) {
            throw TokenKeyError("has a kid that is empty or longer than \(TokenKeys.maximumIDBytes) bytes")
        }
        let key = try keyOfItsType(source)
        if let algorithm = strings["alg"], algorithm != key.algorithm.rawValue {
            throw TokenKeyError("is for another algorithm than \(key.algorithm.rawValue) (alg)")
        }
        return key
    }

    private func keyOfItsType(_ source: TokenKeys.Source) throws(TokenKeyError) -> TokenKey {
        let isPublicOnly = source == .network
        switch (strings["kty"], strings["crv"]) {
        case ("oct", _):
            guard !isPublicOnly else { throw TokenKeyError("is a secret, which no address may publish") }
            return try TokenKey(secret: try bytes("k"), id: id)
        case ("RSA", _):
            return TokenKey(try EVPKey.rsa(try rsaNumbers(publicOnly: isPublicOnly)), id: id)
        case ("EC", "P-256"):
            let secret = isPublicOnly ? nil : try optionalBytes("d")
            return TokenKey(try EVPKey.p256(x: try bytes("x"), y: try bytes("y"), secret: secret), id: id)
        case ("OKP", "Ed25519"):
            let secret = isPublicOnly ? nil : try optionalBytes("d")
            return TokenKey(try EVPKey.ed25519(public: try bytes("x"), secret: secret), id: id)
        default: throw TokenKeyError("is neither oct, nor RSA, nor EC with P-256, nor OKP with Ed25519 (kty, crv)")
        }
    }

    private func rsaNumbers(publicOnly: Bool) throws(TokenKeyError) -> EVPKey.RSANumbers {
        var numbers = EVPKey.RSANumbers(modulus: try bytes("n"), exponent: try bytes("e"))
        guard !publicOnly, let secret = try optionalBytes("d") else { return numbers }
        numbers.privateExponent = secret
        for name in ["p", "q", "dp", "dq", "qi"] {
            guard let factor = try optionalBytes(name) else { return numbers }
            numbers.factors.append(factor)
        }
        return numbers
    }

    private func bytes(_ name: String) throws(TokenKeyError) -> [UInt8] {
        guard let bytes = try optionalBytes(name) else { throw TokenKeyError("has no member \(name)") }
        return bytes
    }

    private func optionalBytes(_ name: String) throws(TokenKeyError) -> [UInt8]? {
        guard let text = strings[name] else { return nil }
        guard let bytes = Base64URL.decode(text.utf8), !bytes.isEmpty else {
            throw TokenKeyError("has a member \(name) that is not base64url without padding")
        }
        return bytes
    }
}
