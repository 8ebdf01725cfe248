/// The parts of a Redis URL, decoded.
struct RedisURL {
    let address: RedisConfiguration.Address
    let user: String?
    let password: String?
    let database: Int
    let isTLS: Bool

    init(_ text: String) throws(RedisConfigurationError) {
        guard !text.unicodeScalars.contains(where: { $0.value <= 0x20 || $0.value == 0x7F }) else {
            throw RedisConfigurationError(.controlCharacter)
        }
        let (scheme, rest) = try Self.scheme(of: text)
        isTLS = scheme == .rediss
        if let end = rest.firstIndex(where: { "/?#".contains($0) }), end > rest.startIndex,
            !rest[..<end].contains("@"), rest[end...].contains("@")
        {
            throw RedisConfigurationError(.unencodedLogin)
        }
        guard !rest.contains("#") else { throw RedisConfigurationError(.fragment) }

        var remainder = rest
        var query: Substring?
        if let mark = remainder.firstIndex(of: "?") {
            query = remainder[remainder.index(after: mark)...]
            remainder = remainder[..<mark]
        }
        let slash = remainder.firstIndex(of: "/") ?? remainder.endIndex
        var authority = remainder[..<slash]
        let path = remainder[slash...]

        // A password may hold an @ that nobody encoded: the host begins after the last one.
        if let at = authority.lastIndex(of: "@") {
            (user, password) = try Self.login(authority[..<at])
            authority = authority[authority.index(after: at)...]
        } else {
            user = nil
            password = nil
        }

        switch scheme {
        case .redis, .rediss:
            if let query, !query.isEmpty {
                throw RedisConfigurationError(.parameter)
            }
            address = try Self.hostAndPort(authority)
            let database = path.dropFirst()
            self.database = database.isEmpty ? 0 : try Self.database(database)
        case .unix:
            guard authority.isEmpty else { throw RedisConfigurationError(.path) }
            let socket = try Self.decode(path)
            guard socket.count > 1, socket.utf8.count <= 107, !socket.utf8.contains(0) else {
                throw RedisConfigurationError(.path)
            }
            address = .unixSocket(path: socket)
            database = try Self.databaseParameter(query)
        }
    }

    private enum Scheme {
        case redis
        case rediss
        case unix
    }

    private static func scheme(of text: String) throws(RedisConfigurationError) -> (Scheme, Substring) {
        var colon: String.Index?
        for index in text.indices where text[index] == ":" {
            colon = index
            break
        }
        guard let colon, text[colon...].hasPrefix("://") else { throw RedisConfigurationError(.noScheme) }
        let rest = text[text.index(colon, offsetBy: 3)...]
        switch text[..<colon].lowercased() {
        case "redis": return (.redis, rest)
        case "unix", "redis+unix": return (.unix, rest)
        case "rediss": return (.rediss, rest)
        case let other:
            // What stands before an unknown "://" may be anything, also half of a password.
            let isWord = (1...16).contains(other.utf8.count) && other.utf8.allSatisfy { (0x61...0x7A).contains($0) }
            throw RedisConfigurationError(isWord ? .scheme(other) : .noScheme)
        }
    }

    /// `user:password`, `:password`; a word alone is refused, since clients do not agree on which of the two it is.
    private static func login(_ text: Substring) throws(RedisConfigurationError) -> (String?, String?) {
        guard !text.isEmpty else { return (nil, nil) }
        guard let colon = text.firstIndex(of: ":") else { throw RedisConfigurationError(.loginWithoutPassword) }
        let user = try decode(text[..<colon])
        let password = try decode(text[text.index(after: colon)...])
        guard !password.isEmpty else { throw RedisConfigurationError(.loginWithoutPassword) }
        return (user.isEmpty ? nil : user, password)
    }

    private static func hostAndPort(
        _ authority: Substring
    ) throws(RedisConfigurationError) -> RedisConfiguration.Address {
        let host: Substring
        let portText: Substring?
        if authority.hasPrefix("[") {
            guard let bracket = authority.firstIndex(of: "]") else { throw RedisConfigurationError(.host) }
            host = authority[authority.index(after: authority.startIndex)..<bracket]
            let after = authority[authority.index(after: bracket)...]
            guard after.isEmpty || after.hasPrefix(":") else { throw RedisConfigurationError(.host) }
            portText = after.isEmpty ? nil : after.dropFirst()
        } else if let colon = authority.firstIndex(of: ":") {
            host = authority[..<colon]
            portText = authority[authority.index(after: colon)...]
            guard let portText, !portText.contains(":") else { throw RedisConfigurationError(.host) }
        } else {
            host = authority
            portText = nil
        }
        guard !host.isEmpty, host.utf8.count <= 255, !host.contains("%") else { throw RedisConfigurationError(.host) }
        guard let portText else { return .host(String(host), port: 6379) }
        guard let port = number(portText), (1...65535).contains(port) else {
            throw RedisConfigurationError(.port)
        }
        return .host(String(host), port: port)
    }

    private static func databaseParameter(_ query: Substring?) throws(RedisConfigurationError) -> Int {
        var database = 0
        for part in (query ?? "").split(separator: "&") {
            guard part.hasPrefix("db=") else { throw RedisConfigurationError(.parameter) }
            database = try Self.database(part.dropFirst(3))
        }
        return database
    }

    private static func database(_ text: Substring) throws(RedisConfigurationError) -> Int {
        guard let database = number(text), (0...65535).contains(database) else {
            throw RedisConfigurationError(.database)
        }
        return database
    }

    /// Digits alone; `Int.init` would take a sign.
    private static func number(_ text: Substring) -> Int? {
        guard (1...5).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        return Int(text)
    }

    private static func decode(_ text: Substring) throws(RedisConfigurationError) -> String {
        guard text.utf8.contains(UInt8(ascii: "%")) else { return String(text) }
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(hexDigit), let low = rest.popFirst().flatMap(hexDigit) else {
                throw RedisConfigurationError(.percentEncoding)
            }
            bytes.append(high << 4 | low)
        }
        guard let decoded = String(validating: bytes, as: UTF8.self) else {
            throw RedisConfigurationError(.percentEncoding)
        }
        return decoded
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
