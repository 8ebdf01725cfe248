/// One value inside scanned JSON text: what it is and where its raw bytes stand.
package struct JSONValue: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
        case string(escaped: Bool)
        case number
        case object
        case array
        case bool(Bool)
        case null
    }

    package let kind: Kind
    /// The raw bytes of the value with its quotes or brackets, in the scanned buffer.
    package let range: Range<Int>

    package var isString: Bool {
        if case .string = kind { true } else { false }
    }
}

package enum JSONError: Error, Equatable {
    case unexpectedEnd
    case unexpectedByte(at: Int)
    case tooDeep
}

/// Walks RFC 8259 text once, without building anything: grammar is checked in full, values are handed out as ranges.
///
/// The bytes are valid UTF-8 already (the transport has seen to that). Nesting is limited; of equal keys the last one
/// counts, as in `JSON.parse`. A lone surrogate in an escape is grammar, and passes as it is.
package struct JSONScanner {
    /// Levels in what a client may send.
    package static let maximumDepth = 64
    /// Levels in what a server may send: a value of a client's message stands two levels deeper in a list of messages
    /// or members.
    package static let maximumServerDepth = maximumDepth + 2

    private let bytes: UnsafeRawBufferPointer
    private let maximumDepth: Int
    private var index = 0

    package init(_ bytes: UnsafeRawBufferPointer, maximumDepth: Int = JSONScanner.maximumDepth) {
        self.bytes = bytes
        self.maximumDepth = maximumDepth
    }

    /// Calls `body` for each member of the single object that the text must be.
    package static func scanObject(
        _ bytes: UnsafeRawBufferPointer,
        in range: Range<Int>? = nil,
        maximumDepth: Int = JSONScanner.maximumDepth,
        _ body: (_ key: JSONValue, _ value: JSONValue) throws(JSONError) -> Void
    ) throws(JSONError) {
        var scanner = JSONScanner(
            UnsafeRawBufferPointer(rebasing: bytes[0..<(range?.upperBound ?? bytes.count)]), maximumDepth: maximumDepth)
        scanner.index = range?.lowerBound ?? 0
        scanner.skipWhitespace()
        try scanner.scanObject(depth: 1, body)
        scanner.skipWhitespace()
        guard scanner.index == scanner.bytes.count else { throw .unexpectedByte(at: scanner.index) }
    }

    /// Calls `body` for each element of the array that stands at `range`.
    package static func scanArray(
        _ bytes: UnsafeRawBufferPointer,
        in range: Range<Int>,
        maximumDepth: Int = JSONScanner.maximumDepth,
        _ body: (JSONValue) throws(JSONError) -> Void
    ) throws(JSONError) {
        var scanner = JSONScanner(
            UnsafeRawBufferPointer(rebasing: bytes[0..<range.upperBound]), maximumDepth: maximumDepth)
        scanner.index = range.lowerBound
        try scanner.scanArray(depth: 1, body)
    }

    /// One whole JSON text of any kind, with nothing but white space around it.
    ///
    /// - Parameter depth: the levels of another text that it is to stand in.
    package static func scanText(
        _ bytes: UnsafeRawBufferPointer, depth: Int = 0
    ) throws(JSONError) -> JSONValue {
        var scanner = JSONScanner(bytes)
        scanner.skipWhitespace()
        let value = try scanner.scanValue(depth: depth)
        scanner.skipWhitespace()
        guard scanner.index == bytes.count else { throw .unexpectedByte(at: scanner.index) }
        return value
    }

    private mutating func scanValue(depth: Int) throws(JSONError) -> JSONValue {
        let start = index
        switch try peek() {
        case UInt8(ascii: "\""):
            let escaped = try scanString()
            return JSONValue(kind: .string(escaped: escaped), range: start..<index)
        case UInt8(ascii: "{"):
            try scanObject(depth: depth + 1) { (_, _) throws(JSONError) in }
            return JSONValue(kind: .object, range: start..<index)
        case UInt8(ascii: "["):
            try scanArray(depth: depth + 1) { (_) throws(JSONError) in }
            return JSONValue(kind: .array, range: start..<index)
        case UInt8(ascii: "t"):
            try scanLiteral("true")
            return JSONValue(kind: .bool(true), range: start..<index)
        case UInt8(ascii: "f"):
            try scanLiteral("false")
            return JSONValue(kind: .bool(false), range: start..<index)
        case UInt8(ascii: "n"):
            try scanLiteral("null")
            return JSONValue(kind: .null, range: start..<index)
        default:
            try scanNumber()
            return JSONValue(kind: .number, range: start..<index)
        }
    }

    private mutating func scanObject(
        depth: Int,
        _ body: (_ key: JSONValue, _ value: JSONValue) throws(JSONError) -> Void
    ) throws(JSONError) {
        guard depth <= maximumDepth else { throw .tooDeep }
        try expect(UInt8(ascii: "{"))
        skipWhitespace()
        if try peek() == UInt8(ascii: "}") {
            index += 1
            return
        }
        while true {
            let start = index
            guard try peek() == UInt8(ascii: "\"") else { throw .unexpectedByte(at: index) }
            let escaped = try scanString()
            let key = JSONValue(kind: .string(escaped: escaped), range: start..<index)
            skipWhitespace()
            try expect(UInt8(ascii: ":"))
            skipWhitespace()
            try body(key, try scanValue(depth: depth))
            skipWhitespace()
            switch try peek() {
            case UInt8(ascii: ","):
                index += 1
                skipWhitespace()
            case UInt8(ascii: "}"):
                index += 1
                return
            default: throw .unexpectedByte(at: index)
            }
        }
    }

    private mutating func scanArray(
        depth: Int,
        _ body: (JSONValue) throws(JSONError) -> Void
    ) throws(JSONError) {
        guard depth <= maximumDepth else { throw .tooDeep }
        try expect(UInt8(ascii: "["))
        skipWhitespace()
        if try peek() == UInt8(ascii: "]") {
            index += 1
            return
        }
        while true {
            try body(try scanValue(depth: depth))
            skipWhitespace()
            switch try peek() {
            case UInt8(ascii: ","):
                index += 1
                skipWhitespace()
            case UInt8(ascii: "]"):
                index += 1
                return
            default: throw .unexpectedByte(at: index)
            }
        }
    }

    /// Returns whether the string has an escape.
    private mutating func scanString() throws(JSONError) -> Bool {
        index += 1
        var escaped = false
        while true {
            switch try peek() {
            case UInt8(ascii: "\""):
                index += 1
                return escaped
            case UInt8(ascii: "\\"):
                escaped = true
                index += 1
                switch try peek() {
                case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"),
                    UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
                    index += 1
                case UInt8(ascii: "u"):
                    index += 1
                    for _ in 0..<4 {
                        guard JSONText.hexValue(try peek()) != nil else { throw .unexpectedByte(at: index) }
                        index += 1
                    }
                default: throw .unexpectedByte(at: index)
                }
            case 0..<0x20: throw .unexpectedByte(at: index)
            default: index += 1
            }
        }
    }

    private mutating func scanNumber() throws(JSONError) {
        if try peek() == UInt8(ascii: "-") { index += 1 }
        if try peek() == UInt8(ascii: "0") { index += 1 } else { try scanDigits() }
        if index < bytes.count, bytes[index] == UInt8(ascii: ".") {
            index += 1
            try scanDigits()
        }
        if index < bytes.count, bytes[index] | 0x20 == UInt8(ascii: "e") {
            index += 1
            let sign = try peek()
            if sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { index += 1 }
            try scanDigits()
        }
    }

    private mutating func scanDigits() throws(JSONError) {
        guard JSONText.isDigit(try peek()) else { throw .unexpectedByte(at: index) }
        while index < bytes.count, JSONText.isDigit(bytes[index]) { index += 1 }
    }

    private mutating func scanLiteral(_ literal: StaticString) throws(JSONError) {
        for offset in 0..<literal.utf8CodeUnitCount {
            guard try peek() == literal.utf8Start[offset] else { throw .unexpectedByte(at: index) }
            index += 1
        }
    }

    private mutating func skipWhitespace() {
        while index < bytes.count {
            switch bytes[index] {
            case 0x20, 0x09, 0x0A, 0x0D: index += 1
            default: return
            }
        }
    }

    private func peek() throws(JSONError) -> UInt8 {
        guard index < bytes.count else { throw .unexpectedEnd }
        return bytes[index]
    }

    private mutating func expect(_ byte: UInt8) throws(JSONError) {
        guard try peek() == byte else { throw .unexpectedByte(at: index) }
        index += 1
    }
}

/// Reads values that a ``JSONScanner`` has found.
package enum JSONText {
    /// The characters of a scanned string.
    ///
    /// - Parameter replacement: what stands for each lone surrogate, which is no character; `nil` when there is one and no
    ///   replacement.
    package static func string(
        _ value: JSONValue, in bytes: UnsafeRawBufferPointer, replacingLoneSurrogates replacement: Unicode.Scalar? = nil
    ) -> String? {
        guard case .string(let escaped) = value.kind else { return nil }
        let inner = UnsafeRawBufferPointer(rebasing: bytes[(value.range.lowerBound + 1)..<(value.range.upperBound - 1)])
        if !escaped { return String(validating: inner, as: UTF8.self) }
        var result: [UInt8] = []
        result.reserveCapacity(inner.count)
        var index = 0
        while index < inner.count {
            guard inner[index] == UInt8(ascii: "\\") else {
                result.append(inner[index])
                index += 1
                continue
            }
            switch inner[index + 1] {
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "u"):
                guard let (scalar, length) = scalar(at: index, in: inner) ?? replacement.map({ ($0, 6) }) else {
                    return nil
                }
                result.append(contentsOf: String(scalar).utf8)
                index += length
                continue
            default: result.append(inner[index + 1])
            }
            index += 2
        }
        return String(validating: result, as: UTF8.self)
    }

    /// The bytes that a scanned string of ``Base64`` stands for.
    package static func bytes(_ value: JSONValue, in bytes: UnsafeRawBufferPointer) -> [UInt8]? {
        guard case .string(let escaped) = value.kind else { return nil }
        guard escaped else {
            let inner = bytes[(value.range.lowerBound + 1)..<(value.range.upperBound - 1)]
            return Base64.decode(UnsafeRawBufferPointer(rebasing: inner))
        }
        return string(value, in: bytes).flatMap { Array($0.utf8).withUnsafeBytes(Base64.decode) }
    }

    /// A scanned number that is a whole number within `Int64` and has neither fraction nor exponent.
    package static func integer(_ value: JSONValue, in bytes: UnsafeRawBufferPointer) -> Int64? {
        guard value.kind == .number else { return nil }
        let slice = bytes[value.range]
        return Int64(String(decoding: slice, as: UTF8.self))
    }

    /// Whether an unescaped string has exactly these characters: the fast comparison for keys.
    package static func matches(
        _ value: JSONValue,
        in bytes: UnsafeRawBufferPointer,
        _ literal: StaticString
    ) -> Bool {
        guard case .string(let escaped) = value.kind else { return false }
        if escaped { return string(value, in: bytes) == literal.description }
        let count = literal.utf8CodeUnitCount
        guard value.range.count == count + 2 else { return false }
        for offset in 0..<count where bytes[value.range.lowerBound + 1 + offset] != literal.utf8Start[offset] {
            return false
        }
        return true
    }

    /// The raw text without white space between tokens: one line, fit for a field of a record.
    package static func minified(_ range: Range<Int>, in bytes: UnsafeRawBufferPointer) -> String {
        var result: [UInt8] = []
        result.reserveCapacity(range.count)
        var inString = false
        var index = range.lowerBound
        while index < range.upperBound {
            let byte = bytes[index]
            index += 1
            if inString {
                result.append(byte)
                if byte == UInt8(ascii: "\\") {
                    result.append(bytes[index])
                    index += 1
                } else if byte == UInt8(ascii: "\"") {
                    inString = false
                }
                continue
            }
            switch byte {
            case 0x20, 0x09, 0x0A, 0x0D: continue
            case UInt8(ascii: "\""): inString = true
            default: break
            }
            result.append(byte)
        }
        return String(decoding: result, as: UTF8.self)
    }

    static func isDigit(_ byte: UInt8) -> Bool {
        byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
    }

    static func hexValue(_ byte: UInt8) -> UInt32? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }

    /// The scalar of `\uXXXX` or of a surrogate pair at `index`, and how many bytes it takes.
    private static func scalar(at index: Int, in bytes: UnsafeRawBufferPointer) -> (Unicode.Scalar, Int)? {
        guard let first = unit(at: index, in: bytes) else { return nil }
        if let scalar = Unicode.Scalar(first) { return (scalar, 6) }
        guard first < 0xDC00, let second = unit(at: index + 6, in: bytes), second >= 0xDC00, second <= 0xDFFF,
            let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
        else { return nil }
        return (scalar, 12)
    }

    private static func unit(at index: Int, in bytes: UnsafeRawBufferPointer) -> UInt32? {
        guard index + 6 <= bytes.count, bytes[index] == UInt8(ascii: "\\"), bytes[index + 1] == UInt8(ascii: "u") else {
            return nil
        }
        var value: UInt32 = 0
        for offset in 2..<6 {
            guard let digit = hexValue(bytes[index + offset]) else { return nil }
            value = value << 4 | digit
        }
        return value
    }
}
