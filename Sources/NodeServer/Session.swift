import ChatCore
import Logging
import NIOCore
import TokenAuth
import WebSocketTransport
import WireProtocol

/// One connection's conversation: decodes what the client asks, lets ``SessionState`` decide, and acts. Confined to the
/// loop of its connection.
final class Session: WebSocketDelegate, Hashable {
    let id: SessionID
    let shard: Shard
    /// Names the client instance that scopes publish ids; its own session unless the client gave one.
    private var client: String
    private let requestID: String
    private let remoteAddress: String
    private var state: SessionState
    private var bucket: TokenBucket?
    /// As the log knows it: it outlives ``SessionState/user``.
    private var user: UserName?
    private var welcomeID: String?
    private var connection: WebSocketConnection?
    /// Publishes get rising numbers, for those that came without an id.
    private var publishes: UInt64 = 0
    private var lastTyping: [RoomName: (isTyping: Bool, at: NIODeadline)] = [:]
    private var ended: (code: CloseCode, reason: String)?
    private var drained: EventLoopPromise<Void>?
    /// Messages that came before their turn, in the order in which they came.
    private var held: [(message: ClientMessage, bytes: ByteBuffer)] = []
    private var heldBytes = 0
    /// The rooms in which the shard delivers to this session.
    var handles: [RoomName: RoomHandle] = [:]

    init(
        id: SessionID, shard: Shard, connection: WebSocketConnection, requestID: String, remoteAddress: String,
        client: String?
    ) {
        self.id = id
        self.shard = shard
        self.connection = connection
        self.requestID = requestID
        self.remoteAddress = remoteAddress
        self.client = client ?? id.string
        let limits = shard.configuration.limits
        self.state = SessionState(roomLimit: limits.roomsPerSession)
        self.bucket = TokenBucket(
            ratePerSecond: limits.messagesPerSecond, burst: limits.messageBurst,
            now: NIODeadline.now().uptimeNanoseconds)
    }

    static func == (left: Session, right: Session) -> Bool { left === right }
    func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }

    /// The upgrade request named the user already. The client and its info are what ``init`` got.
    func begin(as user: UserName) {
        do throws(WireError) {
            try authenticate(as: user, client: nil, info: nil, status: nil, nil)
        } catch {
            refuse(error, id: nil)
        }
    }

    // MARK: From the connection

    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
        guard ended == nil else { return }
        shard.metrics.received += 1
        if case .refuse(let milliseconds)? = bucket?.take(now: NIODeadline.now().uptimeNanoseconds) {
            shard.metrics.rateLimited += 1
            // The id is worth the reading: a client must know which publish was refused.
            let message = try? text.withUnsafeReadableBytes { bytes throws(ClientMessageError) in
                try ClientMessage(decoding: bytes)
            }
            return refuse(WireError(.rateLimited, retryAfterMilliseconds: milliseconds), id: message?.id)
        }
        text.withUnsafeReadableBytes { bytes in
            do throws(ClientMessageError) {
                let message = try ClientMessage(decoding: bytes)
                if !hold(message, bytes) { try perform(message, bytes) }
            } catch {
                refuse(error.error, id: error.id, room: error.room)
            }
        }
    }

    func webSocket(_ connection: WebSocketConnection, receivedBinary: ByteBuffer) {
        guard ended == nil else { return }
        shard.metrics.received += 1
        refuse(WireError(.binaryNotSupported), id: nil)
    }

    func webSocketReadComplete(_ connection: WebSocketConnection) {}

    func webSocketReceivedPong(_ connection: WebSocketConnection) {}

    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
        let rooms = state.rooms.count
        leaveEverything()
        shard.remove(self)
        self.connection = nil
        drained?.succeed(())
        drained = nil
        let code = ended?.code.rawValue ?? code
        let reason = ended?.reason ?? reason
        shard.logger.info(
            "disconnect",
            metadata: [
                "session": "\(id)", "user": "\(user?.string ?? "")", "node": "\(shard.configuration.name)",
                "rooms": "\(endedRooms ?? rooms)", "code": "\(code)", "reason": "\(reason)",
                "request_id": "\(requestID)",
            ])
    }

    private var endedRooms: Int?

    // MARK: Requests

    /// Keeps a message until its turn comes. What is too much is taken at once, and gets the error that it deserves.
    private func hold(_ message: ClientMessage, _ bytes: UnsafeRawBufferPointer) -> Bool {
        guard state.mustWait(message), held.count < NodeConfiguration.heldMessages,
            heldBytes + bytes.count <= shard.configuration.limits.messageBytes
        else { return false }
        held.append((message, ByteBuffer(bytes: bytes)))
        heldBytes += bytes.count
        return true
    }

    /// The session was opened, or a join of it was answered.
    func releaseHeld() {
        guard !held.isEmpty else { return }
        let waiting = held
        held = []
        heldBytes = 0
        for (message, bytes) in waiting {
            bytes.withUnsafeReadableBytes { bytes in
                do throws(ClientMessageError) {
                    if !hold(message, bytes) { try perform(message, bytes) }
                } catch {
                    refuse(error.error, id: error.id, room: error.room)
                }
            }
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
                for join in joins { self.join(join, message.id) }
            case .leave(let room):
                _ = try state.requireOpen()
                guard state.leave(room) != nil else { throw WireError(.notInRoom, "this session is not in \(room)") }
                shard.leave(self, room)
                send(ServerMessage.left(room: room, id: message.id))
            case .presence(let room):
                _ = try state.requireMember(of: room)
                shard.send(.presence(room: room, session: id, id: message.id))
            case .history(let room, let range, let limit):
                let user = try state.requireReader(of: room)
                shard.send(
                    .history(
                        HistoryRequest(
                            room: room, session: id, user: user, id: message.id, range: range, limit: limit)))
            case .status(let status):
                _ = try state.requireOpen()
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
        switch state.join(join.room) {
        case .join, .again:
            shard.send(
                .join(
                    JoinRequest(
                        room: join.room, session: id, id: requestID, since: join.since, echo: join.echo,
                        deadline: .now() + NodeConfiguration.joinDeadline)))
        case .refuse(let error):
            refuse(error, id: requestID, room: join.room.string)
        }
    }

    private func publish(
        _ room: RoomName, _ payload: ClientMessage.Payload, _ requestID: String?, _ bytes: UnsafeRawBufferPointer
    ) throws(WireError) {
        let user = try state.requireMember(of: room)
        shard.send(
            .publish(
                PublishRequest(
                    room: room, session: id, id: requestID, dedupeKey: dedupeKey(user, requestID), user: user,
                    recipient: nil, body: MessageText.body(from: user, payload: payload, in: bytes),
                    deadline: .now() + NodeConfiguration.publishDeadline)))
    }

    private func direct(
        to recipient: UserName, _ payload: ClientMessage.Payload, _ requestID: String?, _ bytes: UnsafeRawBufferPointer
    ) throws(WireError) {
        let user = try state.requireOpen()
        shard.send(
            .publish(
                PublishRequest(
                    room: .direct(user, recipient), session: id, id: requestID,
                    dedupeKey: dedupeKey(user, requestID), user: user, recipient: recipient,
                    body: MessageText.body(from: user, to: recipient, payload: payload, in: bytes),
                    deadline: .now() + NodeConfiguration.publishDeadline)))
    }

    /// Scoped by user and client instance (G3); what came without an id gets one that nobody else can have.
    private func dedupeKey(_ user: UserName, _ requestID: String?) -> String {
        if let requestID { return "\(user)\n\(client)\n\(requestID)" }
        publishes += 1
        return "\n\(id)\n\(publishes)"
    }

    /// The same state again within 2 s says nothing new: clients refresh every 3 s.
    private func typing(_ room: RoomName, _ isTyping: Bool) throws(WireError) {
        let user = try state.requireMember(of: room)
        let now = NIODeadline.now()
        if let last = lastTyping[room], last.isTyping == isTyping, now - last.at < .seconds(2) { return }
        lastTyping[room] = (isTyping, now)
        shard.send(
            .typing(
                room: room, session: id,
                frame: ServerMessage.typing(room: room, from: user, isTyping: isTyping)))
    }

    // MARK: Identity

    private func authenticate(_ auth: ClientMessage.Auth, _ requestID: String?) throws(WireError) {
        let user: UserName
        switch shard.configuration.authentication {
        case .none:
            guard let named = auth.user else { throw WireError(.invalidField, "user is missing; it names you") }
            user = named
        case .token(let verifier):
            guard let token = auth.token else { throw WireError(.authenticationFailed, "token is missing") }
            user = try Identity.user(of: token, verifier)
            if let named = auth.user, named != user {
                throw WireError(.identityConflict, "the token is another user's")
            }
        }
        try authenticate(as: user, client: auth.client, info: auth.info, status: auth.status, requestID)
    }

    private func authenticate(
        as user: UserName, client: String?, info: String?, status: PresenceStatus?, _ requestID: String?
    ) throws(WireError) {
        switch state.authenticate(as: user, status: status) {
        case .open(let user):
            if let client { self.client = client }
            self.user = user
            welcomeID = requestID
            shard.authenticated(self)
            shard.send(
                .open(
                    SessionOpening(session: id, user: user, shard: shard.index, info: info, status: state.status)))
        case .acknowledge(let user):
            if case .open = state.phase { welcome(user, requestID) } else { welcomeID = requestID }
        case .refuse(let error):
            throw error
        }
    }

    private func welcome(_ user: UserName, _ requestID: String?) {
        let configuration = shard.configuration
        send(
            ServerMessage.welcome(
                .init(
                    session: id, user: user, node: configuration.name,
                    heartbeatMilliseconds: configuration.heartbeat.nanoseconds / 1_000_000,
                    messageLimitBytes: configuration.limits.messageBytes,
                    messagesPerSecond: configuration.limits.messagesPerSecond,
                    roomLimit: configuration.limits.roomsPerSession),
                id: requestID))
    }

    // MARK: From the hub, by the shard

    func opened() {
        guard state.opened(), let user = state.user else { return }
        welcome(user, welcomeID)
        shard.logger.info(
            "connect",
            metadata: [
                "session": "\(id)", "user": "\(user)", "node": "\(shard.configuration.name)",
                "address": "\(remoteAddress)", "request_id": "\(requestID)",
            ])
        releaseHeld()
    }

    func refused(_ error: WireError) {
        refuse(error, id: welcomeID)
        end(.overloaded)
    }

    /// Whether the session still wants to be in the room.
    func joined(_ room: RoomName) -> Bool { state.joined(room) }

    func joinFailed(_ room: RoomName, id requestID: String?, _ error: WireError) {
        if state.leave(room) != nil { shard.leave(self, room) }
        refuse(error, id: requestID, room: room.string)
        releaseHeld()
    }

    func kicked(from room: RoomName?, reason: String) {
        guard let room else { return end(.kicked, reason: reason) }
        guard state.leave(room) != nil else { return }
        shard.leave(self, room)
        send(ServerMessage.left(room: room, id: nil, reason: "kicked"))
        releaseHeld()
    }

    // MARK: Heartbeat and end

    func ping() {
        connection?.ping()
    }

    /// Anything that was read since the ping is an answer.
    func checkHeartbeat(pingedAt: NIODeadline) {
        guard let connection, connection.lastReadTime < pingedAt else { return }
        end(.heartbeatTimeout)
    }

    func authenticationTimedOut() {
        refuse(WireError(.notAuthenticated, "no auth came in time"), id: nil)
        end(.authenticationTimeout)
    }

    /// Says when to go, and closes at that moment, so that nobody is away longer than a reconnect takes.
    func drain(after delay: TimeAmount) -> EventLoopFuture<Void> {
        let promise = shard.eventLoop.makePromise(of: Void.self)
        drained = promise
        send(ServerMessage.reconnect(delayMilliseconds: delay.nanoseconds / 1_000_000, reason: "draining"))
        shard.eventLoop.assumeIsolated().scheduleTask(in: delay) { self.end(.draining) }
        return promise.futureResult
    }

    /// Leaves everything now and closes; the peer gets its time to answer the close frame, the rooms do not wait.
    private func end(_ code: CloseCode, reason: String? = nil) {
        guard ended == nil, let connection else { return }
        ended = (code, reason ?? code.reason)
        endedRooms = state.rooms.count
        leaveEverything()
        connection.close(code: code.rawValue, reason: reason ?? code.reason)
    }

    private func leaveEverything() {
        let wasKnown = state.user != nil
        held = []
        for room in state.close() { shard.leave(self, room) }
        if wasKnown { shard.send(.close(id)) }
    }

    // MARK: Sending

    func send(_ text: [UInt8]) {
        connection?.send(text: ByteBuffer(bytes: text))
    }

    func sendFrames(_ bytes: UnsafeRawBufferPointer) {
        guard ended == nil else { return }
        connection?.sendFrames(bytes)
    }

    func sendFrames(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { sendFrames($0) }
    }

    private func refuse(_ error: WireError, id requestID: String?, room: String? = nil) {
        shard.metrics.errors += 1
        send(ServerMessage.error(error, id: requestID, room: room))
    }
}
