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
            case .message(let m):
                .message(
                    seq: m.seq, tags: [m.previousTag, m.tag], epoch: m.epoch, room: m.room, ts: m.ts, origin: m.origin,
                    id: String(decoding: m.clientID, as: UTF8.self), frame: String(decoding: m.frame, as: UTF8.self))
            case .presence(let presence): .presence(presence)
            case .typing(let origin, let frame): .typing(origin, String(decoding: frame, as: UTF8.self))
            case .kick(let room, let reason): .kick(room?.string, reason)
            case .moved(let session, let generation): .moved(session, generation)
            }
        }
    }

    private enum Parsed: Equatable {
        case message(
            seq: Int64, tags: [String], epoch: String, room: String?, ts: Int64, origin: String?, id: String,
            frame: String)
        case presence(RelayMessage.Presence)
        case typing(String, String)
        case kick(String?, String)
        case moved(SessionID, Int64)
    }

    @Test("M is a message of the channel's room")
    func message() {
        #expect(
            parse("M42 x7Qa -a_b k3x9 1790000000123 SESSION 3\nc-7{\"type\":\"message\"}")
                == .message(
                    seq: 42, tags: ["-a_b", "x7Qa"], epoch: "k3x9", room: nil, ts: 1_790_000_000_123, origin: "SESSION",
                    id: "c-7", frame: #"{"type":"message"}"#))
        #expect(
            parse("M1 x7Qa - k3x9 5 - 0\n{}")
                == .message(
                    seq: 1, tags: ["-", "x7Qa"], epoch: "k3x9", room: nil, ts: 5, origin: nil, id: "", frame: "{}"))
    }

    @Test("D names its private room")
    func direct() {
        #expect(
            parse("D1 tagA - ep dm:a:b%7D 5 - 0\n{}")
                == .message(
                    seq: 1, tags: ["-", "tagA"], epoch: "ep", room: "dm:a:b%7D", ts: 5, origin: nil, id: "", frame: "{}"
                ))
    }

    @Test("an id may hold line ends and spaces, for its length is said")
    func awkwardID() {
        #expect(
            parse("M1 t p e 5 - 4\na\n b{}")
                == .message(
                    seq: 1, tags: ["p", "t"], epoch: "e", room: nil, ts: 5, origin: nil, id: "a\n b", frame: "{}"))
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
            "", "\n", "M", "M\n", "M\n{}", "X1 2 3\n{}", "m42 t p e 5 - 0\n{}",
            // A field missing, empty, too many, or not a number.
            "M42 t p e 5 -\n{}", "M42 t p e 5 - 0 x\n{}", "M42  p e 5 - 0\n{}", "M42 t p e 5 - 0 \n{}",
            "M t p e 5 - 0\n{}",
            "M4x t p e 5 - 0\n{}", "M-4 t p e 5 - 0\n{}", "M0 t p e 5 - 0\n{}", "M42 t p e 5 - x\n{}",
            "M9999999999999999999 t p e 5 - 0\n{}", "M 42 t p e 5 - 0\n{}",
            // An id that runs into the frame or past it.
            "M42 t p e 5 - 2\n{}", "M42 t p e 5 - 900000000000000000\n{}", "M42 t p e 5 - 0\n",
            "D42 t p e 5 - 0\n{}",
            "P7 2 k3x9\n", "P7 2 k3x9", "P7 2\n+{\"a\":1}", "P7 x e\n+{\"a\":1}", "P7 2 e\n*{\"a\":1}", "P7 2 e\n+{}",
            "T\n{}", "TSESSION\n", "TS S\n{}", "K\nreason", "Kbad room\nreason", "Kbad!room\nreason",
            "O\n", "OwZ3kq0-fHhK1mDd8sPpL2A\n", "OwZ3kq0-fHhK1mDd8sPpL2A x\n", "Oshort 7\n",
            "OwZ3kq0-fHhK1mDd8sPpL2A 7\nx",
        ])
    func malformed(text: String) {
        #expect(parse(text) == nil)
    }

    @Test("G7: of any bytes ends in a message or in nothing")
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

    @Test("of the control channel names an incarnation")
    func control() throws {
        let incarnation = try #require(Incarnation("node-a.7"))
        for message in [
            ControlMessage.up(incarnation), .down(incarnation), .drain(incarnation), .draining(incarnation),
        ] {
            var text = message.description
            #expect(text.withUTF8 { ControlMessage.parse(UnsafeRawBufferPointer($0)) } == message)
        }
        for text in ["", "up", "up ", "up node-a", "up node-a.7 x", "UP node-a.7", "up  node-a.7", "stop node-a.7"] {
            var text = text
            #expect(text.withUTF8 { ControlMessage.parse(UnsafeRawBufferPointer($0)) } == nil, "\(text)")
        }
    }
}
