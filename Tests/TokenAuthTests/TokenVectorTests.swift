import Testing
import WireProtocol

@testable import TokenAuth

private func key(_ json: String) throws -> TokenKey {
    try #require(try TokenKeys(parsing: Array(json.utf8), from: .file).keys.first)
}

private func pair(_ key: TokenKey) throws -> EVPKey {
    guard case .pair(let pair) = key.material else { throw TokenKeyError("is a secret") }
    return pair
}

@Suite("Published vectors of tokens")
struct TokenVectorTests {
    /// Their payload has no `sub`: getting as far as that shows that the signature was accepted.
    @Test(
        "T2: the signatures of RFC 7515 A.2 and A.3 are right, and any changed character makes them wrong",
        arguments: [(Fixtures.rfc7515RSA, Fixtures.rfc7515RS256), (Fixtures.rfc7515EC, Fixtures.rfc7515ES256)])
    func rfc7515(jwk: String, token: String) throws {
        let verifier = TokenVerifier(keys: TokenKeyRing([try key(jwk)]))
        #expect(throws: TokenError(.missingSubject)) { try verifier.verify(token, nowSeconds: 1_300_819_000) }
        #expect(throws: TokenError(.expired)) { try verifier.verify(token, nowSeconds: 1_300_819_410) }
        let characters = Array(token)
        for index in characters.indices where characters[index] != "." {
            var changed = characters
            changed[index] = changed[index] == "A" ? "B" : "A"
            let error = #expect(throws: TokenError.self) {
                try verifier.verify(String(changed), nowSeconds: 1_300_819_000)
            }
            #expect(error?.code != .missingSubject, "character \(index)")
        }
    }

    @Test("the signature of RFC 8037 A.4 is made and accepted")
    func rfc8037() throws {
        let pair = try pair(try key(Fixtures.rfc8037))
        let input = Array("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".utf8)
        let signature = try #require(pair.sign(input))
        #expect(
            Base64URL.encode(signature)
                == "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
        #expect(pair.verifies(signature, of: input))
        for index in signature.indices {
            var changed = signature
            changed[index] ^= 1
            #expect(!pair.verifies(changed, of: input), "byte \(index)")
        }
        #expect(!pair.verifies(signature, of: input + [0]))
    }

    @Test("the thumbprints of RFC 7638 section 3.1 and RFC 8037 A.3")
    func thumbprints() throws {
        #expect(
            JWKWriter.thumbprint(of: try pair(try key(Fixtures.rfc7638)))
                == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs")
        #expect(try key(Fixtures.rfc8037).id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")
    }
}
