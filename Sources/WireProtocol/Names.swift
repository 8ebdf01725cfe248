/// Values that a peer may name. Each is valid by construction, so that nothing behind the decoder checks again.

/// A room: 1–128 bytes of `[A-Za-z0-9_.:@/-]`, or the canonical private room of two users (``RoomName/direct(_:_:)``).
package struct RoomName: Hashable, Sendable, CustomStringConvertible {
    package static let maximumLength = 128
    /// Every private room starts with this; what follows is two percent-encoded user names in byte order.
    package static let directPrefix = "dm:"

    package let string: String

    /// - Throws: ``WireError`` `invalid_room`, naming the rule that was broken.
    package init(validating string: String) throws(WireError) {
        if string.hasPrefix(Self.directPrefix) {
            guard let pair = Self.directPair(string), RoomName.direct(pair.0, pair.1).string == string else {
                throw WireError(.invalidRoom, "a name that starts with dm: is dm:USER:USER in its canonical form")
            }
            self.string = string
            return
        }
        let length = string.utf8.count
        guard length >= 1, length <= Self.maximumLength else {
            throw WireError(.invalidRoom, "a room name has 1 to \(Self.maximumLength) bytes, this one has \(length)")
        }
        guard string.utf8.allSatisfy(Self.isAllowed) else {
            throw WireError(.invalidRoom, "a room name has only the characters A-Z a-z 0-9 _ . : @ / -")
        }
        self.string = string
    }

    private init(unchecked string: String) {
        self.string = string
    }

    /// The one private room of two users, whoever asks: `dm:alice:bob`.
    package static func direct(_ first: UserName, _ second: UserName) -> RoomName {
        let encoded = [first.percentEncoded, second.percentEncoded].sorted {
            $0.utf8.lexicographicallyPrecedes($1.utf8)
        }
        return RoomName(unchecked: directPrefix + encoded[0] + ":" + encoded[1])
    }

    /// The two users of a private room; `nil` for any other room.
    package var participants: (UserName, UserName)? {
        string.hasPrefix(Self.directPrefix) ? Self.directPair(string) : nil
    }

    /// What stands before the first `:` of the name; `nil` when there is none. That of private rooms is `dm`.
    package var namespace: Substring? {
        string.utf8.firstIndex(of: UInt8(ascii: ":")).map { string[..<$0] }
    }

    package var isDirect: Bool { string.hasPrefix(Self.directPrefix) }

    package var description: String { string }

    private static func directPair(_ string: String) -> (UserName, UserName)? {
        let parts = string.dropFirst(directPrefix.count).split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2,
            let first = UserName(percentEncoded: parts[0]), let second = UserName(percentEncoded: parts[1])
        else { return nil }
        return (first, second)
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        case UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: "@"), UInt8(ascii: "/"),
            UInt8(ascii: "-"):
            true
        default: false
        }
    }
}

extension String {
    /// C0, DEL, C1, and the line and paragraph separators.
    package var hasControlCharacters: Bool {
        unicodeScalars.contains { scalar in
            switch scalar.value {
            case 0...0x1F, 0x7F...0x9F, 0x2028, 0x2029: true
            default: false
            }
        }
    }
}

/// A user: 1–128 bytes of UTF-8 without control characters.
///
/// Two names are one user when their bytes are the same, as in Redis and for every client; `String` would take canonical
/// equivalents (é as one scalar or as two) for the same.
package struct UserName: Hashable, Sendable, CustomStringConvertible {
    package static let maximumLength = 128

    package let string: String

    /// - Throws: ``WireError`` `invalid_user`, naming the rule that was broken.
    package init(validating string: String) throws(WireError) {
        let length = string.utf8.count
        guard length >= 1, length <= Self.maximumLength else {
            throw WireError(.invalidUser, "a user name has 1 to \(Self.maximumLength) bytes, this one has \(length)")
        }
        guard !string.hasControlCharacters else {
            throw WireError(.invalidUser, "a user name has no control characters")
        }
        self.string = string
    }

    package static func == (left: UserName, right: UserName) -> Bool {
        left.string.utf8.elementsEqual(right.string.utf8)
    }

    package func hash(into hasher: inout Hasher) {
        var string = string
        string.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
    }

    /// The inverse of ``percentEncoded``; `nil` unless `text` is exactly what ``percentEncoded`` would have made.
    package init?(percentEncoded text: some StringProtocol) {
        var bytes: [UInt8] = []
        var rest = text.utf8.makeIterator()
        while let byte = rest.next() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.next().flatMap(Self.hexValue), let low = rest.next().flatMap(Self.hexValue) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        guard let string = String(validating: bytes, as: UTF8.self), let user = try? UserName(validating: string),
            user.percentEncoded == text
        else { return nil }
        self = user
    }

    /// For keys, channels and private room names: every byte but `A-Z a-z 0-9 _ . @ / -` as `%XX`, so that no name can
    /// forge a hash tag, a separator or another name.
    package var percentEncoded: String {
        let utf8 = string.utf8
        guard !utf8.allSatisfy(Self.isPlain) else { return string }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(utf8.count * 3)
        for byte in utf8 {
            if Self.isPlain(byte) {
                bytes.append(byte)
            } else {
                bytes.append(UInt8(ascii: "%"))
                bytes.append(Self.hexDigit(byte >> 4))
                bytes.append(Self.hexDigit(byte & 15))
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    package var description: String { string }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        case UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "@"), UInt8(ascii: "/"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    private static func hexDigit(_ nibble: UInt8) -> UInt8 {
        nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "A") + nibble - 10
    }

    private static func hexValue(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

/// A session: 15 characters of base64url, 90 random bits when the generator gives so many. It names a session and is shown
/// to other nodes and to operators; what proves that a session is one's own is its secret. Nobody may guess it all the same.
///
/// So many characters stand in a `String` itself, which then owns no memory: a node has a dozen copies of each.
package struct SessionID: Hashable, Sendable, CustomStringConvertible {
    package static let length = 15
    /// Of those that nodes gave before; they are as good.
    package static let formerLength = 22

    package let string: String

    package init?(_ string: some StringProtocol) {
        guard Self.isID(string.utf8) else { return nil }
        self.string = String(string)
    }

    package init?(decoding bytes: UnsafeRawBufferPointer) {
        guard Self.isID(bytes) else { return nil }
        self.string = String(decoding: bytes, as: UTF8.self)
    }

    private static func isID(_ bytes: some Collection<UInt8>) -> Bool {
        (bytes.count == length || bytes.count == formerLength) && bytes.allSatisfy(Base64URL.contains)
    }

    /// - Parameter generator: the system's, except in tests: a seeded one would let one id tell the next.
    package init(using generator: inout some RandomNumberGenerator) {
        self.string = Base64URL.random(count: Self.length, using: &generator)
    }

    /// Of the system's randomness.
    package init() {
        self.string = Base64URL.random(count: Self.length)
    }

    package var description: String { string }
}

/// How present a session is; the most present of a user's sessions is the user's. Most present first.
package enum PresenceStatus: String, CaseIterable, Sendable {
    case online
    case away
    case busy
    /// Neither listed nor counted, and silent in presence events.
    case invisible
}
