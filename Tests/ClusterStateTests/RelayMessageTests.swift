import Testing
import WireProtocol

@testable import ClusterState

@Suite("A relayed payload")
struct RelayMessageTests {
    /// Parses and copies out, so that nothing points into `text` afterwards.
    private func parse(_ text: String) -> Parsed? {
        var text = text
        return text.withUTF8 { bytes in
            switch RelayMessage.parse(UnsafeRawBufferPointer(bytes)) {
            case nil: nil
            case .messages(let messages):
                .messages(
                    messages.map { m in
                        Message(
                            seq: m.seq, tags: [m.previousTag, m.tag], epoch: m.epoch, room: m.room, ts: m.ts,
                            origin: m.origin, id: String(decoding: m.clientID, as: UTF8.self),
                            body: String(decoding: m.body, as: UTF8.self))
                    })
            case .presence(let presence): .presence(presence)
            case .typing(let origin, let frame): .typing(origin, String(decoding: frame, as: UTF8.self))
            case .kick(let room, let reason): .kick(room?.string, reason)
            case .moved(let session, let generation): .moved(session, generation)
            }
        }
    }

    private enum Parsed: Equatable {
        case messages([Message])
        case presence(RelayMessage.Presence)
        case typing(String, String)
        case kick(String?, String)
        case moved(SessionID, Int64)
    }

    private struct Message: Equatable {
        var seq: Int64
        var tags: [String]
        var epoch = "k3x9"
        var room: String?
        var ts: Int64 = 5
        var origin: SessionID?
        var id = ""
        var body = "{}"
    }

    @Test("M is messages of the channel's room, in a row up to its seq, each with the tag of the one before")
    func message() throws {
        let session = try #require(SessionID("wZ3kq0-fHhK1mDd8sPpL2A"))
        #expect(
            parse("M42 1790000000123 1 -a_b k3x9\nx7Qa wZ3kq0-fHhK1mDd8sPpL2A 3 9 bob\nc-7\"text\":\"\"")
                == .messages([
                    Message(
                        seq: 42, tags: ["-a_b", "x7Qa"], ts: 1_790_000_000_123, origin: session, id: "c-7",
                        body: #""text":"""#)
                ]))
        #expect(
            parse("M3 5 3 - k3x9\naaaa - 0 2 bob\n{}bbbb - 1 2 al ice\ni{}cccc - 0 2 bob\n\n\n")
                == .messages([
                    Message(seq: 1, tags: ["-", "aaaa"]), Message(seq: 2, tags: ["aaaa", "bbbb"], id: "i"),
                    Message(seq: 3, tags: ["bbbb", "cccc"], body: "\n\n"),
                ]))
    }

    @Test("D names its private room")
    func direct() {
        #expect(
            parse("D1 5 1 - k3x9 dm:a:b%7D\ntagA - 0 2 a\n{}")
                == .messages([Message(seq: 1, tags: ["-", "tagA"], room: "dm:a:b%7D")]))
    }

    @Test("an id may hold line ends and spaces, for its length is said")
    func awkwardID() {
        #expect(
            parse("M1 5 1 p k3x9\nt - 4 2 bob\na\n b{}")
                == .messages([Message(seq: 1, tags: ["p", "t"], id: "a\n b")]))
    }

    @Test("P lists changes in their order")
    func presence() {
        let text = "P7 2 k3x9\n+{\"user\":\"carol\"}\n-{\"user\":\"alice\"}\n~{\"user\":\"bob\",\"status\":\"away\"}"
        #expect(
            parse(text)
                == .presence(
                    RelayMessage.Presence(
                        pv: 7, count: 2, epoch: "k3x9",
                        changes: [
                            .joined(#"{"user":"carol"}"#), .left(#"{"user":"alice"}"#),
                            .status(#"{"user":"bob","status":"away"}"#),
                        ])))
    }

    @Test("T carries a frame, K a room or everything and a reason")
    func typingAndKick() {
        #expect(parse("TSESSION\n{\"type\":\"typing\"}") == .typing("SESSION", #"{"type":"typing"}"#))
        #expect(parse("Kgeneral\nbe\nkind") == .kick("general", "be\nkind"))
        #expect(parse("K*\n") == .kick(nil, ""))
    }

    @Test("O names a session and the generation of its new owner")
    func moved() throws {
        let session = try #require(SessionID("wZ3kq0-fHhK1mDd8sPpL2A"))
        #expect(parse("OwZ3kq0-fHhK1mDd8sPpL2A 7\n") == .moved(session, 7))
    }

    @Test(
        "that none of our scripts makes is no message",
        arguments: [
            "", "\n", "M", "M\n", "M\n{}", "X1 2 3\n{}", "m42 5 1 p e\nt - 0 2 bob\n{}",
            // A field missing, empty, too many, or not a number.
            "M42 5 1 p\nt - 0 2 bob\n{}", "M42 5 1 p e x\nt - 0 2 bob\n{}", "M42  1 p e\nt - 0 2 bob\n{}",
            "M42 5 1 p e \nt - 0 2 bob\n{}", "Mx 5 1 p e\nt - 0 2 bob\n{}", "M-4 5 1 p e\nt - 0 2 bob\n{}",
            "M42 x 1 p e\nt - 0 2 bob\n{}", "M42 5 x p e\nt - 0 2 bob\n{}", "M 42 5 1 p e\nt - 0 2 bob\n{}",
            "M9999999999999999999 5 1 p e\nt - 0 2 bob\n{}", "D42 5 1 p e\nt - 0 2 bob\n{}",
            "M42 5 1 p e\nt - 0 2\n{}", "M42 5 1 p e\nt - 0 2 \n{}", "M42 5 1 p e\nt - x 2 bob\n{}",
            "M42 5 1 p e\nt - 0 x bob\n{}", "M42 5 1 p e\nt - 0 2 bob",
            // Other than as many records as it says, or more than there were before.
            "M42 5 0 p e\n", "M42 5 1 p e\n", "M42 5 2 p e\nt - 0 2 bob\n{}", "M1 5 2 p e\nt - 0 1 b\n{t - 0 1 b\n{",
            "M42 5 1 p e\nt - 0 2 bob\n{}t - 0 2 bob\n{}", "M42 5 900000000000000000 p e\nt - 0 2 bob\n{}",
            // A body that is empty or, as an id, runs past the end.
            "M42 5 1 p e\nt - 0 0 bob\n", "M42 5 1 p e\nt - 0 3 bob\n{}", "M42 5 1 p e\nt - 2 2 bob\n{}",
            "M42 5 1 p e\nt - 900000000000000000 2 bob\n{}",
            "M42 5 1 p e\nt - 900000000000000000 900000000000000000 b\n{}",
            "P7 2 k3x9\n", "P7 2 k3x9", "P7 2\n+{\"a\":1}", "P7 x e\n+{\"a\":1}", "P7 2 e\n*{\"a\":1}", "P7 2 e\n+{}",
            "T\n{}", "TSESSION\n", "TS S\n{}", "K\nreason", "Kbad room\nreason", "Kbad!room\nreason",
            "O\n", "OwZ3kq0-fHhK1mDd8sPpL2A\n", "OwZ3kq0-fHhK1mDd8sPpL2A x\n", "Oshort 7\n",
            "OwZ3kq0-fHhK1mDd8sPpL2A 7\nx",
        ])
    func malformed(text: String) {
        #expect(parse(text) == nil)
    }

    @Test("G7, T17: of any bytes ends in a message or in nothing")
    func noise() {
        var generator = SystemRandomNumberGenerator()
        let letters = Array("MDPTKO \n-+~{}:0123456789abc\u{0}\u{FF}".utf8) + [0xFF, 0x80]
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...40, using: &generator)).map { _ in
                letters[Int.random(in: 0..<letters.count, using: &generator)]
            }
            bytes.withUnsafeBytes { _ = RelayMessage.parse($0) }
            bytes.withUnsafeBytes { _ = ControlMessage.parse($0) }
        }
    }

    @Test("invalid UTF-8 in a header or a reason is no message")
    func invalidUTF8() {
        for bytes: [UInt8] in [[0x54, 0xFF, 0x0A, 0x7B], [0x4B, 0x2A, 0x0A, 0xFF]] {
            #expect(bytes.withUnsafeBytes { RelayMessage.parse($0) == nil })
        }
    }

    @Test("of the control channel names an incarnation, or a user")
    func control() throws {
        let incarnation = try #require(Incarnation("node-a.7"))
        for message in [
            ControlMessage.up(incarnation), .down(incarnation), .drain(incarnation), .undrain(incarnation),
            .draining(incarnation),
            .barred(try UserName(validating: "bob  of \u{E4}"), seconds: 640),
        ] {
            var text = message.description
            #expect(text.withUTF8 { ControlMessage.parse(UnsafeRawBufferPointer($0)) } == message)
        }
        for text in [
            "", "up", "up ", "up node-a", "up node-a.7 x", "UP node-a.7", "up  node-a.7", "stop node-a.7",
            "barred 0 bob", "barred bob", "barred 10 ",
        ] {
            var text = text
            #expect(text.withUTF8 { ControlMessage.parse(UnsafeRawBufferPointer($0)) } == nil, "\(text)")
        }
    }
}
