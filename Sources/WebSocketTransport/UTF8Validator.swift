import NIOCore

/// Checks UTF-8 that arrives in pieces, as early as a byte can be known to be wrong (RFC 3629, RFC 6455 section 8.1).
struct UTF8Validator {
    /// Continuation bytes that the current character still needs.
    private var needed: UInt8 = 0
    /// The range of the next continuation byte: narrower after E0, ED, F0 and F4 (overlong forms, surrogates, > U+10FFFF).
    private var lower: UInt8 = 0x80
    private var upper: UInt8 = 0xBF

    /// No character is half received.
    var isAtBoundary: Bool { needed == 0 }

    /// Whether a whole text is valid.
    static func isValid(_ text: ByteBuffer) -> Bool {
        var validator = UTF8Validator()
        return text.withUnsafeReadableBytes { validator.accept($0) } && validator.isAtBoundary
    }

    mutating func reset() { self = UTF8Validator() }

    /// Whether the text so far, with `bytes` after it, can still become valid UTF-8.
    mutating func accept(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        let count = bytes.count
        var index = 0
        while index < count {
            if needed == 0 {
                while index &+ 8 <= count,
                    base.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
                {
                    index &+= 8
                }
                guard index < count else { return true }
            }
            let byte = base.load(fromByteOffset: index, as: UInt8.self)
            index &+= 1
            if needed > 0 {
                guard byte >= lower, byte <= upper else { return false }
                needed &-= 1
                lower = 0x80
                upper = 0xBF
            } else if byte >= 0x80 {
                guard start(byte) else { return false }
            }
        }
        return true
    }

    private mutating func start(_ byte: UInt8) -> Bool {
        switch byte {
        case 0xC2...0xDF: needed = 1
        case 0xE0: (needed, lower) = (2, 0xA0)
        case 0xED: (needed, upper) = (2, 0x9F)
        case 0xE1...0xEF: needed = 2
        case 0xF0: (needed, lower) = (3, 0x90)
        case 0xF1...0xF3: needed = 3
        case 0xF4: (needed, upper) = (3, 0x8F)
        default: return false
        }
        return true
    }
}
