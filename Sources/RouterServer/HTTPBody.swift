package import NIOCore

/// Where a message's body ends (RFC 9112 section 6).
package enum BodyLength: Equatable, Sendable {
    case none
    case bytes(Int)
    case chunked
    /// Ends with the connection; responses only.
    case untilClose
}

extension RequestHead {
    /// Refuses every head in which two parsers could see bodies of different lengths: both length and coding, more
    /// than one of either, a length that is not plain digits, a coding that is not exactly `chunked`, a coding in
    /// HTTP/1.0.
    package func bodyLength() throws(HTTPFault) -> BodyLength {
        guard let length = try declaredBodyLength(fields, minorVersion: minorVersion) else { return .none }
        return length == .bytes(0) ? .none : length
    }
}

extension ResponseHead {
    /// - Parameter method: of the request that this answers.
    package func bodyLength(answering method: String) throws(HTTPFault) -> BodyLength {
        let declared = try declaredBodyLength(fields, minorVersion: minorVersion)
        if method == "HEAD" || status < 200 || status == 204 || status == 304 { return .none }
        guard let declared else { return .untilClose }
        return declared == .bytes(0) ? .none : declared
    }
}

private func declaredBodyLength(_ fields: [HTTPField], minorVersion: Int) throws(HTTPFault) -> BodyLength? {
    let codings = fields.values("transfer-encoding")
    let lengths = fields.values("content-length")
    guard codings.isEmpty || lengths.isEmpty else {
        throw .malformed("it has both a Content-Length and a Transfer-Encoding")
    }
    if let coding = codings.first {
        guard codings.count == 1, minorVersion == 1, String(buffer: coding).lowercased() == "chunked" else {
            throw .malformed("its Transfer-Encoding is not chunked alone")
        }
        return .chunked
    }
    guard let length = lengths.first else { return nil }
    guard lengths.count == 1, (1...18).contains(length.readableBytes),
        length.readableBytesView.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let count = Int(String(buffer: length))
    else { throw .malformed("its Content-Length is not one number") }
    return .bytes(count)
}

/// Takes a body off a stream of bytes, so that what follows it is never mistaken for it. Chunk extensions and
/// trailers are read and dropped (RFC 9112 section 7.1).
package struct BodyDecoder: Sendable {
    package enum Piece: Equatable, Sendable {
        case data(ByteBuffer)
        case end
    }

    private enum State: Equatable, Sendable {
        case bytes(Int)
        case untilClose
        case chunkSize
        case chunk(Int)
        case chunkEnd
        case trailers(bytes: Int)
        case ended
    }

    private var state: State

    package init(_ length: BodyLength) {
        state =
            switch length {
            case .none: .ended
            case .bytes(let count): count == 0 ? .ended : .bytes(count)
            case .chunked: .chunkSize
            case .untilClose: .untilClose
            }
    }

    package var hasEnded: Bool { state == .ended }

    /// The next piece, `.end` once the body is complete and from then on; nil when more bytes are needed.
    package mutating func next(_ buffer: inout ByteBuffer) throws(HTTPFault) -> Piece? {
        while true {
            switch state {
            case .ended:
                return .end
            case .untilClose:
                guard buffer.readableBytes > 0 else { return nil }
                return buffer.readSlice(length: buffer.readableBytes).map { .data($0) }
            case .bytes(let rest):
                guard let piece = take(rest, from: &buffer) else { return nil }
                state = piece.readableBytes == rest ? .ended : .bytes(rest - piece.readableBytes)
                return .data(piece)
            case .chunkSize:
                guard let line = try readLine(&buffer, limit: 256) else { return nil }
                let size = try chunkSize(line)
                state = size == 0 ? .trailers(bytes: 0) : .chunk(size)
            case .chunk(let rest):
                guard let piece = take(rest, from: &buffer) else { return nil }
                state = piece.readableBytes == rest ? .chunkEnd : .chunk(rest - piece.readableBytes)
                return .data(piece)
            case .chunkEnd:
                guard let end = buffer.readInteger(as: UInt16.self) else { return nil }
                guard end == 0x0D0A else { throw .malformed("a chunk is longer than it says") }
                state = .chunkSize
            case .trailers(let seen):
                guard let line = try readLine(&buffer, limit: 8192) else { return nil }
                if line.readableBytes == 0 {
                    state = .ended
                } else {
                    guard seen + line.readableBytes <= 8192 else { throw .headTooLarge }
                    state = .trailers(bytes: seen + line.readableBytes)
                }
            }
        }
    }

    /// Tells that no bytes follow; true when the body is complete with that.
    package mutating func endOfInput() -> Bool {
        if state == .untilClose { state = .ended }
        return state == .ended
    }

    private func take(_ limit: Int, from buffer: inout ByteBuffer) -> ByteBuffer? {
        guard buffer.readableBytes > 0 else { return nil }
        return buffer.readSlice(length: min(limit, buffer.readableBytes))
    }

    private func readLine(_ buffer: inout ByteBuffer, limit: Int) throws(HTTPFault) -> ByteBuffer? {
        let view = buffer.readableBytesView.prefix(limit + 2)
        guard let end = view.firstIndex(where: { ($0 < 0x20 && $0 != 0x09) || $0 == 0x7F }) else {
            if view.count > limit { throw .malformed("a line of its chunked body is too long") }
            return nil
        }
        guard view[end] == 0x0D else { throw .malformed("a control character in a line of its chunked body") }
        guard end + 1 < view.endIndex else { return nil }
        guard view[end + 1] == 0x0A else { throw .malformed("a CR without its LF") }
        let line = buffer.readSlice(length: end - view.startIndex)
        buffer.moveReaderIndex(forwardBy: 2)
        return line
    }

    private func chunkSize(_ line: ByteBuffer) throws(HTTPFault) -> Int {
        let digits = line.readableBytesView.prefix { byte in
            (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
        }
        let rest = line.readableBytesView.dropFirst(digits.count).first { $0 != 0x20 && $0 != 0x09 }
        guard (1...15).contains(digits.count), rest == nil || rest == UInt8(ascii: ";"),
            let size = Int(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw .malformed("a chunk has no size") }
        return size
    }
}

extension BodyLength {
    /// Writes a piece so that a receiver of this framing reads it; nothing for an empty one.
    package func write(_ piece: BodyDecoder.Piece, to buffer: (ByteBuffer) -> Void) {
        switch (self, piece) {
        case (.chunked, .data(let data)):
            guard data.readableBytes > 0 else { return }
            buffer(ByteBuffer(string: String(data.readableBytes, radix: 16) + "\r\n"))
            buffer(data)
            buffer(ByteBuffer(string: "\r\n"))
        case (.chunked, .end):
            buffer(ByteBuffer(string: "0\r\n\r\n"))
        case (.none, _), (.bytes, .end), (.untilClose, .end):
            break
        case (.bytes, .data(let data)), (.untilClose, .data(let data)):
            buffer(data)
        }
    }
}
