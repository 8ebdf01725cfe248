package import WebSocketTransport

/// What a request is kept to one node by.
package struct AffinityKey: Equatable, Sendable {
    /// The raw value is what the access log says.
    package enum Kind: String, Sendable {
        case key, user, token, room, cookie, header, address
    }

    package let kind: Kind
    package let value: String
    /// The answer sets a cookie, by which the next request finds its way back.
    package let wantsCookie: Bool

    package static let cookieName = "martlet_affinity"

    /// - Parameters:
    ///   - subject: whom a token is about, without proof: the node verifies it, here it only finds the node.
    ///   - client: stands in when the request says nothing.
    package init(
        of request: RequestHead, by rule: AffinityRule = .standard, subject: (String) -> String?, client: IPAddress
    ) {
        let query = QueryItems(target: request.target)
        for source in rule.sources {
            guard let (kind, value) = Self.value(from: source, of: request, query, subject) else { continue }
            self.init(kind: kind, value: value)
            return
        }
        self.init(kind: .address, value: client.description, wantsCookie: rule.sources.contains(.cookie))
    }

    /// nil where the request has none, and of the address, which is the last.
    private static func value(
        from source: AffinityRule.Source, of request: RequestHead, _ query: QueryItems, _ subject: (String) -> String?
    ) -> (Kind, String)? {
        switch source {
        case .key: return query["key"].map { (.key, $0) }
        case .user:
            if let user = query["user"] { return (.user, user) }
            return tokens(of: request, query).lazy.compactMap(subject).first { !$0.isEmpty }.map { (.token, $0) }
        case .room: return query["room"].map { (.room, $0) }
        case .cookie: return cookie(in: request.fields).map { (.cookie, $0) }
        case .header(let name): return request.fields.first(name).flatMap { $0.isEmpty ? nil : (.header, $0) }
        case .address: return nil
        }
    }

    private init(kind: Kind, value: String, wantsCookie: Bool = false) {
        self.kind = kind
        self.value = value
        self.wantsCookie = wantsCookie
    }

    /// The query's, then that of Authorization: one that says nobody stands in nobody's way.
    private static func tokens(of request: RequestHead, _ query: QueryItems) -> [String] {
        let parts = request.fields.first("authorization")?.split(separator: " ", maxSplits: 1) ?? []
        let bearer = parts.count == 2 && parts[0].lowercased() == "bearer" ? String(parts[1].trimmedBlanks) : nil
        return [query["token"], bearer].compactMap(\.self)
    }

    /// Only a value that `cookieValue(random:)` could have made.
    private static func cookie(in fields: [HTTPField]) -> String? {
        for field in fields where field.key == "cookie" {
            for pair in field.text.split(separator: ";") {
                let sides = pair.trimmedBlanks.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                guard sides.count == 2, sides[0] == cookieName, sides[1].utf8.count == 32,
                    sides[1].utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
                else { continue }
                return String(sides[1])
            }
        }
        return nil
    }

    /// 128 bits as 32 hexadecimal digits.
    package static func cookieValue(random: (UInt64, UInt64)) -> String { Hexadecimal.text(random) }

    /// A session cookie (RFC 6265 section 4.1), out of reach of scripts; sent with top-level navigation from elsewhere.
    ///
    /// - Parameter isSecure: sent back through TLS alone.
    package static func setCookie(_ value: String, isSecure: Bool = false) -> String {
        "\(cookieName)=\(value); Path=/; HttpOnly; SameSite=Lax" + (isSecure ? "; Secure" : "")
    }
}
