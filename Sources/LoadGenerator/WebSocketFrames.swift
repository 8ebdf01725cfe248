import CLinux
import Glibc

/// Masked client frames (RFC 6455 section 5.3). The mask guards intermediaries, not this program: a fast generator will do.
struct FrameWriter {
    private var state = UInt64.random(in: 1 ... .max)

    mutating func text(_ payload: some Collection<UInt8>) -> [UInt8] {
        frame(opcode: 1, payload)
    }

    mutating func pong(_ payload: some Collection<UInt8>) -> [UInt8] {
        frame(opcode: 10, payload)
    }

    mutating func close(_ code: UInt16) -> [UInt8] {
        frame(opcode: 8, [UInt8(code >> 8), UInt8(code & 0xFF)])
    }

    private mutating func frame(opcode: UInt8, _ payload: some Collection<UInt8>) -> [UInt8] {
        let count = payload.count
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 14)
        bytes.append(0x80 | opcode)
        if count < 126 {
            bytes.append(0x80 | UInt8(count))
        } else if count < 65536 {
            bytes.append(contentsOf: [0x80 | 126, UInt8(count >> 8), UInt8(count & 0xFF)])
        } else {
            bytes.append(0x80 | 127)
            bytes.append(contentsOf: (0..<8).map { UInt8(truncatingIfNeeded: count >> (56 - 8 * $0)) })
        }
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        let key = (0..<4).map { UInt8(truncatingIfNeeded: state >> (16 + 8 * $0)) }
        bytes.append(contentsOf: key)
        for (index, byte) in payload.enumerated() { bytes.append(byte ^ key[index & 3]) }
        return bytes
    }
}

/// Cuts a server's byte stream into frames, in place as long as a read ends where a frame ends.
struct FrameReader {
    struct Frame {
        let opcode: UInt8
        /// Valid only during the call that hands it over.
        let payload: UnsafeRawBufferPointer
    }

    /// The start of a frame whose rest has not come yet.
    private var partial: [UInt8] = []

    /// - Returns: what a server must not send us (a masked, fragmented, compressed or huge frame), or nil.
    mutating func read(_ bytes: UnsafeRawBufferPointer, _ each: (Frame) -> Void) -> String? {
        if partial.isEmpty {
            let (used, fault) = Self.frames(in: bytes, each)
            if fault == nil && used < bytes.count { partial.append(contentsOf: bytes[used...]) }
            return fault
        }
        partial.append(contentsOf: bytes)
        let (used, fault) = partial.withUnsafeBytes { Self.frames(in: $0, each) }
        partial.removeSubrange(0..<used)
        return fault
    }

    private static func frames(in bytes: UnsafeRawBufferPointer, _ each: (Frame) -> Void) -> (used: Int, fault: String?)
    {
        var at = 0
        while bytes.count - at >= 2 {
            let first = bytes[at]
            let length7 = Int(bytes[at + 1])
            var head = 2
            var length = length7
            if first & 0xF0 != 0x80 || first & 0x0F == 0 { return (at, "a fragmented or compressed frame") }
            if length7 & 0x80 != 0 { return (at, "a masked frame") }
            if length7 >= 126 {
                let width = length7 == 126 ? 2 : 8
                head += width
                guard bytes.count - at >= head else { break }
                length = bytes[(at + 2)..<(at + head)].reduce(0) { ($0 & 0x7F_FFFF_FFFF_FFFF) << 8 | Int($1) }
                if length > 16 << 20 { return (at, "a frame over 16 MiB") }
            }
            guard bytes.count - at - head >= length else { break }
            let start = at + head
            each(
                Frame(opcode: first & 0x0F, payload: UnsafeRawBufferPointer(rebasing: bytes[start..<(start + length)]))
            )
            at = start + length
        }
        return (at, nil)
    }
}

/// What the scenarios look at in a server's message, without parsing the rest of it.
struct Scan {
    let payload: UnsafeRawBufferPointer

    /// Whether the message is of this type; Martlet writes `type` first.
    func isType(_ type: StaticString) -> Bool {
        let start: StaticString = "{\"type\":\""
        let count = start.utf8CodeUnitCount + type.utf8CodeUnitCount
        guard payload.count > count, let base = payload.baseAddress else { return false }
        return memcmp(base, start.utf8Start, start.utf8CodeUnitCount) == 0
            && memcmp(base + start.utf8CodeUnitCount, type.utf8Start, type.utf8CodeUnitCount) == 0
            && payload[count] == UInt8(ascii: "\"")
    }

    /// The whole number after the first `"seq":`. A quote inside a JSON string is escaped, so no text can look like this key.
    var seq: Int64? { number(after: "\"seq\":") }

    private func number(after key: StaticString) -> Int64? {
        guard let base = payload.baseAddress,
            let found = memmem(base, payload.count, key.utf8Start, key.utf8CodeUnitCount)
        else { return nil }
        var at = UnsafeRawPointer(found) - base + key.utf8CodeUnitCount
        var value: Int64 = 0
        let first = at
        while at < payload.count, case let digit = payload[at], digit >= 48 && digit <= 57, at - first < 18 {
            value = value * 10 + Int64(digit - 48)
            at += 1
        }
        return at > first ? value : nil
    }

    var text: String { String(decoding: payload, as: UTF8.self) }

    /// What to say of an error.
    var refusal: String {
        let hint = text.contains("rate_limited") ? " (lift its limits with MARTLET_LIMIT_MESSAGES_PER_SECOND=0)" : ""
        return "the server answered \(text)\(hint)"
    }
}
