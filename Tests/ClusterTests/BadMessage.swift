import Testing

/// What a client may not say, and the number and name of the error that it gets.
struct BadMessage: Sendable, CustomTestStringConvertible {
    let name: String
    let text: String
    let code: Int64
    let reason: String
    /// The `id` that the error must repeat.
    var id: String?

    var testDescription: String { name }

    private init(_ name: String, _ text: String, _ code: Int64, _ reason: String, id: String? = nil) {
        (self.name, self.text, self.code, self.reason, self.id) = (name, text, code, reason, id)
    }

    /// A message of `type` with these further members, as JSON text, and the id `i`.
    private static func wrong(
        _ name: String,
        _ type: String,
        _ members: String,
        _ code: Int64 = 102,
        _ reason: String = "invalid_field"
    ) -> BadMessage {
        let more = members.isEmpty ? "" : "," + members
        return BadMessage(name, #"{"type":"\#(type)","id":"i"\#(more)}"#, code, reason, id: "i")
    }

    private static func badRoom(_ name: String, _ room: String) -> BadMessage {
        wrong("a room name \(name)", "join", #""room":"\#(room)""#, 108, "invalid_room")
    }

    private static func notJSON(_ name: String, _ text: String) -> BadMessage {
        BadMessage(name, text, 100, "malformed_json")
    }

    static let all: [BadMessage] = [
        notJSON("not JSON", "hello"),
        notJSON("nothing", ""),
        notJSON("half an object", #"{"type":"ping""#),
        notJSON("two objects", #"{"type":"ping"}{"type":"ping"}"#),
        notJSON("an array", #"[{"type":"ping"}]"#),
        notJSON("a string", #""ping""#),
        notJSON("a leading zero", #"{"type":"ping","n":01}"#),
        notJSON("a raw control character", "{\"type\":\"ping\",\"x\":\"\u{1}\"}"),
        wrong(
            "data nested too deep", "message", #""room":"r","data":"# + String(repeating: "[", count: 5000), 104,
            "too_large"),
        BadMessage("no type", #"{"id":"i"}"#, 102, "invalid_field", id: "i"),
        BadMessage("a type that is a number", #"{"type":7,"id":"i"}"#, 102, "invalid_field", id: "i"),
        BadMessage("an id that is a number", #"{"type":"ping","id":7}"#, 102, "invalid_field"),
        BadMessage(
            "an id too long",
            #"{"type":"ping","id":"\#(String(repeating: "i", count: 65))"}"#,
            102,
            "invalid_field"
        ),
        wrong("an unknown type", "dance", "", 101, "unknown_type"),
        wrong("a server's type", "welcome", "", 101, "unknown_type"),
        wrong("half a surrogate pair in a room", "join", #""room":"\ud800""#),
        wrong("a room that is a number", "join", #""room":7"#),
        wrong("a text that is an object", "message", #""room":"r","text":{}"#),
        wrong("no room to join", "join", ""),
        wrong("no room to leave", "leave", ""),
        wrong("no room to speak in", "message", #""text":"x""#),
        wrong("nothing to say", "message", #""room":"r""#),
        badRoom("of nothing", ""),
        badRoom("too long", String(repeating: "r", count: 129)),
        badRoom("with braces", "a{b}"),
        badRoom("with a space", "a b"),
        badRoom("with a newline", #"a\nb"#),
        badRoom("with ü", "ü"),
        badRoom("with %", "a%41"),
        wrong("rooms that is no array", "join", #""rooms":{}"#),
        wrong("rooms of nothing", "join", #""rooms":[]"#),
        wrong("since without epoch", "join", #""room":"r","since":{"seq":1}"#),
        wrong("since below 0", "join", #""room":"r","since":{"epoch":"e","seq":-1}"#),
        wrong("a limit of 101", "history", #""room":"r","limit":101"#),
        wrong("before and after", "history", #""room":"r","before":9,"after":1"#),
        wrong("a seq beyond 64 bits", "history", #""room":"r","after":99999999999999999999"#),
        wrong("an unknown status", "status", #""status":"asleep""#),
        wrong("a message to a room not joined", "message", #""room":"elsewhere","text":"x""#, 111, "not_in_room"),
        wrong("typing in a room not joined", "typing", #""room":"elsewhere""#, 111, "not_in_room"),
        wrong("leaving a room not joined", "leave", #""room":"elsewhere""#, 111, "not_in_room"),
        wrong("direct to nobody", "direct", #""text":"x""#),
        wrong("direct to a control character", "direct", #""to":"a\u0007","text":"x""#, 109, "invalid_user"),
        wrong("an auth as somebody else", "auth", #""user":"somebody-else""#, 107, "identity_conflict"),
        wrong("an auth with a control character", "auth", #""user":"a\u0000b""#, 109, "invalid_user"),
        wrong("an auth with info that is a list", "auth", #""info":[]"#),
        wrong("an auth with too much info", "auth", #""info":{"x":"\#(String(repeating: "x", count: 2000))"}"#),
    ]
}
