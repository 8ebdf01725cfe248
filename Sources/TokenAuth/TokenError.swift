/// Why a token, or a secret, is refused.
package struct TokenError: Error, Equatable, CustomStringConvertible, Sendable {
    package enum Code: String, Sendable {
        /// Not three parts of strict base64url with JSON objects in the first two.
        case malformed
        /// `alg` is anything but what the key is for; `none` above all.
        case wrongAlgorithm
        /// The header names extensions (`crit`) that must be understood, and none are.
        case unsupportedHeader
        case badSignature
        case expired
        /// `nbf` lies ahead.
        case notYetValid
        /// `exp`, `nbf` or `iat` is not a number, or `sub` not a string.
        case badClaim
        /// No `sub`, or an empty one.
        case missingSubject
        /// The secret has fewer than 32 bytes (RFC 7518 section 3.2).
        case weakSecret
    }

    package let code: Code

    package init(_ code: Code) { self.code = code }

    package var description: String {
        switch code {
        case .malformed: "the token is not a JSON Web Token"
        case .wrongAlgorithm: "the token is not signed with HS256"
        case .unsupportedHeader: "the token uses an extension that is not supported"
        case .badSignature: "the token's signature does not match"
        case .expired: "the token has expired"
        case .notYetValid: "the token is not valid yet"
        case .badClaim: "the token has a claim of the wrong type"
        case .missingSubject: "the token names no user (sub)"
        case .weakSecret: "the token secret must have at least 32 bytes"
        }
    }
}
