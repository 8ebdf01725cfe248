/// Why a token is refused.
package struct TokenError: Error, Equatable, CustomStringConvertible, Sendable {
    package enum Code: String, Sendable {
        /// Not three parts of strict base64url with JSON objects in the first two.
        case malformed
        /// `alg` is anything but what the key is for; `none` above all.
        case wrongAlgorithm
        /// The header names extensions (`crit`) that must be understood, and none are.
        case unsupportedHeader
        /// `typ` says that it is a token for something else (RFC 8725 section 3.11).
        case wrongType
        case badSignature
        /// No key has its `kid`, or it has none and too many keys may be meant.
        case unknownKey
        /// No key fits now, but keys are being fetched: the same token may be good later.
        case keysUnavailable
        case expired
        /// `nbf` or `iat` lies ahead.
        case notYetValid
        /// No `exp`: a connection could outlive every right to it.
        case missingExpiry
        case wrongIssuer
        case wrongAudience
        /// A claim has the wrong form.
        case badClaim
        /// No `sub`, or an empty one.
        case missingSubject
    }

    package let code: Code
    /// The claim of `badClaim`.
    package let claim: String?
    /// With `keysUnavailable`: when to come back.
    package let retryAfterMilliseconds: Int64?

    package init(_ code: Code, claim: String? = nil, retryAfterMilliseconds: Int64? = nil) {
        self.code = code
        self.claim = claim
        self.retryAfterMilliseconds = retryAfterMilliseconds
    }

    /// Shows nothing of the token.
    package var description: String {
        switch code {
        case .malformed: "the token is not a JSON Web Token"
        case .wrongAlgorithm: "the token is signed with an algorithm that its key is not for"
        case .unsupportedHeader: "the token uses an extension that is not supported"
        case .wrongType: "the token is of a type (typ) for another purpose"
        case .badSignature: "the token's signature does not match"
        case .unknownKey: "no key is known by the token's kid"
        case .keysUnavailable: "the key of the token is not known yet; try again"
        case .expired: "the token has expired"
        case .notYetValid: "the token is not valid yet"
        case .missingExpiry: "the token does not say when it expires (exp)"
        case .wrongIssuer: "the token is from another issuer (iss)"
        case .wrongAudience: "the token is for another audience (aud)"
        case .badClaim: "the token's claim \(claim ?? "") has the wrong form"
        case .missingSubject: "the token names no user (sub)"
        }
    }
}

/// Why something is no key for tokens: the end of a sentence that begins with where it was found.
package struct TokenKeyError: Error, Equatable, CustomStringConvertible, Sendable {
    package let description: String

    package init(_ description: String) { self.description = description }
}
