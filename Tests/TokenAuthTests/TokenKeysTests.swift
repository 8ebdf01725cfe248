import Testing

@testable import TokenAuth

private func parse(_ text: String, from source: TokenKeys.Source = .file) throws(TokenKeyError) -> TokenKeys {
    try TokenKeys(parsing: Array(text.utf8), from: source)
}

private let point =
    "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\",\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\""
private let ec = "\"kty\":\"EC\",\"crv\":\"P-256\",\(point)"
private let oct = "\"kty\":\"oct\",\"k\":\"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0i\""

@Suite("Keys for tokens")
struct TokenKeysTests {
    @Test("PEM files hold public and private keys, several in one file")
    func pem() throws {
        #expect(try parse(Fixtures.p256PEM).keys.map(\.algorithm) == [.es256])
        #expect(try parse(Fixtures.rsaPEM).keys.map(\.canSign) == [false])
        #expect(try parse(Fixtures.rsaPrivate).keys.map(\.canSign) == [true])
        let all = try parse(
            "Some words\n"
                + [Fixtures.p256SEC1, Fixtures.rsaPEM, Fixtures.ed25519PEM].joined(separator: "\n")
                .replacing("\n", with: "\r\n"))
        #expect(all.keys.map(\.algorithm) == [.es256, .rs256, .edDSA])
        #expect(all.keys.allSatisfy { $0.givenID == nil && $0.id?.utf8.count == 43 })
        // One key, however it is written.
        #expect(
            Set(
                try [Fixtures.p256PEM, Fixtures.p256Private, Fixtures.p256SEC1].flatMap {
                    try parse($0).keys.map(\.id)
                }
            ).count == 1)
    }

    @Test(
        "what is no key for tokens is refused with what is wrong",
        arguments: [
            (Fixtures.p384PEM, "P-256"), (Fixtures.secp256k1PEM, "P-256"), (Fixtures.rsa1024PEM, "1024 bits"),
            (Fixtures.ed448PEM, "Ed25519"), (Fixtures.encryptedPEM, "PRIVATE KEY"),
            (Fixtures.certificate, "openssl x509"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds no key"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "holds no key"), ("", "neither PEM nor"), ("[]", "neither PEM nor"),
            ("{", "neither PEM nor"), ("{\"keys\":[]}", "holds no key"), ("{\"keys\":1}", "oct"),
        ])
    func refused(text: String, word: String) {
        let error = #expect(throws: TokenKeyError.self) { try parse(text) }
        #expect(error?.description.contains(word) == true, "\(String(describing: error))")
    }

    @Test("a JSON Web Key is for its algorithm, and honours use, alg and key_ops")
    func jwk() throws {
        for good in [
            "{\(ec)}", "{\(ec),\"alg\":\"ES256\",\"use\":\"sig\",\"key_ops\":[\"verify\"],\"kid\":\"a\",\"x5t\":1}",
            "{\(oct)}", "{\(oct),\"key_ops\":[\"sign\",\"verify\"],\"alg\":\"HS256\"}", Fixtures.rfc8037,
            Fixtures.rfc7515RSA, Fixtures.rfc7515EC,
        ] {
            #expect(try parse(good).keys.count == 1, "\(good)")
        }
        for (bad, word) in [
            ("{\(ec),\"use\":\"enc\"}", "use"), ("{\(ec),\"key_ops\":[\"encrypt\"]}", "key_ops"),
            ("{\(ec),\"key_ops\":\"verify\"}", "key_ops"), ("{\(ec),\"alg\":\"ES384\"}", "alg"),
            ("{\(ec),\"alg\":\"HS256\"}", "alg"), ("{\(ec),\"kid\":7}", "kid"), ("{\(ec),\"kid\":\"\"}", "kid"),
            ("{\(ec),\"kty\":\"EC\"}", "neither PEM nor"), ("{\"kty\":\"EC\",\"crv\":\"P-384\",\(point)}", "crv"),
            ("{\"kty\":\"EC\",\(point)}", "crv"), ("{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"AA\"}", "crv"),
            ("{\"kty\":\"oct\",\"k\":\"AyM1\"}", "32 bytes"), ("{\"kty\":\"oct\"}", "member k"),
            ("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}", "32 bytes"),
            ("{\(ec.replacing("f83O", with: "f83P"))}", "no valid key"),
            ("{\(ec.replacing("RVEU", with: "RVEU="))}", "x"),
            ("{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}", "bits"),
            ("{\"kty\":\"RSA\",\"n\":\"AQAB\"}", "member e"),
            ("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}", "32 bytes"),
            (Fixtures.rfc8037.replacing("11qYAY", with: "11qYAZ"), "belong"),
            (Fixtures.rfc7515EC.replacing("jpsQ", with: "jpsR"), "belong"),
        ] {
            let error = #expect(throws: TokenKeyError.self, "\(bad)") { try parse(bad) }
            #expect(error?.description.contains(word) == true, "\(bad): \(String(describing: error))")
        }
    }

    @Test("T2: of a set, keys that are not for tokens are left out and told, and a published secret is none")
    func sets() throws {
        let text = "{\"keys\":[{\(ec),\"kid\":\"a\"},{\"kty\":\"EC\",\"crv\":\"P-521\"},{\(oct)},7]}"
        let file = try parse(text)
        #expect(file.keys.map(\.id) == ["a", nil])
        #expect(file.ignored.count == 2)
        let fetched = try parse(text, from: .network)
        #expect(fetched.keys.map(\.id) == ["a"])
        #expect(fetched.ignored.contains { $0.hasPrefix("key 3 is a secret") })
        // Nobody should publish a private key; nothing is signed with one that somebody did.
        let leaked = try parse("{\"keys\":[\(Fixtures.rfc7515EC),\(Fixtures.rfc8037)]}", from: .network)
        #expect(leaked.keys.map(\.canSign) == [false, false])
        #expect(throws: TokenKeyError.self) { try parse("{\(ec)}", from: .network) }
        #expect(throws: TokenKeyError.self) { try parse(Fixtures.p256PEM, from: .network) }
        let many = "{\"keys\":[" + Array(repeating: "{\(ec)}", count: 101).joined(separator: ",") + "]}"
        #expect(throws: TokenKeyError.self) { try parse(many) }
        #expect(throws: TokenKeyError.self) { try parse(String(repeating: " ", count: 300_000)) }
    }

    @Test("T4: a set without a key that can be used is a set where it was fetched, and what is no set is none")
    func emptySets() throws {
        for (text, ignored) in [
            ("{\"keys\":[]}", 0), ("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-384\",\(point)},{\(oct)}]}", 2),
        ] {
            let fetched = try parse(text, from: .network)
            #expect(fetched.keys.isEmpty && fetched.ignored.count == ignored)
        }
        for bad in ["", "[]", "{}", "{", "{\"keys\":1}", "{\"keys\":{}}", "{\"keys\":[]", "{\"keys\":[}", "null"] {
            #expect(throws: TokenKeyError.self, "\(bad)") { try parse(bad, from: .network) }
        }
        let verifier = TokenVerifier(keys: TokenKeyRing([]))
        let token = try TokenMinter(key: try TokenKey.generate(.es256)).mint(subject: "a", expiresAt: 2_000_000_000)
        #expect(throws: TokenError(.unknownKey)) { try verifier.verify(token, nowSeconds: 0) }
    }

    @Test("public halves do not sign, and do not show the private")
    func halves() throws {
        for algorithm in [TokenAlgorithm.rs256, .es256, .edDSA] {
            let key = try TokenKey.generate(algorithm)
            let json = try #require(key.publicJWKS)
            let half = try #require(try parse(json, from: .network).keys.first)
            #expect(!json.contains("\"d\"") && !json.contains("\"p\"") && half.id == key.id && !half.canSign)
            #expect(half.privatePEM == nil)
            #expect(throws: TokenKeyError.self) { try TokenMinter(key: half) }
        }
        #expect(try TokenKey.generate(.hs256).publicJWKS == nil)
    }

    @Test("T4: while keys are fetched a token that none fits may come again, and one that a key refuses may not")
    func missing() throws {
        let known = try TokenKey.generate(.es256, id: "known")
        let new = try TokenKey.generate(.es256, id: "new")
        let ring = TokenKeyRing([known])
        ring.setMissing { $0 == "new" ? 700 : nil }
        let verifier = TokenVerifier(keys: ring)
        let token = { (key: TokenKey, id: String) throws in
            try TokenMinter(key: key, keyID: id).mint(subject: "a", expiresAt: 2_000_000_000)
        }
        let later = TokenError(.keysUnavailable, retryAfterMilliseconds: 700)
        #expect(throws: later) { try verifier.verify(try token(new, "new"), nowSeconds: 0) }
        #expect(throws: TokenError(.unknownKey)) { try verifier.verify(try token(new, "other"), nowSeconds: 0) }
        #expect(throws: TokenError(.badSignature)) { try verifier.verify(try token(new, "known"), nowSeconds: 0) }
        let secret = try TokenKey.generate(.hs256, id: "new")
        #expect(throws: TokenError(.wrongAlgorithm)) { try verifier.verify(try token(secret, "new"), nowSeconds: 0) }
        ring.replace(fetched: [new])
        #expect(try verifier.verify(try token(new, "new"), nowSeconds: 0).subject == "a")
        #expect(try verifier.verify(try token(known, "known"), nowSeconds: 0).subject == "a")
    }
}
