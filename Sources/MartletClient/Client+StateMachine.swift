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
        /// The user closed it; until the server has heard so, ``closePatience`` at most.
        case closing(since: Int64)
        /// For good.
        case closed
    }

    /// Who this client is.
    enum Identity: Equatable {
        /// As the address says.
        case user(String)
        case token(String)
        /// Asked for a token at each connect.
        case provider

        var isUser: Bool { if case .user = self { true } else { false } }
    }

    /// A first frame of who comes back: its id, and the rooms that it named.
    struct Introduction: Equatable {
        let id: String
        let rooms: Set<String>
    }

    /// A session to come back to: what the last welcome gave.
    struct Place: Equatable {
        let session: String
        let secret: String
    }

    /// A token in force that will end.
    struct Renewal: Equatable {
        /// Of the token.
        let endsAt: Int64
        /// When the provider is to be asked again; `nil` while it is asked, or the server.
        var askAgainAt: Int64?
        /// Milliseconds from the next failure to asking again.
        var wait = Backoff.first
    }

    /// What the driver has to do, in order.
    enum Effect: Equatable {
        /// Ends in ``connect(withToken:now:)``, or in a loss.
        case askForToken
        /// Ends in ``renew(withToken:now:)`` or in ``renewalFailed(now:)``.
        case askForRenewal
        /// - Parameter resuming: the address asks that no session begins before the first frame.
        case connect(resuming: Bool)
        case connectLater(milliseconds: Int64)
        case send([UInt8])
        /// Calls ``wake(now:)`` then.
        case wakeLater(milliseconds: Int64)
        /// Lets go of the socket without a word, so that the session waits; nothing of it is of interest any more.
        case abandon
        /// Closes with 1000, which ends the session; the loss of the socket is the answer.
        case sayGoodbye
        /// Lets go of the socket, and loses it: milliseconds are the least that is waited.
        case giveUp(reason: String, wait: Int64)
        case emit(MartletEvent)
        case acknowledge(id: String, Result<Acknowledgement, MartletError>)
        case answerJoin(room: String, Result<JoinedRoom, MartletError>)
        case answerHistory(id: String, Result<HistoryPage, MartletError>)
    }

    struct Room: Equatable {
        var isJoined = false
        /// The session may be in it: it was asked to join.
        var isOfSession = false
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
    static let closePatience: Int64 = 1000
    /// A room that the server should tell as joined by itself is joined after that.
    static let resumePatience: Int64 = 5000
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
    /// Of each `auth` but that of who comes back.
    static let authID = "auth"

    let identity: Identity
    let client: String
    /// The last one, with ``Identity/provider``.
    var token: String?
    var renewal: Renewal?
    /// `nil` without a session, or where the server keeps none.
    var place: Place?
    /// When this client's first session began, by the server's clock: since then it is to have all private messages.
    var beganAt: Int64?
    /// A server did not take a first frame that named rooms.
    var isRoomless = false
    /// The first frame of this connection, of who comes back.
    var introduction: Introduction?
    var phase = Phase.idle
    var user = ""
    var rooms: [String: Room] = [:]
    var directs: [String: DirectRoom] = [:]
    /// Until the answer, what the server says of such a room is about the time before, and a new join of it waits.
    var leaving: [String: Leave] = [:]
    /// As the last server told.
    var limits = ServerFrame.Limits()
    var outbox = Outbox()
    var reads: Set<String> = []
    var backoff = Backoff()
    var heardAt: Int64 = 0
    var pingedAt: Int64?
    /// When the ping went out whose answer tells the round trip.
    var measuredFrom: Int64?
    /// In milliseconds, of the last answered ping.
    var roundTrip: Int64?
    /// Nothing was measured on this connection yet.
    var isUnmeasured = true
    /// The server said that it will close this connection, and that another is to be had at once.
    var isToldToMove = false
    var isWakingLater = false
    var counter = 0
    /// What the server does not know of a new session.
    var presence = Presence.online
    /// As this connection was introduced.
    var saidPresence = Presence.online

    init(client: String, identity: Identity) {
        self.client = client
        self.identity = identity
    }

    /// Whether the first frame says where this client was.
    var comesBack: Bool { place != nil || beganAt != nil }

    var isOnline: Bool { if case .online = phase { true } else { false } }

    /// No call is taken any more.
    var isClosed: Bool {
        switch phase {
        case .closing, .closed: true
        case .idle, .connecting, .online, .waiting: false
        }
    }

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
        measuredFrom = nil
        isUnmeasured = true
        isToldToMove = false
        introduction = nil
        return [.emit(.state(.connecting)), identity == .provider ? .askForToken : .connect(resuming: comesBack)]
    }

    /// The socket is gone, or could not be had. `random` is in 0..<1.
    /// - Parameter wait: what the server asked for, in milliseconds: the least that is waited.
    mutating func lost(code: Int, reason: String, now: Int64, random: Double, wait: Int64 = 0) -> [Effect] {
        if case .online(let since) = phase, now - since >= Backoff.stable { backoff.reset() }
        if case .closing = phase { return finish(code: Int(CloseCode.normal.rawValue), reason: "") }
        guard phase != .closed, phase != .waiting, phase != .idle else { return [] }
        let advice = Backoff.Advice(closeCode: code)
        if advice == .stop { return finish(code: code, reason: reason) }
        let tooLarge = code == Int(CloseCode.messageTooBig.rawValue) ? outbox.removeLargestInFlight() : nil
        let refused = refuse(tooLarge.map { [$0] } ?? [])
        if isToldToMove, code == Int(CloseCode.draining.rawValue) {
            phase = .waiting
            return refused + disconnect() + connect(now: now)
        }
        // Others were told the same, so the jitter comes on top.
        let delay = wait + backoff.next(advice, random: random)
        phase = .waiting
        return refused + disconnect() + [
            .emit(.state(.waiting(milliseconds: delay, reason: reason))), .connectLater(milliseconds: delay),
        ]
    }

    /// The session ends. Every waiting call is answered now, the end is told when the server knows of it.
    mutating func close(now: Int64) -> [Effect] {
        switch phase {
        case .idle, .waiting: return finish(code: Int(CloseCode.normal.rawValue), reason: "")
        case .connecting, .online:
            phase = .closing(since: now)
            return answerAll(MartletError(.closed, "the client is closed")) + [.sayGoodbye]
        case .closing, .closed: return []
        }
    }

    /// For good.
    mutating func finish(code: Int, reason: String) -> [Effect] {
        guard phase != .closed else { return [] }
        phase = .closed
        let why = MartletError(.closed, reason.isEmpty ? "the client is closed" : "the connection ended: \(reason)")
        return answerAll(why) + [.abandon, .emit(.state(.closed(code: code, reason: reason)))]
    }

    private mutating func answerAll(_ why: MartletError) -> [Effect] {
        place = nil
        var effects = disconnect()
        for entry in outbox.removeAll(in: nil) {
            effects.append(.acknowledge(id: entry.id, .failure(fate(entry, why))))
        }
        for name in rooms.keys.sorted() { effects.append(.answerJoin(room: name, .failure(why))) }
        return effects
    }

    /// What was sent may be stored; what was not sent is not.
    func fate(_ entry: Outbox.Entry, _ why: MartletError) -> MartletError {
        entry.doubtfulSince == nil
            ? why : MartletError(.outcomeUnknown, "the message was sent, but its acknowledgement did not arrive")
    }

    mutating func disconnect() -> [Effect] {
        outbox.connectionLost()
        renewal = nil
        // A session that goes on may still be in the rooms that it was to leave; a new one is not.
        if place == nil { leaving = [:] }
        for name in leaving.keys { leaving[name]?.sendAgainAt = .max }
        var effects: [Effect] = []
        for name in rooms.keys.sorted() {
            let wasTyping = rooms[name]?.roster.typingUsers.isEmpty == false
            rooms[name]?.isJoined = false
            rooms[name]?.joinID = nil
            rooms[name]?.joinAgainAt = nil
            if place == nil { rooms[name]?.isOfSession = false }
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
        case .closing(let since):
            return now - since >= Self.closePatience ? finish(code: Int(CloseCode.normal.rawValue), reason: "") : []
        case .connecting(let since):
            if now - since > Self.connectPatience { return abandon("no answer", now: now, random: random) }
            return expire(now: now)
        case .online:
            if let pingedAt, now - pingedAt > Self.pongPatience {
                return abandon("no answer to a ping", now: now, random: random)
            }
            var effects = expire(now: now)
            if pingedAt == nil, isUnmeasured || now - heardAt > Self.pingAfter {
                pingedAt = now
                measuredFrom = now
                isUnmeasured = false
                effects.append(say(ClientFrame.ping()))
            }
            for (name, leave) in leaving.sorted(by: { $0.key < $1.key }) where now >= leave.sendAgainAt {
                effects.append(sendLeave(name, id: leave.id, now: now))
            }
            effects += sendJoin(
                rooms.keys.sorted().filter { name in rooms[name]?.joinAgainAt.map { now >= $0 } ?? false })
            for name in rooms.keys.sorted() { effects += tick(name, now: now) }
            effects += tickDirects(now: now)
            effects += tickRenewal(now: now)
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
