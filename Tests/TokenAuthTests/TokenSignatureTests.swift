import Testing
import WireProtocol

@testable import TokenAuth

private let now: Int64 = 1_790_000_000
private let payload = "{\"sub\":\"alice\",\"exp\":1790000600}"
/// The order of P-256 (SEC 2 section 2.4.2).
private let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")

private func bytes(_ hex: String) -> [UInt8] {
    let digits = Array(hex)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...($0 + 1)]), radix: 16) ?? 0 }
}

private func input(_ header: String, _ payload: String = payload) -> String {
    Base64URL.encode(Array(header.utf8)) + "." + Base64URL.encode(Array(payload.utf8))
}

private func token(_ header: String, signedBy key: TokenKey) throws -> String {
    let input = input(header)
    return input + "." + Base64URL.encode(try #require(key.sign(Array(input.utf8))))
}

private func keys(_ text: String) throws -> [TokenKey] {
    try TokenKeys(parsing: Array(text.utf8), from: .file).keys
}

private func verifier(_ texts: String...) throws -> TokenVerifier {
    TokenVerifier(keys: TokenKeyRing(try texts.flatMap { try keys($0) }))
}

private func code(_ token: String, _ verifier: TokenVerifier) -> TokenError.Code? {
    do throws(TokenError) {
        _ = try verifier.verify(token, nowSeconds: now)
        return nil
    } catch {
        return error.code
    }
}

@Suite("Signatures of tokens")
struct TokenSignatureTests {
    @Test("what a key signs is accepted by its public half alone", arguments: TokenAlgorithm.allCases)
    func roundTrip(algorithm: TokenAlgorithm) throws {
        let key = try TokenKey.generate(algorithm)
        let token = try TokenMinter(key: key).mint(subject: "alice", issuedAt: now, expiresAt: now + 60)
        let checker = try key.publicJWKS.map { try verifier($0) } ?? TokenVerifier(keys: TokenKeyRing([key]))
        #expect(try checker.verify(token, nowSeconds: now).subject == "alice")
        // Its private JWK and PEM say the same.
        #expect(code(token, try verifier(key.privateJWK)) == nil)
        if let pem = key.privatePEM { #expect(code(token, try verifier(pem)) == nil) }
        let other = TokenVerifier(keys: TokenKeyRing([try TokenKey.generate(algorithm, id: key.id)]))
        #expect(code(token, other) == .badSignature)
    }

    @Test("T2: ECDSA: r and s must lie in 1…n-1 and stand in 32 bytes each")
    func ecdsa() throws {
        let key = try #require(try keys(Fixtures.p256Private).first)
        let verifier = try verifier(Fixtures.p256PEM)
        let input = input("{\"alg\":\"ES256\"}")
        let good = try #require(key.sign(Array(input.utf8)))
        let (r, s) = (Array(good[..<32]), Array(good[32...]))
        let zero = [UInt8](repeating: 0, count: 32)
        let one: [UInt8] = Array(zero.dropLast()) + [1]
        let top = [UInt8](repeating: 0xFF, count: 32)
        let der = try #require(ECDSASignature.der(of: good))
        #expect(ECDSASignature.raw(of: der) == good)
        let bad: [(String, [UInt8])] = [
            ("r = 0", zero + s), ("s = 0", r + zero), ("both 0", zero + zero), ("r = n", order + s),
            ("s = n", r + order),
            ("both n", order + order), ("both 2^256-1", top + top), ("r = 1", one + s), ("s = 1", r + one),
            ("both 1", one + one), ("swapped", s + r), ("DER", der), ("truncated", Array(good.dropLast())),
            ("extended", good + [0]), ("led by a zero", [0] + good), ("each led by a zero", [0] + r + [0] + s),
            ("r alone", r), ("nothing", []), ("64 zero bytes and more", zero + zero + good),
        ]
        #expect(code(input + "." + Base64URL.encode(good), verifier) == nil)
        for (name, signature) in bad {
            #expect(code(input + "." + Base64URL.encode(signature), verifier) == .badSignature, "\(name)")
        }
    }

    @Test("T2: RSA and Ed25519: a signature of another length, or with a bit changed, is refused")
    func lengths() throws {
        for (name, pem) in [("RS256", Fixtures.rsaPrivate), ("EdDSA", Fixtures.ed25519Private)] {
            let key = try #require(try keys(pem).first)
            let verifier = try verifier(pem)
            let input = input("{\"alg\":\"\(name)\"}")
            let good = try #require(key.sign(Array(input.utf8)))
            #expect(code(input + "." + Base64URL.encode(good), verifier) == nil, "\(name)")
            var flipped = good
            flipped[good.count / 2] ^= 0x10
            let bad = [
                [], Array(good.dropLast()), Array(good.dropFirst()), good + [0], [0] + good, flipped,
                [UInt8](repeating: 0, count: good.count), [UInt8](repeating: 0xFF, count: good.count),
                Array(good.dropLast()) + [good[good.count - 1] ^ 1],
            ]
            for (index, signature) in bad.enumerated() {
                #expect(
                    code(input + "." + Base64URL.encode(signature), verifier) == .badSignature, "\(name) case \(index)")
            }
        }
    }

    @Test("T2: a public key is no HMAC secret, and a key is for one algorithm alone")
    func confusion() throws {
        // The attack of RFC 8725 section 2.1: HS256 keyed by what everybody knows.
        let verifier = try verifier(Fixtures.rsaPEM, Fixtures.p256PEM, Fixtures.ed25519PEM)
        let input = input("{\"alg\":\"HS256\"}")
        for pem in [Fixtures.rsaPEM, Fixtures.rsaPEM + "\n", Fixtures.p256PEM, Fixtures.ed25519PEM] {
            let signature = try #require(HMACSHA256.code(key: Array(pem.utf8), message: Array(input.utf8)))
            #expect(code(input + "." + Base64URL.encode(signature), verifier) == .wrongAlgorithm)
        }
        let p256 = try #require(try keys(Fixtures.p256Private).first)
        let rsa = try #require(try keys(Fixtures.rsaPrivate).first)
        // What another key signed under this key's algorithm, and this key's signature under another's.
        #expect(code(try token("{\"alg\":\"RS256\"}", signedBy: p256), verifier) == .badSignature)
        #expect(code(try token("{\"alg\":\"ES256\"}", signedBy: rsa), verifier) == .badSignature)
        let rsaID = try #require(rsa.id)
        #expect(
            code(try token("{\"alg\":\"ES256\",\"kid\":\"\(rsaID)\"}", signedBy: p256), verifier) == .wrongAlgorithm)
        #expect(
            code(try token("{\"alg\":\"ES256\"}", signedBy: p256), try self.rsaOnly()) == .wrongAlgorithm)
    }

    private func rsaOnly() throws -> TokenVerifier { try verifier(Fixtures.rsaPEM) }

    @Test(
        "T2: no algorithm but the four is known, none in no spelling",
        arguments: [
            "none", "None", "NONE", "nOnE", "none ", "", "HS512", "HS384", "RS384", "RS512", "PS256", "ES384", "ES512",
            "ES256K", "hs256", "Es256", "eddsa", "Ed25519", "EdDSA ", "dir", "A128KW",
        ])
    func algorithms(name: String) throws {
        let secret = try TokenKey(secret: Array(repeating: 7, count: 32))
        let keys = [secret] + (try keys(Fixtures.rsaPrivate)) + (try keys(Fixtures.p256Private))
        let verifier = TokenVerifier(keys: TokenKeyRing(keys))
        let header = "{\"alg\":\"\(name)\"}"
        #expect(code(input(header) + ".", verifier) == .wrongAlgorithm)
        for key in keys { #expect(code(try token(header, signedBy: key), verifier) == .wrongAlgorithm) }
    }

    @Test("a kid chooses the key, and only the key")
    func keyID() throws {
        let one = try TokenKey.generate(.es256, id: "one")
        let two = try TokenKey.generate(.es256, id: "two")
        let plain = try #require(try keys(Fixtures.p256Private).first)
        let ring = TokenKeyRing([one, two])
        let verifier = TokenVerifier(keys: ring)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"one\"}", signedBy: one), verifier) == nil)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"two\"}", signedBy: one), verifier) == .badSignature)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"three\"}", signedBy: one), verifier) == .unknownKey)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"\"}", signedBy: one), verifier) == .unknownKey)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":1}", signedBy: one), verifier) == .malformed)
        #expect(code(try token("{\"alg\":\"ES256\"}", signedBy: two), verifier) == nil)
        // A key out of a PEM file has no name of its own: it is for all that no named key is for.
        ring.replace(own: [one, two, plain])
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"three\"}", signedBy: plain), verifier) == nil)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"three\"}", signedBy: one), verifier) == .badSignature)
        #expect(code(try token("{\"alg\":\"ES256\",\"kid\":\"one\"}", signedBy: plain), verifier) == .badSignature)
        // Without a kid no more than four keys are tried.
        let many = try (0..<5).map { try TokenKey.generate(.edDSA, id: "key-\($0)") }
        ring.replace(own: many)
        #expect(code(try token("{\"alg\":\"EdDSA\"}", signedBy: many[0]), verifier) == .unknownKey)
        #expect(code(try token("{\"alg\":\"EdDSA\",\"kid\":\"key-0\"}", signedBy: many[0]), verifier) == nil)
    }

    @Test("T2: keys that a token brings along or points to are ignored")
    func embedded() throws {
        let attacker = try TokenKey.generate(.es256)
        let jwk = attacker.publicJWKS.map { String($0.dropFirst(9).dropLast(2)) } ?? ""
        let verifier = try verifier(Fixtures.p256PEM)
        for member in [
            "\"jwk\":\(jwk)", "\"jku\":\"http://127.0.0.1:1/keys\"", "\"x5u\":\"http://127.0.0.1:1/c.pem\"",
            "\"x5c\":[\"MIIB\"]", "\"jwk\":\(jwk),\"kid\":\"x\"",
        ] {
            #expect(
                code(try token("{\"alg\":\"ES256\",\(member)}", signedBy: attacker), verifier) == .badSignature,
                "\(member)")
        }
    }

    @Test("T2: extensions, other purposes, and loose spelling are refused even when signed")
    func headers() throws {
        let key = try TokenKey(secret: Array(repeating: 7, count: 32))
        let verifier = TokenVerifier(keys: TokenKeyRing([key]))
        let cases: [(String, TokenError.Code?)] = [
            ("{\"alg\":\"HS256\",\"typ\":\"JWT\"}", nil), ("{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", nil),
            ("{\"alg\":\"HS256\",\"typ\":\"application/at+jwt\"}", nil), ("{\"alg\":\"HS256\",\"typ\":\"jwt\"}", nil),
            ("{\"alg\":\"HS256\",\"typ\":\"logout+jwt\"}", .wrongType),
            ("{\"alg\":\"HS256\",\"typ\":\"dpop+jwt\"}", .wrongType), ("{\"alg\":\"HS256\",\"typ\":\"\"}", .wrongType),
            ("{\"alg\":\"HS256\",\"typ\":1}", .malformed), ("{\"alg\":\"HS256\",\"crit\":[]}", .unsupportedHeader),
            ("{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}", .unsupportedHeader),
            ("{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}", .unsupportedHeader),
            ("{\"alg\":\"HS256\",\"alg\":\"HS256\"}", .malformed),
            ("{\"alg\":\"HS256\",\"al\\u0067\":\"none\"}", .malformed), ("{\"alg\":[\"HS256\"]}", .wrongAlgorithm),
            (" {\"alg\":\"HS256\"} ", nil), ("{\"alg\":\"HS256\"}}", .malformed), ("{\"alg\":\"HS256\"", .malformed),
        ]
        for (header, expected) in cases {
            #expect(code(try token(header, signedBy: key), verifier) == expected, "\(header)")
        }
        let good = try token("{\"alg\":\"HS256\"}", signedBy: key)
        let parts = good.split(separator: ".").map(String.init)
        for loose in [
            good + "=", good + "==", good + "\n", " " + good, good + ".", good.replacing(".", with: ". "),
            parts[0] + "=." + parts[1] + "." + parts[2], parts[0] + "." + parts[1] + "=." + parts[2],
            parts[0] + "." + parts[1] + "\n." + parts[2], good.replacing(".", with: "\u{FF0E}"),
            parts[0] + "." + parts[1] + "." + parts[2].replacing("-", with: "+").replacing("_", with: "/") + "=",
            parts[0] + "." + parts[1], parts[1] + "." + parts[2],
        ] {
            #expect(code(loose, verifier) == .malformed, "\(loose)")
        }
        for other in [good + "A", parts[0] + ".." + parts[2]] { #expect(code(other, verifier) == .badSignature) }
        // The last character has two bits that no byte uses: only one spelling of them is right.
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        let last = try #require(good.last.flatMap { alphabet.firstIndex(of: $0) })
        for other in [last ^ 1, last ^ 2, last ^ 3] {
            #expect(code(String(good.dropLast()) + String(alphabet[other]), verifier) == .malformed)
        }
    }
}
