import WebSocketTransport

/// What affinity keys are made of, in order of precedence: what a request has first, is its key.
package struct AffinityRule: Sendable, Equatable {
    package enum Source: Sendable, Equatable {
        /// `?key=`.
        case key
        /// `?user=`, else the subject of the token.
        case user
        /// `?room=`.
        case room
        /// Which the router sets when nothing else told requests apart.
        case cookie
        /// In lower case.
        case header(String)
        /// Of the client: every request has one.
        case address
    }

    /// The last is the address.
    package let sources: [Source]

    package static let standard = AffinityRule(sources: [.key, .user, .cookie, .address])

    private init(sources: [Source]) { self.sources = sources }

    /// A comma-separated list of `key`, `user`, `room`, `cookie`, `header:NAME` and `address`, each once. The address stands
    /// at the end, whether or not it is named; nil where something stands behind it.
    package init?(_ text: String) {
        var sources: [Source] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let source = Self.source(String(part.trimmedBlanks)), !sources.contains(source),
                sources.last != .address
            else { return nil }
            sources.append(source)
        }
        if sources.last != .address { sources.append(.address) }
        self.sources = sources
    }

    private static func source(_ text: String) -> Source? {
        switch text {
        case "key": return .key
        case "user": return .user
        case "room": return .room
        case "cookie": return .cookie
        case "address": return .address
        default:
            guard text.hasPrefix("header:") else { return nil }
            let name = text.dropFirst("header:".utf8.count).lowercased()
            return (1...64).contains(name.utf8.count) && name.utf8.allSatisfy(HTTPSyntax.isToken)
                ? .header(name) : nil
        }
    }

    package var description: String {
        sources.map { source in
            switch source {
            case .key: "key"
            case .user: "user"
            case .room: "room"
            case .cookie: "cookie"
            case .header(let name): "header:\(name)"
            case .address: "address"
            }
        }.joined(separator: ",")
    }
}
