import NIOCore
import Testing
import WebSocketTransport

@testable import RouterServer

private func head(_ lines: [String], method: String = "POST", version: Int = 1) -> RequestHead {
    RequestHead(
        method: method,
        target: "/",
        minorVersion: version,
        fields: lines.map { line in
            let parts = line.split(separator: ":", maxSplits: 1)
            return HTTPField(String(parts[0]), String(parts[1].trimmedBlanks))
        }
    )
}

private func answer(_ lines: [String], status: Int = 200) -> ResponseHead {
    ResponseHead(status: status, reason: ByteBuffer(), minorVersion: 1, fields: head(lines).fields)
}

@Suite("Where a body ends")
struct HTTPBodyTests {
    @Test("one length or one chunked coding says it")
    func lengths() throws {
        #expect(try head([]).bodyLength() == .none)
        #expect(try head(["Content-Length: 0"]).bodyLength() == .none)
        #expect(try head(["Content-Length: 12"]).bodyLength() == .bytes(12))
        #expect(try head(["Transfer-Encoding: Chunked"]).bodyLength() == .chunked)
    }

    @Test(
        "T15: every head in which two parsers could see two bodies is refused",
        arguments: [
            ["Content-Length: 1", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Content-Length: 0"],
            ["Content-Length: 1", "Content-Length: 1"], ["Content-Length: 1", "Content-Length: 2"],
            ["Content-Length: 1, 1"], ["Content-Length: +1"], ["Content-Length: -1"], ["Content-Length: 0x1"],
            ["Content-Length: 1 " + "1"], ["Content-Length: 99999999999999999999"], ["Content-Length: "],
            ["Transfer-Encoding: identity"], ["Transfer-Encoding: gzip, chunked"],
            ["Transfer-Encoding: chunked, chunked"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], ["Transfer-Encoding: xchunked"],
            ["Transfer-Encoding: "], ["Transfer-Encoding: \u{b}chunked"],
        ]
    )
    func smuggling(lines: [String]) {
        #expect(throws: HTTPFault.self) { _ = try head(lines).bodyLength() }
    }

    @Test("HTTP/1.0 knows no coding")
    func oldVersion() {
        #expect(throws: HTTPFault.self) { _ = try head(["Transfer-Encoding: chunked"], version: 0).bodyLength() }
    }

    @Test("an answer's body depends on what was asked, too")
    func answers() throws {
        #expect(try answer(["Content-Length: 5"]).bodyLength(answering: "GET") == .bytes(5))
        #expect(try answer(["Content-Length: 5"]).bodyLength(answering: "HEAD") == .none)
        #expect(try answer([], status: 204).bodyLength(answering: "GET") == .none)
        #expect(try answer(["Content-Length: 5"], status: 304).bodyLength(answering: "GET") == .none)
        #expect(try answer([]).bodyLength(answering: "GET") == .untilClose)
        #expect(throws: HTTPFault.self) {
            _ = try answer(["Content-Length: 5", "Transfer-Encoding: chunked"]).bodyLength(answering: "GET")
        }
    }

    private func decode(_ text: String, _ length: BodyLength, split: Int? = nil) throws -> (
        body: String, rest: String, ended: Bool
    ) {
        var decoder = BodyDecoder(length)
        let bytes = Array(text.utf8)
        var buffer = ByteBuffer()
        var body = ""
        for part in split.map({ [bytes[..<$0], bytes[$0...]] }) ?? [bytes[...]] {
            buffer.writeBytes(part)
            while let piece = try decoder.next(&buffer), case .data(let data) = piece { body += String(buffer: data) }
        }
        return (body, String(buffer: buffer), decoder.hasEnded)
    }

    @Test("a body of a length is exactly that long")
    func counted() throws {
        for split in 0...8 {
            let result = try decode("hello, x", .bytes(5), split: split)
            #expect(result == ("hello", ", x", true))
        }
        #expect(try decode("hell", .bytes(5)).ended == false)
    }

    @Test("a chunked body may come in any pieces, with extensions and trailers")
    func chunked() throws {
        let text = "5\r\nhello\r\n00A ; x=\"y\"\r\n 0123456 9\r\n0\r\nTrailer: t\r\n\r\nGET /"
        for split in 0...text.utf8.count {
            let result = try decode(text, .chunked, split: split)
            #expect(result == ("hello 0123456 9", "GET /", true), "split at \(split)")
        }
    }

    @Test(
        "a chunk that is not as it should be is refused",
        arguments: [
            "\r\n", "x\r\n", "-1\r\na", "5\nhello", "1\r\nab\r\n", "1\r\na\n1", "1 2\r\na", "0x1\r\na\r\n",
            "1000000000000000\r\n", "1;\u{1}\r\na", " 1\r\na\r\n", "1\r\na\r0\r\n\r\n", "0\r\nX: y\n\r\n",
            "1;" + String(repeating: "x", count: 300),
        ]
    )
    func badChunks(text: String) {
        #expect(throws: HTTPFault.self) { _ = try decode(text, .chunked) }
    }

    @Test("trailers have a limit")
    func trailers() {
        let line = "A: " + String(repeating: "x", count: 4000) + "\r\n"
        #expect(throws: HTTPFault.self) { _ = try decode("0\r\n" + line + line + line, .chunked) }
    }

    @Test("a body until the connection's end takes everything")
    func untilClose() throws {
        var decoder = BodyDecoder(.untilClose)
        var buffer = ByteBuffer(string: "all of it")
        #expect(try decoder.next(&buffer) == .data(ByteBuffer(string: "all of it")))
        #expect(try decoder.next(&buffer) == nil)
        let ended = decoder.endOfInput()
        #expect(ended)
        #expect(try decoder.next(&buffer) == .end)
    }
}
