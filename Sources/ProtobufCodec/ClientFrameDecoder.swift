// `Data` is what generated code has bytes in; FoundationEssentials is what SwiftProtobuf imports, without ICU.
import FoundationEssentials
import SwiftProtobuf
package import WireProtocol

extension ClientMessage {
    /// A message, and the JSON that the ranges of its payload are of: what is stored and relayed is JSON.
    package typealias Decoded = (message: ClientMessage, payload: [UInt8])

    /// Decodes one binary frame of `martlet.v1.protobuf`. Unknown fields are skipped.
    ///
    /// - Parameter limit: of the payload as JSON, in bytes.
    /// - Throws: ``ClientMessageError``, with the `id` and `room` of the message when they could be read.
    package static func decode(
        protobuf bytes: UnsafeRawBufferPointer, limit: Int
    ) throws(ClientMessageError) -> Decoded {
        let frame: Martlet_V1_ClientFrame
        do {
            var options = BinaryDecodingOptions()
            options.discardUnknownFields = true
            frame = try Martlet_V1_ClientFrame(serializedBytes: Array(bytes), options: options)
        } catch {
            throw ClientMessageError(error: WireError(.malformedProtobuf), id: nil, room: nil)
        }
        let isNamed = !frame.hasID || (1...maximumIDLength).contains(frame.id.utf8.count)
        let id = frame.hasID && isNamed ? frame.id : nil
        var reader = FrameReader(limit: limit)
        do throws(WireError) {
            guard isNamed else { throw WireError(.invalidField, "id is a string of 1 to \(maximumIDLength) bytes") }
            let body = try reader.body(frame)
            return (ClientMessage(id: id, body: body), reader.payload)
        } catch {
            let room = reader.room.flatMap { $0.utf8.count <= ClientMessageError.maximumRoomLength ? $0 : nil }
            throw ClientMessageError(error: error, id: id, room: room)
        }
    }
}

/// Turns one frame into what a client asks for, by the same rules as the decoder of JSON.
private struct FrameReader {
    let limit: Int
    var payload: [UInt8] = []
    /// As the client named it, which may be no room name.
    var room: String?

    init(limit: Int) {
        self.limit = limit
    }

    mutating func body(_ frame: Martlet_V1_ClientFrame) throws(WireError) -> ClientMessage.Body {
        switch frame.frame {
        case .message(let message):
            return .message(room: try name(message.room), payload: try payload(message.payload))
        case .direct(let direct):
            return .direct(to: try UserName(validating: direct.to), payload: try payload(direct.payload))
        case .typing(let typing):
            return .typing(room: try name(typing.room), isTyping: !typing.hasTyping || typing.typing)
        case .ping: return .ping
        case .join(let join):
            guard (1...ClientMessage.maximumJoinsPerFrame).contains(join.rooms.count) else {
                throw WireError(.invalidField, "rooms has 1 to \(ClientMessage.maximumJoinsPerFrame) elements")
            }
            return .join(try joins(join.rooms))
        case .leave(let leave): return .leave(try name(leave.room))
        case .presence(let presence): return .presence(room: try name(presence.room))
        case .history(let history): return try self.history(history)
        case .status(let status):
            guard let status = try self.status(status.status) else {
                throw WireError(.invalidField, "status is missing")
            }
            return .status(status)
        case .auth(let auth): return .auth(try self.auth(auth))
        case nil: throw WireError(.unknownType, "the frame has no message that this server knows")
        }
    }

    private mutating func name(_ room: String) throws(WireError) -> RoomName {
        self.room = room
        return try RoomName(validating: room)
    }

    /// Writes the values as JSON.
    private mutating func payload(_ said: Martlet_V1_Payload) throws(WireError) -> ClientMessage.Payload {
        guard said.hasText || said.hasData || said.hasBinary else { throw ClientMessage.emptyPayload }
        var ranges = ClientMessage.Payload()
        payload.reserveCapacity(said.text.utf8.count + said.data.utf8.count + (said.binary.count + 2) / 3 * 4 + 8)
        if said.hasText { ranges.text = written { JSONWriter.append(said.text, to: &$0) } }
        if said.hasData {
            // It stands in the object of the frame.
            _ = try json(said.data, depth: 1)
            ranges.data = written { $0.append(contentsOf: said.data.utf8) }
        }
        if said.hasBinary {
            ranges.binary = written { text in
                text.append(UInt8(ascii: "\""))
                said.binary.withUnsafeBytes { Base64.append($0, to: &text) }
                text.append(UInt8(ascii: "\""))
            }
        }
        guard payload.count <= limit else {
            throw WireError(.tooLarge, "a message has at most \(limit) bytes as JSON, where binary is base64")
        }
        return ranges
    }

    private mutating func written(_ write: (inout [UInt8]) -> Void) -> Range<Int> {
        let start = payload.count
        write(&payload)
        return start..<payload.count
    }

    private func json(_ text: String, depth: Int) throws(WireError) -> JSONValue {
        do {
            return try Array(text.utf8).withUnsafeBytes { bytes throws(JSONError) in
                try JSONScanner.scanText(bytes, depth: depth)
            }
        } catch JSONError.tooDeep {
            throw WireError(.tooLarge, "the JSON text is nested over \(JSONScanner.maximumDepth - depth) levels")
        } catch {
            throw WireError(.invalidField, "data and info are JSON texts (RFC 8259)")
        }
    }

    private mutating func joins(_ rooms: [Martlet_V1_JoinRoom]) throws(WireError) -> [ClientMessage.Join] {
        var joins: [ClientMessage.Join] = []
        for room in rooms {
            joins.append(
                ClientMessage.Join(
                    room: try name(room.room), since: room.hasSince ? try position(room.since) : nil, echo: room.echo))
        }
        return joins
    }

    private func position(_ since: Martlet_V1_Position) throws(WireError) -> ClientMessage.Position {
        guard since.epoch.utf8.count <= ClientMessage.maximumEpochLength else {
            throw WireError(.invalidField, "since has epoch, a string, and seq, a whole number from 0 up")
        }
        return ClientMessage.Position(
            epoch: since.epoch, seq: try number(since.seq, "since.seq"), tag: since.hasTag ? since.tag : nil)
    }

    private func number(_ number: Int64, _ name: StaticString) throws(WireError) -> Int64 {
        guard (0...ClientMessage.maximumNumber).contains(number) else {
            throw WireError(.invalidField, "\(name) is a whole number from 0 to 2^53")
        }
        return number
    }

    private mutating func history(_ history: Martlet_V1_GetHistory) throws(WireError) -> ClientMessage.Body {
        let range: HistoryRange =
            switch history.range {
            case .before(let seq): .before(try number(seq, "before"))
            case .after(let seq): .after(try number(seq, "after"))
            case nil: .latest
            }
        let limit = history.hasLimit ? Int(history.limit) : ClientMessage.maximumHistoryLimit / 2
        guard (1...ClientMessage.maximumHistoryLimit).contains(limit) else {
            throw WireError(.invalidField, "limit is a whole number from 1 to \(ClientMessage.maximumHistoryLimit)")
        }
        return .history(room: try name(history.room), range: range, limit: limit)
    }

    private func status(_ status: Martlet_V1_Status) throws(WireError) -> PresenceStatus? {
        switch status {
        case .unspecified: nil
        case .online: .online
        case .away: .away
        case .busy: .busy
        case .invisible: .invisible
        case .UNRECOGNIZED: throw WireError(.invalidField, "status is online, away, busy or invisible")
        }
    }

    private mutating func auth(_ said: Martlet_V1_Auth) throws(WireError) -> ClientMessage.Auth {
        var auth = ClientMessage.Auth()
        if said.hasUser { auth.user = try UserName(validating: said.user) }
        if said.hasToken { auth.token = said.token }
        if said.hasClient { auth.client = try ClientMessage.validate(client: said.client) }
        auth.status = try status(said.status)
        if said.hasInfo { auth.info = try info(said.info) }
        if said.hasResume {
            guard let session = SessionID(said.resume.session) else {
                throw WireError(.invalidField, "resume has session and secret, as welcome gave them")
            }
            auth.resume = ClientMessage.Resume(session: session, secret: said.resume.secret)
        }
        guard said.rooms.count <= ClientMessage.maximumJoinsPerFrame else {
            throw WireError(.invalidField, "rooms has 1 to \(ClientMessage.maximumJoinsPerFrame) elements")
        }
        auth.rooms = try joins(said.rooms)
        if said.hasDirects { auth.directs = try directs(said.directs) }
        return auth
    }

    private func info(_ text: String) throws(WireError) -> String {
        let value = try json(text, depth: 1)
        guard value.kind == .object, value.range.count <= ClientMessage.maximumInfoLength else {
            throw WireError(.invalidField, "info is a JSON object of at most \(ClientMessage.maximumInfoLength) bytes")
        }
        return Array(text.utf8).withUnsafeBytes { JSONText.minified(value.range, in: $0) }
    }

    private mutating func directs(_ said: Martlet_V1_Directs) throws(WireError) -> ClientMessage.Directs {
        guard said.rooms.count <= ClientMessage.maximumDirects else {
            throw WireError(.invalidField, "directs.rooms has at most \(ClientMessage.maximumDirects) elements")
        }
        var directs = ClientMessage.Directs(since: try number(said.since, "directs.since"))
        for room in said.rooms {
            let name = try name(room.room)
            guard name.isDirect else { throw WireError(.invalidRoom, "\(name) is no private room") }
            guard room.hasSince else {
                throw WireError(.invalidField, "since is missing; it names the last message that was seen")
            }
            directs.rooms[name] = try position(room.since)
        }
        return directs
    }
}
