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
        /// Calls ``wake(now:)`` then.
        case wakeLater(milliseconds: Int64)
        /// Lets go of the socket; nothing of it is of interest any more.
        case abandon
        case emit(MartletEvent)
        case acknowledge(id: String, Result<Acknowledgement, MartletError>)
        case answerJoin(room: String, Result<JoinedRoom, MartletError>)
        case answerHistory(id: String, Result<HistoryPage, MartletError>)
    }

    struct Room: Equatable {
        var isJoined = false
        /// The request that was sent on this connection.
        var joinID: String?
        /// A refused join may be sent again at this time.
        var joinAgainAt: Int64?
        var sequence = RoomSequence()
        var roster = RoomRoster()
        var lastTypingAt: Int64?
        var rosterReadAt: Int64 = 0
    }

    /// A request to leave, which is sent until it is answered.
    struct Leave: Equatable {
        let id: String
        var sendAgainAt: Int64
    }

    static let connectPatience: Int64 = 10_000
    static let pingAfter: Int64 = 20_000
    static let pongPatience: Int64 = 10_000
    /// Should the last presence event be lost, nothing else would show it.
    static let rosterAge: Int64 = 50_000
    static let typingRefresh: Int64 = 3000
    static let defaultRetry: Int64 = 2000
    static let longestSleep: Int64 = 1000
    /// Reads that the machine itself asked for carry ids that no caller can have.
    static let fillPrefix = "fill-"
    static let leavePrefix = "leave-"

    let token: String?
    let client: String
    var phase = Phase.idle
    var user = ""
    var rooms: [String: Room] = [:]
    /// Until the answer, what the server says of such a room is about the time before, and a new join of it waits.
    var leaving: [String: Leave] = [:]
    /// As the last server told.
    var limits = ServerFrame.Limits()
    var outbox = Outbox()
    var reads: Set<String> = []
    var backoff = Backoff()
    var heardAt: Int64 = 0
    var pingedAt: Int64?
    /// The server said that it will close this connection, and that another is to be had at once.
    var isToldToMove = false
    var isWakingLater = false
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
        isToldToMove = false
        return [.emit(.state(.connecting)), .connect]
    }

    /// The socket is open. A server that wants to know who this is, and was not told, says so to the second frame at once.
    func opened() -> [Effect] {
        let auth: [Effect] = token.map { [.send(ClientFrame.auth(token: $0, client: client))] } ?? []
        return auth + [.send(ClientFrame.status(presence.rawValue))]
    }

    /// The socket is gone, or could not be had. `random` is in 0..<1.
    mutating func lost(code: Int, reason: String, now: Int64, random: Double) -> [Effect] {
        if case .online(let since) = phase, now - since >= Backoff.stable { backoff.reset() }
        guard phase != .closed, phase != .waiting, phase != .idle else { return [] }
        let advice = Backoff.Advice(closeCode: code)
        if advice == .stop { return close(code: code, reason: reason) }
        let tooLarge = code == Int(CloseCode.messageTooBig.rawValue) ? outbox.removeLargestInFlight() : nil
        let refused = refuse(tooLarge.map { [$0] } ?? [])
        if isToldToMove, code == Int(CloseCode.draining.rawValue) {
            phase = .waiting
            return refused + disconnect() + connect(now: now)
        }
        let delay = backoff.next(advice, random: random)
        phase = .waiting
        return refused + disconnect() + [
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
        entry.doubtfulSince == nil
            ? why : MartletError(.outcomeUnknown, "the message was sent, but its acknowledgement did not arrive")
    }

    mutating func disconnect() -> [Effect] {
        outbox.connectionLost()
        leaving = [:]  // the next session is in no room but those that it joins
        var effects: [Effect] = []
        for name in rooms.keys.sorted() {
            let wasTyping = rooms[name]?.roster.typingUsers.isEmpty == false
            rooms[name]?.isJoined = false
            rooms[name]?.joinID = nil
            rooms[name]?.joinAgainAt = nil
            rooms[name]?.roster.forgetVersion()
            rooms[name]?.roster.forgetTyping()
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
            if let pingedAt, now - pingedAt > Self.pongPatience {
                return abandon("no answer to a ping", now: now, random: random)
            }
            var effects = expire(now: now)
            if pingedAt == nil, now - heardAt > Self.pingAfter {
                pingedAt = now
                effects.append(say(ClientFrame.ping()))
            }
            for (name, leave) in leaving.sorted(by: { $0.key < $1.key }) where now >= leave.sendAgainAt {
                effects.append(sendLeave(name, id: leave.id, now: now))
            }
            effects += sendJoin(
                rooms.keys.sorted().filter { name in rooms[name]?.joinAgainAt.map { now >= $0 } ?? false })
            for name in rooms.keys.sorted() { effects += tick(name, now: now) }
            return effects + flush(now: now)
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
        if room.isJoined, let after = room.sequence.overdue(now: now) {
            let id = nextID(Self.fillPrefix)
            reads.insert(id)
            effects.append(say(ClientFrame.history(name, before: nil, after: after, limit: 100, id: id)))
        }
        if room.isJoined, now - room.rosterReadAt > Self.rosterAge {
            room.rosterReadAt = now
            effects.append(say(ClientFrame.presence(name)))
        }
        if room.roster.endTyping(now: now) {
            effects.append(.emit(.typing(room: name, users: room.roster.typingUsers)))
        }
        rooms[name] = room
        return effects
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
        return sendJoin([name])
    }

    /// One frame for all of them that may be joined now.
    mutating func sendJoin(_ names: [String]) -> [Effect] {
        let names = names.filter { leaving[$0] == nil }
        guard isOnline, !names.isEmpty else { return [] }
        let id = nextID("join-")
        for name in names {
            rooms[name]?.joinID = id
            rooms[name]?.joinAgainAt = nil
        }
        return [say(ClientFrame.join(names.map { ($0, rooms[$0]?.sequence.position) }, id: id))]
    }

    mutating func leave(_ name: String, now: Int64) -> [Effect] {
        guard let room = rooms[name] else { return [] }
        let leave: [Effect] = room.joinID == nil ? [] : [sendLeave(name, id: nextID(Self.leavePrefix), now: now)]
        return leave + forget(name, reason: "the client left the room")
    }

    private mutating func sendLeave(_ name: String, id: String, now: Int64) -> Effect {
        leaving[name] = Leave(id: id, sendAgainAt: now + Outbox.ackPatience)
        return say(ClientFrame.leave(name, id: id))
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
        return refuseTooLarge() + flush(now: now)
    }

    mutating func setTyping(_ isTyping: Bool, in name: String, now: Int64) -> [Effect] {
        guard isOnline, let room = rooms[name], room.isJoined else { return [] }
        let isFresh = room.lastTypingAt.map { now - $0 < Self.typingRefresh } ?? false
        guard isTyping ? !isFresh : room.lastTypingAt != nil else { return [] }
        guard outbox.pace.hasCredit(now: now) else { return [] }  // messages are worth more
        rooms[name]?.lastTypingAt = isTyping ? now : nil
        return [say(ClientFrame.typing(name, isTyping: isTyping))]
    }

    mutating func setPresence(_ presence: Presence) -> [Effect] {
        self.presence = presence
        return isOnline ? [say(ClientFrame.status(presence.rawValue))] : []
    }

    mutating func history(_ name: String, before: Int64?, after: Int64?, limit: Int, id: String) -> [Effect] {
        guard isOnline else {
            return [.answerHistory(id: id, .failure(MartletError(.disconnected, "there is no connection now")))]
        }
        reads.insert(id)
        return [say(ClientFrame.history(name, before: before, after: after, limit: limit, id: id))]
    }

    /// Sends what may go, and asks to be called again when there is more that only has to wait.
    mutating func flush(now: Int64) -> [Effect] {
        guard isOnline else { return [] }
        let rooms = rooms
        let (due, wait) = outbox.takeDue(now: now) { rooms[$0]?.isJoined == true }
        var effects: [Effect] = due.map { .send($0.frame) }
        if let wait, !isWakingLater {
            isWakingLater = true
            effects.append(.wakeLater(milliseconds: min(wait, Self.longestSleep)))
        }
        return effects
    }

    mutating func wake(now: Int64) -> [Effect] {
        isWakingLater = false
        return flush(now: now)
    }

    /// A message over the limit would end the connection, each time it is sent.
    mutating func refuseTooLarge() -> [Effect] {
        limits.messageBytes.map { refuse(outbox.removeAll(over: $0)) } ?? []
    }

    private func refuse(_ tooLarge: [Outbox.Entry]) -> [Effect] {
        tooLarge.map { entry in
            let limit = limits.messageBytes.map { "at most \($0)" } ?? "fewer"
            let error = MartletError(
                .refused, "the message has \(entry.frame.count) bytes; this server takes \(limit)",
                number: WireError.Code.tooLarge.rawValue)
            return .acknowledge(id: entry.id, .failure(error))
        }
    }

    /// A frame that is no message.
    mutating func say(_ frame: [UInt8]) -> Effect {
        outbox.pace.count()
        return .send(frame)
    }

    mutating func nextID(_ prefix: String) -> String {
        counter += 1
        return prefix + String(counter)
    }
}
