import CLinux
import Glibc

/// Masked client frames (RFC 6455 section 5.3). The mask guards intermediaries, not this program: a fast generator will do.
struct FrameWriter {
    private var state = UInt64.random(in: 1 ... .max)

    mutating func text(_ payload: [UInt8], to bytes: inout [UInt8]) {
        payload.withUnsafeBytes { frame(opcode: 1, $0, to: &bytes) }
    }

    mutating func pong(_ payload: UnsafeRawBufferPointer) -> [UInt8] {
        var bytes: [UInt8] = []
        frame(opcode: 10, payload, to: &bytes)
        return bytes
    }

    mutating func close(_ code: UInt16) -> [UInt8] {
        var bytes: [UInt8] = []
        withUnsafeBytes(of: code.bigEndian) { frame(opcode: 8, $0, to: &bytes) }
        return bytes
    }

    private mutating func frame(opcode: UInt8, _ payload: UnsafeRawBufferPointer, to bytes: inout [UInt8]) {
        let count = payload.count
        bytes.append(0x80 | opcode)
        if count < 126 {
            bytes.append(0x80 | UInt8(count))
        } else if count < 65536 {
            bytes.append(0x80 | 126)
            withUnsafeBytes(of: UInt16(count).bigEndian) { bytes.append(contentsOf: $0) }
        } else {
            bytes.append(0x80 | 127)
            withUnsafeBytes(of: UInt64(count).bigEndian) { bytes.append(contentsOf: $0) }
        }
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        let key = UInt32(truncatingIfNeeded: state >> 16)
        withUnsafeBytes(of: key) { bytes.append(contentsOf: $0) }
        let start = bytes.count
        bytes.append(contentsOf: payload)
        bytes.withUnsafeMutableBytes { Self.mask(UnsafeMutableRawBufferPointer(rebasing: $0[start...]), key) }
    }

    /// - Parameter key: its bytes in the order of memory.
    private static func mask(_ bytes: UnsafeMutableRawBufferPointer, _ key: UInt32) {
        let wide = UInt64(key) << 32 | UInt64(key)
        var at = 0
        while at + 8 <= bytes.count {
            let word = bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)
            bytes.storeBytes(of: word ^ wide, toByteOffset: at, as: UInt64.self)
            at += 8
        }
        withUnsafeBytes(of: key) { key in
            for rest in at..<bytes.count { bytes[rest] ^= key[rest & 3] }
        }
    }
}

/// Walks through the frames that lie whole in what a server sent.
struct FrameCursor {
    struct Frame {
        let opcode: UInt8
        /// As long-lived as the bytes given to the cursor.
        let payload: UnsafeRawBufferPointer
    }

    private let bytes: UnsafeRawBufferPointer
    /// Where the first frame begins that has not been handed over.
    private(set) var position = 0
    /// What a server must not send us: a masked, fragmented, compressed or huge frame. No frame comes after it.
    private(set) var fault: String?

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    mutating func next() -> Frame? {
        let left = bytes.count - position
        guard left >= 2, fault == nil else { return nil }
        let first = bytes[position]
        let length7 = Int(bytes[position + 1])
        if first & 0xF0 != 0x80 || first & 0x0F == 0 { return refuse("a fragmented or compressed frame") }
        if length7 & 0x80 != 0 { return refuse("a masked frame") }
        var head = 2
        var length = length7
        if length7 == 126 {
            head = 4
            guard left >= head else { return nil }
            length = Int(bytes[position + 2]) << 8 | Int(bytes[position + 3])
        } else if length7 == 127 {
            head = 10
            guard left >= head else { return nil }
            let wide = bytes.loadUnaligned(fromByteOffset: position + 2, as: UInt64.self)
            guard UInt64(bigEndian: wide) <= 16 << 20 else { return refuse("a frame over 16 MiB") }
            length = Int(UInt64(bigEndian: wide))
        }
        guard left >= head + length else { return nil }
        let start = position + head
        position = start + length
        return Frame(opcode: first & 0x0F, payload: UnsafeRawBufferPointer(rebasing: bytes[start..<position]))
    }

    private mutating func refuse(_ reason: String) -> Frame? {
        fault = reason
        return nil
    }
}
