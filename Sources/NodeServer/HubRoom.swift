import ChatCore
import ClusterState
import NIOCore
import WireProtocol

/// What the hub knows of one room that has sessions in this process. Confined to the hub's loop.
final class HubRoom {
    enum Phase {
        /// Not yet subscribed, or not yet in the index of the incarnation: joins wait. Goes to `open`.
        case opening
        /// Joins go to Redis at once. Goes to `opening` when the node got a new incarnation.
        case open
        /// The last member left; the object is out of the table.
        case closed
    }

    struct Member {
        let user: UserName
        let info: String?
        /// `nil` for an entry that Redis holds and that nobody here stands behind.
        let shard: Int?
        /// What Redis is to hold of it, and the joins that wait for an answer.
        var registration: Registration<PresenceStatus, JoinRequest>
        /// Whether the shard delivers to it.
        var isDelivered = false
        /// The number of the last command about it: what was read before that command tells nothing.
        var touched: UInt64 = 0
    }

    struct PendingPublish: Sendable {
        let publication: Publication
        let session: SessionID
        let id: String?
    }

    /// A publish that is stored, and whose ack has not gone out.
    struct OwedAck: Sendable {
        let session: SessionID
        let id: String?
        let ts: Int64
    }

    /// A message on its way through the sequencer: the finished client text and who it came from.
    struct Relayed: Sendable {
        let text: ByteBuffer
        let origin: SessionID?
        /// The client's id, JSON-escaped, without quotes; empty when it gave none.
        let id: String
        let ts: Int64
    }

    struct Awaited {
        var seq: Int64
        let since: NIODeadline
        /// When the log was last read for it.
        var checked: NIODeadline
    }

    let name: RoomName
    let channel: String
    let handle: RoomHandle
    var phase: Phase = .opening
    var isSubscribed = false
    var isIndexed = false
    var isIndexing = false
    var needsReconcile = false
    var isReconciling = false
    var sequencer = RoomSequencer<Relayed>()
    /// That of the last events, to see it turn.
    var epoch = ""
    var members: [SessionID: Member] = [:]
    /// How many delivered members each shard has.
    var interest: [Int]
    /// Members about whom something is due, or under way.
    var pending: Set<SessionID> = []
    var queue = PublishQueue<PendingPublish>()
    var isQueueDirty = false
    /// A `seq` that Redis is known to have given, and the relay owes.
    var awaited: Awaited?
    var owed = OwedAcks<OwedAck>()
    /// The end of the last gap: the relay acknowledges nothing up to it.
    var swallowed: Int64 = 0
    /// Reads of the log for those who come back, by the `seq` from which they read.
    var recoveryReads: [Int64: [(Result<HistoryPage, any Error>) -> Void]] = [:]
    var presence = PresenceTick()
    var isPresenceDirty = false
    var pv: Int64 = 0
    var isReadingPresence = false
    /// Clients may have missed presence events: the next read is sent to them even if nothing changed since.
    var needsPresenceText = false

    init(name: RoomName, channel: String, handle: RoomHandle, shardCount: Int) {
        self.name = name
        self.channel = channel
        self.handle = handle
        self.interest = Array(repeating: 0, count: shardCount)
    }

    var isUnused: Bool {
        members.isEmpty && queue.isEmpty && awaited == nil && owed.isEmpty && !isReconciling && !needsReconcile
    }
}

/// The sessions of one user in this process, and the subscription to what is meant for that user.
struct HubUser {
    let channel: String
    var isHeard = false
    var sessions: [SessionID: Int] = [:]
    /// The private rooms of which something was heard since the user came.
    var directs: [RoomName: DirectStream] = [:]
}

/// One session as the hub knows it, for as long as its connection is there.
struct HubSession {
    let user: UserName
    let shard: Int
    let info: String?
    var status: PresenceStatus
    var rooms: Set<RoomName> = []
    var isOpen = false
    let openDeadline: NIODeadline
}

/// The entries of one session in the directory (`P:{s:S}`, the user's list, the index): they may outlive the connection
/// until Redis took their end.
struct DirectoryEntry {
    let user: UserName
    var registration: Registration<Int64, Never>
    var touched: UInt64 = 0
}
