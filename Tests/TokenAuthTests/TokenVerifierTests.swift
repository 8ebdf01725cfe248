import Testing
import WireProtocol

@testable import TokenAuth

private let secret = Array("0123456789abcdef0123456789abcdef".utf8)
private let now: Int64 = 1_790_000_000
private let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

private func verify(_ token: String, at time: Int64 = now) throws -> TokenClaims {
    try TokenVerifier(secret: secret).verify(token, nowSeconds: time)
}

private func sign(_ header: String, _ payload: String, with key: [UInt8] = secret) throws -> String {
    let input = Base64URL.encode(Array(header.utf8)) + "." + Base64URL.encode(Array(payload.utf8))
    return input + "." + Base64URL.encode(try #require(HMACSHA256.code(key: key, message: Array(input.utf8))))
}

/// Made with PyJWT 2.15.1, and why each is refused.
private let refusedTokens: [(String, TokenError.Code)] = [
    (
        """
        eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbGljZSJ9.
        """, .wrongAlgorithm
    ),
    (
        """
        eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSJ9.LqOWMLYZG4vzYGKh5s7ZtH4HiQeTW3X-\
        YIkX7If66GjmPPNusY5XZHasgQ1euqMGifTmUUArenUWeKqKXNZGYg
        """, .wrongAlgorithm
    ),
    (
        """
        eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSJ9.-zoSBuYxoAdwYDze486V7U6ZyKBJzbqM\
        ReZsds9fNpKqVJzlOTLEgLl0fz-cWaWv
        """, .wrongAlgorithm
    ),
    (
        """
        eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSJ9.wAsL-3Gont-49avVyKx3QSMBZlb-lT93\
        miAh_hbLMRw
        """, .badSignature
    ),
    (
        """
        eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiYjY0Il0sInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSJ9.Ng86qHQpw2Ag\
        JzMy3-qcA5Ql2erdluHpbKY1Bg1pKSI
        """, .unsupportedHeader
    ),
    (
        """
        eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTAwMDM2MDB9.trLfVKpQdjkMKD_ZtnPS39S752yj\
        6sV316jJFG5JtvI
        """, .missingSubject
    ),
    (
        """
        eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOjQyfQ.rof5Ip-IcTfUos9DkeTxcw5XjQXQyGoOxIFhlp\
        5VQPA
        """, .badClaim
    ),
    (
        """
        eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6IjE3OTAwMDM2MDAifQ.ei4gp3\
        eb9Ypm1jq04KdX4hPjHkmBH0N0iGTvlMS_na8
        """, .badClaim
    ),
]

@Suite("Tokens")
struct TokenVerifierTests {
    /// Made with PyJWT 2.15.1.
    @Test("tokens that PyJWT made are read")
    func pyJWT() throws {
        let plain =
            header
            + ".eyJzdWIiOiJhbGljZSIsImlhdCI6MTc5MDAwMDAwMCwiZXhwIjoxNzkwMDAzNjAwfQ.PpISKhWPI5LP"
            + "h8f4vbr5UQIbzWW3DDpNhiYsAi_g2Kk"
        #expect(try verify(plain) == TokenClaims(subject: "alice", expiresAt: now + 3600, issuedAt: now))
        let unicode =
            header
            + ".eyJzdWIiOiJnclx1MDBmY1x1MDBkZmUgXHVkODNkXHVkYzI2IiwiYXVkIjoiY2hhdCIsIm"
            + "V4cCI6MTc5MDAwMzYwMH0.on6AZpNejugNjgpqc9EXSMNmLixA4lgsJfkcGvvw0Sc"
        #expect(throws: TokenError(.wrongAudience)) { try verify(unicode) }
        let chat = TokenVerifier(keys: TokenKeyRing([try TokenKey(secret: secret)]), audience: "chat")
        #expect(try chat.verify(unicode, nowSeconds: now).subject == "grüße 🐦")
        let noExpiry = header + ".eyJzdWIiOiJjYXJvbCJ9.6TFSrXkaO-lLgTI3FNaLYMeLcuUCouPdrnqQoVkV8so"
        #expect(throws: TokenError(.missingExpiry)) { try verify(noExpiry) }
        let fraction =
            header
            + ".eyJzdWIiOiJhbGljZSIsImV4cCI6MTc5MDAwMzYwMC41fQ.oHFOtj--p0HU3D7y24mfmq4huYEyyakXDqNn35UI2W8"
        #expect(try verify(fraction).expiresAt == now + 3600)
    }

    @Test("T2: tokens that PyJWT made are refused where they must be", arguments: refusedTokens)
    func refused(token: String, code: TokenError.Code) {
        let error = #expect(throws: TokenError.self) { try verify(token) }
        #expect(error?.code == code)
    }

    /// RFC 7515 appendix A.1. Its payload has no `sub`: getting as far as that shows that the signature was accepted.
    @Test("T2: the signature of RFC 7515 A.1 is right, and any changed character makes it wrong")
    func rfc7515() throws {
        let encodedKey =
            "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0i"
            + "PS4hcgUuTwjAzZr1Z9CAow"
        let key = try #require(Base64URL.decode(encodedKey.utf8))
        let token =
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTk"
            + "zODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbU" + "JU1p1r_wW1gFWFOEjXk"
        let verifier = try TokenVerifier(secret: key)
        let time: Int64 = 1_300_819_000
        #expect(throws: TokenError(.missingSubject)) { try verifier.verify(token, nowSeconds: time) }
        #expect(throws: TokenError(.expired)) { try verifier.verify(token, nowSeconds: 1_300_819_410) }
        let characters = Array(token)
        for index in characters.indices where characters[index] != "." {
            var changed = characters
            changed[index] = changed[index] == "A" ? "B" : "A"
            let error = #expect(throws: TokenError.self) { try verifier.verify(String(changed), nowSeconds: time) }
            #expect(error?.code != .missingSubject, "character \(index)")
        }
    }

    @Test("T3: exp and nbf have 30 seconds of leeway, not one more")
    func leeway() throws {
        let minter = try TokenMinter(secret: secret)
        let expiring = try minter.mint(subject: "a", expiresAt: now)
        #expect(try verify(expiring, at: now + 29).subject == "a")
        #expect(throws: TokenError(.expired)) { try verify(expiring, at: now + 30) }
        let early = try minter.mint(subject: "a", expiresAt: now + 60, notBefore: now)
        #expect(try verify(early, at: now - 30).subject == "a")
        #expect(throws: TokenError(.notYetValid)) { try verify(early, at: now - 31) }
    }

    @Test(
        "what is not a token is malformed",
        arguments: [
            "", ".", "..", "a.b", "a.b.c.d", "e30.e30.e30=", "e30.e30.e3 0", "e30.e3\n0.e30", "e31.e30.e30",
            "!!!.e30.e30",
            "e30.W10.", "bnVsbA.e30.",
        ]
    )
    func malformed(token: String) {
        let error = #expect(throws: TokenError.self) { try verify(token) }
        #expect(error?.code == .malformed || error?.code == .wrongAlgorithm)
    }

    @Test("a name that stands twice, broken JSON, and times out of range are refused even when signed")
    func signedNonsense() throws {
        let good = "{\"alg\":\"HS256\"}"
        let cases: [(String, String, TokenError.Code)] = [
            ("{\"alg\":\"none\",\"alg\":\"HS256\"}", "{\"sub\":\"a\"}", .malformed),
            (good, "{\"sub\":\"a\",\"sub\":\"b\"}", .malformed),
            (good, "{\"sub\":\"a\"", .malformed),
            (good, "[]", .malformed),
            (good, "{\"sub\":\"a\",\"exp\":1e300}", .badClaim),
            (good, "{\"sub\":\"a\",\"exp\":9223372036854775807}", .badClaim),
            (good, "{\"sub\":\"a\",\"exp\":-9223372036854775808}", .badClaim),
            (good, "{\"sub\":\"a\",\"exp\":null}", .badClaim),
            (good, "{\"sub\":\"\",\"exp\":2e9}", .missingSubject),
            ("{\"alg\":\"hs256\"}", "{\"sub\":\"a\"}", .wrongAlgorithm),
            ("{}", "{\"sub\":\"a\"}", .wrongAlgorithm),
        ]
        for (header, payload, code) in cases {
            let token = try sign(header, payload)
            let error = #expect(throws: TokenError.self, "\(header) \(payload)") { try verify(token) }
            #expect(error?.code == code, "\(header) \(payload)")
        }
        #expect(throws: TokenError(.malformed)) {
            try verify(sign(good, "{\"sub\":\"\(String(repeating: "a", count: 9000))\"}"))
        }
    }

    @Test("T2: secrets under 32 bytes are refused, and PEM keys, which are no secrets")
    func weakSecret() {
        #expect(throws: TokenKeyError.self) { try TokenVerifier(secret: Array(repeating: 1, count: 31)) }
        #expect(throws: TokenKeyError.self) { try TokenMinter(secret: []) }
        #expect(throws: TokenKeyError.self) { try TokenVerifier(secret: Array(Fixtures.p256PEM.utf8)) }
    }

    @Test("the subject for routing is read without any check")
    func unverifiedSubject() throws {
        #expect(TokenVerifier.unverifiedSubject(of: header + ".eyJzdWIiOiJhbGljZSJ9.AAAA") == "alice")
        #expect(TokenVerifier.unverifiedSubject(of: "nonsense") == nil)
        #expect(TokenVerifier.unverifiedSubject(of: header + ".e30.AAAA") == nil)
    }

    @Test("base64url round-trips at every length")
    func base64URL() {
        for count in 0..<70 {
            let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 151 &+ count) }
            #expect(Base64URL.decode(Base64URL.encode(bytes).utf8) == bytes)
        }
        #expect(Base64URL.encode(Array("foob".utf8)) == "Zm9vYg")
        #expect(Base64URL.decode("Zm9vYh".utf8) == nil)
    }
}
