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
func fuzzTokens(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    guard let verifier = try? TokenVerifier(secret: secret) else { return }
    let (choice, bytes) = input.splitFirst()
    guard choice == UInt8(ascii: "1") else {
        guard let token = bytes.text else { return }
        _ = TokenVerifier.unverifiedSubject(of: token)
        return try hold("nobody guesses a signature", (try? verifier.verify(token, nowSeconds: now)) == nil)
    }
    let lines = bytes.lines(2)
    let signed = lines.map { Base64URL.encode(Array($0)) }.joined(separator: ".")
    let signature = sign(Array(signed.utf8))
    guard let claims = try? verifier.verify(signed + "." + Base64URL.encode(signature), nowSeconds: now) else {
        return
    }
    try hold("a token that is taken names a user", !claims.subject.isEmpty)
    try hold("it is signed with the key's algorithm", lines.first?.text?.contains("HS256") ?? false)
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
