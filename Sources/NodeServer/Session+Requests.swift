import ChatCore
import ClusterState
import NIOCore
import ProtobufCodec
import Telemetry
import TokenAuth
import WebSocketTransport
import WireProtocol

/// What a client asks, from its frames to the hub.
extension Session {
    /// One frame of the client's subprotocol.
    func receive(_ bytes: UnsafeRawBufferPointer) {
        let taken = take(bytes: bytes.count)
        do throws(ClientMessageError) {
            switch lane.format.encoding {
            case .json: receive(try ClientMessage(decoding: bytes), bytes, size: bytes.count, taken)
            case .protobuf:
                let limit = shard.configuration.limits.messageBytes
                let (message, payload) = try ClientMessage.decode(protobuf: bytes, limit: limit)
                payload.withUnsafeBytes { receive(message, $0, size: bytes.count, taken) }
            }
        } catch {
            guard taken == .pass else { return refuse(taken, id: nil) }
            refuse(error.error, id: error.id, room: error.room)
        }
    }

    /// One that is over the limit was worth the reading: a client must know which publish was refused.
    private func receive(
        _ message: ClientMessage, _ bytes: UnsafeRawBufferPointer, size: Int, _ taken: SessionLimits.TakeAction
    ) {
        guard taken == .pass else { return refuse(taken, id: message.id) }
        answering { () throws(ClientMessageError) in
            if try mayJoin(message) { try perform(inTurn: message, bytes, size: size) }
        }
    }

    private func answering(_ body: () throws(ClientMessageError) -> Void) {
        do throws(ClientMessageError) {
            try body()
        } catch {
            guard !isTooMuch(error.error) else { return refuse(.close, id: nil) }
            refuse(error.error, id: error.id, room: error.room)
        }
    }

    /// Whether the message is refused for a rate, and that once too often.
    private func isTooMuch(_ error: WireError) -> Bool {
        guard error.code == .rateLimited, let wait = error.retryAfterMilliseconds else { return false }
        let now = NIODeadline.now().uptimeNanoseconds
        return limits?.refused(retryAfterMilliseconds: wait, now: now) == .close
    }

    /// One frame that carries nothing in the client's subprotocol.
    func receiveForeign(bytes count: Int) {
        let taken = take(bytes: count)
        guard taken == .pass else { return refuse(taken, id: nil) }
        switch lane.format.encoding {
        case .json: refuse(WireError(.binaryNotSupported), id: nil)
        case .protobuf: refuse(WireError(.textNotSupported), id: nil)
        }
    }

    /// A frame that joins costs as much as the rooms that it names.
    private func mayJoin(_ message: ClientMessage) throws(ClientMessageError) -> Bool {
        guard case .join(let joins) = message.body, limits != nil else { return true }
        let count: Int
        do throws(WireError) {
            count = try state.distinct(joins).count
        } catch {
            throw ClientMessageError(error: error, id: message.id, room: nil)
        }
        let taken = limits?.takeJoins(count, now: NIODeadline.now().uptimeNanoseconds) ?? .pass
        if taken == .pass { return true }
        refuse(taken, id: message.id, room: joins.count == 1 ? joins[0].room.string : nil)
        return false
    }

    /// A Ping or a Pong counts as a message. Over the limit it is heard all the same, lest a client that is held back takes
    /// the connection for dead, but not for ever.
    func receiveControl() {
        if take(bytes: 0) == .close { refuse(.close, id: nil) }
    }

    private func refuse(_ taken: SessionLimits.TakeAction, id requestID: String?, room: String? = nil) {
        switch taken {
        case .pass: return
        case .close:
            shard.metrics.rateLimited += 1
            note(.flood)
            end(.overloaded, reason: "too many messages over the limit, back off")
        case .refuse(let milliseconds):
            shard.metrics.rateLimited += 1
            let now = NIODeadline.now().uptimeNanoseconds
            guard requestID != nil || limits?.mayAnswerUnnamed(now: now) == true else { return }
            refuse(WireError(.rateLimited, retryAfterMilliseconds: milliseconds), id: requestID, room: room)
        }
    }

    /// The session was opened, or a join of it was answered.
    func releaseHeld() {
        guard shard.standstill == nil, !held.isEmpty else { return }
        for (message, bytes, size) in held.release() {
            bytes.withUnsafeBytes { bytes in
                answering { () throws(ClientMessageError) in try perform(inTurn: message, bytes, size: size) }
            }
        }
    }

    /// The node knows what was ordered as it stood still.
    func goOn(with waiting: Standstill.Waiting) {
        guard connection != nil, !isEnding else { return }
        waiting.bytes.withUnsafeBytes { bytes in
            answering { () throws(ClientMessageError) in
                try perform(inTurn: waiting.message, bytes, size: waiting.size)
            }
        }
    }

    private func perform(
        inTurn message: ClientMessage, _ bytes: UnsafeRawBufferPointer, size: Int
    ) throws(ClientMessageError) {
        if shard.standstill != nil {
            let waiting = Standstill.Waiting(session: self, message: message, bytes: Array(bytes), size: size)
            if shard.standstill?.append(waiting, within: shard.configuration.limits) == true { return }
            throw ClientMessageError(
                error: WireError(.unavailable, retryAfterMilliseconds: NodeConfiguration.retryAfterMilliseconds),
                id: message.id, room: message.room?.string)
        }
        switch held.offer(message, bytes, size: size, to: state, within: shard.heldBounds) {
        case .perform: try perform(message, bytes)
        case .held: return
        case .refuse:
            throw ClientMessageError(
                error: WireError(
                    .rateLimited, "too many messages wait for the answer to auth or join; send this one again later",
                    retryAfterMilliseconds: NodeConfiguration.retryAfterMilliseconds),
                id: message.id, room: message.room?.string)
        }
    }

    private func perform(_ message: ClientMessage, _ bytes: UnsafeRawBufferPointer) throws(ClientMessageError) {
        do throws(WireError) {
            switch message.body {
            case .message(let room, let payload):
                try publish(room, payload, message.id, bytes)
            case .direct(let user, let payload):
                try direct(to: user, payload, message.id, bytes)
            case .typing(let room, let isTyping):
                try typing(room, isTyping)
            case .join(let joins):
                _ = try state.requireOpen()
                for join in try state.distinct(joins) { self.join(join, message.id) }
            case .leave(let room):
                _ = try state.requireOpen()
                guard state.leave(room) != nil else { throw WireError(.notInRoom, "this session is not in \(room)") }
                shard.leave(self, room)
                send(ServerMessage.left(room: room, id: message.id))
            case .presence(let room):
                _ = try state.requireMember(of: room, who: .presence, rights)
                shard.send(.presence(room: room, session: id, id: message.id))
            case .history(let room, let range, let limit):
                let user = try state.requireReader(of: room, rights)
                try refuseIfBanned(from: room)
                shard.send(
                    .history(
                        HistoryRequest(
                            room: room, session: id, user: user, id: message.id, range: range, limit: limit)))
            case .status(let status):
                _ = try state.requireOpen()
                if status != .invisible { try refuseIfMuted(in: nil) }
                if state.setStatus(status) { shard.send(.status(session: id, status: status)) }
                send(ServerMessage.ack(id: message.id, status: status))
            case .ping:
                send(ServerMessage.pong(id: message.id, ts: WallClock.milliseconds()))
            case .auth(let auth):
                try authenticate(auth, message.id)
            }
        } catch {
            throw ClientMessageError(error: error, id: message.id, room: message.room?.string)
        }
    }

    private func join(_ join: ClientMessage.Join, _ requestID: String?) {
        do throws(WireError) {
            try refuseIfBanned(from: join.room)
        } catch {
            return refuse(error, id: requestID, room: join.room.string)
        }
        switch state.join(join.room, rights) {
        case .join:
            send(join, id: requestID)
        case .again:
            // What it missed it has got since it joined.
            send(ClientMessage.Join(room: join.room, echo: join.echo), id: requestID)
        case .refuse(let error):
            refuse(error, id: requestID, room: join.room.string)
        }
    }

    private func publish(
        _ room: RoomName, _ payload: ClientMessage.Payload, _ requestID: String?, _ bytes: UnsafeRawBufferPointer
    ) throws(WireError) {
        let user = try state.publish(
            payload.count, in: room, rights, now: NIODeadline.now().uptimeNanoseconds)
        try refuseIfMuted(in: room)
        shard.send(
            .publish(
                PublishRequest(
                    room: room, session: id, id: requestID, dedupeKey: dedupeKey(user, requestID), user: user,
                    recipient: nil, body: MessageText.body(from: user, payload: payload, in: bytes),
                    deadline: (shard.waitedSince ?? .now()) + NodeConfiguration.publishDeadline)))
    }

    private func direct(
        to recipient: UserName, _ payload: ClientMessage.Payload, _ requestID: String?, _ bytes: UnsafeRawBufferPointer
    ) throws(WireError) {
        let (user, room) = try state.publish(
            payload.count, to: recipient, rights, now: NIODeadline.now().uptimeNanoseconds)
        try refuseIfBanned(from: room)
        try refuseIfMuted(in: room)
        shard.send(
            .publish(
                PublishRequest(
                    room: room, session: id, id: requestID,
                    dedupeKey: dedupeKey(user, requestID), user: user, recipient: recipient,
                    body: MessageText.body(from: user, to: recipient, payload: payload, in: bytes),
                    deadline: (shard.waitedSince ?? .now()) + NodeConfiguration.publishDeadline)))
    }

    /// Scoped by user and client instance (G3); what came without an id gets one that nobody else can have.
    private func dedupeKey(_ user: UserName, _ requestID: String?) -> String {
        if let requestID { return "\(user)\n\(client)\n\(requestID)" }
        publishes += 1
        return "\n\(connectionID)\n\(publishes)"
    }

    private func typing(_ room: RoomName, _ isTyping: Bool) throws(WireError) {
        try refuseIfMuted(in: room)
        guard let user = try state.typing(isTyping, in: room, rights, now: NIODeadline.now().uptimeNanoseconds)
        else { return }
        shard.send(
            .typing(
                room: room, session: id,
                frame: ServerMessage.typing(room: room, from: user, isTyping: isTyping)))
    }

    // MARK: Identity

    private func authenticate(_ auth: ClientMessage.Auth, _ requestID: String?) throws(WireError) {
        let user: UserName
        var grant: Grant?
        switch shard.configuration.authentication {
        case .none:
            guard let named = auth.user ?? claimedUser else {
                throw WireError(.invalidField, "user is missing; it names you")
            }
            user = named
        case .token(let verifier):
            if let token = auth.token {
                do throws(WireError) {
                    (user, grant) = try Identity.verify(token, verifier)
                } catch {
                    if shard.configuration.isOfUnknownKey(error) { note(.badToken) }
                    throw error
                }
            } else if let claimed = claimedUser {
                (user, grant) = (claimed, claimedGrant)
            } else {
                throw WireError(.authenticationFailed, "token is missing")
            }
            if let named = auth.user, named != user {
                throw WireError(.identityConflict, "the token is another user's")
            }
        }
        try authenticate(as: user, grant, auth, requestID)
    }

    /// - Parameter grant: of the token by which this is known, if it is one that this session has not shown before.
    func authenticate(
        as user: UserName, _ grant: Grant?, _ auth: ClientMessage.Auth, _ requestID: String?
    ) throws(WireError) {
        if state.user == nil { try requireUnbarred(user) }
        let joins = try state.distinct(auth.rooms)
        for case (let first, let second)? in (auth.directs?.rooms ?? [:]).keys.map(\.participants)
        where user != first && user != second {
            throw WireError(.forbidden, "a private room is for its two users")
        }
        guard try !isExcluded(user, grant, auth) else { return }
        let isMuted = isMuted(user, grant, resuming: auth.resume?.session)
        let status = isMuted && auth.status != .invisible ? nil : auth.status
        switch state.authenticate(as: user, status: status) {
        case .open(let user):
            self.grant = grant
            if let client = auth.client { self.client = client }
            welcomeID = requestID
            keep(firstJoins: joins)
            shard.authenticated(self)
            leaveStrangers()
            // What is no secret resumes nothing: the client hears so by the welcome to a new session.
            let resume = auth.resume.flatMap { asked in
                SessionSecret(asked.secret).map { SessionOpening.Resume(session: asked.session, secret: $0) }
            }
            shard.send(
                .open(
                    SessionOpening(
                        connection: connectionID, user: user, lane: lane,
                        client: auth.client ?? claimedClient, info: isMuted ? nil : auth.info, status: status,
                        resume: resume,
                        directs: auth.directs.map { DirectsAsked(places: $0, rights: rights) }, origin: origin)))
        case .acknowledge(let user):
            let changed = if let grant { try renew(grant) } else { false }
            guard state.isOpen else {
                welcomeID = requestID
                return
            }
            // What the hub answered by the former token is in front of it.
            let text = ServerMessage.welcome(welcome(user, nil), id: requestID)
            if changed { shard.send(.echo(session: id, text: text)) } else { send(text) }
        case .refuse(let error):
            throw error
        }
    }

    /// - Parameter opened: `nil` for who asks again: a secret is given once.
    func welcome(_ user: UserName, _ opened: SessionOpened?) -> ServerMessage.Welcome {
        let configuration = shard.configuration
        var welcome = ServerMessage.Welcome(
            session: id, user: user, node: configuration.name,
            heartbeatMilliseconds: configuration.heartbeat.nanoseconds / 1_000_000,
            messageLimitBytes: configuration.limits.messageBytes,
            messagesPerSecond: configuration.limits.messagesPerSecond,
            roomLimit: configuration.limits.roomsPerSession)
        welcome.secret = opened?.secret?.string
        welcome.graceMilliseconds = configuration.resumeGrace.nanoseconds / 1_000_000
        welcome.isResumed = opened?.resumed != nil
        welcome.ts = opened?.begunAt
        return welcome
    }

    /// The rooms of a session that goes on, and those that `auth` named: behind `welcome`, before all that was held.
    func enterFirstRooms(of record: SessionRecord?) {
        let (named, requestID) = endOpening()
        for (room, echo) in record?.rooms ?? [:] {
            guard state.rooms[room] != nil else {
                lost(room)
                continue
            }
            if let order = ban(from: room) {
                kicked(from: room, reason: order.closeReason)
                continue
            }
            let join = named.first { $0.room == room }
            send(join ?? ClientMessage.Join(room: room, echo: echo), id: nil)
        }
        for join in named where record?.rooms[join.room] == nil { self.join(join, requestID) }
    }

    private func send(_ join: ClientMessage.Join, id requestID: String?) {
        shard.send(
            .join(
                JoinRequest(
                    room: join.room, session: id, connection: connectionID, id: requestID, since: join.since,
                    echo: join.echo, actions: state.rooms[join.room]?.actions ?? [],
                    deadline: (shard.waitedSince ?? .now()) + NodeConfiguration.joinDeadline)))
    }
}
