import Testing

@testable import TokenAuth

private func bytes(_ hex: String) -> [UInt8] {
    var result: [UInt8] = []
    var rest = Substring(hex)
    while rest.count >= 2 {
        result.append(UInt8(rest.prefix(2), radix: 16) ?? 0)
        rest = rest.dropFirst(2)
    }
    return result
}

@Suite("Key derivation")
struct KeyDerivationTests {
    /// RFC 5869 appendix A, the cases for SHA-256.
    @Test("the test cases of RFC 5869")
    func rfc5869() {
        #expect(
            KeyDerivation.hkdf(
                key: Array(repeating: 0x0B, count: 22),
                salt: bytes("000102030405060708090a0b0c"),
                info: bytes("f0f1f2f3f4f5f6f7f8f9"),
                length: 42
            ) == bytes("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
        )
        #expect(
            KeyDerivation.hkdf(key: Array(0x00...0x4F), salt: Array(0x60...0xAF), info: Array(0xB0...0xFF), length: 82)
                == bytes(
                    "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
                        + "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
                )
        )
        #expect(
            KeyDerivation.hkdf(key: Array(repeating: 0x0B, count: 22), salt: [], info: [], length: 42)
                == bytes("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
        )
    }

    @Test("purposes give different keys, also of an empty secret, and lengths are bounded")
    func purposes() {
        let affinity = KeyDerivation.deriveKey(secret: "cluster", purpose: "affinity", length: 16)
        #expect(affinity.count == 16)
        #expect(affinity != KeyDerivation.deriveKey(secret: "cluster", purpose: "cookie", length: 16))
        #expect(affinity == KeyDerivation.deriveKey(secret: "cluster", purpose: "affinity", length: 16))
        #expect(KeyDerivation.deriveKey(secret: "", purpose: "affinity", length: 16).count == 16)
        #expect(KeyDerivation.hkdf(key: [1], salt: [], info: [], length: 8161) == nil)
        #expect(KeyDerivation.hkdf(key: [1], salt: [], info: [], length: 0) == nil)
    }
}
