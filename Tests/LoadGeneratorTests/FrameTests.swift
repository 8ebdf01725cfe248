import Testing

@testable import LoadGenerator

@Suite("Frames of the load generator")
struct FrameTests {
    /// A server's frame.
    private func frame(_ text: String) -> [UInt8] {
        let payload = Array(text.utf8)
        let length: [UInt8] =
            payload.count < 126
            ? [UInt8(payload.count)] : [126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
        return [0x81] + length + payload
    }

    /// Reads as a connection does: what is not whole is kept for the next piece.
    private func read(_ bytes: [UInt8], inPiecesOf size: Int) -> (texts: [String], fault: String?) {
        var kept: [UInt8] = []
        var texts: [String] = []
        for start in stride(from: 0, to: bytes.count, by: size) {
            kept += bytes[start..<min(bytes.count, start + size)]
            let (used, fault) = kept.withUnsafeBytes { piece in
                var frames = FrameCursor(piece)
                while let frame = frames.next() { texts.append(String(decoding: frame.payload, as: UTF8.self)) }
                return (frames.position, frames.fault)
            }
            if let fault { return (texts, fault) }
            kept.removeSubrange(..<used)
        }
        return (texts, nil)
    }

    @Test("frames come out whole whatever the pieces in which they came in", arguments: [1, 2, 3, 7, 100, 100_000])
    func pieces(size: Int) {
        let texts = ["", "a", String(repeating: "b", count: 125), String(repeating: "c", count: 40_000), "d"]
        let (seen, fault) = read(texts.flatMap(frame), inPiecesOf: size)
        #expect(seen == texts)
        #expect(fault == nil)
    }

    @Test("a masked, fragmented, compressed or huge frame is a fault")
    func faults() {
        #expect(read([0x81, 0x81, 0, 0, 0, 0, 0], inPiecesOf: 9).fault == "a masked frame")
        #expect(read([0x01, 0x01, 65], inPiecesOf: 9).fault == "a fragmented or compressed frame")
        #expect(read([0xC1, 0x01, 65], inPiecesOf: 9).fault == "a fragmented or compressed frame")
        #expect(read([0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0], inPiecesOf: 99).fault == "a frame over 16 MiB")
    }

    @Test("a client's frame is masked and has the shortest length form")
    func writing() {
        var writer = FrameWriter()
        for count in [0, 125, 126, 65535, 65536] {
            let payload = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
            var bytes: [UInt8] = []
            writer.text(payload, to: &bytes)
            let extended = count < 126 ? 0 : count < 65536 ? 2 : 8
            #expect(bytes.count == 2 + extended + 4 + count)
            #expect(bytes[0] == 0x81 && bytes[1] & 0x80 != 0)
            let key = Array(bytes[(2 + extended)..<(6 + extended)])
            let body = bytes[(6 + extended)...].enumerated().map { $1 ^ key[$0 & 3] }
            #expect(body == payload)
        }
    }

    @Test("type and seq are found without parsing, and a text that looks like them is not taken for them")
    func scan() {
        let message = Array(#"{"type":"message","room":"a","text":"\"seq\":7","seq":42,"ts":1}"#.utf8)
        message.withUnsafeBytes {
            let scan = Scan(payload: $0)
            #expect(scan.isType("message") && !scan.isType("mess") && !scan.isType("messages"))
            #expect(scan.seq == 42)
            var hint = Scan.Hint()
            for _ in 0..<2 { #expect(scan.seq(&hint) == 42) }
            let other = Array(#"{"type":"message","seq":7,"room":"a"}"#.utf8)
            other.withUnsafeBytes { #expect(Scan(payload: $0).seq(&hint) == 7) }
        }
        Array(#"{"type":"pong"}"#.utf8).withUnsafeBytes { #expect(Scan(payload: $0).seq == nil) }
    }

    @Test("a message carries when it was due and its number, and both are found in what a server makes of it")
    func stamp() throws {
        var text = Text(room: "a", publisher: 300, bytes: 40)
        var hint = Scan.Hint()
        for (due, id) in [(UInt64(0), 1), (1_234_567_890_123_456_789, 99_999_999), (.max, 100_000_001)] {
            let message = text.message(due: due, id: id)
            message.withUnsafeBytes {
                let stamp = Text.Stamp(due: due, publisher: 300, number: id % 100_000_000)
                #expect(Scan(payload: $0).stamp(&hint, bytes: 40) == stamp)
                #expect(
                    Scan(payload: $0).stamp(&hint, bytes: 39) == nil && Scan(payload: $0).stamp(&hint, bytes: 41) == nil
                )
                #expect(Scan(payload: $0).isRoom(Array("a".utf8), &hint) && !Scan(payload: $0).isRoom([], &hint))
                #expect(!Scan(payload: $0).isRoom(Array("ab".utf8), &hint))
                #expect(Text.isID(Scan(payload: $0).id, id))
                #expect(!Text.isID(Scan(payload: $0).id, id + 1))
                #expect(Scan(payload: $0).isType("message"))
            }
        }
        Array(#"{"type":"message","text":"hello, these are 28 letters."}"#.utf8).withUnsafeBytes {
            #expect(Scan(payload: $0).stamp(&hint, bytes: 28) == nil)
        }
    }

    @Test("an HTTP head is found when it is whole, and what is none is refused")
    func head() throws {
        func head(_ text: String) throws -> Int? {
            try Array(text.utf8).withUnsafeBytes { try responseHead($0)?.count }
        }
        #expect(try head("HTTP/1.1 101 Switching\r\nA: b\r\n\r\nrest") == 32)
        #expect(try head("HTTP/1.1 101 Switching\r\n\r") == nil)
        #expect(throws: LoadError.self) { try head("SSH-2.0\r\n\r\n") }
    }
}

@Suite("Endpoint")
struct EndpointTests {
    @Test("an address is taken apart")
    func parts() throws {
        let endpoint = try Endpoint("ws://node-a:8081/ws?x=1")
        #expect(endpoint.host == "node-a" && endpoint.port == 8081 && endpoint.target == "/ws?x=1")
        #expect(endpoint.target(for: "bob") == "/ws?x=1&user=bob")
        #expect(try Endpoint("http://[::1]").authority == "[::1]:80")
        #expect(try Endpoint("wss://a/ws").authority == "a:443" && Endpoint("wss://a/ws").isSecure)
        #expect(try Endpoint("ws://a?token=t").target(for: "bob") == "/?token=t")
    }

    @Test(
        "what is no address is one sentence",
        arguments: ["", "wss://", "ws://", "ws://a:70000/", "ws://a:x", "a:1"]
    )
    func refused(text: String) {
        #expect(throws: LoadError.self) { try Endpoint(text) }
    }
}
