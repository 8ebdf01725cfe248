import CZlib
import NIOCore
import Testing

@testable import WebSocketTransport

/// RFC 7692, section by section.
@Suite("permessage-deflate")
struct MessageCompressionTests {
    // MARK: Section 7.1, negotiation

    @Test(
        "An offer is accepted, and both sides forget each message",
        arguments: [
            "permessage-deflate", "permessage-deflate; client_max_window_bits",
            " Permessage-Deflate ;  client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=\"10\"; server_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits=7, permessage-deflate",
        ])
    func accepts(offer: String) throws {
        let agreement = try #require(DeflateAgreement(offers: [offer]))
        #expect(agreement.header == "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
        #expect(agreement.serverWindowBits == 15)
    }

    @Test("A smaller window is confirmed", arguments: 8...15)
    func window(bits: Int) throws {
        let agreement = try #require(DeflateAgreement(offers: ["permessage-deflate; server_max_window_bits=\(bits)"]))
        #expect(agreement.header.hasSuffix("; server_max_window_bits=\(bits)"))
        #expect(agreement.serverWindowBits == bits)
    }

    @Test(
        "An offer that is ill-formed, or names what nobody knows, is declined",
        arguments: [
            "", "permessage-bzip2", "permessage-deflate; foo", "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16", "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; server_max_window_bits=+9", "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=7", "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_max_window_bits; client_max_window_bits", "permessage-deflate;",
            "permessage-deflate; server_max_window_bits=9=9", "permessage-deflate; \"server_max_window_bits=9",
        ])
    func declines(offer: String) {
        #expect(DeflateAgreement(offers: [offer]) == nil)
    }

    @Test("The first acceptable offer counts, over several header lines too")
    func firstOffer() throws {
        let agreement = try #require(
            DeflateAgreement(offers: [
                "permessage-deflate; foo", "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            ]))
        #expect(agreement.serverWindowBits == 10)
    }

    // MARK: Section 7.2, messages

    /// As a peer with a window of its own would read it.
    private func expand(_ payload: ByteBuffer, windowBits: Int = 15) throws -> [UInt8] {
        var stream = z_stream()
        try #require(
            inflateInit2_(&stream, -CInt(windowBits), ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK)
        defer { inflateEnd(&stream) }
        var input = Array(buffer: payload) + [0, 0, 0xFF, 0xFF]
        var output = [UInt8](repeating: 0, count: 1 << 20)
        let count = input.withUnsafeMutableBufferPointer { input in
            output.withUnsafeMutableBufferPointer { output in
                stream.next_in = input.baseAddress
                stream.avail_in = CUnsignedInt(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = CUnsignedInt(output.count)
                #expect(inflate(&stream, Z_SYNC_FLUSH) == Z_OK)
                return output.count - Int(stream.avail_out)
            }
        }
        #expect(stream.avail_in == 0)
        return Array(output.prefix(count))
    }

    @Test(
        "A compressed frame carries RSV1 and what any peer expands to the message",
        arguments: [256, 300, 5000, 65_535, 300_000])
    func roundTrip(count: Int) throws {
        let compressor = try #require(FrameCompressor())
        let inflater = try #require(MessageInflater())
        let text = Array("{\"type\":\"message\",\"text\":\"who is there?\"} ".utf8)
        for round in 0..<3 {
            let message = (0..<count).map { text[($0 * (round + 1)) % text.count] }
            var frame = ByteBuffer()
            #expect(message.withUnsafeBytes { compressor.append($0, opcode: .text, to: &frame) })
            #expect(frame.readableBytes < count / 2)
            var decoder = FrameDecoder(role: .client, allowsCompression: true, maximumMessageBytes: 1 << 20)
            guard case .compressed(let payload, isText: true) = decode(frame, with: &decoder) else {
                Issue.record("no compressed message")
                return
            }
            #expect(try expand(payload) == message)
            var own = ByteBuffer()
            try inflater.expand(payload, limit: count, into: &own)
            #expect(Array(buffer: own) == message)
        }
    }

    @Test("A message within a peer's smaller window needs no larger one", arguments: 9...12)
    func smallWindow(bits: Int) throws {
        let compressor = try #require(FrameCompressor())
        let inflater = try #require(MessageInflater())
        let message = (0..<(1 << bits)).map { UInt8(truncatingIfNeeded: $0 / 7 % 11 + 48) }
        var frame = ByteBuffer()
        #expect(message.withUnsafeBytes { compressor.append($0, opcode: .binary, to: &frame) })
        var decoder = FrameDecoder(role: .client, allowsCompression: true, maximumMessageBytes: 1 << 20)
        guard case .compressed(let payload, isText: false) = decode(frame, with: &decoder) else {
            Issue.record("no compressed message")
            return
        }
        #expect(try expand(payload, windowBits: bits) == message)
        var own = ByteBuffer()
        try inflater.expand(payload, limit: 1 << 20, into: &own)
        #expect(Array(buffer: own) == message)
    }

    @Test("Short messages, and those that would not get shorter, are left as they are")
    func leavesAlone() throws {
        let compressor = try #require(FrameCompressor())
        var frame = ByteBuffer()
        let short = [UInt8](repeating: 65, count: 255)
        #expect(!short.withUnsafeBytes { compressor.append($0, opcode: .text, to: &frame) })
        var generator = SystemRandomNumberGenerator()
        let noise = (0..<4096).map { _ in UInt8.random(in: 0...255, using: &generator) }
        #expect(!noise.withUnsafeBytes { compressor.append($0, opcode: .binary, to: &frame) })
        #expect(frame.readableBytes == 0)
    }

    @Test("The examples of section 7.2.3 expand to Hello")
    func examples() throws {
        let inflater = try #require(MessageInflater())
        let examples: [[UInt8]] = [
            [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
            // One block that is not compressed.
            [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
            // BFINAL is set.
            [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
            // Two blocks.
            [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
        ]
        for example in examples {
            var message = ByteBuffer()
            try inflater.expand(ByteBuffer(bytes: example), limit: 5, into: &message)
            #expect(String(buffer: message) == "Hello")
        }
    }

    @Test(
        "T18: A bomb is stopped one byte behind the limit, whatever the limit, in a buffer of that size",
        arguments: [0, 1, 5000, 65_536])
    func bounded(limit: Int) throws {
        let compressor = try #require(FrameCompressor())
        let inflater = try #require(MessageInflater())
        var frame = ByteBuffer()
        let zeros = [UInt8](repeating: 0, count: 16 << 20)
        #expect(zeros.withUnsafeBytes { compressor.append($0, opcode: .binary, to: &frame) })
        var decoder = FrameDecoder(role: .client, allowsCompression: true, maximumMessageBytes: 1 << 20)
        guard case .compressed(let payload, _) = decode(frame, with: &decoder) else {
            Issue.record("no compressed message")
            return
        }
        var message = ByteBuffer()
        #expect(throws: WebSocketFailure.tooBig) { try inflater.expand(payload, limit: limit, into: &message) }
        #expect(message.readableBytes == limit + 1)
        // A buffer grows to powers of 2.
        #expect(message.storageCapacity <= 4 * max(1024, limit))
    }

    @Test("A bomb is stopped at the limit (1009), and what is no DEFLATE at its first wrong byte (1007)")
    func bombs() throws {
        let compressor = try #require(FrameCompressor())
        let inflater = try #require(MessageInflater())
        var frame = ByteBuffer()
        let zeros = [UInt8](repeating: 0, count: 8 << 20)
        #expect(zeros.withUnsafeBytes { compressor.append($0, opcode: .binary, to: &frame) })
        var decoder = FrameDecoder(role: .client, allowsCompression: true, maximumMessageBytes: 1 << 20)
        guard case .compressed(let payload, _) = decode(frame, with: &decoder) else {
            Issue.record("no compressed message")
            return
        }
        var message = ByteBuffer()
        #expect(throws: WebSocketFailure.tooBig) { try inflater.expand(payload, limit: 65_536, into: &message) }
        #expect(message.storageCapacity <= 262_144)
        #expect(throws: WebSocketFailure.invalidCompression) {
            try inflater.expand(ByteBuffer(bytes: [0xFF, 0xFF, 0xFF]), limit: 65_536, into: &message)
        }
        try inflater.expand(ByteBuffer(bytes: [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]), limit: 5, into: &message)
        #expect(String(buffer: message) == "Hello")
    }

    // MARK: Section 6, frames

    private func decode(_ bytes: ByteBuffer, with decoder: inout FrameDecoder) -> FrameDecoder.Action {
        var scratch = ByteBuffer()
        return bytes.withUnsafeReadableBytes { input in
            var input = input
            return decoder.next(&input, scratch: &scratch)
        }
    }

    @Test("RSV1 stands on the first frame of a data message alone, and only where it was agreed on")
    func reservedBit() {
        func decode(_ first: UInt8, agreed: Bool = true) -> FrameDecoder.Action {
            var decoder = FrameDecoder(role: .client, allowsCompression: agreed, maximumMessageBytes: 100)
            return self.decode(ByteBuffer(bytes: [first, 0]), with: &decoder)
        }
        #expect(decode(0xC1) == .compressed(ByteBuffer(), isText: true))
        for (first, agreed) in [(0xC1, false), (0xC0, true), (0xC9, true), (0xA1, true), (0x91, true)]
            as [(UInt8, Bool)]
        {
            guard case .fail(let failure) = decode(first, agreed: agreed) else {
                Issue.record("\(first) passed")
                continue
            }
            #expect(failure.code == 1002)
        }
    }

    @Test("A compressed message may come in fragments, with a ping between them")
    func fragments() {
        var decoder = FrameDecoder(role: .client, allowsCompression: true, maximumMessageBytes: 100)
        var scratch = ByteBuffer()
        let bytes: [UInt8] = [0x41, 3, 0xF2, 0x48, 0xCD, 0x89, 0, 0x80, 4, 0xC9, 0xC9, 0x07, 0x00]
        bytes.withUnsafeBytes { input in
            var input = input
            #expect(decoder.next(&input, scratch: &scratch) == .ping(ByteBuffer()))
            let whole = ByteBuffer(bytes: [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00])
            #expect(decoder.next(&input, scratch: &scratch) == .compressed(whole, isText: true))
        }
    }
}
