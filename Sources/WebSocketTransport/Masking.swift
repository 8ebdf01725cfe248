import NIOCore

/// A masking key (RFC 6455 section 5.3), turned so that its first byte is the one that meets the next payload byte.
struct MaskingKey: Equatable {
    /// The four bytes as they stand on the wire, the first in the lowest byte.
    var word: UInt32

    static let none = MaskingKey(word: 0)

    /// The key as it stands after `count` more payload bytes.
    func advanced(by count: Int) -> MaskingKey {
        let bits = UInt32(truncatingIfNeeded: (count & 3) &* 8)
        guard bits != 0 else { return self }
        return MaskingKey(word: (word &>> bits) | (word &<< (32 &- bits)))
    }

    /// Writes `source` XOR the key to `target` (which may be the same memory), eight bytes at a time.
    /// Returns whether every byte written is ASCII.
    @inline(__always)
    func apply(from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, count: Int) -> Bool {
        let wide = (UInt64(word) | UInt64(word) << 32).littleEndian
        var seen: UInt64 = 0
        var index = 0
        while index &+ 8 <= count {
            let value = source.loadUnaligned(fromByteOffset: index, as: UInt64.self) ^ wide
            target.storeBytes(of: value, toByteOffset: index, as: UInt64.self)
            seen |= value
            index &+= 8
        }
        var rest = UInt64(word) | UInt64(word) << 32
        while index < count {
            let value = source.load(fromByteOffset: index, as: UInt8.self) ^ UInt8(truncatingIfNeeded: rest)
            target.storeBytes(of: value, toByteOffset: index, as: UInt8.self)
            seen |= UInt64(value)
            rest &>>= 8
            index &+= 1
        }
        return seen & 0x8080_8080_8080_8080 == 0
    }
}

extension ByteBuffer {
    /// Appends `bytes` with the key taken off (or put on). Returns whether all of what was appended is ASCII.
    mutating func append(_ bytes: UnsafeRawBufferPointer, masking key: MaskingKey) -> Bool {
        guard let source = bytes.baseAddress, bytes.count > 0 else { return true }
        var isASCII = true
        writeWithUnsafeMutableBytes(minimumWritableBytes: bytes.count) { target in
            guard let target = target.baseAddress else { return 0 }
            isASCII = key.apply(from: source, to: target, count: bytes.count)
            return bytes.count
        }
        return isASCII
    }
}
