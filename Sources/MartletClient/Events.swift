/// What happens to a client, in the order in which it happens.
public enum MartletEvent: Sendable, Equatable {
    case state(ConnectionState)
    /// The room is joined, for the first time or again after a reconnect.
    case joined(JoinedRoom)
    /// The server took the client out of the room, or did not let it in again after a reconnect.
    case left(room: String, reason: String)
    /// Each message of a joined room once, in the order of `seq`; own ones stand in their place too.
    case message(ChatMessage)
    /// Messages that cannot be had: `from`…`to`, both missing. `from` is `nil` when it is not known.
    case gap(room: String, from: Int64?, to: Int64)
    /// The newest messages, behind a gap that a reconnect met: what of the gap could be had.
    case newest(room: String, HistoryPage)
    /// The members of a room after a change.
    case presence(RoomPresence)
    /// Who is typing now, without this client's own user.
    case typing(room: String, users: [String])
    /// A refusal that answers no call of this client.
    case refused(MartletError)
    /// The token ends in so much time. With a provider nothing is to be done: it is asked for another, and again when it
    /// fails. Else the connection ends with the token, and the client with ``ConnectionState/closed(code:reason:)`` 4201.
    case tokenExpiring(milliseconds: Int64)
}

/// The connection of a client. It goes round `connecting`, `online` and `waiting` until it is closed.
public enum ConnectionState: Sendable, Equatable {
    case connecting
    case online(node: String, session: String)
    /// The connection is gone and the next attempt starts after `milliseconds`.
    case waiting(milliseconds: Int64, reason: String)
    /// By ``MartletClient/close()``, or because the server does not want this client back.
    case closed(code: Int, reason: String)
}

/// One message of a room.
public struct ChatMessage: Sendable, Equatable {
    /// Where it was said; `dm:…` for a direct message.
    public var room: String
    /// The place in the room's one order: 1, 2, 3 …
    public var seq: Int64
    /// The user who said it.
    public var from: String
    /// The other user of a direct message.
    public var to: String?
    /// What people read; any text, also with control characters.
    public var text: String?
    /// Raw JSON beside the text.
    public var data: String?
    /// What a client of the protobuf protocol, or another that can, sent as bytes.
    public var binary: [UInt8]?
    /// Milliseconds since 1970, by the server's clock.
    public var timestamp: Int64
    /// Whether this client's user said it, here or elsewhere.
    public var isOwn: Bool
    /// The sender's id for it; only in own messages.
    var id: String?
    var tag: String?
    /// Of a private room.
    var epoch: String?
}

/// One user who is in a room.
public struct Member: Sendable, Equatable {
    /// The name; a user is one member, however many sessions they have.
    public var user: String
    /// `online`, `away` or `busy`.
    public var status: String
    /// Raw JSON that the user gave about themselves.
    public var info: String?
}

/// How present a user wants to be seen.
public enum Presence: String, Sendable, CaseIterable {
    /// Here.
    case online
    /// Not at the keyboard.
    case away
    /// Not to be disturbed.
    case busy
    /// Neither listed nor counted.
    case invisible
}

/// Who is in a room.
public struct RoomPresence: Sendable, Equatable {
    /// The room's name.
    public var room: String
    /// At most 100 after a join; in large rooms not all of ``count``.
    public var members: [Member]
    /// How many users are in the room, listed or not.
    public var count: Int
}

/// The answer to a join.
public struct JoinedRoom: Sendable, Equatable {
    /// The room's name.
    public var room: String
    /// The `seq` of the room's newest message at that moment.
    public var seq: Int64
    /// After a reconnect: whether everything that was missed follows. `nil` for the first join.
    public var recovered: Bool?
}

/// The proof that a message is stored.
public struct Acknowledgement: Sendable, Equatable {
    /// Its place in the room's order.
    public var seq: Int64
    /// Milliseconds since 1970, by the server's clock.
    public var timestamp: Int64
}

/// A page of a room's history.
public struct HistoryPage: Sendable, Equatable {
    /// Oldest first, at most 100.
    public var messages: [ChatMessage]
    /// Whether there is more in the direction that was asked for.
    public var hasMore: Bool
}

/// Why a call failed.
public struct MartletError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What a program can decide by.
    public enum Kind: Sendable {
        /// The server said no; ``MartletError/number`` is its error.
        case refused
        /// A message was sent, and whether it was stored cannot be found out any more.
        case outcomeUnknown
        /// The client is closed, or was closed meanwhile.
        case closed
        /// The connection was lost before the answer; only for reads, which may be asked again.
        case disconnected
        /// The call itself is wrong; nothing was sent.
        case invalidArgument
    }

    /// What a program can decide by.
    public let kind: Kind
    /// The server's error number (`docs/protocol.md`), for ``Kind/refused``.
    public let number: Int?
    /// A sentence for people.
    public let message: String

    init(_ kind: Kind, _ message: String, number: Int? = nil) {
        self.kind = kind
        self.message = message
        self.number = number
    }

    /// The ``message``.
    public var description: String { message }
}
