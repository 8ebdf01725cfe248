import NIOCore
import Testing

@testable import RedisClient

@Suite("Parsing replies")
struct RedisReplyReaderTests {
    private func parse(_ chunks: [[UInt8]]) throws -> ([RESPValue], RedisReplyReader.Step) {
        let reader = try #require(RedisReplyReader())
        var values: [RESPValue] = []
        for chunk in chunks {
            chunk.withUnsafeBytes { reader.feed($0) }
            while true {
                let step = reader.next()
                guard step == .reply else {
                    if case .malformed = step { return (values, step) }
                    break
                }
                values.append(try #require(reader.value()))
            }
        }
        return (values, .incomplete)
    }

    private let stream =
        "+OK\r\n:-42\r\n$5\r\nhe\r\no\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n-ERR no\r\n"
        + "*4\r\n:1\r\n*2\r\n$1\r\na\r\n*1\r\n+b\r\n-ERR in\r\n$-1\r\n*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$3\r\nabc\r\n"

    private let values: [RESPValue] = [
        .status("OK"), .integer(-42), .bulk(ByteBuffer(string: "he\r\no")), .bulk(ByteBuffer()), .null, .null,
        .array([]), .error("ERR no"),
        .array([
            .integer(1), .array([.bulk(ByteBuffer(string: "a")), .array([.status("b")])]), .error("ERR in"), .null,
        ]),
        .array([
            .bulk(ByteBuffer(string: "message")), .bulk(ByteBuffer(string: "ch")), .bulk(ByteBuffer(string: "abc")),
        ]),
    ]

    @Test("a stream of replies is the same wherever it is split in two")
    func splitInTwo() throws {
        let bytes = Array(stream.utf8)
        for split in 0...bytes.count {
            let (parsed, step) = try parse([Array(bytes[..<split]), Array(bytes[split...])])
            #expect(parsed == values, "split at \(split)")
            #expect(step == .incomplete)
        }
    }

    @Test("a stream of replies is the same one byte at a time, and in pieces of every length")
    func pieces() throws {
        let bytes = Array(stream.utf8)
        for length in 1...bytes.count {
            let chunks = stride(from: 0, to: bytes.count, by: length).map { start in
                Array(bytes[start..<min(start + length, bytes.count)])
            }
            #expect(try parse(chunks).0 == values, "pieces of \(length)")
        }
    }

    @Test(
        "what is not a reply is malformed, and stays so",
        arguments: [
            "hello\r\n", "\r\n", "\0\0\0\0\r\n", "GET / HTTP/1.1\r\n", "*x\r\n", "$x\r\n", ":x\r\n", "$-2\r\n",
            "*-2\r\n",
            "*1\r\nx\r\n", ":99999999999999999999\r\n", "$99999999999999999999\r\n", "*99999999999999999999\r\n",
            "$+5\r\n",
        ]
    )
    func malformed(_ text: String) throws {
        let reader = try #require(RedisReplyReader())
        Array(("+OK\r\n" + text).utf8).withUnsafeBytes { reader.feed($0) }
        #expect(reader.next() == .reply)
        #expect(reader.value() == .status("OK"))
        guard case .malformed(let reason) = reader.next() else {
            Issue.record("\(text.debugDescription) was taken")
            return
        }
        #expect(!reason.isEmpty)
        Array("+OK\r\n".utf8).withUnsafeBytes { reader.feed($0) }
        #expect(reader.next() == .malformed(reason))
    }

    @Test("a promised billion of elements takes no memory before they come")
    func promisedElements() throws {
        let (values, step) = try parse([Array("*1000000000\r\n:1\r\n".utf8)])
        #expect(values.isEmpty)
        #expect(step == .incomplete)
    }

    @Test("arrays nested too deeply are no value")
    func nesting() throws {
        let reader = try #require(RedisReplyReader())
        let text = String(repeating: "*1\r\n", count: 1000) + ":1\r\n"
        Array(text.utf8).withUnsafeBytes { reader.feed($0) }
        switch reader.next() {
        case .malformed: break
        case .reply: #expect(reader.value() == nil)
        case .incomplete: Issue.record("the reply is complete")
        }
    }

    @Test("a reply over the limit is malformed, in one bulk or in many elements")
    func limit() throws {
        for text in [
            "$5000\r\n" + String(repeating: "x", count: 5000), "*5000\r\n" + String(repeating: ":1\r\n", count: 900),
        ] {
            let reader = try #require(RedisReplyReader(maximumReplyBytes: 4096))
            var step = RedisReplyReader.Step.incomplete
            for chunk in text.utf8.split(
                maxSplits: .max,
                omittingEmptySubsequences: false,
                whereSeparator: { $0 == 0x0A }
            ) {
                (Array(chunk) + [0x0A]).withUnsafeBytes { reader.feed($0) }
                step = reader.next()
            }
            #expect(step == .malformed("the reply is larger than is allowed"))
        }
    }

    @Test("many replies of any size leave no trace on each other")
    func sizes() throws {
        let reader = try #require(RedisReplyReader())
        for length in [0, 10, 300_000, 1, 17_000, 2_000_000, 5] {
            let body = [UInt8](repeating: UInt8(truncatingIfNeeded: length), count: length)
            let reply = Array("$\(length)\r\n".utf8) + body + [0x0D, 0x0A]
            for start in stride(from: 0, to: reply.count, by: RedisReplyReader.sliceLength) {
                reply[start..<min(start + RedisReplyReader.sliceLength, reply.count)].withUnsafeBytes {
                    reader.feed($0)
                }
            }
            #expect(reader.next() == .reply)
            #expect(reader.value() == .bulk(ByteBuffer(bytes: body)))
            #expect(reader.next() == .incomplete)
        }
    }

    @Test("a message of a subscription is read as ranges, and nothing else is taken for one")
    func push() throws {
        let reader = try #require(RedisReplyReader())
        func feed(_ text: String) { Array(text.utf8).withUnsafeBytes { reader.feed($0) } }
        feed("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$0\r\n\r\n*3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n")
        #expect(reader.next() == .reply)
        let message = try #require(reader.push())
        #expect(message.isWord("message"))
        #expect(message.channel.elementsEqual("ch".utf8))
        #expect(message.payload.isEmpty)
        #expect(reader.next() == .reply)
        let confirmation = try #require(reader.push())
        #expect(confirmation.isWord("subscribe"))
        #expect(!confirmation.isWord("subscribf"))
        #expect(!confirmation.isWord("subscrib"))
        for other in [
            "+OK\r\n", "-ERR\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "*3\r\n:1\r\n$1\r\na\r\n$1\r\nb\r\n", "*0\r\n",
        ] {
            feed(other)
            #expect(reader.next() == .reply)
            #expect(reader.push() == nil)
        }
    }
}

@Suite("Writing commands")
struct RESPEncoderTests {
    private func encoded(_ arguments: [RedisArgument]) -> String {
        var encoder = RESPEncoder()
        encoder.write(arguments)
        return String(buffer: encoder.take())
    }

    @Test("arguments of every kind are bulk strings with their length in bytes")
    func kinds() {
        #expect(
            encoded(["SET", .string("schlüssel"), .bytes(ByteBuffer(bytes: [0x0D, 0x0A])), .integer(-7), .string("")])
                == "*5\r\n$3\r\nSET\r\n$10\r\nschlüssel\r\n$2\r\n\r\n\r\n$2\r\n-7\r\n$0\r\n\r\n"
        )
    }

    @Test(
        "integers are written as Swift writes them",
        arguments: [0, 1, -1, 9, 10, -10, 99, 100, 1234567890, .max, .min] as [Int64]
    )
    func integers(_ value: Int64) {
        let text = String(value)
        #expect(encoded([.integer(value)]) == "*1\r\n$\(text.utf8.count)\r\n\(text)\r\n")
    }

    @Test("a script call counts its keys")
    func evaluation() {
        var encoder = RESPEncoder()
        encoder.writeEvaluation(of: "EVALSHA", "abc", keys: ["k1", "k2"], arguments: [.integer(5)])
        #expect(
            String(buffer: encoder.take())
                == "*6\r\n$7\r\nEVALSHA\r\n$3\r\nabc\r\n$1\r\n2\r\n$2\r\nk1\r\n$2\r\nk2\r\n$1\r\n5\r\n"
        )
        #expect(encoder.isEmpty)
    }

    @Test("memory that was taken is written again only when nobody else holds it")
    func reuse() {
        var encoder = RESPEncoder()
        encoder.write(["first"])
        let held = encoder.take()
        encoder.reuse(held)
        encoder.write(["2"])
        #expect(String(buffer: held) == "*1\r\n$5\r\nfirst\r\n")
        #expect(String(buffer: encoder.take()) == "*1\r\n$1\r\n2\r\n")
    }
}
