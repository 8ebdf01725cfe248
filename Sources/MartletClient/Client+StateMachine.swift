import WireProtocol

/// All that a client decides: no socket, clock or randomness. Times are milliseconds of any steady clock.
///
/// 1. The connection's course: connect, welcome, rejoin of all rooms in one frame, liveness, loss, backoff.
/// 2. Which event the user gets when; each room's order is its ``RoomSequence``.
/// 3. The fate of every call: each publish, join and read ends exactly once.
struct ClientStateMachine {
    enum Phase: Equatable {
        case idle
        /// Until `welcome`.
        case connecting(since: Int64)
        case online(since: Int64)
        case waiting
        /// For good.
        case closed
    }

    /// What the driver has to do, in order.
    enum Effect: Equatable {
        case connect
        case connectLater(milliseconds: Int64)
        case send([UInt8])
        /// Lets go of the socket; nothing of it is of interest any more.
        case abandon
        case emit(MartletEvent)
        case acknowledge(id: String, Result<Acknowledgement, MartletError>)
        case answerJoin(room: String, Result<JoinedRoom, MartletError>)
        case answerHistory(id: String, Result<HistoryPage, MartletError>)
    }

    struct Room: Equatable {
        var isJoined = false
        /// A refused join may be sent again at this time.
        var joinAgainAt: Int64?
        /// The server asked not to send before.
        var sendNotBefore: Int64 = 0
        var sequence = RoomSequence()
        var roster = RoomRoster()
        var lastTypingAt: Int64?
        var rosterReadAt: Int64 = 0
    }

    static let connectPatience: Int64 = 10_000
    static let pingAfter: Int64 = 20_000
    static let pongPatience: Int64 = 10_000
    /// Should the last presence event be lost, nothing else would show it.
    static let rosterAge: Int64 = 50_000
    static let typingRefresh: Int64 = 3000
    static let defaultRetry: Int64 = 2000
    /// Reads that the machine itself asked for carry ids that no caller can have.
    static let fillPrefix = "fill-"

    let token: String?
    let client: String
    var phase = Phase.idle
    var user = ""
    var rooms: [String: Room] = [:]
    var outbox = Outbox()
    var reads: Set<String> = []
    var backoff = Backoff()
    var heardAt: Int64 = 0
    var pingedAt: Int64?
    var reconnectAt: Int64?
    var counter = 0
    /// What the server does not know of a new session.
    var presence = Presence.online

    init(client: String, token: String?) {
        self.client = client
        self.token = token
    }

    var isOnline: Bool { if case .online = phase { true } else { false } }

    // MARK: The connection

    mutating func start(now: Int64) -> [Effect] {
        guard phase == .idle else { return [] }
        return connect(now: now)
    }

    /// The wait after a loss is over.
    mutating func retry(now: Int64) -> [Effect] {
        guard phase == .waiting else { return [] }
        return connect(now: now)
    }

    private mutating func connect(now: Int64) -> [Effect] {
        phase = .connecting(since: now)
        heardAt = now
        pingedAt = nil
        reconnectAt = nil
        return [.emit(.state(.connecting)), .connect]
    }

    /// The socket is open.
    func opened() -> [Effect] {
        guard let token else { return [] }
        return [.send(ClientFrame.auth(token: token, client: client))]
    }

    /// The socket is gone, or could not be had. `random` is in 0..<1.
    mutating func lost(code: Int, reason: String, now: Int64, random: Double) -> [Effect] {
        if case .online(let since) = phase, now - since >= Backoff.stable { backoff.reset() }
        guard phase != .closed, phase != .waiting, phase != .idle else { return [] }
        let advice = Backoff.Advice(closeCode: code)
        if advice == .stop { return close(code: code, reason: reason) }
        var delay = backoff.next(advice, random: random)
        if let reconnectAt, reconnectAt > now { delay = reconnectAt - now }
        phase = .waiting
        return disconnect() + [
            .emit(.state(.waiting(milliseconds: delay, reason: reason))), .connectLater(milliseconds: delay),
        ]
    }

    mutating func close(code: Int = 1000, reason: String = "") -> [Effect] {
        guard phase != .closed else { return [] }
        phase = .closed
        let why = MartletError(.closed, reason.isEmpty ? "the client is closed" : "the connection ended: \(reason)")
        var effects = disconnect()
        for entry in outbox.removeAll(in: nil) {
            effects.append(.acknowledge(id: entry.id, .failure(fate(entry, why))))
        }
        for name in rooms.keys.sorted() { effects.append(.answerJoin(room: name, .failure(why))) }
        return effects + [.abandon, .emit(.state(.closed(code: code, reason: reason)))]
    }

    /// What was sent may be stored; what was not sent is not.
    func fate(_ entry: Outbox.Entry, _ why: MartletError) -> MartletError {
        entry.firstSentAt == nil
            ? why : MartletError(.outcomeUnknown, "the message was sent, but its acknowledgement did not arrive")
    }

    mutating func disconnect() -> [Effect] {
        outbox.connectionLost()
        var effects: [Effect] = []
        for name in rooms.keys.sorted() {
            let wasTyping = rooms[name]?.roster.typingUsers.isEmpty == false
            rooms[name]?.isJoined = false
            rooms[name]?.roster.forgetVersion()
            if wasTyping { effects.append(.emit(.typing(room: name, users: []))) }
        }
        let gone = MartletError(.disconnected, "the connection was lost before the answer came")
        for id in reads.sorted() where !id.hasPrefix(Self.fillPrefix) {
            effects.append(.answerHistory(id: id, .failure(gone)))
        }
        reads = []
        return effects
    }

    /// Call it about once a second.
    mutating func tick(now: Int64, random: Double) -> [Effect] {
        switch phase {
        case .idle, .waiting, .closed: return expire(now: now)
        case .connecting(let since):
            if now - since > Self.connectPatience { return abandon("no answer", now: now, random: random) }
            return expire(now: now)
        case .online:
            if let reconnectAt, now >= reconnectAt {
                phase = .waiting
                return disconnect() + [.abandon] + connect(now: now)
            }
            if let pingedAt, now - pingedAt > Self.pongPatience {
                return abandon("no answer to a ping", now: now, random: random)
            }
            var effects = expire(now: now)
            if pingedAt == nil, now - heardAt > Self.pingAfter {
                pingedAt = now
                effects.append(.send(ClientFrame.ping()))
            }
            for name in rooms.keys.sorted() { effects += tick(name, now: now) }
            return effects
        }
    }

    private mutating func abandon(_ reason: String, now: Int64, random: Double) -> [Effect] {
        [.abandon] + lost(code: 1006, reason: reason, now: now, random: random)
    }

    mutating func expire(now: Int64) -> [Effect] {
        let unknown = MartletError(.outcomeUnknown, "the message was not acknowledged in time; it may be stored")
        return outbox.expire(now: now).map { .acknowledge(id: $0.id, .failure(unknown)) }
    }

    private mutating func tick(_ name: String, now: Int64) -> [Effect] {
        guard var room = rooms[name] else { return [] }
        var effects: [Effect] = []
        if let time = room.joinAgainAt, now >= time, !room.isJoined {
            room.joinAgainAt = nil
            effects.append(.send(ClientFrame.join([(name, room.sequence.position)], id: nextID("join-"))))
        }
        if room.isJoined, let after = room.sequence.overdue(now: now) {
            let id = nextID(Self.fillPrefix)
            reads.insert(id)
            effects.append(.send(ClientFrame.history(name, before: nil, after: after, limit: 100, id: id)))
        }
        if room.isJoined, now - room.rosterReadAt > Self.rosterAge {
            room.rosterReadAt = now
            effects.append(.send(ClientFrame.presence(name)))
        }
        if room.roster.endTyping(now: now) {
            effects.append(.emit(.typing(room: name, users: room.roster.typingUsers)))
        }
        rooms[name] = room
        return effects + flush(name, now: now)
    }

    // MARK: What the user asks for

    mutating func join(_ name: String) -> [Effect] {
        guard phase != .closed else {
            return [.answerJoin(room: name, .failure(MartletError(.closed, "the client is closed")))]
        }
        if let room = rooms[name], room.isJoined {
            let joined = JoinedRoom(room: name, seq: room.sequence.position?.seq ?? 0, recovered: nil)
            return [.answerJoin(room: name, .success(joined))]
        }
        guard rooms[name] == nil else { return [] }
        rooms[name] = Room()
        return isOnline ? [.send(ClientFrame.join([(name, nil)], id: nextID("join-")))] : []
    }

    mutating func leave(_ name: String) -> [Effect] {
        guard rooms[name] != nil else { return [] }
        return (isOnline ? [.send(ClientFrame.leave(name))] : []) + forget(name, reason: "the client left the room")
    }

    mutating func forget(_ name: String, reason: String) -> [Effect] {
        rooms[name] = nil
        let why = MartletError(.refused, reason)
        return outbox.removeAll(in: name).map { .acknowledge(id: $0.id, .failure(fate($0, why))) }
            + [.answerJoin(room: name, .failure(why))]
    }

    /// The message goes out as soon as the room is joined, and again until it is acknowledged.
    mutating func publish(_ entry: Outbox.Entry, now: Int64) -> [Effect] {
        guard phase != .closed else {
            return [.acknowledge(id: entry.id, .failure(MartletError(.closed, "the client is closed")))]
        }
        guard rooms[entry.room] != nil else {
            return [.acknowledge(id: entry.id, .failure(MartletError(.invalidArgument, "join the room first")))]
        }
        outbox.add(entry)
        rooms[entry.room]?.lastTypingAt = nil
        return flush(entry.room, now: now)
    }

    mutating func setTyping(_ isTyping: Bool, in name: String, now: Int64) -> [Effect] {
        guard isOnline, let room = rooms[name], room.isJoined else { return [] }
        let isFresh = room.lastTypingAt.map { now - $0 < Self.typingRefresh } ?? false
        guard isTyping ? !isFresh : room.lastTypingAt != nil else { return [] }
        rooms[name]?.lastTypingAt = isTyping ? now : nil
        return [.send(ClientFrame.typing(name, isTyping: isTyping))]
    }

    mutating func setPresence(_ presence: Presence) -> [Effect] {
        self.presence = presence
        return isOnline ? [.send(ClientFrame.status(presence.rawValue))] : []
    }

    mutating func history(_ name: String, before: Int64?, after: Int64?, limit: Int, id: String) -> [Effect] {
        guard isOnline else {
            return [.answerHistory(id: id, .failure(MartletError(.disconnected, "there is no connection now")))]
        }
        reads.insert(id)
        return [.send(ClientFrame.history(name, before: before, after: after, limit: limit, id: id))]
    }

    mutating func flush(_ name: String, now: Int64) -> [Effect] {
        guard isOnline, let room = rooms[name], room.isJoined, now >= room.sendNotBefore else { return [] }
        return outbox.takeDue(in: name, now: now).map {
            .send(ClientFrame.message(room: name, text: $0.text, data: $0.data, id: $0.id))
        }
    }

    mutating func nextID(_ prefix: String) -> String {
        counter += 1
        return prefix + String(counter)
    }
}
