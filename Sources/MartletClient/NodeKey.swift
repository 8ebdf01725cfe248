import WireProtocol

/// What routers keep a client with a token to one node by. They see the address alone, as the token comes in the first
/// frame: so the user's name stands in the query, as the `key` that goes before all others.
enum NodeKey {
    /// Whom a token (RFC 7519) is about, without proof: it finds the node, which verifies the token. nil of what is no JWT,
    /// and where `sub` is no user name.
    static func of(_ token: String) -> String? {
        let parts = token.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, let payload = Base64URL.decode(parts[1]),
            let subject = JSONObject(payload)?.string("sub")
        else { return nil }
        return try? UserName(validating: subject).string
    }

    /// Whether the query of an address says already what its clients are kept by, be it an empty value.
    static func isGiven(in url: String) -> Bool {
        guard let mark = url.firstIndex(of: "?") else { return false }
        return url[mark...].dropFirst().split(separator: "&").contains { item in
            ["key", "user", "token"].contains(item.prefix { $0 != "=" })
        }
    }

    /// - Parameter url: with a query.
    static func address(_ url: String, of token: String) -> String {
        of(token).map { "\(url)&key=\(MartletClient.percentEncoded($0))" } ?? url
    }
}
