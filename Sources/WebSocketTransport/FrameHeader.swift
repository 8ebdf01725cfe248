import NIOCore

/// One frame's header (RFC 6455 section 5.2), checked by itself; what depends on earlier frames is the decoder's.
struct FrameHeader: Equatable {
    var isFinal = false
    var opcode = WebSocketFrame.Opcode.continuation
    var payloadBytes: UInt64 = 0
    var key = MaskingKey.none

    /// The header at the start of `bytes` and its length, nil when it is not complete. Refuses as soon as the bytes that
    /// are there can't become a legal header.
    static func parse(
        _ bytes: UnsafeRawBufferPointer,
        expectsMask: Bool
    ) throws(WebSocketFailure) -> (header: FrameHeader, length: Int)? {
        guard bytes.count >= 2 else { return nil }
        let first = bytes[0]
        let second = bytes[1]
        guard first & 0x70 == 0 else { throw .protocolError("reserved bits set") }
        guard let opcode = WebSocketFrame.Opcode(rawValue: first & 0x0F) else {
            throw .protocolError("reserved opcode")
        }
        var header = FrameHeader(isFinal: first & 0x80 != 0, opcode: opcode)
        let short = second & 0x7F
        if opcode.isControl {
            guard header.isFinal else { throw .protocolError("fragmented control frame") }
            guard short <= 125 else { throw .protocolError("control frame over 125 bytes") }
        }
        guard (second & 0x80 != 0) == expectsMask else {
            throw .protocolError(expectsMask ? "unmasked frame" : "masked frame")
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
        if expectsMask {
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

    /// A complete header taken off the front of `input`, or nil with all of `input` taken.
    mutating func take(
        _ input: inout UnsafeRawBufferPointer,
        expectsMask: Bool
    ) throws(WebSocketFailure) -> FrameHeader? {
        if count == 0, let whole = try FrameHeader.parse(input, expectsMask: expectsMask) {
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst(whole.length))
            return whole.header
        }
        while let byte = input.first {
            input = UnsafeRawBufferPointer(rebasing: input.dropFirst())
            withUnsafeMutableBytes(of: &storage) { $0[count] = byte }
            count += 1
            if let whole = try parse(expectsMask: expectsMask) {
                count = 0
                return whole
            }
        }
        return nil
    }

    private func parse(expectsMask: Bool) throws(WebSocketFailure) -> FrameHeader? {
        let result: Result<FrameHeader?, WebSocketFailure> = withUnsafeBytes(of: storage) { bytes in
            do throws(WebSocketFailure) {
                let part = UnsafeRawBufferPointer(rebasing: bytes.prefix(count))
                return .success(try FrameHeader.parse(part, expectsMask: expectsMask)?.header)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
