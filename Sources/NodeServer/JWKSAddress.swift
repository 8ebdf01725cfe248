import WebSocketTransport

/// Where a JWK Set (RFC 7517 section 5) is fetched: `https://host[:port][/path][?query]`, or `http://` on this machine.
package struct JWKSAddress: Sendable, Equatable, CustomStringConvertible {
    let isSecure: Bool
    let host: String
    let port: Int
    /// Path and query, as they go into the request line.
    let target: String
    /// As it goes into the `Host` header.
    let authority: String

    /// What is wrong with an address, for a sentence that names its setting.
    package struct Refusal: Error, Sendable, CustomStringConvertible {
        package let description: String
    }

    /// Whoever answers says who may sign tokens, so that what goes over a network must be TLS.
    package init(_ url: String) throws(Refusal) {
        let secure = url.hasPrefix("https://")
        guard secure || url.hasPrefix("http://"), url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw Refusal(description: "it must begin with https:// and have no blanks")
        }
        let rest = url.dropFirst(secure ? 8 : 7)
        let end = rest.firstIndex { $0 == "/" || $0 == "?" || $0 == "#" } ?? rest.endIndex
        let authority = rest[..<end]
        guard !authority.contains("@") else { throw Refusal(description: "it must not hold a user name") }
        guard !rest.contains("#") else { throw Refusal(description: "it must not hold a fragment") }
        var host = authority
        var portText: Substring?
        if let colon = authority.lastIndex(of: ":"), !authority.hasSuffix("]") {
            host = authority[..<colon]
            portText = authority[authority.index(after: colon)...]
        }
        let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
        if isBracketed { host = host.dropFirst().dropLast() }
        guard !host.isEmpty, host.utf8.allSatisfy(Self.isOfHost), host.contains(":") == isBracketed else {
            throw Refusal(description: "it has no host")
        }
        guard let port = portText.map({ UInt16($0) }) ?? (secure ? 443 : 80), port > 0 else {
            throw Refusal(description: "its port is none")
        }
        guard secure || IPAddress(host)?.isLoopback ?? (host.lowercased() == "localhost") else {
            throw Refusal(description: "http:// is for this machine alone (127.0.0.1, ::1, localhost): use https://")
        }
        isSecure = secure
        self.host = String(host)
        self.port = Int(port)
        self.authority = String(authority)
        target = rest[end...].hasPrefix("/") ? String(rest[end...]) : "/" + rest[end...]
    }

    /// Without the query, which may hold a key of the issuer's.
    package var description: String {
        "\(isSecure ? "https" : "http")://\(authority)" + target.prefix { $0 != "?" }
    }

    private static func isOfHost(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"),
            UInt8(ascii: ":"):
            true
        default: false
        }
    }
}
