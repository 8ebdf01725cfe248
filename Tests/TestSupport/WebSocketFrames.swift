import CZlib

/// A frame as a client sends it (RFC 6455 section 5.2). Every field can be wrong, to see what a server does.
package struct ClientFrame: Sendable {
    package enum Opcode {
        package static let continuation: UInt8 = 0
        package static let text: UInt8 = 1
        package static let binary: UInt8 = 2
        package static let close: UInt8 = 8
        package static let ping: UInt8 = 9
        package static let pong: UInt8 = 10
    }

    package enum LengthForm: Sendable {
        case minimal
        case twoBytes
        case eightBytes
    }

    package var opcode: UInt8
    package var payload: [UInt8]
    package var isFinal = true
    /// RSV1 is 4, RSV2 is 2, RSV3 is 1.
    package var reservedBits: UInt8 = 0
    package var isMasked = true
    package var lengthForm = LengthForm.minimal
    /// Said in the header in place of the length of `payload`.
    package var declaredLength: UInt64?

    package init(_ opcode: UInt8, _ payload: [UInt8] = [], isFinal: Bool = true) {
        self.opcode = opcode
        self.payload = payload
        self.isFinal = isFinal
    }

    package init(_ opcode: UInt8, text: String, isFinal: Bool = true) {
        self.init(opcode, Array(text.utf8), isFinal: isFinal)
    }

    package static func close(code: UInt16, reason: String = "") -> ClientFrame {
        ClientFrame(Opcode.close, [UInt8(code >> 8), UInt8(code & 0xFF)] + Array(reason.utf8))
    }

    package var bytes: [UInt8] {
        var bytes: [UInt8] = [(isFinal ? 0x80 : 0) | reservedBits << 4 | opcode]
        let maskBit: UInt8 = isMasked ? 0x80 : 0
        let length = declaredLength ?? UInt64(payload.count)
        switch lengthForm {
        case .minimal where length < 126:
            bytes.append(maskBit | UInt8(length))
        case .minimal where length < 65536, .twoBytes:
            bytes.append(maskBit | 126)
            for shift in [8, 0] { bytes.append(UInt8(truncatingIfNeeded: length >> UInt64(shift))) }
        case .minimal, .eightBytes:
            bytes.append(maskBit | 127)
            for shift in stride(from: 56, through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: length >> UInt64(shift)))
            }
        }
        guard isMasked else { return bytes + payload }
        let key = UInt32.random(in: 0...UInt32.max)
        let mask = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: key >> UInt32($0)) }
        bytes.append(contentsOf: mask)
        bytes.reserveCapacity(bytes.count + payload.count)
        var index = 0
        for byte in payload {
            bytes.append(byte ^ mask[index & 3])
            index += 1
        }
        return bytes
    }
}

/// Takes a server's frames apart and notes what RFC 6455 does not let a server send.
struct ServerFrameParser {
    enum Event {
        case text([UInt8])
        case binary([UInt8])
        case ping([UInt8])
        case pong([UInt8])
        case close(code: UInt16, reason: String)
    }

    private var buffer: [UInt8] = []
    private var start = 0
    private var fragments: (opcode: UInt8, payload: [UInt8])?
    private(set) var violations: [String] = []
    private var hasClosed = false
    /// The server may send compressed messages (RFC 7692); what it sends at all in one frame.
    var allowsCompression = false
    private(set) var compressedMessages = 0

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        buffer.append(contentsOf: bytes)
    }

    mutating func next() -> Event? {
        while let frame = frame() {
            if hasClosed { violations.append("a frame with opcode \(frame.opcode) after a Close") }
            if let event = event(of: frame) { return event }
        }
        buffer.removeFirst(start)
        start = 0
        return nil
    }

    private typealias Frame = (isFinal: Bool, isCompressed: Bool, opcode: UInt8, payload: [UInt8])

    private mutating func frame() -> Frame? {
        buffer.withUnsafeBufferPointer { bytes -> (Frame, Int, [String])? in
            let available = bytes.count - start
            guard available >= 2 else { return nil }
            var problems: [String] = []
            let first = bytes[start]
            let second = bytes[start + 1]
            let isCompressed = allowsCompression && first & 0x40 != 0
            if first & (isCompressed ? 0x30 : 0x70) != 0 { problems.append("reserved bits \(first >> 4 & 7)") }
            if second & 0x80 != 0 { problems.append("a masked frame") }
            var length = Int(second & 0x7F)
            var header = 2
            if length == 126 {
                header = 4
                guard available >= header else { return nil }
                length = Int(bytes[start + 2]) << 8 | Int(bytes[start + 3])
                if length < 126 { problems.append("a length that is not minimal") }
            } else if length == 127 {
                header = 10
                guard available >= header else { return nil }
                length = 0
                for index in 2..<10 { length = length << 8 | Int(bytes[start + index]) }
                if length < 65536 { problems.append("a length that is not minimal") }
            }
            if second & 0x80 != 0 { header += 4 }
            guard available >= header + length else { return nil }
            let payload = Array(bytes[(start + header)..<(start + header + length)])
            return ((first & 0x80 != 0, isCompressed, first & 0x0F, payload), header + length, problems)
        }.map { frame, count, problems in
            start += count
            violations += problems
            return frame
        }
    }

    private mutating func event(of frame: Frame) -> Event? {
        if frame.opcode >= 8 {
            if !frame.isFinal { violations.append("a fragmented control frame") }
            if frame.payload.count > 125 { violations.append("a control frame of \(frame.payload.count) bytes") }
        }
        switch frame.opcode {
        case 0:
            guard var message = fragments else {
                violations.append("a continuation of nothing")
                return nil
            }
            message.payload += frame.payload
            fragments = frame.isFinal ? nil : message
            return frame.isFinal ? whole(message.opcode, message.payload) : nil
        case 1, 2:
            if fragments != nil { violations.append("a new message inside another") }
            if frame.isCompressed { return expanded(frame) }
            if frame.isFinal { return whole(frame.opcode, frame.payload) }
            fragments = (frame.opcode, frame.payload)
            return nil
        case 8:
            hasClosed = true
            guard frame.payload.count >= 2 else {
                if frame.payload.count == 1 { violations.append("a Close of one byte") }
                return .close(code: 1005, reason: "")
            }
            let code = UInt16(frame.payload[0]) << 8 | UInt16(frame.payload[1])
            guard let reason = String(validating: frame.payload[2...], as: UTF8.self) else {
                violations.append("a Close reason that is not UTF-8")
                return .close(code: code, reason: "")
            }
            if !(1000...1014).contains(code) && !(3000...4999).contains(code) || (1004...1006).contains(code) {
                violations.append("the close code \(code), which must not be sent")
            }
            return .close(code: code, reason: reason)
        case 9: return .ping(frame.payload)
        case 10: return .pong(frame.payload)
        default:
            violations.append("the opcode \(frame.opcode)")
            return nil
        }
    }

    private mutating func expanded(_ frame: Frame) -> Event? {
        guard frame.isFinal, let message = Self.inflated(frame.payload) else {
            violations.append("a compressed message that cannot be read")
            return nil
        }
        compressedMessages += 1
        return whole(frame.opcode, message)
    }

    /// As a peer without context takeover reads it.
    private static func inflated(_ payload: [UInt8]) -> [UInt8]? {
        var stream = z_stream()
        guard inflateInit2_(&stream, -15, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK else { return nil }
        defer { inflateEnd(&stream) }
        var input = payload + [0x00, 0x00, 0xFF, 0xFF]
        var output = [UInt8](repeating: 0, count: 4 << 20)
        let count = input.withUnsafeMutableBufferPointer { input in
            output.withUnsafeMutableBufferPointer { output -> Int? in
                (stream.next_in, stream.avail_in) = (input.baseAddress, CUnsignedInt(input.count))
                (stream.next_out, stream.avail_out) = (output.baseAddress, CUnsignedInt(output.count))
                guard inflate(&stream, Z_SYNC_FLUSH) == Z_OK, stream.avail_in == 0 else { return nil }
                return output.count - Int(stream.avail_out)
            }
        }
        return count.map { Array(output.prefix($0)) }
    }

    private func whole(_ opcode: UInt8, _ payload: [UInt8]) -> Event {
        opcode == 1 ? .text(payload) : .binary(payload)
    }
}
