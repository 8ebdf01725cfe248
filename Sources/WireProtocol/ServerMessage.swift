/// What a server says: each function returns the text of one frame. Only what is not on the hot path is here; a
/// broadcast message is finished by the publish script (``MessageText``).
package enum ServerMessage {
    package struct Welcome: Sendable {
        package var session: SessionID
        package var user: UserName
        package var node: String
        package var heartbeatMilliseconds: Int64
        package var messageLimitBytes: Int
        package var messagesPerSecond: Int
        package var roomLimit: Int
        /// What resumes the session, within the grace; `nil` where sessions cannot be resumed.
        package var secret: String?
        package var graceMilliseconds: Int64 = 0
        package var isResumed = false
        /// When a new session began, by Redis's clock.
        package var ts: Int64?

        package init(
            session: SessionID, user: UserName, node: String, heartbeatMilliseconds: Int64, messageLimitBytes: Int,
            messagesPerSecond: Int, roomLimit: Int
        ) {
            self.session = session
            self.user = user
            self.node = node
            self.heartbeatMilliseconds = heartbeatMilliseconds
            self.messageLimitBytes = messageLimitBytes
            self.messagesPerSecond = messagesPerSecond
            self.roomLimit = roomLimit
        }
    }

    package static func welcome(_ welcome: Welcome, id: String?) -> [UInt8] {
        frame("welcome", id: id) { writer in
            writer.member("session", welcome.session.string)
            writer.member("user", welcome.user.string)
            writer.member("node", welcome.node)
            if welcome.isResumed { writer.member("resumed", true) }
            if let secret = welcome.secret {
                writer.member("secret", secret)
                writer.member("grace_ms", welcome.graceMilliseconds)
            }
            if let ts = welcome.ts { writer.member("ts", ts) }
            writer.member("protocol", "martlet.v1")
            writer.member("heartbeat_ms", welcome.heartbeatMilliseconds)
            writer.key("limits")
            writer.beginObject()
            writer.member("message_bytes", welcome.messageLimitBytes)
            writer.member("messages_per_second", welcome.messagesPerSecond)
            writer.member("rooms", welcome.roomLimit)
            writer.endObject()
        }
    }

    /// - Parameter present: who is there, as JSON objects, one a user; `nil` for who may not know.
    package static func joined(
        room: RoomName, id: String?, epoch: String, seq: Int64, tag: String, recovered: Bool?,
        present: (count: Int, members: [String], pv: Int64)?
    ) -> [UInt8] {
        frame("joined", id: id, room: room) { writer in
            writer.member("epoch", epoch)
            writer.member("seq", seq)
            if tag.utf8.count > 1 { writer.member("tag", tag) }
            if let recovered { writer.member("recovered", recovered) }
            guard let present else { return }
            writer.member("pv", present.pv)
            writer.member("count", present.count)
            append(members: present.members, as: "members", to: &writer)
        }
    }

    package static func left(room: RoomName, id: String?, reason: String? = nil) -> [UInt8] {
        frame("left", id: id, room: room) { writer in
            if let reason { writer.member("reason", reason) }
        }
    }

    /// Messages that this client cannot be given: `from`…`to`, both missing.
    package static func gap(room: RoomName, epoch: String, from: Int64, to: Int64) -> [UInt8] {
        frame("gap", id: nil, room: room) { writer in
            writer.member("epoch", epoch)
            writer.member("from", from)
            writer.member("to", to)
        }
    }

    /// The whole list, as an answer or after a hole in the events.
    package static func presence(
        room: RoomName, id: String?, members: [String], count: Int, pv: Int64
    ) -> [UInt8] {
        frame("presence", id: id, room: room) { writer in
            append(members: members, as: "members", to: &writer)
            writer.member("count", count)
            writer.member("pv", pv)
        }
    }

    /// What changed in one tick; each change raised `pv` by one. Over the list limit only the counts are sent.
    package static func presence(
        room: RoomName, joined: [String], left: [String], updated: [String], count: Int, pv: Int64
    ) -> [UInt8] {
        frame("presence", id: nil, room: room) { writer in
            append(members: joined, as: "joined", to: &writer)
            append(members: left, as: "left", to: &writer)
            if !updated.isEmpty { append(members: updated, as: "updated", to: &writer) }
            writer.member("count", count)
            writer.member("pv", pv)
        }
    }

    package static func typing(room: RoomName, from user: UserName, isTyping: Bool) -> [UInt8] {
        frame("typing", id: nil, room: room) { writer in
            writer.member("from", user.string)
            writer.member("typing", isTyping)
        }
    }

    package static func history(
        room: RoomName, id: String?, epoch: String?, messages: [[UInt8]], more: Bool
    ) -> [UInt8] {
        frame("history", id: id, room: room) { writer in
            if let epoch { writer.member("epoch", epoch) }
            writer.key("messages")
            writer.beginArray()
            for message in messages { writer.raw(message) }
            writer.endArray()
            writer.member("more", more)
        }
    }

    package static func ack(
        room: RoomName, id: String?, seq: Int64, ts: Int64, tag: String?, epoch: String, duplicate: Bool = false
    ) -> [UInt8] {
        frame("ack", id: id, room: room) { writer in
            writer.member("seq", seq)
            writer.member("ts", ts)
            if let tag { writer.member("tag", tag) }
            if room.isDirect { writer.member("epoch", epoch) }
            if duplicate { writer.member("duplicate", true) }
        }
    }

    /// The ack of a publish that came back by the relay, where its `id` is JSON text without quotes, or empty.
    package static func ack(
        room: RoomName, rawID: String, seq: Int64, ts: Int64, tag: String, epoch: String
    ) -> [UInt8] {
        frame("ack", id: nil, room: room) { writer in
            if !rawID.isEmpty {
                writer.key("id")
                writer.raw("\"\(rawID)\"".utf8)
            }
            writer.member("seq", seq)
            writer.member("ts", ts)
            writer.member("tag", tag)
            if room.isDirect { writer.member("epoch", epoch) }
        }
    }

    package static func ack(id: String?, status: PresenceStatus) -> [UInt8] {
        frame("ack", id: id) { $0.member("status", status.rawValue) }
    }

    package static func error(_ error: WireError, id: String? = nil, room: String? = nil) -> [UInt8] {
        frame("error", id: id) { writer in
            writer.member("code", error.code.rawValue)
            writer.member("reason", error.code.reason)
            writer.member("message", error.message)
            if let milliseconds = error.retryAfterMilliseconds { writer.member("retry_ms", milliseconds) }
            if let room { writer.member("room", room) }
        }
    }

    package static func reconnect(delayMilliseconds: Int64, reason: String) -> [UInt8] {
        frame("reconnect", id: nil) { writer in
            writer.member("delay_ms", delayMilliseconds)
            writer.member("reason", reason)
        }
    }

    package static func tokenExpiring(inMilliseconds milliseconds: Int64) -> [UInt8] {
        frame("token_expiring", id: nil) { $0.member("expires_in_ms", milliseconds) }
    }

    package static func pong(id: String?, ts: Int64) -> [UInt8] {
        frame("pong", id: id) { $0.member("ts", ts) }
    }

    private static func frame(
        _ type: String, id: String?, room: RoomName? = nil, _ body: (inout JSONWriter) -> Void
    ) -> [UInt8] {
        var writer = JSONWriter()
        writer.beginObject()
        writer.member("type", type)
        if let room { writer.member("room", room.string) }
        if let id { writer.member("id", id) }
        body(&writer)
        writer.endObject()
        return writer.bytes
    }

    private static func append(members: [String], as key: String, to writer: inout JSONWriter) {
        writer.key(key)
        writer.beginArray()
        for member in members { writer.raw(member.utf8) }
        writer.endArray()
    }
}

/// The text of one stored message, in the pieces between which the publish script splices what it assigns:
///
///     {"type":"message","room":ROOM,"seq":SEQ,"tag":"TAG",BODY,"ts":TS}
///
/// with an `"epoch"` behind it in a private room, which no `joined` tells of. `BODY` is what the sender's node made: `"from":…` and the raw `text`, `data`, `binary`
/// of the client.
package enum MessageText {
    package static func prefix(room: RoomName) -> [UInt8] {
        var bytes = Array("{\"type\":\"message\",\"room\":".utf8)
        JSONWriter.append(room.string, to: &bytes)
        bytes.append(contentsOf: ",\"seq\":".utf8)
        return bytes
    }

    package static func body(
        from user: UserName, to recipient: UserName? = nil, payload: ClientMessage.Payload,
        in bytes: UnsafeRawBufferPointer
    ) -> [UInt8] {
        var body: [UInt8] = []
        body.reserveCapacity(
            64 + (payload.text?.count ?? 0) + (payload.data?.count ?? 0) + (payload.binary?.count ?? 0))
        body.append(contentsOf: "\"from\":".utf8)
        JSONWriter.append(user.string, to: &body)
        if let recipient {
            body.append(contentsOf: ",\"to\":".utf8)
            JSONWriter.append(recipient.string, to: &body)
        }
        if let text = payload.text {
            body.append(contentsOf: ",\"text\":".utf8)
            body.append(contentsOf: bytes[text])
        }
        if let data = payload.data {
            body.append(contentsOf: ",\"data\":".utf8)
            body.append(contentsOf: bytes[data])
        }
        if let binary = payload.binary {
            body.append(contentsOf: ",\"binary\":".utf8)
            body.append(contentsOf: bytes[binary])
        }
        return body
    }

    /// A stored message as a frame, `type` and `room` included. `rawID`, JSON-escaped and
    /// without quotes, is given to the user who sent it; empty for others.
    package static func frame(
        room: RoomName, epoch: String, seq: Int64, tag: String, body: some Collection<UInt8>, ts: Int64, rawID: String
    ) -> [UInt8] {
        var bytes = prefix(room: room)
        appendTail(seq: seq, tag: tag, body: body, ts: ts, rawID: rawID, to: &bytes)
        if room.isDirect { appendEpoch(epoch, to: &bytes) }
        return bytes
    }

    /// The same for whoever is in the room, behind the room's own ``prefix(room:)``.
    package static func append(
        prefix: [UInt8], epoch: String?, seq: Int64, tag: String, body: UnsafeRawBufferPointer, ts: Int64,
        to bytes: inout [UInt8]
    ) {
        bytes.append(contentsOf: prefix)
        appendTail(seq: seq, tag: tag, body: body, ts: ts, rawID: "", to: &bytes)
        if let epoch { appendEpoch(epoch, to: &bytes) }
    }

    /// No `joined` tells the epoch of a private room.
    private static func appendEpoch(_ epoch: String, to bytes: inout [UInt8]) {
        bytes.removeLast()
        bytes.append(contentsOf: ",\"epoch\":\"\(epoch)\"}".utf8)
    }

    /// A stored message as an element of `history`, where the room is said once.
    package static func element(
        seq: Int64, tag: String, body: some Collection<UInt8>, ts: Int64, rawID: String
    ) -> [UInt8] {
        var bytes = Array("{\"seq\":".utf8)
        appendTail(seq: seq, tag: tag, body: body, ts: ts, rawID: rawID, to: &bytes)
        return bytes
    }

    private static func appendTail(
        seq: Int64, tag: String, body: some Collection<UInt8>, ts: Int64, rawID: String, to bytes: inout [UInt8]
    ) {
        bytes.append(contentsOf: String(seq).utf8)
        bytes.append(contentsOf: ",\"tag\":\"".utf8)
        bytes.append(contentsOf: tag.utf8)
        bytes.append(contentsOf: "\",".utf8)
        bytes.append(contentsOf: body)
        if !rawID.isEmpty {
            bytes.append(contentsOf: ",\"id\":\"".utf8)
            bytes.append(contentsOf: rawID.utf8)
            bytes.append(UInt8(ascii: "\""))
        }
        bytes.append(contentsOf: ",\"ts\":".utf8)
        bytes.append(contentsOf: String(ts).utf8)
        bytes.append(UInt8(ascii: "}"))
    }
}
