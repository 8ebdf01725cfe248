import ChatCore
import Logging
import NIOCore
import Telemetry
import WebSocketTransport
import WireProtocol

/// The members of one room who take one format.
private struct Audience: Hashable {
    let room: RoomHandle
    let format: FrameFormat
}

/// The connections of one event loop, and the rooms that they are in. Confined to that loop.
///
/// 1. Gives each session its commands' way to the hub: one hop a tick for all of them.
/// 2. Fans a burst out: what a room got since its last tick is one buffer and one send a member.
/// 3. Keeps the heartbeat of all its connections on one wheel with one timer.
///
/// `@unchecked Sendable`: every stored property is touched on `eventLoop` only; ``submit(_:)``, ``traffic()`` and ``figures()``
/// hop first, everything else asserts it.
final class Shard: @unchecked Sendable {
    let index: Int
    let eventLoop: any EventLoop
    let hub: Hub
    let configuration: NodeConfiguration
    let logger: Logger
    let rates: SessionLimits.Rates?
    let guards: NodeGuards
    let heldBounds: HeldMessages.Bounds
    /// Whether all private messages are for whose token says nothing of rooms.
    let allowsDirects: Bool
    var random: FastRandom
    var metrics = ShardMetrics()
    /// nil: clients are taken.
    var leaving: Leaving?
    var isDraining: Bool { leaving != nil }

    private(set) var sessions = PackedMap<SessionID, Session>()
    private var rooms: [Audience: ShardRoom<Session>] = [:]
    private var dirty = DirtyRooms<Session>()
    /// When the timer for those that rest fires; `.max` without one.
    private var nextFlush = UInt64.max
    /// Rooms of which a tick is on its way in chunks.
    private var sending = 0
    private let ticks = TickPool()
    /// From a publish to the last member here; nil when nothing was measured since ``traffic()``.
    private var delays: Histogram?
    /// While the orders are read that were given as the node stood still.
    var standstill: Standstill?
    /// From when on what is let go at the end of one waited; `nil`: nothing is let go.
    var waitedSince: NIODeadline?
    private var commands: [HubCommand] = []
    private var isFlushScheduled = false
    private var wheel: HeartbeatWheel<Session>
    private var timer: RepeatedTask?
    private var tokens: TokenWatch<Session>
    /// Members that are sent to without a pause.
    private static let chunk = 1000
    /// Not nothing: the loop runs what is due at once before it looks for what can be read.
    private static let pause = TimeAmount.microseconds(50)

    init(
        index: Int, eventLoop: any EventLoop, hub: Hub, configuration: NodeConfiguration, guards: NodeGuards,
        logger: Logger, seed: UInt64
    ) {
        self.index = index
        self.eventLoop = eventLoop
        self.hub = hub
        self.configuration = configuration
        self.logger = logger
        self.guards = guards
        let limits = configuration.limits
        self.rates = SessionLimits.Rates(
            ratePerSecond: limits.messagesPerSecond, burst: limits.messageBurst, roomLimit: limits.roomsPerSession,
            bytesPerSecond: limits.bytesPerSecond, byteBurst: limits.byteBurst)
        self.heldBounds = HeldMessages.Bounds(
            count: NodeConfiguration.heldMessages, bytes: 4 * limits.messageBytes)
        self.allowsDirects = configuration.namespaces.direct.allows.contains(.join)
        self.random = FastRandom(seed: seed)
        self.wheel = HeartbeatWheel(
            interval: configuration.heartbeat.nanoseconds, timeout: configuration.heartbeatTimeout.nanoseconds,
            authenticationTimeout: configuration.authenticationTimeout.nanoseconds)
        // Every session is looked at when it is pinged.
        self.tokens = TokenWatch(horizon: 2 * configuration.heartbeat.nanoseconds / 1_000_000 + 10_000)
    }

    func start() {
        eventLoop.assertInEventLoop()
        let second = TimeAmount.nanoseconds(HeartbeatWheel<Session>.tick)
        timer = eventLoop.scheduleRepeatedTask(initialDelay: second, delay: second) { [weak self] _ in self?.tick() }
    }

    func stop() {
        eventLoop.assertInEventLoop()
        timer?.cancel()
        timer = nil
        leaving?.over.succeed()
    }

    // MARK: Towards the hub

    func send(_ command: HubCommand) {
        eventLoop.assertInEventLoop()
        commands.append(command)
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        eventLoop.execute { self.flushCommands() }
    }

    private func flushCommands() {
        isFlushScheduled = false
        let batch = commands
        commands = []
        hub.submit(batch)
    }

    // MARK: Sessions

    func add(_ session: Session) {
        eventLoop.assertInEventLoop()
        sessions[session.id] = session
        metrics.connections += 1
        wheel.add(
            session, now: NIODeadline.now().uptimeNanoseconds, slot: random.next(), givesWay: session.isStranger)
        came(session)
    }

    /// The session that has been silent longest without saying who it is goes; false where there is none.
    func endLongestStranger() -> Bool {
        eventLoop.assertInEventLoop()
        guard let session = wheel.takeLongestUnauthenticated() else { return false }
        session.givesWay()
        return true
    }

    func remove(_ session: Session) {
        eventLoop.assertInEventLoop()
        if sessions[session.id] === session { sessions[session.id] = nil }
        metrics.connections -= 1
        wheel.remove(session)
        tokens.remove(session)
        connectionEnded()
    }

    /// Its token is another, or something was done about it.
    func watchToken(of session: Session) {
        tokens.look(at: session, due: session.tokenDue, now: WallClock.milliseconds())
    }

    func authenticated(_ session: Session) {
        wheel.authenticated(session)
    }

    private func tick() {
        let actions = wheel.advance(now: NIODeadline.now().uptimeNanoseconds)
        let now = WallClock.milliseconds()
        for session in actions.ping {
            session.ping()
            tokens.look(at: session, due: session.tokenDue, now: now)
        }
        for session in tokens.takeDue(now: now) { session.tokenIsDue(now: now) }
        for (session, pingedAt) in actions.check { session.checkHeartbeat(pingedAt: .uptimeNanoseconds(pingedAt)) }
        for session in actions.unauthenticated { session.authenticationTimedOut() }
    }

    // MARK: From the hub

    /// From any loop.
    func submit(_ events: [ShardEvent]) {
        if eventLoop.inEventLoop {
            perform(events)
        } else {
            eventLoop.execute { self.perform(events) }
        }
    }

    private func perform(_ events: [ShardEvent]) {
        eventLoop.assertInEventLoop()
        for event in events {
            switch event {
            case .batch(let batch):
                deliver(batch)
            case .opened(let connection, let opened):
                self.opened(connection, opened)
            case .refused(let connection, let error):
                sessions[connection]?.refused(error)
            case .moved(let id, let connection):
                // One that is not open yet stands under its connection.
                let found = [sessions[id], sessions[connection]].compactMap(\.self)
                guard let session = found.first(where: { $0.connectionID == connection }) else { continue }
                forget(session)
                sessions[session.id] = nil
                session.moved()
            case .reply(let session, let text):
                guard let session = sessions[session] else { continue }
                catchUp(session)
                session.send(text)
            case .answer(let session, let answer):
                guard let session = sessions[session] else { continue }
                catchUp(session)
                session.hear(answer)
            case .page(let session, let room, let texts, let number):
                guard let session = sessions[session], room.map({ session.state.rooms[$0] != nil }) ?? true else {
                    send(.pageTaken(number: number))
                    continue
                }
                catchUp(session)
                session.send(page: texts, number: number)
            case .joined(let entry):
                insert(entry)
            case .joinFailed(let room, let session, let id, let error):
                sessions[session]?.joinFailed(room, id: id, error)
            case .kicked(let session, let room, let reason):
                guard let session = sessions[session] else { continue }
                catchUp(session)
                session.kicked(from: room, reason: reason)
            case .moderation(let new):
                let now = hub.moderation.now
                for session in Array(sessions.values) { session.obey(new, now) }
            case .caughtUp:
                endStandstill()
            }
        }
        flushRooms()
    }

    private func opened(_ connection: SessionID, _ opened: SessionOpened) {
        guard let session = sessions[connection], session.opened(opened) else { return }
        if session.id != connection {
            sessions[connection] = nil
            sessions[session.id] = session
        }
        if opened.resumed != nil, session.isExcludedAsResumed() { return }
        session.enterFirstRooms(of: opened.resumed)
        session.releaseHeld()
    }

    private func insert(_ entry: RoomEntry) {
        let (name, handle) = (entry.room, entry.handle)
        guard let session = sessions[entry.session] else { return }
        guard session.joined(name) else {
            // Put out of the room while the answer was on its way.
            if let id = entry.id { session.refuse(.leftBeforeAnswer(name), id: id, room: name.string) }
            return
        }
        if let earlier = session.handles[name], earlier != handle { remove(session, from: earlier) }
        let room: ShardRoom<Session>
        let audience = Audience(room: handle, format: session.lane.format)
        if let known = rooms[audience] {
            room = known
        } else {
            room = ShardRoom(
                name: name, handle: handle, chunk: Self.chunk, maximumTick: configuration.limits.outboundBytes / 4,
                pool: ticks)
            rooms[audience] = room
        }
        // A join again: its answer speaks of a later moment than what this session is still to get.
        room.catchUp(session)
        let seesPresence = session.sees(name)
        room.insert(session, echo: entry.echo, seesPresence: seesPresence)
        session.handles[name] = handle
        for text in entry.texts { session.send(text) }
        // Its rights changed meanwhile.
        if seesPresence != entry.seesPresence { session.tellPresence(of: name, isShown: seesPresence) }
        session.releaseHeld()
    }

    /// The session gets nothing of the room any more, from this moment on.
    func leave(_ session: Session, _ name: RoomName) {
        eventLoop.assertInEventLoop()
        if let handle = session.handles.removeValue(forKey: name) { remove(session, from: handle) }
        send(.leave(room: name, session: session.id))
    }

    /// From now on the session gets the presence events of the room, or no more.
    func show(presence isShown: Bool, of name: RoomName, to session: Session) {
        guard let handle = session.handles[name] else { return }
        rooms[Audience(room: handle, format: session.lane.format)]?.show(presence: isShown, to: session)
    }

    /// The session gets nothing of any room any more; what becomes of its memberships the hub is told otherwise.
    func forget(_ session: Session) {
        eventLoop.assertInEventLoop()
        for handle in session.handles.values { remove(session, from: handle) }
        session.handles = FewMap()
    }

    private func remove(_ session: Session, from handle: RoomHandle) {
        let audience = Audience(room: handle, format: session.lane.format)
        guard let room = rooms[audience] else { return }
        // Its own acks may be in it.
        room.catchUp(session)
        room.remove(session)
        if room.isEmpty { rooms[audience] = nil }
    }

    // MARK: Fan-out

    private func deliver(_ batch: DeliveryBatch) {
        batch.bytes.withUnsafeReadableBytes { bytes in
            for entry in batch.entries {
                if let origin = entry.origin, !entry.own.isEmpty, let session = sessions[origin],
                    rooms[Audience(room: entry.room, format: session.lane.format)]?.contains(origin) != true
                {
                    // It left the room since; its answer comes all the same.
                    session.sendFrames(UnsafeRawBufferPointer(rebasing: bytes[entry.own]))
                }
                for format in FrameFormat.all {
                    let frame = entry.frames[Int(format.rawValue)]
                    guard !frame.isEmpty,
                        let room = rooms[Audience(room: entry.room, format: format)]
                    else { continue }
                    dirty.insert(room)
                    room.append(entry, frame: frame, in: bytes)
                }
            }
            for direct in batch.directs {
                for id in direct.sessions {
                    guard let session = sessions[id] else { continue }
                    if id == direct.origin {
                        session.sendDirect(UnsafeRawBufferPointer(rebasing: bytes[direct.own]))
                    } else if session.hears(direct.room) {
                        session.sendDirect(UnsafeRawBufferPointer(rebasing: bytes[direct.frame]))
                    }
                }
            }
        }
        metrics.batches += 1
    }

    private func flushRooms() {
        guard !dirty.isEmpty else { return }
        for room in dirty.takeDue(now: NIODeadline.now().uptimeNanoseconds) { sendTick(of: room) }
        guard let next = dirty.next, next < nextFlush else { return }
        nextFlush = next
        eventLoop.assumeIsolated().scheduleTask(deadline: .uptimeNanoseconds(next)) {
            // Else an earlier one took its place.
            guard self.nextFlush == next else { return }
            self.nextFlush = .max
            self.flushRooms()
        }
    }

    /// Sends what has gathered; of a large room's tick the next members, and the rest after a pause in which the loop reads.
    private func sendTick(of room: ShardRoom<Session>) {
        let start = NIODeadline.now().uptimeNanoseconds
        if room.isSending { room.sendChunk() } else { room.flush() }
        let end = NIODeadline.now().uptimeNanoseconds
        room.noteSent(from: start, to: end)
        metrics.deliveries += room.deliveries
        room.deliveries = 0
        if !room.delivered.isEmpty { note(&room.delivered, at: end) }
        if room.isSending {
            goOn(room)
        } else if room.hasGathered {
            dirty.insert(room)
            flushRooms()
        }
    }

    private func note(_ delivered: inout [DeliveryMark], at now: UInt64) {
        var measured = delays ?? Histogram()
        delays = nil
        for mark in delivered { measured.record(now - min(mark.cameAt, now), times: UInt64(mark.standsFor)) }
        delays = measured
        delivered.removeAll()
    }

    private func goOn(_ room: ShardRoom<Session>) {
        guard !room.isContinued else { return }
        room.isContinued = true
        sending += 1
        eventLoop.assumeIsolated().scheduleTask(in: Self.pause) {
            room.isContinued = false
            self.sending -= 1
            self.sendTick(of: room)
        }
    }

    /// What is sent to one session next must not overtake what its rooms still owe it.
    func catchUp(_ session: Session) {
        guard !dirty.isEmpty || sending > 0 else { return }
        for handle in session.handles.values {
            rooms[Audience(room: handle, format: session.lane.format)]?.catchUp(session)
        }
    }

    /// From any loop.
    func traffic() -> EventLoopFuture<ShardTraffic> {
        eventLoop.submit {
            defer { self.delays = nil }
            return ShardTraffic(deliveries: self.metrics.deliveries, delays: self.delays)
        }
    }

    /// From any loop.
    func figures() -> EventLoopFuture<ShardMetrics> {
        eventLoop.submit { self.metrics }
    }
}
