/// The path and query of a request target in origin, absolute or asterisk form (RFC 9112 section 3.2).
struct RequestTarget: Equatable {
    let path: String
    let queryItems: [(name: String, value: String)]

    static func == (left: RequestTarget, right: RequestTarget) -> Bool {
        left.path == right.path && left.queryItems.elementsEqual(right.queryItems, by: ==)
    }

    /// Nil when a percent-escape is broken or what it decodes to is not UTF-8.
    init?(_ uri: String) {
        var rest = Substring(uri)
        if !rest.hasPrefix("/"), let scheme = rest.firstRange(ofScheme: "://") {
            rest = rest[scheme...]
            rest = rest.firstIndex { $0 == "/" || $0 == "?" || $0 == "#" }.map { rest[$0...] } ?? ""
        }
        if let fragment = rest.firstIndex(of: "#") { rest = rest[..<fragment] }
        let mark = rest.firstIndex(of: "?")
        let rawPath = mark.map { rest[..<$0] } ?? rest
        guard let path = Self.decode(rawPath, plusIsSpace: false) else { return nil }
        self.path = path.isEmpty ? "/" : path
        var items: [(name: String, value: String)] = []
        if let mark {
            for pair in rest[rest.index(after: mark)...].split(separator: "&") {
                let equals = pair.firstIndex(of: "=")
                let rawName = equals.map { pair[..<$0] } ?? pair
                let rawValue = equals.map { pair[pair.index(after: $0)...] } ?? ""
                guard let name = Self.decode(rawName, plusIsSpace: true),
                    let value = Self.decode(rawValue, plusIsSpace: true)
                else { return nil }
                items.append((name, value))
            }
        }
        self.queryItems = items
    }

    private static func decode(_ text: Substring, plusIsSpace: Bool) -> String? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count)
        var escapeDigits = 0
        var escaped: UInt8 = 0
        for byte in text.utf8 {
            if escapeDigits > 0 {
                guard let digit = hexDigit(byte) else { return nil }
                escaped = escaped << 4 | digit
                escapeDigits -= 1
                if escapeDigits == 0 { bytes.append(escaped) }
            } else if byte == UInt8(ascii: "%") {
                escapeDigits = 2
                escaped = 0
            } else {
                bytes.append(plusIsSpace && byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
            }
        }
        guard escapeDigits == 0 else { return nil }
        return String(validating: bytes, as: UTF8.self)
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

extension Substring {
    /// Where the text behind `separator` starts, when only letters, digits, `+`, `-`, `.` stand before it.
    fileprivate func firstRange(ofScheme separator: String) -> Index? {
        guard let colon = firstIndex(of: ":"), self[colon...].hasPrefix(separator) else { return nil }
        return index(colon, offsetBy: separator.count)
    }
}
