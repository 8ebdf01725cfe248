import WireProtocol

/// What this client says, as the text of one frame.
enum ClientFrame {
    /// The last message of a room that was delivered here.
    struct Position: Equatable {
        var epoch: String
        var seq: Int64
        var tag: String?
    }

    static func auth(token: String, client: String, id: String) -> [UInt8] {
        frame("auth", id: id) { writer in
            writer.member("token", token)
            writer.member("client", client)
        }
    }

    /// One frame that says who this is, which session goes on, the rooms to be in, whether it does or not, and what there
    /// was of private rooms.
    static func comeBack(
        _ session: ClientStateMachine.Place?, as identity: (kind: String, value: String), client: String,
        status: String, rooms: [(name: String, since: Position?)],
        directs: (since: Int64, rooms: [(name: String, since: Position?)])?, id: String
    ) -> [UInt8] {
        frame("auth", id: id) { writer in
            writer.member(identity.kind, identity.value)
            writer.member("client", client)
            writer.member("status", status)
            if let session {
                writer.key("resume")
                writer.beginObject()
                writer.member("session", session.session)
                writer.member("secret", session.secret)
                writer.endObject()
            }
            if !rooms.isEmpty { member(rooms, in: &writer) }
            if let directs {
                writer.key("directs")
                writer.beginObject()
                writer.member("since", directs.since)
                if !directs.rooms.isEmpty { member(directs.rooms, in: &writer) }
                writer.endObject()
            }
        }
    }

    /// One frame for all rooms, so that a reconnect costs one frame however many they are.
    static func join(_ rooms: [(name: String, since: Position?)], id: String) -> [UInt8] {
        frame("join", id: id) { member(rooms, in: &$0) }
    }

    private static func member(_ rooms: [(name: String, since: Position?)], in writer: inout JSONWriter) {
        writer.key("rooms")
        writer.beginArray()
        for room in rooms {
            writer.beginObject()
            writer.member("room", room.name)
            if let since = room.since {
                writer.key("since")
                writer.beginObject()
                writer.member("epoch", since.epoch)
                writer.member("seq", since.seq)
                if let tag = since.tag { writer.member("tag", tag) }
                writer.endObject()
            }
            writer.endObject()
        }
        writer.endArray()
    }

    static func leave(_ room: String, id: String) -> [UInt8] {
        frame("leave", id: id) { $0.member("room", room) }
    }

    /// - Parameter data: JSON text, checked by the caller.
    static func message(to destination: Outbox.Destination, text: String?, data: String?, id: String) -> [UInt8] {
        let (type, key, name) =
            switch destination {
            case .room(let room): ("message", "room", room)
            case .user(let user): ("direct", "to", user)
            }
        return frame(type, id: id) { writer in
            writer.member(key, name)
            if let text { writer.member("text", text) }
            if let data {
                writer.key("data")
                writer.raw(data.utf8)
            }
        }
    }

    static func typing(_ room: String, isTyping: Bool) -> [UInt8] {
        frame("typing") { writer in
            writer.member("room", room)
            writer.member("typing", isTyping)
        }
    }

    static func presence(_ room: String) -> [UInt8] {
        frame("presence") { $0.member("room", room) }
    }

    static func history(_ room: String, before: Int64?, after: Int64?, limit: Int, id: String) -> [UInt8] {
        frame("history", id: id) { writer in
            writer.member("room", room)
            if let before { writer.member("before", before) }
            if let after { writer.member("after", after) }
            writer.member("limit", limit)
        }
    }

    static func status(_ status: String) -> [UInt8] {
        frame("status") { $0.member("status", status) }
    }

    static func ping() -> [UInt8] {
        frame("ping") { _ in }
    }

    private static func frame(_ type: String, id: String? = nil, _ body: (inout JSONWriter) -> Void) -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("type", type)
        if let id { writer.member("id", id) }
        body(&writer)
        writer.endObject()
        return writer.bytes
    }
}
