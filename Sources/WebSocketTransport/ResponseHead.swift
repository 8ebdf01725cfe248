import NIOCore
import NIOHTTP1

/// The status line and headers of an HTTP/1.1 answer, read strictly (RFC 9112 sections 4 and 5).
struct ResponseHead {
    let status: HTTPResponseStatus
    let headers: HTTPHeaders

    /// Takes a complete head off the front of `buffer`; nil when the empty line has not come.
    static func read(from buffer: inout ByteBuffer) throws(WebSocketClientError) -> ResponseHead? {
        guard let length = headLength(buffer), let head = buffer.readBytes(length: length) else {
            guard ByteBuffer(string: "HTTP/1.1 ").startsAlike(buffer) else {
                throw .bad("the answer is not HTTP/1.1")
            }
            return nil
        }
        guard let text = String(validating: head, as: UTF8.self) else { throw .bad("the head is not text") }
        var lines = text.split(separator: "\r\n", omittingEmptySubsequences: true)[...]
        guard let statusLine = lines.popFirst(), let status = parseStatus(statusLine) else {
            throw .bad("the answer is not HTTP/1.1")
        }
        var headers = HTTPHeaders()
        for line in lines {
            guard let colon = line.firstIndex(of: ":"), colon > line.startIndex,
                !line[..<colon].contains(where: { $0 == " " || $0 == "\t" || $0.isNewline })
            else { throw .bad("broken header") }
            let value = line[line.index(after: colon)...].trimmingBlanks()
            headers.add(name: String(line[..<colon]), value: String(value))
        }
        return ResponseHead(status: status, headers: headers)
    }

    private static func headLength(_ buffer: ByteBuffer) -> Int? {
        buffer.withUnsafeReadableBytes { bytes in
            guard bytes.count >= 4 else { return nil }
            for end in 3..<bytes.count
            where bytes[end] == 10 && bytes[end - 1] == 13 && bytes[end - 2] == 10 && bytes[end - 3] == 13 {
                return end + 1
            }
            return nil
        }
    }

    private static func parseStatus(_ line: Substring) -> HTTPResponseStatus? {
        let parts = line.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count >= 2, parts[0] == "HTTP/1.1", parts[1].utf8.count == 3, let code = Int(parts[1]),
            (100...599).contains(code)
        else { return nil }
        return HTTPResponseStatus(statusCode: code, reasonPhrase: parts.count == 3 ? String(parts[2]) : "")
    }

    /// The whole body, or as much of it as there is `atEnd` of the connection or over `limit` bytes; nil when more is to
    /// come.
    func body(in received: ByteBuffer, atEnd: Bool, limit: Int) -> ByteBuffer? {
        var received = received
        if headers.lists("chunked", in: "transfer-encoding") {
            var body = ByteBuffer()
            let complete = Self.readChunks(&received, into: &body)
            guard complete || atEnd || body.readableBytes > limit || received.readableBytes > 2 * limit else {
                return nil
            }
            return body.readSlice(length: min(limit, body.readableBytes))
        }
        let length = headers.first(name: "content-length").flatMap { Int($0) }.flatMap { $0 < 0 ? nil : $0 }
        let wanted = min(limit, length ?? (atEnd ? received.readableBytes : limit))
        guard received.readableBytes >= wanted || atEnd else { return nil }
        return received.readSlice(length: min(wanted, received.readableBytes))
    }

    private static func readChunks(_ input: inout ByteBuffer, into body: inout ByteBuffer) -> Bool {
        while let lineEnd = input.readableBytesView.firstIndex(of: 10) {
            let line = input.readString(length: lineEnd + 1 - input.readerIndex) ?? ""
            let digits = line.prefix { $0.isHexDigit }
            guard let size = Int(digits, radix: 16) else { return true }
            if size == 0 { return true }
            guard size <= input.readableBytes, var chunk = input.readSlice(length: size) else {
                body.writeBuffer(&input)
                return false
            }
            body.writeBuffer(&chunk)
            input.moveReaderIndex(forwardBy: min(2, input.readableBytes))
        }
        return false
    }
}

extension ByteBuffer {
    /// Whether one is the beginning of the other.
    fileprivate func startsAlike(_ other: ByteBuffer) -> Bool {
        let count = Swift.min(readableBytes, other.readableBytes)
        return readableBytesView.prefix(count).elementsEqual(other.readableBytesView.prefix(count))
    }
}

extension Substring {
    fileprivate func trimmingBlanks() -> Substring {
        var text = self
        while let first = text.first, first == " " || first == "\t" { text = text.dropFirst() }
        while let last = text.last, last == " " || last == "\t" { text = text.dropLast() }
        return text
    }
}
