import NIOCore

/// One frame's header (RFC 6455 section 5.2), checked by itself; what depends on earlier frames is the decoder's.
struct FrameHeader: Equatable {
    /// What the handshake and the roles make of a header.
    struct Rules: Equatable {
        /// A server's peer must mask, a client's must not (section 5.1).
        var expectsMask: Bool
        /// RSV1 of a message's first frame says that it is compressed (RFC 7692 section 6).
        var allowsCompression = false
    }

    var isFinal = false
    var isCompressed = false
    var opcode = WebSocketFrame.Opcode.continuation
    var payloadBytes: UInt64 = 0
    var key = MaskingKey.none

    /// The header at the start of `bytes` and its length, nil when it is not complete. Refuses as soon as the bytes that
    /// are there can't become a legal header.
    static func parse(
        _ bytes: UnsafeRawBufferPointer,
        rules: Rules
    ) throws(WebSocketFailure) -> (header: FrameHeader, length: Int)? {
        guard bytes.count >= 2 else { return nil }
        let first = bytes[0]
        let second = bytes[1]
        guard first & (rules.allowsCompression ? 0x30 : 0x70) == 0 else { throw .protocolError("reserved bits set") }
        guard let opcode = WebSocketFrame.Opcode(rawValue: first & 0x0F) else {
            throw .protocolError("reserved opcode")
        }
        var header = FrameHeader(isFinal: first & 0x80 != 0, isCompressed: first & 0x40 != 0, opcode: opcode)
        guard !header.isCompressed || opcode == .text || opcode == .binary else {
            throw .protocolError("compression bit on a frame that does not begin a message")
        }
        let short = second & 0x7F
        if opcode.isControl {
            guard header.isFinal else { throw .protocolError("fragmented control frame") }
            guard short <= 125 else { throw .protocolError("control frame over 125 bytes") }
        }
        guard (second & 0x80 != 0) == rules.expectsMask else {
            throw .protocolError(rules.expectsMask ? "unmasked frame" : "masked frame")
        }
        var length = 2
        switch short {
        case 126:
            guard bytes.count >= 4 else { return nil }
            header.payloadBytes = UInt64(UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt16.self)))
            guard header.payloadBytes >= 126 else { throw .protocolError("length not in its shortest form") }
            length = 4
        case 127:
            guard bytes.count >= 10 else { return nil }
            header.payloadBytes = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 2, as: UInt64.self))
            guard header.payloadBytes >> 63 == 0 else { throw .protocolError("length over 63 bits") }
            guard header.payloadBytes > 0xFFFF else { throw .protocolError("length not in its shortest form") }
            length = 10
        default:
            header.payloadBytes = UInt64(short)
        }
        if rules.expectsMask {
            guard bytes.count >= length + 4 else { return nil }
            let word = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: length, as: UInt32.self))
            header.key = MaskingKey(word: word)
            length += 4
        }
        return (header, length)
    }
}

/// The bytes (at most 13) of a header that arrived in pieces.
struct PartialHeader {
    private var storage: (UInt64, UInt64) = (0, 0)
    private var count = 0

    var isEmpty: Bool { count == 0 }

    /// A complete header taken off the front of `input`, or nil with all of `input` taken.
    mutating func take(
        _ input: inout UnsafeRawBufferPointer,
        rules: FrameHeader.Rules
    ) throws(WebSocketFailure) -> FrameHeader? {
        if count == 0, let whole = try FrameHeader.parse(input, rules: rules) {
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(whole.length))
            return whole.header
        }
        while let byte = input.first {
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst())
            withUnsafeMutableBytes(of: &storage) { $0[count] = byte }
            count += 1
            if let whole = try parse(rules: rules) {
                count = 0
                return whole
            }
        }
        return nil
    }

    private func parse(rules: FrameHeader.Rules) throws(WebSocketFailure) -> FrameHeader? {
        let result: Result<FrameHeader?, WebSocketFailure> = withUnsafeBytes(of: storage) { bytes in
            do throws(WebSocketFailure) {
                let part = UnsafeRawBufferPointer(rebasing: bytes.prefix(count))
                return .success(try FrameHeader.parse(part, rules: rules)?.header)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
