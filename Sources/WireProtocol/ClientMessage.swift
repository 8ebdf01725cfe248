/// What a client asks for. Raw JSON that is passed on unread stays a range of the received text, or of what another
/// codec made of what it received.
package struct ClientMessage: Sendable {
    /// The client's own name for this request, 1–64 bytes, repeated in the answer.
    package let id: String?
    package let body: Body

    package init(id: String?, body: Body) {
        self.id = id
        self.body = body
    }

    package enum Body: Sendable {
        case auth(Auth)
        case join([Join])
        case leave(RoomName)
        case message(room: RoomName, payload: Payload)
        case typing(room: RoomName, isTyping: Bool)
        case presence(room: RoomName)
        case history(room: RoomName, range: HistoryRange, limit: Int)
        case direct(to: UserName, payload: Payload)
        case status(PresenceStatus)
        case ping
    }

    package struct Auth: Sendable {
        package var user: UserName?
        package var token: String?
        /// Names the client instance that scopes publish ids; it outlives a connection.
        package var client: String?
        /// A minified JSON object of at most ``ClientMessage/maximumInfoLength`` bytes.
        package var info: String?
        package var status: PresenceStatus?
        /// A session to go on with, and the rooms to be in behind that, or in any case.
        package var resume: Resume?
        package var rooms: [Join] = []
        package var directs: Directs?

        package init() {}
    }

    /// Where a client that comes back stands in the private rooms of its user.
    package struct Directs: Sendable, Equatable {
        /// Since when it is to have everything of the rooms that it does not name: milliseconds of Redis's clock, as a
        /// `welcome` gave them.
        package var since: Int64
        package var rooms: [RoomName: Position] = [:]

        package init(since: Int64, rooms: [RoomName: Position] = [:]) {
            (self.since, self.rooms) = (since, rooms)
        }
    }

    /// What an earlier `welcome` gave.
    package struct Resume: Sendable, Equatable {
        package var session: SessionID
        package var secret: String

        package init(session: SessionID, secret: String) {
            (self.session, self.secret) = (session, secret)
        }
    }

    package struct Join: Sendable {
        package var room: RoomName
        package var since: Position?
        package var echo = false

        package init(room: RoomName, since: Position? = nil, echo: Bool = false) {
            self.room = room
            self.since = since
            self.echo = echo
        }
    }

    /// The last message of a room that a client has seen.
    package struct Position: Sendable, Equatable {
        package var epoch: String
        package var seq: Int64
        package var tag: String?

        package init(epoch: String, seq: Int64, tag: String?) {
            (self.epoch, self.seq, self.tag) = (epoch, seq, tag)
        }
    }

    /// The values of the members `text`, `data` and `binary` as they stood in the received text; at least one is there.
    package struct Payload: Sendable, Equatable {
        package var text: Range<Int>?
        package var data: Range<Int>?
        /// A string of ``Base64``.
        package var binary: Range<Int>?

        /// Bytes of all of them as they stand in JSON.
        package var count: Int { (text?.count ?? 0) + (data?.count ?? 0) + (binary?.count ?? 0) }

        package init(text: Range<Int>? = nil, data: Range<Int>? = nil, binary: Range<Int>? = nil) {
            (self.text, self.data, self.binary) = (text, data, binary)
        }
    }

    package static let maximumIDLength = 64
    package static let maximumInfoLength = 1024
    package static let maximumHistoryLimit = 100
    /// Of an epoch, in bytes.
    package static let maximumEpochLength = 32
    /// What a double holds exactly: numbers of Redis's scripts are doubles, and those of clients often too.
    package static let maximumNumber: Int64 = 1 << 53
    /// Bounds the work of decoding one frame. How many rooms a session may be in is a setting that the decoder does not
    /// know; what a frame asks for beyond it is refused room by room.
    package static let maximumJoinsPerFrame = 1000
    /// As many as a user's list of private rooms has.
    package static let maximumDirects = 200

    /// The one room that the message is about.
    package var room: RoomName? {
        switch body {
        case .leave(let room), .message(let room, _), .typing(let room, _), .presence(let room),
            .history(let room, _, _):
            room
        case .auth, .join, .direct, .status, .ping: nil
        }
    }
}

/// Which part of a room's history; the answer is oldest first.
package enum HistoryRange: Sendable, Equatable {
    case latest
    case before(Int64)
    case after(Int64)
    /// Both ends belong to it.
    case range(Int64, Int64)
}

/// What the decoder could still tell about a refused message, for the `error` frame.
package struct ClientMessageError: Error, Sendable, Equatable {
    package let error: WireError
    package let id: String?
    /// As the client named it, also where that is no room name: at most ``maximumRoomLength`` bytes.
    package let room: String?

    /// Of what is repeated in an error, in bytes: over the longest room name that is not private.
    package static let maximumRoomLength = 200

    package init(error: WireError, id: String?, room: String?) {
        self.error = error
        self.id = id
        self.room = room
    }
}
