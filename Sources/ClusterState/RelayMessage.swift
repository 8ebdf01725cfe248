package import WireProtocol

/// What the channels of rooms and users carry: one letter and a space-separated header, a line end, then the payload.
///
///     M SEQ TS COUNT PREVTAG EPOCH                       \n  RECORDS      (no space after the letter)
///     D SEQ TS COUNT PREVTAG EPOCH ROOM                  \n  RECORDS      (on a user's channel)
///     P PV COUNT EPOCH                                   \n  lines +{"user":…}  -{"user":…}  ~{"user":…,"status":…}
///     T ORIGIN                                           \n  FRAME
///     K ROOM (or *)                                      \n  REASON
///     O SESSION GENERATION                               \n               (on the channel of its user)
///
/// SEQ is that of the last of the COUNT messages (``RecordBatch``), PREVTAG the tag of the one before the first.
///
/// The slices point into the payload that was parsed and are valid for as long as it is.
package enum RelayMessage {
    /// In a row; at least one.
    case messages([Message])
    case presence(Presence)
    case typing(origin: String, frame: UnsafeRawBufferPointer)
    /// `room` nil: out of everything.
    case kick(room: RoomName?, reason: String)
    /// The session has a new owner, with this generation. A node that has it with a lower one closes it without a word to
    /// Redis.
    case moved(session: SessionID, generation: Int64)

    package struct Message {
        package var seq: Int64
        package var tag: String
        /// Of the message before it; `-` for the first.
        package var previousTag: String
        package var epoch: String
        /// The private room, on a user's channel; `nil` on a room's channel.
        package var room: String?
        package var ts: Int64
        /// The session that gets an ack in the message's place.
        package var origin: SessionID?
        /// The client's id, JSON-escaped without its quotes; empty without one.
        package var clientID: UnsafeRawBufferPointer
        /// As in ``Publication/body``.
        package var body: UnsafeRawBufferPointer
    }

    package struct Presence: Equatable {
        /// After the last of the changes, each of which raised it by one.
        package var pv: Int64
        /// Visible users after them.
        package var count: Int
        package var epoch: String
        package var changes: [PresenceChange]
    }

    /// Each with its JSON object.
    package enum PresenceChange: Equatable {
        case joined(String)
        case left(String)
        case status(String)
    }

    /// `nil` for what none of our scripts publishes; the receiver drops it, whoever sent it.
    package static func parse(_ payload: UnsafeRawBufferPointer) -> RelayMessage? {
        guard let kind = payload.first, let lineEnd = payload.firstIndex(of: UInt8(ascii: "\n")), lineEnd > 0
        else { return nil }
        var header = HeaderFields(UnsafeRawBufferPointer(rebasing: payload[1..<lineEnd]))
        let rest = UnsafeRawBufferPointer(rebasing: payload[(lineEnd + 1)...])
        switch kind {
        case UInt8(ascii: "M"): return parseMessages(&header, rest, isDirect: false)
        case UInt8(ascii: "D"): return parseMessages(&header, rest, isDirect: true)
        case UInt8(ascii: "P"): return parsePresence(&header, rest)
        case UInt8(ascii: "T"):
            guard let origin = header.text(), header.isAtEnd, !rest.isEmpty else { return nil }
            return .typing(origin: origin, frame: rest)
        case UInt8(ascii: "K"):
            guard let name = header.text(), header.isAtEnd, let reason = String(validating: rest, as: UTF8.self)
            else { return nil }
            if name == "*" { return .kick(room: nil, reason: reason) }
            guard let room = try? RoomName(validating: name) else { return nil }
            return .kick(room: room, reason: reason)
        case UInt8(ascii: "O"):
            guard let session = header.text().flatMap({ SessionID($0) }), let generation = header.number(),
                header.isAtEnd, rest.isEmpty
            else { return nil }
            return .moved(session: session, generation: generation)
        default: return nil
        }
    }

    private static func parseMessages(
        _ header: inout HeaderFields, _ records: UnsafeRawBufferPointer, isDirect: Bool
    ) -> RelayMessage? {
        guard let last = header.number(), let ts = header.number(), let count = header.number(), count > 0,
            last >= count, var previousTag = header.text(), let epoch = header.text()
        else { return nil }
        var room: String?
        if isDirect {
            guard let name = header.text() else { return nil }
            room = name
        }
        guard header.isAtEnd, count <= records.count else { return nil }
        var messages: [Message] = []
        messages.reserveCapacity(Int(count))
        let isWhole = RecordBatch.read(records) { record in
            messages.append(
                Message(
                    seq: last - count + Int64(messages.count) + 1, tag: record.tag, previousTag: previousTag,
                    epoch: epoch, room: room, ts: ts, origin: record.origin, clientID: record.clientID,
                    body: record.body))
            previousTag = record.tag
        }
        return isWhole && messages.count == count ? .messages(messages) : nil
    }

    private static func parsePresence(
        _ header: inout HeaderFields, _ rest: UnsafeRawBufferPointer
    ) -> RelayMessage? {
        guard let pv = header.number(), let count = header.number(), let epoch = header.text(), header.isAtEnd
        else { return nil }
        var changes: [PresenceChange] = []
        for line in rest.split(separator: UInt8(ascii: "\n")) {
            guard let json = String(validating: line.dropFirst(), as: UTF8.self), json.utf8.count > 2 else {
                return nil
            }
            switch line.first {
            case UInt8(ascii: "+"): changes.append(.joined(json))
            case UInt8(ascii: "-"): changes.append(.left(json))
            case UInt8(ascii: "~"): changes.append(.status(json))
            default: return nil
            }
        }
        guard !changes.isEmpty else { return nil }
        return .presence(Presence(pv: pv, count: Int(count), epoch: epoch, changes: changes))
    }

    static func encodeTyping(origin: SessionID) -> String { "T\(origin.string)\n" }
    static func encodeKick(room: RoomName?, reason: String) -> String { "K\(room?.string ?? "*")\n\(reason)" }
}
