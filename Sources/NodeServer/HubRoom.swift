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
        var membership: Membership
        let shard: Int
        /// The request that is not answered yet: asked again should the node get a new incarnation meanwhile.
        var request: JoinRequest?
        /// Whether the shard delivers to it.
        var isDelivered = false
    }

    struct PendingPublish: Sendable {
        let publication: Publication
        let session: SessionID
        let id: String?
    }

    /// A message on its way through the sequencer: the finished client text and who it came from.
    struct Relayed: Sendable {
        let text: ByteBuffer
        let origin: SessionID?
        /// The client's id, JSON-escaped, without quotes; empty when it gave none.
        let id: String
        let ts: Int64
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
    var members: [SessionID: Member] = [:]
    /// How many delivered members each shard has.
    var interest: [Int]
    var waitingJoins: [JoinRequest] = []
    var queue = PublishQueue<PendingPublish>()
    var isQueueDirty = false
    /// The highest `seq` that Redis gave to a publish of this node, and since when the relay owes it.
    var awaited: (seq: Int64, since: NIODeadline)?
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
        members.isEmpty && waitingJoins.isEmpty && queue.isEmpty && awaited == nil
    }
}

/// The sessions of one user in this process, and the subscription to what is meant for that user.
struct HubUser {
    let channel: String
    var sessions: [SessionID: Int] = [:]
}

/// One session as the hub knows it.
struct HubSession {
    let user: UserName
    let shard: Int
    let info: String?
    let joinedAt: Int64
    var status: PresenceStatus
    var rooms: Set<RoomName> = []
    var isOpen = false
    let openDeadline: NIODeadline
}
