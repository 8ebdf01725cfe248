/// Base64 with padding (RFC 4648 section 4), strict: no line breaks, no other alphabet, and the unused bits of the last
/// character are zero, so that one value has one spelling. Bytes stand like this in JSON.
package enum Base64 {
    package static func append(_ bytes: UnsafeRawBufferPointer, to text: inout [UInt8]) {
        text.reserveCapacity(text.count + (bytes.count + 2) / 3 * 4)
        var index = 0
        while index < bytes.count {
            let left = min(3, bytes.count - index)
            var group = UInt32(bytes[index]) << 16
            if left > 1 { group |= UInt32(bytes[index + 1]) << 8 }
            if left > 2 { group |= UInt32(bytes[index + 2]) }
            for place in 0..<4 {
                text.append(place <= left ? character(UInt8(group >> (18 - 6 * place) & 63)) : padding)
            }
            index += 3
        }
    }

    /// `nil` for what ``append(_:to:)`` would not have written.
    package static func decode(_ text: UnsafeRawBufferPointer) -> [UInt8]? {
        guard text.count.isMultiple(of: 4) else { return nil }
        guard !text.isEmpty else { return [] }
        let pads = pads(text)
        let whole = pads == 0 ? text.count : text.count - 4
        var isValid = true
        let bytes = [UInt8](unsafeUninitializedCapacity: text.count / 4 * 3) { bytes, count in
            values.withUnsafeBufferPointer { values in
                for index in stride(from: 0, to: whole, by: 4) {
                    let (a, b) = (values[Int(text[index])], values[Int(text[index + 1])])
                    let (c, d) = (values[Int(text[index + 2])], values[Int(text[index + 3])])
                    if (a | b | c | d) & invalid != 0 { isValid = false }
                    bytes[count] = a << 2 | b >> 4
                    bytes[count + 1] = b << 4 | c >> 2
                    bytes[count + 2] = c << 6 | d
                    count += 3
                }
                guard pads > 0 else { return }
                let (a, b) = (values[Int(text[whole])], values[Int(text[whole + 1])])
                let c = pads == 1 ? values[Int(text[whole + 2])] : 0
                if (a | b | c) & invalid != 0 || (pads == 1 ? c & 3 : b & 15) != 0 { isValid = false }
                bytes[count] = a << 2 | b >> 4
                if pads == 1 { bytes[count + 1] = b << 4 | c >> 2 }
                count += 3 - pads
            }
        }
        return isValid ? bytes : nil
    }

    private static let padding = UInt8(ascii: "=")

    private static func pads(_ text: UnsafeRawBufferPointer) -> Int {
        guard text[text.count - 1] == padding else { return 0 }
        return text[text.count - 2] == padding ? 2 : 1
    }

    private static func character(_ value: UInt8) -> UInt8 {
        switch value {
        case 0..<26: UInt8(ascii: "A") + value
        case 26..<52: UInt8(ascii: "a") + value - 26
        case 52..<62: UInt8(ascii: "0") + value - 52
        case 62: UInt8(ascii: "+")
        default: UInt8(ascii: "/")
        }
    }

    /// What each byte stands for; ``invalid`` where it stands for nothing.
    private static let values: [UInt8] = {
        var values = [UInt8](repeating: invalid, count: 256)
        for value in UInt8(0)..<64 { values[Int(character(value))] = value }
        return values
    }()
    private static let invalid: UInt8 = 0x80
}
