#if DEBUG || FUZZING
import COpenSSL
import TokenAuth
import WireProtocol

private let secret = Array("a secret of the tests, 32 bytes!".utf8)
private let now: Int64 = 1_790_000_000

/// A token, or, behind a 1, the header and the payload of one in two lines, which is then signed as it should be: bytes
/// alone never get past the signature.
///
/// 1. Only what is signed with the key's algorithm is taken, and says whose it is.
/// 2. With one bit of it turned it is not taken.
///
/// Behind a 2 or a 3 keys, as a file and as an address gives them.
///
/// 3. What is taken for a key is one, and written as a public key it is the same; none that is published is a secret.
///
/// Behind a 4 the signature of a token by a key whose private half nobody here has: it is never taken.
func fuzzTokens(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let (choice, bytes) = input.splitFirst()
    switch choice {
    case UInt8(ascii: "1"): try checkSigned(bytes)
    case UInt8(ascii: "2"): try checkKeys(bytes, from: .file)
    case UInt8(ascii: "3"): try checkKeys(bytes, from: .network)
    case UInt8(ascii: "4"): try checkSignature(bytes)
    default:
        guard let token = bytes.text, let verifier = try? TokenVerifier(secret: secret) else { return }
        _ = TokenVerifier.unverifiedSubject(of: token)
        _ = try? TokenText(unverified: token)
        try hold("nobody guesses a signature", (try? verifier.verify(token, nowSeconds: now)) == nil)
    }
}

private func checkKeys(_ bytes: UnsafeRawBufferPointer, from source: TokenKeys.Source) throws(FuzzFinding) {
    guard let read = try? TokenKeys(parsing: Array(bytes), from: source) else { return }
    try hold("keys are bounded", read.keys.count <= TokenKeys.maximumCount)
    for key in read.keys {
        if source == .network { try hold("a published key is no secret", !key.isSecret) }
        guard let published = key.publicJWKS else { continue }
        let again = try? TokenKeys(parsing: Array(published.utf8), from: .network)
        try hold(
            "a key that is written is the same",
            again?.keys.map(\.algorithm) == [key.algorithm] && again?.keys.first?.isSecret == false)
    }
}

/// With the public key of RFC 7515 A.3.
private func checkSignature(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let key =
        #"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","#
        + #""y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#
    guard let keys = try? TokenKeys(parsing: Array(key.utf8), from: .file) else { return }
    let signed = [#"{"alg":"ES256"}"#, #"{"sub":"alice","exp":1790003600}"#].map { Base64URL.encode(Array($0.utf8)) }
    let token = signed.joined(separator: ".") + "." + Base64URL.encode(Array(bytes))
    let claims = try? TokenVerifier(keys: TokenKeyRing(keys.keys)).verify(token, nowSeconds: now)
    try hold("nobody guesses a signature", claims == nil)
}

private func checkSigned(_ bytes: UnsafeRawBufferPointer) throws(FuzzFinding) {
    guard let verifier = try? TokenVerifier(secret: secret) else { return }
    let lines = bytes.lines(2)
    let signed = lines.map { Base64URL.encode(Array($0)) }.joined(separator: ".")
    let signature = sign(Array(signed.utf8))
    guard let claims = try? verifier.verify(signed + "." + Base64URL.encode(signature), nowSeconds: now) else {
        return
    }
    try hold("a token that is taken names a user", !claims.subject.isEmpty)
    try hold("it has not ended", claims.expiresAt + TokenVerifier.leeway > now)
    for index in [0, 13, 255] {
        var other = signature
        other[index / 8] ^= 1 << UInt8(index % 8)
        let token = signed + "." + Base64URL.encode(other)
        try hold("another signature is not taken", (try? verifier.verify(token, nowSeconds: now)) == nil)
    }
}

/// RFC 2104 with SHA-256.
private func sign(_ bytes: [UInt8]) -> [UInt8] {
    var code = [UInt8](repeating: 0, count: 32)
    HMAC(EVP_sha256(), secret, CInt(secret.count), bytes, bytes.count, &code, nil)
    return code
}
#endif
