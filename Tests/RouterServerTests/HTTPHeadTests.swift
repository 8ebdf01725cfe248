import NIOCore
import Testing

@testable import RouterServer

private func scan(_ text: String, limit: Int = 65536) throws -> (head: String?, rest: String) {
    var buffer = ByteBuffer(string: text)
    var scanner = HeadScanner(limit: limit)
    let head = try scanner.scan(&buffer)
    return (head.map { String(buffer: $0) }, String(buffer: buffer))
}

private func request(_ text: String) throws -> RequestHead {
    var buffer = ByteBuffer(string: text)
    var scanner = HeadScanner(limit: 65536)
    let head = try #require(try scanner.scan(&buffer))
    return try HTTPSyntax.request(head)
}

@Suite("Heads of requests and answers")
struct HTTPHeadTests {
    @Test("a head ends at its empty line, and what follows stays")
    func end() throws {
        let (head, rest) = try scan("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest")
        #expect(head == "GET / HTTP/1.1\r\nHost: a\r\n")
        #expect(rest == "rest")
        #expect(try scan("\r\n\r\nGET / HTTP/1.1\r\n\r\n").head == "GET / HTTP/1.1\r\n")
        #expect(try scan("GET / HTTP/1.1\r\nHost: a\r\n\r").head == nil)
    }

    @Test("a head may come in any pieces")
    func pieces() throws {
        let text = Array("\r\nGET /ws?user=a HTTP/1.1\r\nHost: a\r\nX: \t y \r\n\r\nrest".utf8)
        for split in 1..<text.count {
            var buffer = ByteBuffer()
            var scanner = HeadScanner(limit: 65536)
            var head: ByteBuffer?
            for part in [text[..<split], text[split...]] {
                buffer.writeBytes(part)
                if head == nil { head = try scanner.scan(&buffer) }
            }
            let parsed = try HTTPSyntax.request(try #require(head, "split at \(split)"))
            #expect(parsed.target == "/ws?user=a")
            #expect(parsed.fields.first("x") == "y")
            #expect(String(buffer: buffer) == "rest")
        }
    }

    @Test(
        "T15: what two parsers could read in two ways is refused",
        arguments: [
            "GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "GET / HTTP/1.1\r\nnothing\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1 \r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n", "GET / http/1.1\r\n\r\n", "GET /\r\n\r\n", "GET /# HTTP/1.1\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA: \u{0}\r\n\r\n", "GET / HTTP/1.1\r\nA: \u{7f}\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}", "\n\n", "{\"type\":\"join\"}", "GET\t/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nA\u{e9}: b\r\n\r\n",
        ]
    )
    func malformed(text: String) {
        #expect { _ = try request(text) } throws: { error in
            if case .malformed? = error as? HTTPFault { true } else { false }
        }
    }

    @Test("garbage is refused at its first bytes, not when a head's time is over")
    func early() {
        for text in ["\u{16}\u{3}", " G", "GET /\n", "\u{0}"] {
            #expect(throws: HTTPFault.self) { _ = try scan(text) }
        }
    }

    @Test("other versions are not garbage")
    func versions() throws {
        #expect(throws: HTTPFault.versionNotSupported) { _ = try request("PRI * HTTP/2.0\r\n\r\n") }
        #expect(throws: HTTPFault.versionNotSupported) { _ = try request("GET / HTTP/1.2\r\n\r\n") }
        #expect(try request("GET / HTTP/1.0\r\n\r\n").minorVersion == 0)
    }

    @Test("T24: a head may have exactly its limit, ended or not")
    func limit() throws {
        let head = "GET / HTTP/1.1\r\nA: "
        let filled = head + String(repeating: "x", count: 100 - head.utf8.count - 4)
        #expect(try scan(filled + "\r\n\r\n", limit: 100).head != nil)
        #expect(throws: HTTPFault.headTooLarge) { _ = try scan(filled + "x\r\n\r\n", limit: 100) }
        #expect(throws: HTTPFault.headTooLarge) { _ = try scan(filled + "xxxxx", limit: 100) }
        #expect(try scan(filled + "xxxx", limit: 100).head == nil)
    }

    @Test("a field's value keeps its bytes, also those that are no UTF-8")
    func values() throws {
        var buffer = ByteBuffer(
            bytes: Array("GET / HTTP/1.1\r\nCookie: a=".utf8) + [0xE9, 0xFF] + Array("\r\n\r\n".utf8)
        )
        var scanner = HeadScanner(limit: 1000)
        let head = try HTTPSyntax.request(try #require(try scanner.scan(&buffer)))
        #expect(head.fields[0].value == ByteBuffer(bytes: [0x61, 0x3D, 0xE9, 0xFF]))
    }

    @Test("an answer's head is read as strictly")
    func answers() throws {
        let answer = try HTTPSyntax.response(ByteBuffer(string: "HTTP/1.1 404 Not Found\r\nA: b\r\n"))
        #expect(answer.status == 404)
        #expect(String(buffer: answer.reason) == "Not Found")
        #expect(try HTTPSyntax.response(ByteBuffer(string: "HTTP/1.0 200\r\n")).status == 200)
        for text in [
            "HTTP/1.1 20 OK\r\n", "HTTP/1.1 2000 OK\r\n", "HTTP/1.1 OK\r\n", "ICY 200 OK\r\n", "HTTP/1.1 099 X\r\n",
        ] {
            #expect(throws: HTTPFault.self) { _ = try HTTPSyntax.response(ByteBuffer(string: text)) }
        }
    }
}
