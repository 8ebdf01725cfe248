import CZlib
package import NIOCore

// permessage-deflate (RFC 7692): raw DEFLATE (RFC 1951), each message by itself. One compressor and one expander a loop serve
// all of its connections, because no message refers to an earlier one ("no context takeover"): a connection that agreed
// on compression owns no memory for it, and a broadcast is compressed once for all who get it.
//
// zlib keeps a pointer to the stream that it was given, so that is allocated by hand and freed with its owner.

/// Makes compressed frames (RFC 7692 section 7.2.1) for any number of connections that agreed on a window of 2^15 bytes, or
/// on a smaller one that the message fits into.
package final class FrameCompressor {
    /// What is shorter is not worth the processor's time (bytes).
    package static let minimumBytes = 256
    /// Of 9: on chat messages no slower than 1, and more would cost more than it saves.
    private static let level: CInt = 3
    /// 2^6 × 512 bytes instead of zlib's 2^8: less to clear before each message.
    private static let memoryLevel: CInt = 6

    private let stream: UnsafeMutablePointer<z_stream>
    private var scratch = ByteBuffer()

    /// `nil` when there is no memory.
    package init?() {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        let result = deflateInit2_(
            stream, Self.level, Z_DEFLATED, -CInt(DeflateAgreement.maximumWindowBits), Self.memoryLevel,
            Z_DEFAULT_STRATEGY,
            ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size))
        guard result == Z_OK else {
            stream.deallocate()
            return nil
        }
    }

    deinit {
        deflateEnd(stream)
        stream.deallocate()
    }

    /// Appends `message` as one unmasked frame.
    ///
    /// - Returns: false, with nothing appended, when it is shorter than ``minimumBytes`` or would not get shorter.
    package func append(
        _ message: UnsafeRawBufferPointer, opcode: WebSocketFrame.Opcode, to buffer: inout ByteBuffer
    ) -> Bool {
        guard message.count >= Self.minimumBytes, compress(message) else { return false }
        WebSocketFrame.appendHeader(
            opcode: opcode, isCompressed: true, payloadBytes: scratch.readableBytes, to: &buffer)
        buffer.writeImmutableBuffer(scratch)
        return true
    }

    /// Into the scratch buffer, without the last four bytes, 00 00 FF FF.
    private func compress(_ message: UnsafeRawBufferPointer) -> Bool {
        scratch.clear()
        deflateReset(stream)
        stream.pointee.next_in = UnsafeMutablePointer(mutating: message.bindMemory(to: UInt8.self).baseAddress)
        stream.pointee.avail_in = CUnsignedInt(message.count)
        // As long as the message and the tail: there is no use in more.
        let room = message.count + Self.tail.count
        scratch.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { output in
            stream.pointee.next_out = output.bindMemory(to: UInt8.self).baseAddress
            stream.pointee.avail_out = CUnsignedInt(room)
            return deflate(stream, Z_SYNC_FLUSH) == Z_OK ? room - Int(stream.pointee.avail_out) : 0
        }
        guard stream.pointee.avail_out > 0, scratch.readableBytes > Self.tail.count else { return false }
        scratch.moveWriterIndex(to: scratch.writerIndex - Self.tail.count)
        return true
    }

    fileprivate static let tail: [UInt8] = [0x00, 0x00, 0xFF, 0xFF]
}

/// Expands compressed messages, one after the other.
final class MessageInflater {
    private static let firstBytes = 1024

    private let stream: UnsafeMutablePointer<z_stream>

    /// `nil` when there is no memory.
    init?() {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        let result = inflateInit2_(
            stream, -CInt(DeflateAgreement.maximumWindowBits), ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size))
        guard result == Z_OK else {
            stream.deallocate()
            return nil
        }
    }

    deinit {
        inflateEnd(stream)
        stream.deallocate()
    }

    /// Replaces what is in `buffer` by the message that `payload` stands for (section 7.2.2). Never writes more than `limit`
    /// bytes, however little of a bomb has come.
    func expand(_ payload: ByteBuffer, limit: Int, into buffer: inout ByteBuffer) throws(WebSocketFailure) {
        buffer.clear()
        inflateReset(stream)
        try payload.withUnsafeReadableBytes { feed($0, limit: limit, into: &buffer) }.get()
        try FrameCompressor.tail.withUnsafeBytes { feed($0, limit: limit, into: &buffer) }.get()
    }

    private func feed(
        _ bytes: UnsafeRawBufferPointer, limit: Int, into buffer: inout ByteBuffer
    ) -> Result<Void, WebSocketFailure> {
        stream.pointee.next_in = UnsafeMutablePointer(mutating: bytes.bindMemory(to: UInt8.self).baseAddress)
        stream.pointee.avail_in = CUnsignedInt(bytes.count)
        while true {
            // One byte over the limit tells a message that ends there from one that goes on.
            let room = min(max(Self.firstBytes, buffer.readableBytes), limit + 1 - buffer.readableBytes)
            var result = Z_OK
            buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { output in
                stream.pointee.next_out = output.bindMemory(to: UInt8.self).baseAddress
                stream.pointee.avail_out = CUnsignedInt(room)
                result = inflate(stream, Z_SYNC_FLUSH)
                return room - Int(stream.pointee.avail_out)
            }
            guard buffer.readableBytes <= limit else { return .failure(.tooBig) }
            switch result {
            case Z_OK where stream.pointee.avail_out == 0: continue
            case Z_OK, Z_BUF_ERROR: return .success(())
            // A last block; another may follow it (section 7.2.3.4).
            case Z_STREAM_END:
                inflateReset(stream)
                if stream.pointee.avail_in == 0 { return .success(()) }
            default: return .failure(.invalidCompression)
            }
        }
    }
}

/// What a server agrees on with a client that offers permessage-deflate (RFC 7692 section 7.1).
///
/// Both sides forget each message behind itself: the server says so for both, whatever the client offered, as section
/// 7.1.1 lets it. A window smaller than the server's is honoured by sending longer messages uncompressed.
struct DeflateAgreement: Equatable {
    static let maximumWindowBits = 15

    /// The client keeps 2^`serverWindowBits` bytes: 8…15.
    var serverWindowBits: UInt8 = 15
    private var namesWindow = false

    /// The value of `Sec-WebSocket-Extensions` in the answer.
    var header: String {
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            + (namesWindow ? "; server_max_window_bits=\(serverWindowBits)" : "")
    }

    /// The first acceptable offer of the values of `Sec-WebSocket-Extensions`; `nil` when there is none.
    init?(offers: [String]) {
        for offer in offers.flatMap({ Self.split($0, at: ",") }) {
            let parts = Self.split(offer, at: ";")
            guard parts.first?.lowercased() == "permessage-deflate" else { continue }
            var agreement = DeflateAgreement()
            if agreement.accept(parameters: parts.dropFirst()) {
                self = agreement
                return
            }
        }
        return nil
    }

    private init() {}

    /// Section 7.1: an offer with an unknown, repeated or ill-formed parameter is declined.
    private mutating func accept(parameters: ArraySlice<String>) -> Bool {
        var seen: Set<String> = []
        for parameter in parameters {
            let pair = Self.split(parameter, at: "=")
            let value = pair.count == 2 ? Self.unquoted(pair[1]) : nil
            guard pair.count <= 2, seen.insert(pair[0]).inserted else { return false }
            switch pair[0] {
            case "server_no_context_takeover", "client_no_context_takeover":
                guard value == nil else { return false }
            case "client_max_window_bits":
                guard value.map({ Self.windowBits($0) != nil }) ?? (pair.count == 1) else { return false }
            case "server_max_window_bits":
                guard let bits = value.flatMap(Self.windowBits) else { return false }
                (serverWindowBits, namesWindow) = (bits, true)
            default: return false
            }
        }
        return true
    }

    /// 8…15 without a leading zero.
    private static func windowBits(_ text: String) -> UInt8? {
        guard text.first != "0", let bits = UInt8(text), (8...15).contains(bits), text.allSatisfy(\.isNumber) else {
            return nil
        }
        return bits
    }

    private static func unquoted(_ text: String) -> String {
        text.count >= 2 && text.first == "\"" && text.last == "\"" ? String(text.dropFirst().dropLast()) : text
    }

    /// Parts without the white space around them; what stands in quotes is not split.
    private static func split(_ text: String, at separator: Character) -> [String] {
        var parts = [""]
        var isQuoted = false
        for character in text {
            if character == "\"" { isQuoted.toggle() }
            if character == separator, !isQuoted { parts.append("") } else { parts[parts.count - 1].append(character) }
        }
        return parts.map { part in
            let start = part.drop { $0 == " " || $0 == "\t" }
            return String(start.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
        }
    }
}
