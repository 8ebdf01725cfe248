extension ClientMessage {
    /// Decodes one text frame. Unknown fields are skipped, of equal fields the last one counts.
    ///
    /// - Throws: ``ClientMessageError``, with the `id` and `room` of the message when they could be read.
    package init(decoding bytes: UnsafeRawBufferPointer) throws(ClientMessageError) {
        var fields = Fields(bytes: bytes)
        do {
            try JSONScanner.scanObject(bytes) { (key, value) throws(JSONError) in fields.set(key, value) }
        } catch JSONError.tooDeep {
            // It is JSON, and what stands before the deep value is read already.
            throw ClientMessageError(
                error: WireError(
                    .tooLarge, "the JSON text is nested over \(JSONScanner.maximumDepth) levels; send a flatter one"),
                id: try? fields.requestID(), room: fields.roomForError)
        } catch {
            throw ClientMessageError(error: WireError(.malformedJSON, error.sentence), id: nil, room: nil)
        }
        var id: String?
        do {
            id = try fields.requestID()
            self.id = id
            self.body = try fields.body()
        } catch {
            throw ClientMessageError(error: error, id: id, room: fields.roomForError)
        }
    }
}

extension JSONError {
    fileprivate var sentence: String {
        switch self {
        case .unexpectedEnd: "the JSON text ends too early; send one JSON object (RFC 8259) in each text frame"
        case .unexpectedByte(let offset):
            "the JSON text is wrong at byte \(offset); send one JSON object (RFC 8259) in each text frame"
        case .tooDeep: "the JSON text is nested over \(JSONScanner.maximumDepth) levels"
        }
    }
}

/// The members of one message that anything reads, by name.
private struct Fields {
    let bytes: UnsafeRawBufferPointer
    var type: JSONValue?
    var id: JSONValue?
    var room: JSONValue?
    var rooms: JSONValue?
    var text: JSONValue?
    var data: JSONValue?
    var binary: JSONValue?
    var since: JSONValue?
    var echo: JSONValue?
    var user: JSONValue?
    var token: JSONValue?
    var client: JSONValue?
    var info: JSONValue?
    var status: JSONValue?
    var resume: JSONValue?
    var directs: JSONValue?
    var session: JSONValue?
    var secret: JSONValue?
    var typing: JSONValue?
    var to: JSONValue?
    var before: JSONValue?
    var after: JSONValue?
    var limit: JSONValue?

    init(bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    mutating func set(_ key: JSONValue, _ value: JSONValue) {
        // The fields of a publish stand first: they are the hot ones.
        if matches(key, "type") { return type = value }
        if matches(key, "room") { return room = value }
        if matches(key, "text") { return text = value }
        if matches(key, "id") { return id = value }
        if matches(key, "data") { return data = value }
        if matches(key, "binary") { return binary = value }
        if matches(key, "since") { return since = value }
        if matches(key, "echo") { return echo = value }
        if matches(key, "rooms") { return rooms = value }
        if matches(key, "typing") { return typing = value }
        if matches(key, "to") { return to = value }
        if matches(key, "before") { return before = value }
        if matches(key, "after") { return after = value }
        if matches(key, "limit") { return limit = value }
        if matches(key, "status") { return status = value }
        if matches(key, "resume") { return resume = value }
        if matches(key, "directs") { return directs = value }
        if matches(key, "session") { return session = value }
        if matches(key, "secret") { return secret = value }
        if matches(key, "user") { return user = value }
        if matches(key, "token") { return token = value }
        if matches(key, "client") { return client = value }
        if matches(key, "info") { return info = value }
    }

    /// The room at fault as it was named, which may be no room name.
    var roomForError: String? {
        room.flatMap { JSONText.string($0, in: bytes) }
            .flatMap { $0.utf8.count <= ClientMessageError.maximumRoomLength ? $0 : nil }
    }

    func requestID() throws(WireError) -> String? {
        guard let id, id.kind != .null else { return nil }
        guard let string = JSONText.string(id, in: bytes),
            (1...ClientMessage.maximumIDLength).contains(string.utf8.count)
        else {
            throw WireError(.invalidField, "id is a string of 1 to \(ClientMessage.maximumIDLength) bytes")
        }
        return string
    }

    mutating func body() throws(WireError) -> ClientMessage.Body {
        guard let type else { throw WireError(.invalidField, "type is missing; it names the message") }
        guard type.isString else { throw WireError(.invalidField, "type is a string") }
        if matches(type, "message") { return .message(room: try roomName(), payload: try payload()) }
        if matches(type, "typing") {
            return .typing(room: try roomName(), isTyping: try bool(typing, "typing") ?? true)
        }
        if matches(type, "ping") { return .ping }
        if matches(type, "join") { return .join(try joins()) }
        if matches(type, "leave") { return .leave(try roomName()) }
        if matches(type, "presence") { return .presence(room: try roomName()) }
        if matches(type, "history") {
            return .history(room: try roomName(), range: try historyRange(), limit: try historyLimit())
        }
        if matches(type, "direct") {
            guard let to = try string(to, "to") else {
                throw WireError(.invalidField, "to is missing; it names a user")
            }
            return .direct(to: try UserName(validating: to), payload: try payload())
        }
        if matches(type, "status") {
            guard let status = try presenceStatus() else { throw WireError(.invalidField, "status is missing") }
            return .status(status)
        }
        if matches(type, "auth") { return .auth(try auth()) }
        throw WireError(.unknownType, "\(quoted(type)) is no message that a client may send")
    }

    private func matches(_ value: JSONValue, _ literal: StaticString) -> Bool {
        JSONText.matches(value, in: bytes, literal)
    }

    private func quoted(_ value: JSONValue) -> String {
        let name = JSONText.string(value, in: bytes) ?? "?"
        return name.utf8.count <= 40 ? "the type \(name)" : "this type"
    }

    private func roomName() throws(WireError) -> RoomName {
        try roomName(room)
    }

    private func roomName(_ value: JSONValue?) throws(WireError) -> RoomName {
        guard let name = try string(value, "room") else { throw WireError(.invalidField, "room is missing") }
        return try RoomName(validating: name)
    }

    private func payload() throws(WireError) -> ClientMessage.Payload {
        if let text, !text.isString { throw WireError(.invalidField, "text is a string") }
        guard text != nil || data != nil || binary != nil else { throw ClientMessage.emptyPayload }
        if let binary, JSONText.bytes(binary, in: bytes) == nil {
            throw WireError(.invalidField, "binary is a string of base64 (RFC 4648, section 4) with its padding")
        }
        return ClientMessage.Payload(text: text?.range, data: data?.range, binary: binary?.range)
    }

    private mutating func joins() throws(WireError) -> [ClientMessage.Join] {
        guard let rooms else {
            return [
                ClientMessage.Join(
                    room: try roomName(), since: try position(since), echo: try bool(echo, "echo") ?? false)
            ]
        }
        guard rooms.kind == .array, room == nil else {
            throw WireError(.invalidField, "rooms is an array of objects with room, and stands instead of room")
        }
        let elements = elements(of: rooms)
        guard (1...ClientMessage.maximumJoinsPerFrame).contains(elements.count) else {
            throw WireError(.invalidField, "rooms has 1 to \(ClientMessage.maximumJoinsPerFrame) elements")
        }
        var joins: [ClientMessage.Join] = []
        joins.reserveCapacity(elements.count)
        for element in elements {
            guard element.kind == .object else { throw WireError(.invalidField, "rooms is an array of objects") }
            let fields = members(of: element)
            room = fields.room  // an error is about this one
            joins.append(
                ClientMessage.Join(
                    room: try roomName(fields.room), since: try position(fields.since),
                    echo: try bool(fields.echo ?? echo, "echo") ?? false))
        }
        return joins
    }

    private func position(_ value: JSONValue?) throws(WireError) -> ClientMessage.Position? {
        guard let value, value.kind != .null else { return nil }
        guard value.kind == .object else { throw WireError(.invalidField, "since is an object with epoch and seq") }
        var epoch: JSONValue?
        var seq: JSONValue?
        var tag: JSONValue?
        scan { () throws(JSONError) in
            try JSONScanner.scanObject(bytes, in: value.range) { (key, value) throws(JSONError) in
                if matches(key, "epoch") { epoch = value }
                if matches(key, "seq") { seq = value }
                if matches(key, "tag") { tag = value }
            }
        }
        guard let epoch = try string(epoch, "since.epoch"), epoch.utf8.count <= ClientMessage.maximumEpochLength,
            let seq = try integer(seq, "since.seq"), seq >= 0
        else {
            throw WireError(.invalidField, "since has epoch, a string, and seq, a whole number from 0 up")
        }
        return ClientMessage.Position(epoch: epoch, seq: seq, tag: try string(tag, "since.tag"))
    }

    private func historyRange() throws(WireError) -> HistoryRange {
        let before = try integer(before, "before")
        let after = try integer(after, "after")
        switch (before, after) {
        case (nil, nil): return .latest
        case (let seq?, nil) where seq >= 0: return .before(seq)
        case (nil, let seq?) where seq >= 0: return .after(seq)
        default: throw WireError(.invalidField, "history takes before or after, one whole number from 0 up")
        }
    }

    private func historyLimit() throws(WireError) -> Int {
        guard let limit = try integer(limit, "limit") else { return ClientMessage.maximumHistoryLimit / 2 }
        guard (1...Int64(ClientMessage.maximumHistoryLimit)).contains(limit) else {
            throw WireError(.invalidField, "limit is a whole number from 1 to \(ClientMessage.maximumHistoryLimit)")
        }
        return Int(limit)
    }

    private func presenceStatus() throws(WireError) -> PresenceStatus? {
        guard let name = try string(status, "status") else { return nil }
        guard let status = PresenceStatus(rawValue: name) else {
            throw WireError(.invalidField, "status is online, away, busy or invisible")
        }
        return status
    }

    private mutating func auth() throws(WireError) -> ClientMessage.Auth {
        var auth = ClientMessage.Auth()
        if let user = try string(user, "user") { auth.user = try UserName(validating: user) }
        auth.token = try string(token, "token")
        auth.client = try Self.validated(client: try string(client, "client"))
        auth.status = try presenceStatus()
        if let info, info.kind != .null {
            guard info.kind == .object, info.range.count <= ClientMessage.maximumInfoLength else {
                throw WireError(
                    .invalidField, "info is a JSON object of at most \(ClientMessage.maximumInfoLength) bytes")
            }
            auth.info = JSONText.minified(info.range, in: bytes)
        }
        auth.resume = try resumption()
        if let rooms, rooms.kind != .array || !elements(of: rooms).isEmpty { auth.rooms = try joins() }
        auth.directs = try directMoment()
        return auth
    }

    private mutating func directMoment() throws(WireError) -> ClientMessage.Directs? {
        guard let directs, directs.kind != .null else { return nil }
        let fields = directs.kind == .object ? members(of: directs) : nil
        guard let fields, let since = try integer(fields.since, "directs.since"), since >= 0,
            fields.rooms.map({ $0.kind == .array }) ?? true
        else {
            throw WireError(.invalidField, "directs has since, a time in milliseconds, and rooms, an array")
        }
        var moment = ClientMessage.Directs(since: since)
        let elements = fields.rooms.map(elements) ?? []
        guard elements.count <= ClientMessage.maximumDirects else {
            throw WireError(.invalidField, "directs.rooms has at most \(ClientMessage.maximumDirects) elements")
        }
        for element in elements {
            guard element.kind == .object else {
                throw WireError(.invalidField, "directs.rooms is an array of objects")
            }
            let fields = members(of: element)
            room = fields.room  // an error is about this one
            let name = try roomName(fields.room)
            guard name.isDirect else { throw WireError(.invalidRoom, "\(name) is no private room") }
            guard let position = try position(fields.since) else {
                throw WireError(.invalidField, "since is missing; it names the last message that was seen")
            }
            moment.rooms[name] = position
        }
        return moment
    }

    private func elements(of array: JSONValue) -> [JSONValue] {
        var elements: [JSONValue] = []
        scan { () throws(JSONError) in
            try JSONScanner.scanArray(bytes, in: array.range) { (value) throws(JSONError) in elements.append(value) }
        }
        return elements
    }

    private func resumption() throws(WireError) -> ClientMessage.Resume? {
        guard let resume, resume.kind != .null else { return nil }
        guard resume.kind == .object else {
            throw WireError(.invalidField, "resume is an object with session and secret")
        }
        let fields = members(of: resume)
        guard let session = try string(fields.session, "resume.session").flatMap({ SessionID($0) }),
            let secret = try string(fields.secret, "resume.secret")
        else { throw WireError(.invalidField, "resume has session and secret, as welcome gave them") }
        return ClientMessage.Resume(session: session, secret: secret)
    }

    private static func validated(client: String?) throws(WireError) -> String? {
        guard let client else { return nil }
        return try ClientMessage.validate(client: client)
    }

    private func members(of object: JSONValue) -> Fields {
        var fields = Fields(bytes: bytes)
        scan { () throws(JSONError) in
            try JSONScanner.scanObject(bytes, in: object.range) { (key, value) throws(JSONError) in
                fields.set(key, value)
            }
        }
        return fields
    }

    /// The text was scanned whole before, so a second walk over a part of it cannot fail.
    private func scan(_ body: () throws(JSONError) -> Void) {
        do { try body() } catch { assertionFailure("scanned text failed a second scan: \(error)") }
    }

    private func string(_ value: JSONValue?, _ name: StaticString) throws(WireError) -> String? {
        guard let value, value.kind != .null else { return nil }
        guard let string = JSONText.string(value, in: bytes) else {
            throw WireError(.invalidField, "\(name) is a string of whole characters")
        }
        return string
    }

    private func integer(_ value: JSONValue?, _ name: StaticString) throws(WireError) -> Int64? {
        guard let value, value.kind != .null else { return nil }
        guard let integer = JSONText.integer(value, in: bytes), integer.magnitude <= ClientMessage.maximumNumber
        else {
            throw WireError(.invalidField, "\(name) is a whole number of at most 2^53")
        }
        return integer
    }

    private func bool(_ value: JSONValue?, _ name: StaticString) throws(WireError) -> Bool? {
        guard let value, value.kind != .null else { return nil }
        guard case .bool(let bool) = value.kind else { throw WireError(.invalidField, "\(name) is true or false") }
        return bool
    }
}

extension ClientMessage {
    package static var emptyPayload: WireError {
        WireError(.invalidField, "text is missing; send text, data or binary, one of them at least")
    }

    /// A client instance: 1–64 bytes of `[A-Za-z0-9_.-]`, from `?client=` or an `auth` message.
    package static func validate(client: String) throws(WireError) -> String {
        let isAllowed = client.utf8.allSatisfy { Base64URL.contains($0) || $0 == UInt8(ascii: ".") }
        guard isAllowed, (1...64).contains(client.utf8.count) else {
            throw WireError(.invalidField, "client has 1 to 64 of the characters A-Z a-z 0-9 _ . -")
        }
        return client
    }
}
