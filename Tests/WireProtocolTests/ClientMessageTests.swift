import Testing
import WireProtocol

@Suite("What a client may send")
struct ClientMessageTests {
    private func error(_ text: String) -> ClientMessageError? {
        do {
            _ = try decode(text)
            return nil
        } catch {
            return error as? ClientMessageError
        }
    }

    @Test("text and data stay raw: escapes and spelling reach the others as they were written")
    func rawPayload() throws {
        let text = #"{"type":"message","room":"r","text":"a\u0041\n\ud83d\ude00 é","data": {"n":1e400, "x":[]}}"#
        let message = try decode(text)
        guard case .message(let room, let payload) = message.body else { return #expect(Bool(false)) }
        #expect(room.string == "r")
        let body = Array(text.utf8).withUnsafeBytes { bytes in
            MessageText.body(from: try! UserName(validating: "al\"ice"), payload: payload, in: bytes)
        }
        #expect(
            String(decoding: body, as: UTF8.self)
                == #""from":"al\"ice","text":"a\u0041\n\ud83d\ude00 é","data":{"n":1e400, "x":[]}"#)
    }

    @Test("of equal members the last counts, and an escaped key is the same key")
    func duplicateKeys() throws {
        let message = try decode(#"{"type":"leave","room":"a","\u0072oom":"b","id":"1","id":"2"}"#)
        #expect(message.id == "2")
        guard case .leave(let room) = message.body else { return #expect(Bool(false)) }
        #expect(room.string == "b")
    }

    @Test(
        "what is not one JSON object is error 100",
        arguments: [
            "", " ", "x", "[]", "null", "\"a\"", "1", "{", "{}x", #"{"a":}"#, #"{"a":1,}"#, #"{a:1}"#, #"{"a":01}"#,
            #"{"a":1.}"#, #"{"a":-}"#, #"{"a":"\x"}"#, #"{"a":"\u12g4"}"#, "{\"a\":\"\n\"}", #"{"a":tru}"#, #"{"a" 1}"#,
            #"{"a":+1}"#, #"{"a":NaN}"#, #"{"a":1e}"#, #"{"a":[1,]}"#, #"{"a":'b'}"#, "{\"a\":1}\u{0}",
        ])
    func malformed(_ text: String) {
        #expect(error(text)?.error.code == .malformedJSON)
    }

    @Test("T24: nesting is limited, the limit itself is allowed, and a refusal names the message")
    func nesting() {
        func nested(_ depth: Int) -> String {
            let brackets = String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
            return #"{"type":"ping","id":"7","x":\#(brackets)}"#
        }
        #expect(error(nested(JSONScanner.maximumDepth - 1)) == nil)
        for depth in [JSONScanner.maximumDepth, 100_000] {
            #expect(error(nested(depth))?.error.code == .tooLarge)
            #expect(error(nested(depth))?.id == "7")
        }
    }

    @Test(
        "a missing field or a wrong type is error 102, with the id of the message",
        arguments: [
            #"{"id":"7"}"#, #"{"id":"7","type":1}"#, #"{"id":"7","type":"join"}"#,
            #"{"id":"7","type":"join","room":5}"#,
            #"{"id":"7","type":"message","room":"r"}"#, #"{"id":"7","type":"message","room":"r","text":5}"#,
            #"{"id":"7","type":"join","room":"r","since":5}"#,
            #"{"id":"7","type":"join","room":"r","since":{"seq":1}}"#,
            #"{"id":"7","type":"join","room":"r","since":{"epoch":"e","seq":-1}}"#,
            #"{"id":"7","type":"join","room":"r","since":{"epoch":"e","seq":9007199254740993}}"#,
            #"{"id":"7","type":"auth","directs":{"since":0,"rooms":[{"room":"dm:a:b","since":{"epoch":"e","seq":9223372036854775807}}]}}"#,
            #"{"id":"7","type":"history","room":"r","after":9223372036854775807}"#,
            #"{"id":"7","type":"join","room":"r","echo":"yes"}"#, #"{"id":"7","type":"join","rooms":{}}"#,
            #"{"id":"7","type":"join","rooms":[]}"#, #"{"id":"7","type":"join","rooms":["r"]}"#,
            #"{"id":"7","type":"join","room":"r","rooms":[{"room":"r"}]}"#,
            #"{"id":"7","type":"history","room":"r","limit":101}"#,
            #"{"id":"7","type":"history","room":"r","limit":0}"#,
            #"{"id":"7","type":"history","room":"r","limit":1.0}"#,
            #"{"id":"7","type":"history","room":"r","before":1,"after":1}"#,
            #"{"id":"7","type":"status","status":"sleepy"}"#, #"{"id":"7","type":"status"}"#,
            #"{"id":"7","type":"auth","directs":[]}"#, #"{"id":"7","type":"auth","directs":{"rooms":[]}}"#,
            #"{"id":"7","type":"auth","directs":{"since":1,"rooms":[{"room":"dm:a:b"}]}}"#,
            #"{"id":"7","type":"auth","directs":{"since":1,"rooms":{}}}"#,
            #"{"id":"7","type":"direct","text":"x"}"#, #"{"id":"7","type":"auth","info":[]}"#,
            #"{"id":"7","type":"auth","client":"a b"}"#, #"{"id":"7","type":"auth","user":"\ud800"}"#,
        ])
    func invalidField(_ text: String) {
        let error = error(text)
        #expect(error?.error.code == .invalidField)
        #expect(error?.error.message.isEmpty == false)
        #expect(error?.id == "7")
    }

    @Test("an id is a string of 1 to 64 bytes", arguments: [#""""#, "5", #""\#(String(repeating: "x", count: 65))""#])
    func invalidID(_ id: String) {
        #expect(error(#"{"type":"ping","id":\#(id)}"#)?.error.code == .invalidField)
    }

    @Test("an unknown type is error 101")
    func unknownType() {
        #expect(error(#"{"type":"nope"}"#)?.error.code == .unknownType)
        #expect(error(#"{"type":"welcome"}"#)?.error.code == .unknownType)
    }

    @Test(
        "a room name out of the alphabet is error 108, with the room's name",
        arguments: [
            "", "a b", "ä", "a{b}", "a%b", "a\u{7f}b", "dm:bob:alice", "dm:alice", "dm:a:b:c",
            String(repeating: "x", count: 129),
        ])
    func invalidRoom(_ name: String) {
        let error = error(#"{"type":"join","room":\#(JSONWriter.literal(name))}"#)
        #expect(error?.error.code == .invalidRoom)
        #expect(error?.room == name)
    }

    @Test("of many rooms in a join, the one that is no room name is named, where it is text of at most 200 bytes")
    func invalidRoomOfMany() {
        func room(_ literal: String) -> String? {
            let text = #"{"type":"join","id":"1","rooms":[{"room":"a"},{"room":\#(literal)},{"room":"b c"}]}"#
            let refused = error(text)
            #expect(refused?.id == "1")
            return refused?.room
        }
        #expect(error(#"{"type":"join","rooms":[{"room":"a"},{"room":"b c"}]}"#)?.error.code == .invalidRoom)
        #expect(room(#""bad room""#) == "bad room")
        #expect(room(JSONWriter.literal(String(repeating: "ä", count: 100)))?.utf8.count == 200)
        #expect(room(JSONWriter.literal(String(repeating: "ä", count: 101))) == nil)
        #expect(room(#""\ud800""#) == nil)
        #expect(room("5") == nil)
        #expect(room(#""x","since":{"epoch":1}"#) == "x")
    }

    @Test("the longest room name is taken")
    func longestRoom() throws {
        _ = try RoomName(validating: String(repeating: "x", count: 128))
    }
}

@Suite("Names in keys")
struct NameTests {
    @Test(
        "no user name can forge a hash tag, a separator or another name",
        arguments: ["a{b}", "a:b", "%", "a%3Ab", "ü", "🦜 x", "{}%:"])
    func percentEncoding(_ name: String) throws {
        let user = try UserName(validating: name)
        #expect(!user.percentEncoded.contains { "{}:".contains($0) })
        #expect(UserName(percentEncoded: user.percentEncoded) == user)
    }

    @Test(
        "an encoding that this would not have made names nobody",
        arguments: ["a%3a", "%41", "%", "%4", "a:b", "%FF", ""])
    func foreignEncoding(_ text: String) {
        #expect(UserName(percentEncoded: text) == nil)
    }

    @Test("control characters are refused", arguments: ["\u{0}", "a\nb", "\u{7f}", "\u{85}", "\u{2028}", ""])
    func controlCharacters(_ name: String) {
        #expect(throws: WireError.self) { try UserName(validating: name) }
    }

    @Test("T9: names that look alike are two users when their bytes differ")
    func canonicalEquivalents() throws {
        let composed = try UserName(validating: "\u{FC}")
        let decomposed = try UserName(validating: "u\u{308}")
        #expect(composed != decomposed)
        #expect(Set([composed, decomposed]).count == 2)
        #expect(UserName(percentEncoded: decomposed.percentEncoded) == decomposed)
    }

    @Test("two users have one private room, and each can be read from it")
    func direct() throws {
        let alice = try UserName(validating: "alice")
        let other = try UserName(validating: "a:b")
        #expect(RoomName.direct(alice, other) == RoomName.direct(other, alice))
        let room = try RoomName(validating: RoomName.direct(alice, other).string)
        let pair = try #require(room.participants)
        #expect(Set([pair.0, pair.1]) == [alice, other])
    }
}

@Suite("JSON that is written")
struct JSONWriterTests {
    @Test("every control character, quote and backslash is escaped, the rest stays")
    func escaping() throws {
        for value in 0..<0x20 {
            let text = JSONWriter.literal(String(UnicodeScalar(UInt8(value))))
            try Array(text.utf8).withUnsafeBytes { bytes in
                let scanned = try JSONScanner.scanText(bytes)
                #expect(JSONText.string(scanned, in: bytes)?.unicodeScalars.first?.value == UInt32(value))
            }
        }
        #expect(JSONWriter.literal("a\"\\é🦜/") == #""a\"\\é🦜/""#)
    }

    @Test("members and elements are parted by commas at every depth")
    func nesting() {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("a", 1)
        writer.key("b")
        writer.beginArray()
        writer.value("x")
        writer.beginObject()
        writer.endObject()
        writer.endArray()
        writer.member("c", true)
        writer.endObject()
        #expect(writer.string == #"{"a":1,"b":["x",{}],"c":true}"#)
    }

    @Test(
        "a figure has two decimals at most, and is null where there is none that JSON could write",
        arguments: [
            (1.0, "1"), (0.125, "0.13"), (-2.5, "-2.5"), (1e16, "1e+16"), (nil, "null"), (1e308, "null"),
            (.infinity, "null"), (.nan, "null"),
        ] as [(Double?, String)])
    func figures(value: Double?, text: String) {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("a", value)
        writer.endObject()
        #expect(writer.string == #"{"a":\#(text)}"#)
    }
}
