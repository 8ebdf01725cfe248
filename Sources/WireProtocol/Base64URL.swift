/// base64url without padding (RFC 4648 section 5, RFC 7515 section 2), strict: no padding, no line breaks, no other
/// alphabet, and the unused bits of the last character are zero, so that one value has one spelling.
package enum Base64URL {
    package static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count * 4 + 2) / 3)
        var pending = 0
        var bits = 0
        for byte in bytes {
            pending = (pending << 8 | Int(byte)) & 0xFFFF
            bits += 8
            while bits >= 6 {
                bits -= 6
                text.append(alphabet[pending >> bits & 0x3F])
            }
        }
        if bits > 0 { text.append(alphabet[pending << (6 - bits) & 0x3F]) }
        return String(decoding: text, as: UTF8.self)
    }

    package static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 4 != 1 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count * 3 / 4)
        var pending = 0
        var bits = 0
        for character in text {
            guard let value = value(of: character) else { return nil }
            pending = (pending << 6 | value) & 0xFFFF
            bits += 6
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: pending >> bits))
            }
        }
        guard pending & ((1 << bits) - 1) == 0 else { return nil }
        return bytes
    }

    package static func contains(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    /// `count` characters of six random bits each.
    package static func random(count: Int, using generator: inout some RandomNumberGenerator) -> String {
        random(count: count) { generator.next() }
    }

    /// The same, of the system's randomness.
    package static func random(count: Int) -> String {
        random(count: count) { UInt64.random(in: .min ... .max) }
    }

    private static func random(count: Int, _ next: () -> UInt64) -> String {
        var bits: UInt64 = 0
        var available = 0
        return String(unsafeUninitializedCapacity: count) { buffer in
            for index in 0..<count {
                if available < 6 {
                    bits = next()
                    available = 60
                }
                buffer[index] = alphabet[Int(bits & 63)]
                bits >>= 6
                available -= 6
            }
            return count
        }
    }

    private static func value(of character: UInt8) -> Int? {
        switch character {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): Int(character) - 65
        case UInt8(ascii: "a")...UInt8(ascii: "z"): Int(character) - 97 + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): Int(character) - 48 + 52
        case UInt8(ascii: "-"): 62
        case UInt8(ascii: "_"): 63
        default: nil
        }
    }

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
}
