#if DEBUG || FUZZING

/// RFC 8259 once more, written another way than `JSONScanner`: a loop over one byte at a time and an explicit stack.
enum JSONReference {
    enum Verdict: Equatable { case text, deeper, other }

    private enum Expecting {
        case value, valueOrEnd, keyOrEnd, key, colon, commaOrEnd, end
    }

    static func verdict(_ bytes: UnsafeRawBufferPointer, maximumDepth: Int) -> Verdict {
        var stack: [UInt8] = []
        var state = Expecting.value
        var index = 0
        func afterValue() -> Expecting { stack.isEmpty ? .end : .commaOrEnd }
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D {
                index += 1
                continue
            }
            switch (state, byte) {
            case (.value, UInt8(ascii: "{")), (.valueOrEnd, UInt8(ascii: "{")):
                stack.append(UInt8(ascii: "}"))
                state = .keyOrEnd
                if stack.count > maximumDepth { return .deeper }
                index += 1
            case (.value, UInt8(ascii: "[")), (.valueOrEnd, UInt8(ascii: "[")):
                stack.append(UInt8(ascii: "]"))
                state = .valueOrEnd
                if stack.count > maximumDepth { return .deeper }
                index += 1
            case (.valueOrEnd, UInt8(ascii: "]")), (.keyOrEnd, UInt8(ascii: "}")):
                stack.removeLast()
                state = afterValue()
                index += 1
            case (.commaOrEnd, _) where byte == stack.last:
                stack.removeLast()
                state = afterValue()
                index += 1
            case (.commaOrEnd, UInt8(ascii: ",")):
                state = stack.last == UInt8(ascii: "}") ? .key : .value
                index += 1
            case (.key, UInt8(ascii: "\"")), (.keyOrEnd, UInt8(ascii: "\"")):
                guard let next = string(bytes, index) else { return .other }
                index = next
                state = .colon
            case (.colon, UInt8(ascii: ":")):
                state = .value
                index += 1
            case (.value, _), (.valueOrEnd, _):
                guard let next = scalar(bytes, index) else { return .other }
                index = next
                state = afterValue()
            default: return .other
            }
        }
        return state == .end ? .text : .other
    }

    /// Behind the string that begins at `start`.
    private static func string(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int? {
        var index = start + 1
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "\""): return index + 1
            case 0..<0x20: return nil
            case UInt8(ascii: "\\"):
                guard index + 1 < bytes.count else { return nil }
                if bytes[index + 1] == UInt8(ascii: "u") {
                    guard index + 5 < bytes.count, bytes[(index + 2)...(index + 5)].allSatisfy(isHexadecimal) else {
                        return nil
                    }
                    index += 6
                } else {
                    guard "\"\\/bfnrt".utf8.contains(bytes[index + 1]) else { return nil }
                    index += 2
                }
            default: index += 1
            }
        }
        return nil
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        "0123456789abcdefABCDEF".utf8.contains(byte)
    }

    /// Behind the string, number or literal that begins at `start`.
    private static func scalar(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Int? {
        if bytes[start] == UInt8(ascii: "\"") { return string(bytes, start) }
        for literal in ["true", "false", "null"] where bytes[start...].starts(with: literal.utf8) {
            return start + literal.utf8.count
        }
        var index = start
        func digits() -> Int {
            let from = index
            while index < bytes.count, (0x30...0x39).contains(bytes[index]) { index += 1 }
            return index - from
        }
        if bytes[index] == UInt8(ascii: "-") { index += 1 }
        let whole = index
        let count = digits()
        guard count > 0 else { return nil }
        // A zero ends the whole part; a digit behind it is then found where nothing of the kind may stand.
        if bytes[whole] == UInt8(ascii: "0"), count > 1 { return nil }
        if index < bytes.count, bytes[index] == UInt8(ascii: ".") {
            index += 1
            guard digits() > 0 else { return nil }
        }
        if index < bytes.count, bytes[index] == UInt8(ascii: "e") || bytes[index] == UInt8(ascii: "E") {
            index += 1
            if index < bytes.count, bytes[index] == UInt8(ascii: "+") || bytes[index] == UInt8(ascii: "-") {
                index += 1
            }
            guard digits() > 0 else { return nil }
        }
        return index
    }
}
#endif
