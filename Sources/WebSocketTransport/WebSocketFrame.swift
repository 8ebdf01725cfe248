package import NIOCore

/// Frames as a server sends them: unmasked, unfragmented, with the shortest length form (RFC 6455 section 5.2).
package enum WebSocketFrame {
    package enum Opcode: UInt8, Sendable {
        case continuation = 0x0
        case text = 0x1
        case binary = 0x2
        case close = 0x8
        case ping = 0x9
        case pong = 0xA

        var isControl: Bool { rawValue & 0x8 != 0 }
    }

    /// Bytes of the header in front of `payloadBytes` unmasked bytes: 2, 4 or 10.
    package static func headerLength(payloadBytes: Int) -> Int {
        payloadBytes < 126 ? 2 : payloadBytes <= 0xFFFF ? 4 : 10
    }

    package static func appendText(_ payload: UnsafeRawBufferPointer, to buffer: inout ByteBuffer) {
        append(payload, opcode: .text, to: &buffer)
    }

    package static func appendText(_ payload: ByteBuffer, to buffer: inout ByteBuffer) {
        payload.withUnsafeReadableBytes { append($0, opcode: .text, to: &buffer) }
    }

    package static func append(_ payload: UnsafeRawBufferPointer, opcode: Opcode, to buffer: inout ByteBuffer) {
        appendHeader(opcode: opcode, payloadBytes: payload.count, to: &buffer)
        buffer.writeBytes(payload)
    }

    /// The header alone; exactly `payloadBytes` bytes must follow.
    package static func appendHeader(
        opcode: Opcode, isCompressed: Bool = false, payloadBytes: Int, to buffer: inout ByteBuffer
    ) {
        appendHeader(first: opcode.rawValue | (isCompressed ? 0xC0 : 0x80), payloadBytes, maskBit: 0, to: &buffer)
    }

    /// A masked frame, as a client sends it (section 5.3).
    static func append(
        _ payload: UnsafeRawBufferPointer,
        opcode: Opcode,
        masking key: MaskingKey,
        to buffer: inout ByteBuffer
    ) {
        appendHeader(first: opcode.rawValue | 0x80, payload.count, maskBit: 0x80, to: &buffer)
        buffer.writeInteger(key.word, endianness: .little)
        _ = buffer.append(payload, masking: key)
    }

    private static func appendHeader(
        first: UInt8, _ payloadBytes: Int, maskBit: UInt8, to buffer: inout ByteBuffer
    ) {
        if payloadBytes < 126 {
            buffer.writeInteger(UInt16(first) << 8 | UInt16(maskBit | UInt8(payloadBytes)))
        } else if payloadBytes <= 0xFFFF {
            let head = UInt32(first) << 24 | UInt32(maskBit | 126) << 16 | UInt32(payloadBytes)
            buffer.writeInteger(head)
        } else {
            buffer.writeInteger(UInt16(first) << 8 | UInt16(maskBit | 127))
            buffer.writeInteger(UInt64(payloadBytes))
        }
    }

    /// The payload of a Close frame: the code, and as much of `reason` as 123 bytes hold without splitting a character.
    static func closePayload(code: UInt16, reason: String) -> ByteBuffer {
        var buffer = ByteBuffer()
        guard WebSocketCloseCode.isAllowedOnTheWire(code) else { return buffer }
        buffer.writeInteger(code)
        var end = reason.utf8.startIndex
        var used = 0
        for character in reason.unicodeScalars {
            let width = String(character).utf8.count
            guard used + width <= 123 else { break }
            used += width
            end = reason.utf8.index(end, offsetBy: width)
        }
        buffer.writeString(String(reason[..<end]))
        return buffer
    }
}
