package import NIOCore
import WebSocketTransport

/// Why a message of a peer cannot be passed on.
package enum HTTPFault: Error, Equatable {
    /// What is wrong, as the end of the sentence "the request is not valid HTTP/1.1: …".
    case malformed(String)
    case headTooLarge
    case versionNotSupported
}

/// A field line (RFC 9112 section 5); the value is the bytes that were sent, without the white space around them.
package struct HTTPField: Equatable, Sendable {
    package let name: String
    /// The name in lower case.
    package let key: String
    package let value: ByteBuffer

    package init(_ name: String, _ value: ByteBuffer) {
        self.name = name
        key = name.lowercased()
        self.value = value
    }

    package init(_ name: String, _ value: String) {
        self.init(name, ByteBuffer(string: value))
    }

    package var text: String { String(buffer: value) }
}

package struct RequestHead: Equatable, Sendable {
    package let method: String
    /// As sent: only visible ASCII, no fragment.
    package let target: String
    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    package let minorVersion: Int
    package let fields: [HTTPField]
}

package struct ResponseHead: Equatable, Sendable {
    package let status: Int
    package let reason: ByteBuffer
    package let minorVersion: Int
    package let fields: [HTTPField]
}

extension [HTTPField] {
    package func values(_ key: String) -> [ByteBuffer] { filter { $0.key == key }.map(\.value) }

    package func first(_ key: String) -> String? { first { $0.key == key }?.text }

    /// The members of a comma-separated list, over all lines of that name, in lower case (RFC 9110 section 5.6.1).
    package func tokens(_ key: String) -> [String] {
        filter { $0.key == key }.flatMap { field in
            field.text.split(separator: ",").map { $0.trimmedBlanks.lowercased() }.filter { !$0.isEmpty }
        }
    }
}

/// Finds the end of a head in bytes that come in pieces, and refuses bytes that no head may have as soon as they are
/// seen: a bare CR or LF, a control, and at the very start anything but a token.
///
/// Stricter than RFC 9112 section 2.2 lets it be: where two parsers could disagree on where a line ends, a request
/// could be smuggled past one of them.
package struct HeadScanner: Sendable {
    private let limit: Int
    private var scanned = 0
    private var lineStart = 0

    /// - Parameter limit: bytes of a head with its last empty line.
    package init(limit: Int) { self.limit = limit }

    /// Takes the head off the buffer: its lines, each with its CRLF, without the empty line that ends it; nil when
    /// more bytes are needed. Empty lines before the head are skipped (RFC 9112 section 2.2).
    package mutating func scan(_ buffer: inout ByteBuffer) throws(HTTPFault) -> ByteBuffer? {
        if scanned == 0 {
            while buffer.readableBytes >= 2, buffer.getInteger(at: buffer.readerIndex, as: UInt16.self) == 0x0D0A {
                buffer.moveReaderIndex(forwardBy: 2)
            }
        }
        let outcome = buffer.withUnsafeReadableBytes { scan($0) }
        switch outcome {
        case .success(let length?):
            guard length <= limit, let head = buffer.readSlice(length: length - 2) else { throw .headTooLarge }
            buffer.moveReaderIndex(forwardBy: 2)
            return head
        case .success(nil):
            if buffer.readableBytes > limit { throw .headTooLarge }
            return nil
        case .failure(let fault):
            throw fault
        }
    }

    private mutating func scan(_ bytes: UnsafeRawBufferPointer) -> Result<Int?, HTTPFault> {
        var index = scanned
        defer { scanned = index }
        let end = min(bytes.count, limit)
        while index < end {
            let byte = bytes[index]
            if byte == 0x0D {
                guard index + 1 < bytes.count else { return .success(nil) }
                guard bytes[index + 1] == 0x0A else { return .failure(.malformed("a CR without its LF")) }
                if index == lineStart { return .success(index + 2) }
                index += 2
                lineStart = index
                continue
            }
            if byte < 0x20 ? byte != 0x09 : byte == 0x7F {
                return .failure(.malformed(byte == 0x0A ? "an LF without its CR" : "a control character in the head"))
            }
            if lineStart == 0, index < 3, !HTTPSyntax.isToken(byte) {
                return .failure(.malformed("it does not begin with a method"))
            }
            index += 1
        }
        return .success(nil)
    }
}

package enum HTTPSyntax {
    /// tchar of RFC 9110 section 5.6.2.
    static func isToken(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        case UInt8(ascii: "!"), UInt8(ascii: "#"), UInt8(ascii: "$"), UInt8(ascii: "%"), UInt8(ascii: "&"),
            UInt8(ascii: "'"), UInt8(ascii: "*"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "^"), UInt8(ascii: "_"), UInt8(ascii: "`"), UInt8(ascii: "|"), UInt8(ascii: "~"):
            true
        default:
            false
        }
    }

    /// Takes what `HeadScanner` found.
    package static func request(_ head: ByteBuffer) throws(HTTPFault) -> RequestHead {
        var lines = head
        guard let line = nextLine(&lines) else { throw .malformed("it is empty") }
        let parts = line.readableBytesView.split(
            separator: 0x20,
            maxSplits: 3,
            omittingEmptySubsequences: false
        )
        guard parts.count == 3 else { throw .malformed("its first line is not METHOD TARGET VERSION") }
        guard !parts[0].isEmpty, parts[0].count <= 32, parts[0].allSatisfy(isToken) else {
            throw .malformed("its method is not a token")
        }
        guard !parts[1].isEmpty, parts[1].allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") }) else {
            throw .malformed("its target has a character that must be percent-encoded")
        }
        let minor = try minorVersion(parts[2])
        return RequestHead(
            method: String(decoding: parts[0], as: UTF8.self),
            target: String(decoding: parts[1], as: UTF8.self),
            minorVersion: minor,
            fields: try fields(&lines)
        )
    }

    /// Takes what `HeadScanner` found.
    package static func response(_ head: ByteBuffer) throws(HTTPFault) -> ResponseHead {
        var lines = head
        guard var line = nextLine(&lines), let version = line.readSlice(length: 8) else {
            throw .malformed("it has no status line")
        }
        let minor = try minorVersion(version.readableBytesView)
        guard line.readInteger(as: UInt8.self) == 0x20, let digits = line.readString(length: 3),
            digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let status = Int(digits), status >= 100
        else { throw .malformed("its status is not three digits") }
        guard line.readableBytes == 0 || line.readInteger(as: UInt8.self) == 0x20 else {
            throw .malformed("its status is not three digits")
        }
        return ResponseHead(status: status, reason: line, minorVersion: minor, fields: try fields(&lines))
    }

    private static func minorVersion(_ text: some Collection<UInt8>) throws(HTTPFault) -> Int {
        if text.elementsEqual("HTTP/1.1".utf8) { return 1 }
        if text.elementsEqual("HTTP/1.0".utf8) { return 0 }
        if text.starts(with: "HTTP/".utf8) { throw .versionNotSupported }
        throw .malformed("its version is not HTTP/1.1")
    }

    private static func fields(_ lines: inout ByteBuffer) throws(HTTPFault) -> [HTTPField] {
        var fields: [HTTPField] = []
        while var line = nextLine(&lines) {
            let view = line.readableBytesView
            guard let colon = view.firstIndex(of: UInt8(ascii: ":")), colon > view.startIndex else {
                throw .malformed("a field line has no name")
            }
            let name = view[view.startIndex..<colon]
            // Refuses white space before the colon and folded lines (RFC 9112 sections 5.1 and 5.2).
            guard name.allSatisfy(isToken) else { throw .malformed("a field name is not a token") }
            line.moveReaderIndex(to: colon + 1)
            while let byte = line.getInteger(at: line.readerIndex, as: UInt8.self), byte == 0x20 || byte == 0x09 {
                line.moveReaderIndex(forwardBy: 1)
            }
            while line.readableBytes > 0, let byte = line.getInteger(at: line.writerIndex - 1, as: UInt8.self),
                byte == 0x20 || byte == 0x09
            {
                line.moveWriterIndex(to: line.writerIndex - 1)
            }
            fields.append(HTTPField(String(decoding: name, as: UTF8.self), line))
        }
        return fields
    }

    private static func nextLine(_ lines: inout ByteBuffer) -> ByteBuffer? {
        let view = lines.readableBytesView
        guard let end = view.firstIndex(of: 0x0D), let line = lines.readSlice(length: end - view.startIndex) else {
            return nil
        }
        lines.moveReaderIndex(forwardBy: 2)
        return line
    }
}
