import NIOCore
import Testing

@testable import WebSocketTransport

/// What a decoder made of bytes fed in the given pieces.
private func decode(
    _ pieces: [[UInt8]],
    role: FrameDecoder.Role = .server,
    limit: Int = 1 << 20
) -> [FrameDecoder.Action] {
    var decoder = FrameDecoder(role: role, maximumMessageBytes: limit)
    var scratch = ByteBuffer()
    var actions: [FrameDecoder.Action] = []
    for piece in pieces {
        piece.withUnsafeBytes { bytes in
            var input = bytes
            while true {
                let action = decoder.next(&input, scratch: &scratch)
                if action == .needsMoreBytes { break }
                actions.append(action)
                if actions.count > 1000 { break }
            }
            #expect(input.isEmpty)
        }
    }
    return actions
}

private func text(_ text: String) -> FrameDecoder.Action { .text(ByteBuffer(string: text)) }
private func fails(_ code: UInt16, _ reason: StaticString) -> FrameDecoder.Action {
    .fail(WebSocketFailure(code: code, reason: reason))
}

@Suite("Frame decoder")
struct FrameDecoderTests {
    private static let long = String(repeating: "Zwölf Boxkämpfer jagen Viktor. 🥊 ", count: 40)

    private static let conversation: [UInt8] =
        clientText("hello")
        + clientFrame(0x01, Array("gr".utf8)) + clientFrame(0x89, Array("are you there".utf8))
        + clientFrame(0x00, [0xC3]) + clientFrame(0x8A, [1, 2]) + clientFrame(0x00, [])
        + clientFrame(0x80, [0xBC] + Array("n".utf8))
        + clientFrame(0x82, [0xFF, 0x00, 0xC3]) + clientFrame(0x81, [])
        + clientFrame(0x81, Array(long.utf8)) + clientFrame(0x02, [1]) + clientFrame(0x80, [2])
        + clientFrame(0x88, closePayload(1000, "bye"))

    private static let heard: [FrameDecoder.Action] = [
        text("hello"), .ping(ByteBuffer(string: "are you there")), .pong, text("grün"),
        .binary(ByteBuffer(bytes: [0xFF, 0x00, 0xC3])), text(""), text(long), .binary(ByteBuffer(bytes: [1, 2])),
        .close(code: 1000, reason: "bye"),
    ]

    @Test("hears the same whatever the pieces: split at every byte")
    func everySplit() {
        let bytes = Self.conversation
        #expect(decode([bytes]) == Self.heard)
        for index in bytes.indices {
            #expect(decode([Array(bytes[..<index]), Array(bytes[index...])]) == Self.heard)
        }
    }

    @Test("hears the same whatever the pieces: one byte, then n bytes at a time", arguments: 1...17)
    func everyPieceSize(size: Int) {
        let bytes = Self.conversation
        let pieces = stride(from: 0, to: bytes.count, by: size).map {
            Array(bytes[$0..<min($0 + size, bytes.count)])
        }
        #expect(decode(pieces) == Self.heard)
    }

    @Test(
        "reads all three length forms, masked and unmasked, with the header whole or byte by byte",
        arguments: [0, 1, 125, 126, 127, 65535, 65536, 70000])
    func lengths(count: Int) {
        let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let masked = clientFrame(0x82, payload)
        #expect(decode([masked]) == [.binary(ByteBuffer(bytes: payload))])
        let header = masked.count - count
        let pieces = masked[..<header].map { [$0] } + [Array(masked[header...])]
        #expect(decode(pieces) == [.binary(ByteBuffer(bytes: payload))])
        var frame = ByteBuffer()
        payload.withUnsafeBytes { WebSocketFrame.append($0, opcode: .binary, to: &frame) }
        #expect(frame.readableBytes == count + WebSocketFrame.headerLength(payloadBytes: count))
        let bytes = Array(frame.readableBytesView)
        #expect(decode([bytes], role: .client) == [.binary(ByteBuffer(bytes: payload))])
    }

    @Test(
        "refuses what RFC 6455 forbids, whole and byte by byte",
        arguments: [
            ([0x81, 0x05] + Array("hello".utf8), fails(1002, "unmasked frame")),
            ([0x82, 0x00], fails(1002, "unmasked frame")),
            ([0x88, 0x02, 0x03, 0xE8], fails(1002, "unmasked frame")),
            ([0x89, 0x00], fails(1002, "unmasked frame")),
            ([0x8A, 0x00], fails(1002, "unmasked frame")),
            (clientFrame(0x01, [65]) + [0x80, 0x01, 0x42], fails(1002, "unmasked frame")),
            (clientFrame(0x01, [65]) + [0x89, 0x00], fails(1002, "unmasked frame")),
            (clientFrame(0xC1, [65]), fails(1002, "reserved bits set")),
            (clientFrame(0xA1, [65]), fails(1002, "reserved bits set")),
            (clientFrame(0x91, [65]), fails(1002, "reserved bits set")),
            (clientFrame(0x83, [65]), fails(1002, "reserved opcode")),
            (clientFrame(0x87, []), fails(1002, "reserved opcode")),
            (clientFrame(0x8B, []), fails(1002, "reserved opcode")),
            (clientFrame(0x8F, []), fails(1002, "reserved opcode")),
            (clientFrame(0x80, [65]), fails(1002, "continuation without a message")),
            (clientFrame(0x00, [65]), fails(1002, "continuation without a message")),
            (clientFrame(0x01, [65]) + clientText("b"), fails(1002, "new message inside a fragmented one")),
            (clientFrame(0x02, [65]) + clientFrame(0x02, []), fails(1002, "new message inside a fragmented one")),
            (clientFrame(0x09, [65]), fails(1002, "fragmented control frame")),
            (clientFrame(0x08, []), fails(1002, "fragmented control frame")),
            (
                clientFrame(0x89, [UInt8](repeating: 65, count: 126)),
                fails(1002, "control frame over 125 bytes")
            ),
            ([0x8A, 0xFF] + [UInt8](repeating: 0, count: 12), fails(1002, "control frame over 125 bytes")),
            ([0x81, 0xFE, 0x00, 0x7D, 0, 0, 0, 0], fails(1002, "length not in its shortest form")),
            ([0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0], fails(1002, "length not in its shortest form")),
            ([0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], fails(1002, "length over 63 bits")),
            ([0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], fails(1009, "message too big")),
            (clientFrame(0x88, [0x03]), fails(1002, "close payload of one byte")),
            (clientFrame(0x88, closePayload(1000) + [0xC3]), fails(1007, "invalid UTF-8")),
            (clientFrame(0x88, closePayload(1000) + [0xFF]), fails(1007, "invalid UTF-8")),
            (clientFrame(0x81, [0xC3]), fails(1007, "invalid UTF-8")),
            (clientFrame(0x81, [0xED, 0xA0, 0x80]), fails(1007, "invalid UTF-8")),
            (clientFrame(0x01, [0xE2, 0x82]) + clientFrame(0x80, [0x41]), fails(1007, "invalid UTF-8")),
            (clientFrame(0x01, [0xF0, 0x9F]) + clientFrame(0x80, []), fails(1007, "invalid UTF-8")),
            (clientFrame(0x01, [0xF4]) + clientFrame(0x00, [0x90]), fails(1007, "invalid UTF-8")),
        ] as [([UInt8], FrameDecoder.Action)]
    )
    func malformed(bytes: [UInt8], failure: FrameDecoder.Action) {
        #expect(decode([bytes]) == [failure])
        #expect(decode(bytes.map { [$0] }) == [failure])
        #expect(decode([bytes + clientText("ignored")]) == [failure])
        #expect(decode([clientText("fine") + bytes]) == [text("fine"), failure])
    }

    @Test("a server's frame must not be masked")
    func maskedByServer() {
        #expect(decode([clientText("x")], role: .client) == [fails(1002, "masked frame")])
    }

    @Test("knows which close codes may stand on the wire")
    func closeCodes() {
        let allowed = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
        for code in allowed.map(UInt16.init) {
            #expect(decode([clientFrame(0x88, closePayload(code))]) == [.close(code: code, reason: "")])
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535].map(UInt16.init) {
            #expect(decode([clientFrame(0x88, closePayload(code))]) == [fails(1002, "invalid close code")])
        }
        #expect(decode([clientFrame(0x88, [])]) == [.close(code: 1005, reason: "")])
    }

    @Test("a message may have exactly the limit, also in fragments, with control frames between not counted")
    func limit() {
        let full = [UInt8](repeating: 65, count: 1000)
        let tooBig = fails(1009, "message too big")
        #expect(decode([clientFrame(0x82, full)], limit: 1000) == [.binary(ByteBuffer(bytes: full))])
        #expect(decode([clientFrame(0x82, full + [65])], limit: 1000) == [tooBig])
        let half = [UInt8](repeating: 65, count: 500)
        let fragments = clientFrame(0x02, half) + clientFrame(0x89, half.prefix(100) + []) + clientFrame(0x80, half)
        #expect(
            decode([fragments], limit: 1000)
                == [.ping(ByteBuffer(bytes: half.prefix(100))), .binary(ByteBuffer(bytes: full))]
        )
        #expect(decode([clientFrame(0x02, half), clientFrame(0x80, half + [1])], limit: 1000) == [tooBig])
        #expect(decode([[0x81, 0xFE, 0x03, 0xE9]] + [[0, 0, 0, 0]], limit: 1000) == [tooBig], "before the payload")
    }

    @Test("a partial message holds what arrived, and nothing is held after it")
    func holdsNothing() {
        var decoder = FrameDecoder(role: .server, maximumMessageBytes: 1 << 20)
        var scratch = ByteBuffer()
        let frame = clientFrame(0x82, [UInt8](repeating: 1, count: 50000))
        frame[..<20008].withUnsafeBytes { bytes in
            var input = bytes
            #expect(decoder.next(&input, scratch: &scratch) == .needsMoreBytes)
        }
        #expect(decoder.bufferedBytes == 20000)
        frame[20008...].withUnsafeBytes { bytes in
            var input = bytes
            #expect(decoder.next(&input, scratch: &scratch) == .binary(ByteBuffer(repeating: 1, count: 50000)))
        }
        #expect(decoder.bufferedBytes == 0)
    }
}

@Suite("UTF-8 and masks")
struct UTF8Tests {
    private func isValid(_ bytes: [UInt8]) -> Bool {
        var validator = UTF8Validator()
        return bytes.withUnsafeBytes { validator.accept($0) } && validator.isAtBoundary
    }

    @Test(
        "agrees with the standard library on all texts of up to two bytes, and on every lead with edge bytes behind it"
    )
    func agrees() {
        for first in UInt8.min ... .max {
            #expect(isValid([first]) == (String(validating: [first], as: UTF8.self) != nil))
            for second in UInt8.min ... .max {
                let bytes = [first, second]
                if isValid(bytes) != (String(validating: bytes, as: UTF8.self) != nil) { Issue.record("\(bytes)") }
            }
        }
        let seconds: [UInt8] = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0]
        let others: [UInt8] = [0x41, 0x80, 0xBF, 0xC3]
        for first in UInt8(0xDF)...0xF7 {
            for second in seconds {
                for third in others {
                    for fourth in others {
                        for bytes in [[first, second, third], [first, second, third, fourth]]
                        where isValid(bytes) != (String(validating: bytes, as: UTF8.self) != nil) {
                            Issue.record("\(bytes)")
                        }
                    }
                }
            }
        }
    }

    @Test("finds a wrong byte at any place of a long text")
    func places() {
        let text = Array(String(repeating: "aé€🐦 plain ascii text ", count: 4).utf8)
        #expect(isValid(text))
        for index in text.indices {
            var broken = text
            broken[index] = 0xFF
            #expect(!isValid(broken))
        }
    }

    @Test("refuses at the first byte that can't continue")
    func early() {
        var validator = UTF8Validator()
        #expect([UInt8](arrayLiteral: 0x41, 0xF4).withUnsafeBytes { validator.accept($0) })
        #expect(!validator.isAtBoundary)
        #expect([UInt8](arrayLiteral: 0x90).withUnsafeBytes { validator.accept($0) } == false)
    }

    @Test("masks as the definition says, at every length and offset, in place too")
    func masks() {
        let key = MaskingKey(word: 0x3D21_FA37)
        let keyBytes: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
        for count in 0..<70 {
            for offset in 0..<4 {
                let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 5) }
                let expected = payload.enumerated().map { $1 ^ keyBytes[($0 + offset) & 3] }
                var buffer = ByteBuffer()
                let isASCII = payload.withUnsafeBytes { buffer.append($0, masking: key.advanced(by: offset)) }
                #expect(Array(buffer.readableBytesView) == expected)
                #expect(isASCII == expected.allSatisfy { $0 < 0x80 })
                var inPlace = payload
                inPlace.withUnsafeMutableBytes { bytes in
                    guard let base = bytes.baseAddress else { return }
                    _ = key.advanced(by: offset).apply(from: base, to: base, count: count)
                }
                #expect(inPlace == expected)
            }
        }
    }

    @Test("a close reason is cut at a character, to 123 bytes")
    func closeReason() {
        let payload = WebSocketFrame.closePayload(code: 1000, reason: String(repeating: "é", count: 100))
        #expect(payload.readableBytes == 2 + 122)
        #expect(WebSocketFrame.closePayload(code: 1006, reason: "x").readableBytes == 0)
    }
}
