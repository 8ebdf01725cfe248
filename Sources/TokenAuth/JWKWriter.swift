import COpenSSL
import WireProtocol

/// Keys as JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037 section 2).
enum JWKWriter {
    static func text(_ key: TokenKey, withPrivate: Bool) -> String {
        var json = JSONWriter()
        json.beginObject()
        for (name, value) in members(key.material, withPrivate: withPrivate) { json.member(name, value) }
        if let id = key.id { json.member("kid", id) }
        json.member("alg", key.algorithm.rawValue)
        json.member("use", "sig")
        json.endObject()
        return json.string
    }

    /// RFC 7638: SHA-256 of the required members in their order.
    static func thumbprint(of key: EVPKey) -> String {
        var json = JSONWriter()
        json.beginObject()
        for (name, value) in members(.pair(key), withPrivate: false).sorted(by: { $0.0 < $1.0 }) {
            json.member(name, value)
        }
        json.endObject()
        var digest = [UInt8](repeating: 0, count: 32)
        EVP_Digest(json.bytes, json.bytes.count, &digest, nil, EVP_sha256(), nil)
        return Base64URL.encode(digest)
    }

    private static func members(_ material: TokenKey.Material, withPrivate: Bool) -> [(String, String)] {
        switch material {
        case .secret(let secret): [("kty", "oct"), ("k", Base64URL.encode(secret))]
        case .pair(let key): members(key, withPrivate: withPrivate && key.isPrivate)
        }
    }

    private static func members(_ key: EVPKey, withPrivate: Bool) -> [(String, String)] {
        var members: [(String, String)] = []
        func add(_ name: String, _ bytes: [UInt8]?) {
            if let bytes { members.append((name, Base64URL.encode(bytes))) }
        }
        switch key.kind {
        case .rsa:
            members = [("kty", "RSA")]
            add("n", key.number("n"))
            add("e", key.number("e"))
            if withPrivate {
                add("d", key.number("d"))
                add("p", key.number("rsa-factor1"))
                add("q", key.number("rsa-factor2"))
                add("dp", key.number("rsa-exponent1"))
                add("dq", key.number("rsa-exponent2"))
                add("qi", key.number("rsa-coefficient1"))
            }
        case .p256:
            members = [("kty", "EC"), ("crv", "P-256")]
            add("x", key.number("qx", length: 32))
            add("y", key.number("qy", length: 32))
            if withPrivate { add("d", key.number("priv", length: 32)) }
        case .ed25519:
            members = [("kty", "OKP"), ("crv", "Ed25519")]
            add("x", key.raw(private: false))
            if withPrivate { add("d", key.raw(private: true)) }
        }
        return members
    }
}
