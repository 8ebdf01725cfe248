import COpenSSL
import WireProtocol

/// A key for tokens, and the one algorithm that it is for.
package struct TokenKey: Sendable {
    enum Material: Sendable {
        case secret([UInt8])
        case pair(EVPKey)
    }

    package let algorithm: TokenAlgorithm
    /// What its file or its issuer calls it (`kid`); `nil`: it has no name, and is tried for tokens that no named key is for.
    package let givenID: String?
    /// What tokens name it by: the given name, else the thumbprint. A secret has no thumbprint, which would be a hash of it.
    package let id: String?
    let material: Material

    /// For HS256.
    ///
    /// - Throws: for fewer than 32 bytes (RFC 7518 section 3.2), and for a PEM key: who knows a public key must not be able
    ///   to sign with it (RFC 8725 section 2.1).
    package init(secret: [UInt8], id: String? = nil) throws(TokenKeyError) {
        guard secret.count >= 32 else { throw TokenKeyError("must have at least 32 bytes") }
        guard !PEM.isText(secret) else {
            throw TokenKeyError("is a PEM key, not a secret: name its file in MARTLET_TOKEN_KEYS")
        }
        algorithm = .hs256
        givenID = id
        self.id = id
        material = .secret(secret)
    }

    init(_ key: EVPKey, id: String?) {
        algorithm =
            switch key.kind {
            case .rsa: .rs256
            case .p256: .es256
            case .ed25519: .edDSA
            }
        givenID = id
        self.id = id ?? JWKWriter.thumbprint(of: key)
        material = .pair(key)
    }

    /// A new one, named by its thumbprint (RFC 7638), or a secret by random characters, unless `id` says otherwise.
    package static func generate(_ algorithm: TokenAlgorithm, id: String? = nil) throws(TokenKeyError) -> TokenKey {
        let kind: EVPKey.Kind
        switch algorithm {
        case .hs256:
            let secret = (0..<32).map { _ in UInt8.random(in: 0...255) }
            return try TokenKey(secret: secret, id: id ?? Base64URL.random(count: 11))
        case .rs256: kind = .rsa
        case .es256: kind = .p256
        case .edDSA: kind = .ed25519
        }
        return TokenKey(try EVPKey.generate(kind), id: id)
    }

    /// Whether it can sign: a secret, or a private key.
    package var canSign: Bool {
        switch material {
        case .secret: true
        case .pair(let key): key.isPrivate
        }
    }

    package var isSecret: Bool {
        if case .secret = material { true } else { false }
    }

    func verifies(_ signature: [UInt8], of input: [UInt8]) -> Bool {
        switch material {
        case .secret(let secret):
            guard let expected = HMACSHA256.code(key: secret, message: input) else { return false }
            return HMACSHA256.areEqual(expected, signature)
        case .pair(let key): return key.verifies(signature, of: input)
        }
    }

    /// `nil` without a private half.
    func sign(_ input: [UInt8]) -> [UInt8]? {
        switch material {
        case .secret(let secret): HMACSHA256.code(key: secret, message: input)
        case .pair(let key): key.sign(input)
        }
    }

    /// PKCS #8 text; `nil` for a secret, and without a private half.
    package var privatePEM: String? {
        guard case .pair(let key) = material else { return nil }
        return key.privatePEM
    }

    /// A JWK (RFC 7517) of all that is known, one line.
    package var privateJWK: String { JWKWriter.text(self, withPrivate: true) }

    /// A JWK Set of the public half, for a JWKS address or MARTLET_TOKEN_KEYS; `nil` for a secret.
    package var publicJWKS: String? {
        isSecret ? nil : "{\"keys\":[" + JWKWriter.text(self, withPrivate: false) + "]}"
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
