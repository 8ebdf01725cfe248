package struct TokenClaims: Sendable { package var subject: String }
package struct TokenError: Error {}
package struct TokenVerifier: Sendable {
    package init(secret: [UInt8]) throws {}
    package func verify(_ token: String, nowSeconds: Int64) throws(TokenError) -> TokenClaims { throw TokenError() }
}
