import ChatCore
import ClusterState
import NIOCore
import TokenAuth
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
        var user: UserName
        /// `nil` for one without a connection, and for an entry that Redis holds and that nobody here stands behind.
        var lane: Lane?
        var connection: SessionID?
        /// What Redis is to hold of it, and the joins that wait for an answer.
        var registration: Registration<MemberStake, JoinRequest>
        /// Whether the shard delivers to it.
        var isDelivered = false
        /// Its last join asked for what it missed.
        var recovers = false
        /// What the session may do here, as its shard said last.
        var actions: RoomActions = []
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
        let user: UserName
        let id: String?
        let ts: Int64
        let epoch: String
        /// Of the stored message.
        let tag: String
        /// An earlier publish stored it. The ack takes the place behind the message.
        var isDuplicate = false
        /// Of the publish: monotonic nanoseconds.
        let deadline: UInt64
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
    /// What each message for clients begins with.
    let prefix: [UInt8]
    let handle: RoomHandle
    /// Whether anybody is told who is in it.
    let showsPresence: Bool
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
    var interest: Interest
    /// Members about whom something is due, or under way.
    var pending: Set<SessionID> = []
    var queue = PublishQueue<PendingPublish>()
    var isQueueDirty = false
    /// A `seq` that Redis is known to have given, and the relay owes.
    var awaited: Awaited?
    var owed = OwedAcks<OwedAck>()
    /// What waits behind an own message that is not known to be replicated.
    var hold: RelayHold?
    /// All up to here is on the replicas.
    var replicated: RoomPosition?
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

    init(name: RoomName, channel: String, handle: RoomHandle, showsPresence: Bool, shardCount: Int) {
        self.name = name
        self.channel = channel
        self.prefix = MessageText.prefix(room: name)
        self.handle = handle
        self.showsPresence = showsPresence
        self.interest = Interest(shardCount: shardCount)
    }

    /// Who asked, if it still wants to be in and has the same connection.
    func member(of request: JoinRequest) -> Member? {
        guard let member = members[request.session], member.registration.wanted != nil,
            member.connection == request.connection
        else { return nil }
        return member
    }

    /// What stands when it is answered.
    func may(_ action: RoomActions, _ request: JoinRequest) -> Bool {
        members[request.session]?.actions.contains(action) ?? false
    }

    /// Whether the shard delivers to this member; the interest of its lane counts it.
    func setDelivered(_ isDelivered: Bool, _ session: SessionID) {
        guard let member = members[session], member.isDelivered != isDelivered, let lane = member.lane else { return }
        members[session]?.isDelivered = isDelivered
        interest[lane] += isDelivered ? 1 : -1
    }

    /// Its join is under way, or what it missed is; a message of its own that comes now is among that.
    func isRecovering(_ session: SessionID) -> Bool {
        members[session].map { $0.recovers && $0.registration.wanted != nil && !$0.isDelivered } ?? false
    }

    var isUnused: Bool {
        members.isEmpty && queue.isEmpty && awaited == nil && owed.isEmpty && !isReconciling && !needsReconcile
    }
}

/// How many delivered members a room has in each lane.
struct Interest {
    private var counts: [Int]

    init(shardCount: Int) {
        counts = Array(repeating: 0, count: shardCount * FrameFormat.all.count)
    }

    subscript(lane: Lane) -> Int {
        get { counts[Self.index(lane)] }
        set { counts[Self.index(lane)] = newValue }
    }

    private static func index(_ lane: Lane) -> Int {
        lane.shard * FrameFormat.all.count + Int(lane.format.rawValue)
    }
}

/// The sessions of one user in this process, and the subscription to what is meant for that user.
struct HubUser {
    /// Those with a connection, and where it is.
    var sessions = FewMap<SessionID, Lane>()
    var isHeard = false
    /// What few users have, and the others therefore do not own.
    private var seldom: Box?

    private struct Seldom {
        var detached: Set<SessionID> = []
        var directs: [RoomName: DirectStream] = [:]
        var catchUps: Set<RoomName> = []
        var missedSince: NIODeadline?

        var isVoid: Bool { detached.isEmpty && directs.isEmpty && catchUps.isEmpty && missedSince == nil }
    }

    private final class Box {
        let value: Seldom
        init(_ value: Seldom) { self.value = value }
    }

    private subscript<Value>(_ path: WritableKeyPath<Seldom, Value>) -> Value {
        get { (seldom?.value ?? Seldom())[keyPath: path] }
        _modify {
            // Taken out meanwhile, so that what it owns is not copied when it changes.
            var value = seldom?.value ?? Seldom()
            seldom = nil
            defer { seldom = value.isVoid ? nil : Box(value) }
            yield &value[keyPath: path]
        }
    }

    /// Those that wait for their client to come back.
    var detached: Set<SessionID> {
        get { self[\.detached] }
        _modify { yield &self[\.detached] }
    }
    /// The private rooms of which something was heard since the user came.
    var directs: [RoomName: DirectStream] {
        get { self[\.directs] }
        _modify { yield &self[\.directs] }
    }
    /// Rooms in which missed private messages are looked for.
    var catchUps: Set<RoomName> {
        get { self[\.catchUps] }
        _modify { yield &self[\.catchUps] }
    }
    /// From then on private messages may have been missed, and have not been looked for yet.
    var missedSince: NIODeadline? {
        get { self[\.missedSince] }
        _modify { yield &self[\.missedSince] }
    }
}

/// A connection of this process that said who it is.
struct HubSession {
    let user: UserName
    let connection: SessionID
    let lane: Lane
    var status: PresenceStatus
    /// It goes on with an earlier session.
    var isResumed = false
    /// `nil`: it is open.
    var opening: Opening?
    /// What it still has to get of private rooms; `nil` for one that did not come back.
    var replays: DirectReplays?

    var isOpen: Bool { opening == nil }

    /// What counts until then.
    final class Opening {
        let deadline: NIODeadline
        /// Where its client stands in the private rooms of its user.
        let directs: DirectsAsked?
        /// On its way to the client.
        var secret: SessionSecret?
        /// When the session was first written, by Redis's clock, if it begins here.
        var begunAt: Int64?

        let origin: SessionOrigin

        init(_ opening: SessionOpening, deadline: NIODeadline) {
            self.deadline = deadline
            directs = opening.directs
            origin = opening.origin
        }
    }
}

/// A session whose client may come back.
struct DetachedSession {
    /// When it ends.
    let until: NIODeadline
    /// `nil`: its last connection was to another node.
    let origin: SessionOrigin?
}

/// What Redis is to hold of one session (`P:{s:S}`, the user's list, the index). It outlives the connection: for the grace,
/// and until Redis took its end.
struct DirectoryEntry {
    let user: UserName
    var client: String
    var info: String?
    /// The rooms that a resume will find.
    var rooms = FewMap<RoomName, Bool>()
    var status: PresenceStatus
    /// Without a connection here.
    var isDetached = false
    /// An earlier incarnation of this node had it, and others may have taken it since.
    var mustReclaim = false
    var generation: Int64
    /// The incarnation under which it was last written.
    var owner: Incarnation?
    /// `nil`: it cannot be resumed, or another node gave the secret.
    let secret: SessionSecret.Digest?
    /// Rooms that Redis may hold, of writes whose outcome is not known.
    var uncertainRooms: Set<RoomName> = []
    var registration: Registration<SessionContent, Never> {
        willSet {
            if case .wanted = known, let wanted = registration.wanted, newValue.wanted != wanted {
                known = .other(wanted)
            }
        }
    }
    private var known = Known.nothing
    var touched: UInt64 = 0

    /// What Redis certainly holds is mostly what is wanted: no second copy of that.
    private enum Known {
        case nothing
        case wanted
        indirect case other(SessionContent)
    }

    /// What Redis certainly holds of it.
    var written: SessionContent? {
        get {
            switch known {
            case .nothing: nil
            case .wanted: registration.wanted
            case .other(let content): content
            }
        }
        set { known = newValue.map { $0 == registration.wanted ? .wanted : .other($0) } ?? .nothing }
    }

    /// A session that begins.
    init(user: UserName, client: String, info: String?, status: PresenceStatus, secret: SessionSecret.Digest?) {
        (self.user, self.client, self.info, self.status) = (user, client, info, status)
        (self.generation, self.secret) = (1, secret)
        let isKept = secret != nil
        registration = Registration(wanting: SessionContent(generation: 1, status: isKept ? status : .online))
    }

    /// A session that Redis holds as ours.
    init(_ record: SessionRecord, secret: SessionSecret.Digest?, isDetached: Bool) {
        (user, client, info, status) = (record.user, record.client, record.info, record.status)
        (rooms, generation, owner) = (FewMap(record.rooms), record.generation, record.owner)
        (self.secret, self.isDetached) = (secret, isDetached)
        let content = SessionContent(
            generation: generation, status: status, rooms: rooms, isDetached: isDetached)
        registration = Registration(standing: content)
        known = .wanted
    }

    /// Found in the index, though nobody here stands behind it.
    init(stray user: UserName) {
        (self.user, client, status, generation, secret) = (user, "", .online, -1, nil)
        registration = Registration(stray: ())
    }

    var content: SessionContent {
        guard secret != nil || isDetached else { return SessionContent(generation: generation, status: .online) }
        return SessionContent(generation: generation, status: status, rooms: rooms, isDetached: isDetached)
    }

    func record(_ session: SessionID, owner: Incarnation) -> SessionRecord {
        SessionRecord(
            session: session, user: user, owner: owner, generation: generation, client: client, info: info,
            status: status, rooms: rooms.dictionary)
    }
}

struct SessionContent: Equatable {
    var generation: Int64
    var rooms = FewMap<RoomName, Bool>()
    var status: PresenceStatus
    var isDetached = false

    init(
        generation: Int64, status: PresenceStatus, rooms: FewMap<RoomName, Bool> = FewMap(), isDetached: Bool = false
    ) {
        (self.generation, self.status, self.rooms, self.isDetached) = (generation, status, rooms, isDetached)
    }
}

/// What Redis is to hold of a session in a room.
struct MemberStake: Equatable {
    var generation: Int64
    var status: PresenceStatus

    /// For a leave: whichever generation of the incarnation stands there.
    static let any = MemberStake(generation: -1, status: .online)
}

/// Memberships on their way from a dead node to this one.
struct Adoption {
    let memberships: [(SessionID, RoomName)]
    let deadline: NIODeadline
    let promise: EventLoopPromise<Void>
}
