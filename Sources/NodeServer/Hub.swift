import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WebSocketTransport
import WireProtocol

/// The one place of a process where its sessions meet Redis. Confined to one event loop, that of the Redis connections.
///
/// 1. Takes the commands of the shards, a tick's worth in one hop, and answers them.
/// 2. Keeps a room subscribed, indexed and joined for as long as a session of this process is in it.
/// 3. Publishes in batches, one under way a room, and turns the relay into one order without holes (G1).
/// 4. Hands the shards what their rooms got, framed once, one hop a burst.
/// 5. Repairs rooms after deafness, memberships after an outage, everything after the node was declared dead.
///
/// `@unchecked Sendable`: every stored property is touched on `eventLoop` only; the entries from other loops
/// (``submit(_:)``) hop first, and the others assert it.
final class Hub: @unchecked Sendable {
    let eventLoop: any EventLoop
    let configuration: NodeConfiguration
    let redis: RedisClient
    let keys: ClusterKeys
    let store: RoomStore
    let nodes: NodeStore
    let sessionStore: SessionStore
    let userStore: UserStore
    /// With `MARTLET_ACK_REPLICAS` alone.
    let replicaWait: ReplicaWait?
    let logger: Logger
    let metrics = HubMetrics()
    let moderation = Moderation()
    private(set) lazy var moderationFeed = ModerationFeed(
        moderation, store: ModerationStore(redis: redis, keys: keys), eventLoop: eventLoop,
        isConnected: { [unowned self] in redis.isConnected }, onChange: { [unowned self] in moderationChanged($0) },
        onCaughtUp: { [unowned self] in for shard in shards.indices { emit(.caughtUp, to: shard) } })
    var subscriber: RedisSubscriber?
    var shards: [Shard] = []
    var random: FastRandom

    var incarnation: Incarnation?
    /// Whether writes may go out: the lease is held.
    var mayWrite: () -> Bool = { false }
    /// The node was declared dead: get a new incarnation.
    var onFenced: () -> Void = {}
    var onDrainOrder: (Incarnation) -> Void = { _ in }
    /// For so many seconds, by any node.
    var onUserBarred: (UserName, Int) -> Void = { _, _ in }

    var rooms: [RoomName: HubRoom] = [:]
    var roomsByChannel: [String: HubRoom] = [:]
    var sessions = PackedMap<SessionID, HubSession>()
    /// Sessions whose opening is not confirmed yet.
    var openings: Set<SessionID> = []
    var directory = PackedMap<SessionID, DirectoryEntry>()
    /// Entries of the directory about which something is due, or under way.
    var pendingEntries: Set<SessionID> = []
    var users = PackedMap<UserName, HubUser>()
    /// Queues of private rooms; a private room has no members here, only publishes.
    var directs: [RoomName: DirectQueue] = [:]
    /// The rooms of each session that have a member for it.
    var roomsOf = PackedMap<SessionID, FewSet<RoomName>>()
    /// Which session a connection goes on with.
    var resumedBy: [SessionID: SessionID] = [:]
    /// Sessions that this node is taking over at the moment.
    var resumesUnderWay: [SessionID: Int] = [:]
    /// Sessions without a connection.
    var detached: [SessionID: DetachedSession] = [:]
    /// Sessions that another has, and when their rooms are left if they are still here; in this order.
    var leaving: [(id: SessionID, at: NIODeadline)] = []
    var adoptions: [Adoption] = []
    /// Connections that were closed for good while Redis was asked which session they go on with.
    var goodbyes: Set<SessionID> = []
    /// Connections whose resume is under way.
    var resumingConnections: Set<SessionID> = []
    /// The index of the incarnation and what this process has may differ.
    var needsDirectoryReconcile = false
    var directorySampled = NIODeadline.now()

    var dirtyRooms: [HubRoom] = []
    /// Private rooms with something to send.
    var dirtyDirects: Set<RoomName> = []
    var dirtyPresence: [HubRoom] = []
    var waitingPublishes = 0
    var waitingPublishBytes = 0
    var repairBacklog: [HubRoom] = []
    /// Rooms that are still to be compared with Redis in this round of sampling.
    var samples: [HubRoom] = []
    private var nextHandle = 0
    private var outbox: [[ShardEvent]] = []
    var batches: [DeliveryBatch] = []
    /// Publish scripts that the store has not answered.
    var publishesInFlight = 0
    var pace = PublishPace()
    var deliverySampling = DeliverySampling()
    var isPublishScheduled = false
    /// For the text of one message at a time; empty in between.
    var textBuffer: [UInt8] = []
    /// `nil` until a session takes compressed frames.
    private(set) lazy var compressor = FrameCompressor()
    private var isTurnScheduled = false
    private var timer: RepeatedTask?

    struct DirectQueue {
        var queue = PublishQueue<HubRoom.PendingPublish>()
        var owed = OwedAcks<HubRoom.OwedAck>()
        let users: [UserName]
        let channels: [String]

        var isEmpty: Bool { queue.isEmpty && owed.isEmpty }
    }

    /// Commands that a tick of 250 ms sends to put things right: what clients ask for does not wait for them.
    static let repairCommandsPerTick = 1000
    var repairCommands = 0
    /// Private rooms that are to be compared with their log.
    var directBacklog: [DirectStream] = []
    var notedDirects: [RoomName: NIODeadline] = [:]
    /// Private rooms with something new that could not be noted yet.
    var unnotedDirects: [RoomName: [UserName]] = [:]
    var usersToLookUp: Set<UserName> = []
    var directCatchUps: [DirectCatchUp] = []
    /// Sessions that still have to get something of private rooms.
    var replaying: Set<SessionID> = []
    /// Numbers the commands about memberships and entries.
    var commandNumber: UInt64 = 0
    var recoveryReads = 0
    /// What goes on when a session has taken a page of its recovery.
    var pagesUnderWay: [Int: () -> Void] = [:]
    var pageNumber = 0
    var waitingRecoveryReads: [() -> Void] = []

    init(configuration: NodeConfiguration, redis: RedisClient, logger: Logger, seed: UInt64) {
        self.eventLoop = redis.eventLoop
        self.configuration = configuration
        self.redis = redis
        self.keys = ClusterKeys(prefix: redis.configuration.keyPrefix)
        // Half of the budget may wait for a client already, and frames weigh up to three times what is stored of a message.
        self.store = RoomStore(
            redis: redis, keys: keys, pageBytes: min(256 * 1024, configuration.limits.outboundBytes / 8))
        self.nodes = NodeStore(redis: redis, keys: keys)
        self.sessionStore = SessionStore(redis: redis, keys: keys)
        self.userStore = UserStore(redis: redis, keys: keys)
        self.replicaWait =
            configuration.ackReplicas == 0
            ? nil
            : ReplicaWait(
                replicas: configuration.ackReplicas, like: redis, keys: keys, metrics: metrics, logger: logger)
        self.logger = logger
        self.random = FastRandom(seed: seed)
    }

    func start(shards: [Shard]) {
        eventLoop.assertInEventLoop()
        self.shards = shards
        outbox = Array(repeating: [], count: shards.count)
        batches = Array(repeating: DeliveryBatch(), count: shards.count)
        let subscriber = RedisSubscriber(
            client: redis,
            probeChannel: "\(keys.prefix):probe:\(configuration.name):\(Base64URL.random(count: 8, using: &random))",
            delegate: self,
            logger: logger)
        self.subscriber = subscriber
        subscriber.start()
        _ = subscriber.subscribe(keys.controlChannel)
        replicaWait?.onOpen = { [weak self] in self?.scheduleTurn() }
        replicaWait?.onConnect = { [weak self] in self?.notedDirects = [:] }
        replicaWait?.start()
        moderationFeed.tick()
        timer = eventLoop.scheduleRepeatedTask(initialDelay: .milliseconds(250), delay: .milliseconds(250)) {
            [weak self] _ in self?.tick()
        }
    }

    func stop() -> EventLoopFuture<Void> {
        eventLoop.assertInEventLoop()
        timer?.cancel()
        timer = nil
        failAdoptions()
        let ended = [subscriber?.stop(), replicaWait?.stop()].compactMap { $0 }
        return EventLoopFuture.andAllComplete(ended, on: eventLoop)
    }

    // MARK: Turns

    /// From any loop.
    func submit(_ commands: [HubCommand]) {
        if eventLoop.inEventLoop {
            perform(commands)
        } else {
            eventLoop.execute { self.perform(commands) }
        }
    }

    private func perform(_ commands: [HubCommand]) {
        eventLoop.assertInEventLoop()
        for command in commands {
            switch command {
            case .open(let opening): open(opening)
            case .close(let id, let connection): close(id, connection)
            case .detach(let id, let connection, let origin):
                session(of: id, connection: connection).map { detach($0, origin) }
            case .confirm(let id): confirm(id)
            case .join(let request): join(request)
            case .leave(let room, let session): leave(room, session)
            case .rights(let room, let session, let actions): rooms[room]?.members[session]?.actions = actions
            case .echo(let session, let text): reply(session, text)
            case .publish(let request): publish(request)
            case .typing(let room, let session, let frame): typing(room, session, frame)
            case .status(let session, let status): setStatus(session, status)
            case .presence(let room, let session, let id): answerPresence(room, session, id)
            case .history(let request): answerHistory(request)
            case .barred(let user, let seconds): nodes.bar(user, seconds: seconds)
            case .catchUp: moderationFeed.catchUp()
            case .pageTaken(let number): pagesUnderWay.removeValue(forKey: number)?()
            }
        }
        endTurn()
    }

    /// Everything that a burst of replies or commands brought about goes out once, at the end of the loop's tick.
    func scheduleTurn() {
        guard !isTurnScheduled else { return }
        isTurnScheduled = true
        eventLoop.execute { self.endTurn() }
    }

    func endTurn() {
        isTurnScheduled = false
        sendBatches()
        flushPresence()
        for index in shards.indices {
            if !batches[index].isEmpty {
                outbox[index].append(.batch(batches[index]))
                batches[index] = DeliveryBatch()
            }
            guard !outbox[index].isEmpty else { continue }
            shards[index].submit(outbox[index])
            outbox[index] = []
        }
    }

    /// Behind everything that was decided before for the same shard.
    func emit(_ event: ShardEvent, to shard: Int) {
        if !batches[shard].isEmpty {
            outbox[shard].append(.batch(batches[shard]))
            batches[shard] = DeliveryBatch()
        }
        outbox[shard].append(event)
        scheduleTurn()
    }

    func reply(_ session: SessionID, _ text: [UInt8]) {
        guard let known = sessions[session] else { return }
        emit(.reply(session, text: text), to: known.lane.shard)
    }

    func answer(_ session: SessionID, _ answer: RoomAnswer) {
        guard let known = sessions[session] else { return }
        emit(.answer(session, answer), to: known.lane.shard)
    }

    func unavailable(_ message: String? = nil) -> WireError {
        WireError(.unavailable, message, retryAfterMilliseconds: NodeConfiguration.retryAfterMilliseconds)
    }

    /// What a failed Redis command means for the client that asked.
    func wireError(_ error: any Error) -> WireError {
        if let error = error as? RedisError, error.isOutOfMemory {
            return WireError(.storageFull, retryAfterMilliseconds: NodeConfiguration.retryAfterMilliseconds)
        }
        return unavailable()
    }

    func makeHandle() -> RoomHandle {
        nextHandle += 1
        return RoomHandle(number: nextHandle)
    }

    private func tick() {
        let now = NIODeadline.now()
        repairCommands = 0
        deliverySampling.tick()
        moderationFeed.tick()
        expirePublishes(now)
        replicaWait?.countIfDue()
        expireOpenings(now)
        expireDetached(now)
        expireLeaving(now)
        settleEntries()
        checkAdoptions(now)
        for room in Array(rooms.values) {
            if room.phase == .opening { pursue(room) }
            if !room.pending.isEmpty { settlePending(room, now) }
            if room.awaited != nil || !room.owed.isEmpty { checkAwaited(room, now) }
            if !room.queue.isEmpty { markQueueDirty(room) }
            if room.needsReconcile { reconcile(room) }
            closeIfUnused(room)
        }
        checkOwedDirects(now)
        checkReplays(now)
        forgetNotedDirects(now)
        repeatNotes()
        continueRepair()
        continueDirectRepair()
        sample()
        reconcileDirectory()
        endTurn()
    }
}
