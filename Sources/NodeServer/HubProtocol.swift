import ChatCore
import ClusterState
import NIOCore
import TokenAuth
import WireProtocol

/// What a shard asks of the hub. Commands of one tick cross in one hop, in order.
enum HubCommand: Sendable {
    case open(SessionOpening)
    /// The client is done with the session.
    case close(SessionID, connection: SessionID)
    /// The connection is lost: the client may come back within the grace.
    case detach(SessionID, connection: SessionID, SessionOrigin)
    /// The client has shown that it got its new secret.
    case confirm(SessionID)
    case join(JoinRequest)
    case leave(room: RoomName, session: SessionID)
    /// By which joins that are under way are answered.
    case rights(room: RoomName, session: SessionID, RoomActions)
    /// A text for the session itself, behind all that the hub has decided by now.
    case echo(session: SessionID, text: [UInt8])
    case publish(PublishRequest)
    case typing(room: RoomName, session: SessionID, frame: [UInt8])
    case status(session: SessionID, status: PresenceStatus)
    case presence(room: RoomName, session: SessionID, id: String?)
    case history(HistoryRequest)
    /// By this node, for flooding.
    case barred(UserName, seconds: Int)
    /// The node stood still: clients wait for `caughtUp`.
    case catchUp
    /// The session took a page (``ShardEvent/page(_:of:texts:number:)``) and has room for more, or is gone.
    case pageTaken(number: Int)
}

/// The subprotocols.
enum FrameEncoding: Sendable {
    case json
    case protobuf
}

/// How a session takes what is sent to many: each format is made once for all of its sessions.
enum FrameFormat: UInt8, Sendable {
    case json
    /// Of permessage-deflate, where that is shorter.
    case compressedJSON
    case protobuf
    case compressedProtobuf

    static let all: [FrameFormat] = [.json, .compressedJSON, .protobuf, .compressedProtobuf]

    var encoding: FrameEncoding {
        switch self {
        case .json, .compressedJSON: .json
        case .protobuf, .compressedProtobuf: .protobuf
        }
    }
}

/// The sessions of one shard that take one format.
struct Lane: Hashable, Sendable {
    private let number: UInt16
    let format: FrameFormat

    init(shard: Int, format: FrameFormat) {
        number = UInt16(shard)
        self.format = format
    }

    var shard: Int { Int(number) }
}

struct SessionOpening: Sendable {
    /// The session's id, unless one is resumed; until then and ever after the connection's name.
    let connection: SessionID
    let user: UserName
    let lane: Lane
    let client: String?
    let info: String?
    let status: PresenceStatus?
    let resume: Resume?
    let directs: DirectsAsked?
    let origin: SessionOrigin

    struct Resume: Sendable {
        let session: SessionID
        let secret: SessionSecret
    }
}

/// What of a connection orders can mean beside its user and its session. The hub has that of those who wait for their client,
/// and of those who are not open yet.
struct SessionOrigin: Sendable {
    let token: ModerationSubject.Token?
    let address: ClientAddress
}

/// What a client that comes back says of private rooms.
struct DirectsAsked: Sendable {
    let places: ClientMessage.Directs
    let rights: Rights
}

/// What a session is, that a connection now has.
struct SessionOpened: Sendable {
    let session: SessionID
    /// What the client may come back with; `nil` where sessions cannot be resumed.
    let secret: SessionSecret?
    /// The session as it was, when it goes on.
    let resumed: SessionRecord?
    /// When it began, by Redis's clock.
    let begunAt: Int64?
}

struct JoinRequest: Sendable {
    let room: RoomName
    let session: SessionID
    let connection: SessionID
    let id: String?
    let since: ClientMessage.Position?
    let echo: Bool
    /// At the moment of asking; it is answered by ``HubRoom/Member/actions``.
    let actions: RoomActions
    let deadline: NIODeadline
}

struct PublishRequest: Sendable {
    let room: RoomName
    let session: SessionID
    /// The client's id as JSON text without quotes, or empty.
    let id: String?
    let dedupeKey: String
    let user: UserName
    /// The other user of a private room.
    let recipient: UserName?
    let body: [UInt8]
    let deadline: NIODeadline
}

struct HistoryRequest: Sendable {
    let room: RoomName
    let session: SessionID
    let user: UserName
    let id: String?
    let range: HistoryRange
    let limit: Int
}

/// What the hub tells a shard. Events cross in one hop a tick, in order: what a session sees is what the hub decided.
enum ShardEvent: Sendable {
    case opened(connection: SessionID, SessionOpened)
    case refused(connection: SessionID, WireError)
    /// Another connection has the session now, here or on another node.
    case moved(SessionID, connection: SessionID)
    /// One text for one session.
    case reply(SessionID, text: [UInt8])
    /// What a session asked for of a room.
    case answer(SessionID, RoomAnswer)
    /// A part of what a session missed; answered with `pageTaken` once no more than half of its outbound budget waits. For who
    /// has left `room` meanwhile it is nothing any more.
    case page(SessionID, of: RoomName? = nil, texts: [[UInt8]], number: Int)
    case joined(RoomEntry)
    case joinFailed(room: RoomName, session: SessionID, id: String?, error: WireError)
    case batch(DeliveryBatch)
    case kicked(SessionID, room: RoomName?, reason: String)
    /// Orders that were not in force before.
    case moderation(ModerationTable)
    /// The orders that were given while the node stood still are known; they are in front of this.
    case caughtUp
}

/// An answer for who may still ask for it when it comes: the token may be another by then.
struct RoomAnswer: Sendable {
    let room: RoomName
    /// The right that it takes.
    let action: RoomActions
    /// Of the request; nil: nobody asked.
    let id: String?
    let text: [UInt8]
}

/// The session is in the room: it gets `texts`, and after them all that later batches bring.
struct RoomEntry: Sendable {
    let room: RoomName
    let handle: RoomHandle
    let session: SessionID
    /// Of the request, which is answered by `texts`.
    let id: String?
    let echo: Bool
    /// Whether `texts` tell who is there.
    let seesPresence: Bool
    let texts: [[UInt8]]
}

/// Names a room within one process, and is never used again for another one.
struct RoomHandle: Hashable, Sendable {
    let number: Int
}

/// What one read burst of the relay brings the rooms of one shard: framed bytes, copied once.
struct DeliveryBatch: Sendable {
    struct Entry: Sendable {
        let room: RoomHandle
        /// The frame for everybody else, in each format that somebody of the shard takes; empty in the others.
        let frames: InlineArray<4, Range<Int>>
        /// The session that gets `own` in its place.
        let origin: SessionID?
        /// What the origin gets instead: its ack, or nothing.
        let own: Range<Int>
        let kind: FrameKind
        var mark: DeliveryMark?
    }

    /// A frame for sessions one by one: what was meant for a user.
    struct Direct: Sendable {
        let room: RoomName
        let sessions: [SessionID]
        let frame: Range<Int>
        let origin: SessionID?
        let own: Range<Int>
    }

    var bytes = ByteBuffer()
    var entries: [Entry] = []
    var directs: [Direct] = []

    var isEmpty: Bool { entries.isEmpty && directs.isEmpty }
}
