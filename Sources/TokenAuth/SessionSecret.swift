import COpenSSL
import WireProtocol

/// What a client shows to resume its session: 43 characters of base64url, 256 bits of the system's randomness.
///
/// Only its ``digest`` goes to Redis; so much randomness needs neither salt nor a slow hash.
package struct SessionSecret: Sendable, Hashable, CustomStringConvertible {
    private static let length = 43

    package let string: String

    package init() {
        string = Base64URL.random(count: Self.length)
    }

    /// `nil` for what is no secret of any session.
    package init?(_ string: some StringProtocol) {
        guard string.utf8.count == Self.length, string.utf8.allSatisfy(Base64URL.contains) else {
            return nil
        }
        self.string = String(string)
    }

    /// SHA-256 (FIPS 180-4) of the characters. Each session of a node keeps one, so it owns no memory.
    package struct Digest: Sendable {
        private var words = (UInt64(0), UInt64(0), UInt64(0), UInt64(0))

        fileprivate init(of text: [UInt8]) {
            let done = withUnsafeMutableBytes(of: &words) { bytes in
                EVP_Digest(text, text.count, bytes.baseAddress, nil, EVP_sha256(), nil)
            }
            precondition(done == 1, "libcrypto has SHA-256")
        }

        /// 64 hexadecimal digits.
        package var hex: String {
            let digits = Array("0123456789abcdef".utf8)
            return withUnsafeBytes(of: words) { bytes in
                String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
            }
        }
    }

    package var digest: Digest { Digest(of: Array(string.utf8)) }

    /// Never the secret: it may be logged.
    package var description: String { "SessionSecret" }
}
