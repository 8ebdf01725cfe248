import WireProtocol

/// What a token says, for people to read: nothing of it is checked.
package struct TokenText: Sendable {
    package struct Member: Sendable, Equatable {
        package let name: String
        /// As it stands in the token.
        package let json: String
        /// Of a number without a fraction.
        package let number: Int64?
        /// Of a string.
        package let string: String?
    }

    package let header: [Member]
    package let claims: [Member]

    /// - Throws: `malformed`.
    package init(unverified token: String) throws(TokenError) {
        let parts = try TokenParts(token)
        header = try Self.members(parts.header)
        claims = try Self.members(parts.payload)
    }

    private static func members(_ json: [UInt8]) throws(TokenError) -> [Member] {
        var members: [Member] = []
        let scanned = JSONObject.scan(json) { name, value, bytes in
            members.append(
                Member(
                    name: name, json: String(decoding: bytes[value.range], as: UTF8.self),
                    number: JSONText.integer(value, in: bytes), string: JSONText.string(value, in: bytes)))
        }
        guard scanned else { throw TokenError(.malformed) }
        return members
    }
}
