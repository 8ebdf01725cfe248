import ChatCore
import ClusterState
import Logging
import NIOCore
import Telemetry
import TokenAuth
import WebSocketTransport
import WireProtocol

/// One connection's conversation: decodes what the client asks, lets ``SessionState`` decide, and acts. Confined to the
/// loop of its connection.
final class Session: WebSocketDelegate, FrameReceiver, Hashable {
    /// Its connection's, until it turns out to go on with an earlier one.
    private(set) var id: SessionID
    /// Names this connection alone.
    let connectionID: SessionID
    let shard: Shard
    /// Where what is sent to many reaches it.
    let lane: Lane
    /// Names the client instance that scopes publish ids; its own session unless the client gave one.
    var client: String
    /// What the upgrade request said.
    let claim: Identity.Claim
    /// Rooms that `auth` named.
    var firstJoins: [ClientMessage.Join] = []
    /// It goes on with a new secret, of which the client has not yet shown that it has it.
    private var isUnconfirmed = false
    private let requestID: String
    private let remoteAddress: String
    var state: SessionState
    var limits: SessionLimits?
    /// As the log knows it: it outlives ``SessionState/user``.
    var user: UserName?
    var welcomeID: String?
    private var connection: WebSocketConnection?
    /// Publishes get rising numbers, for those that came without an id.
    var publishes: UInt64 = 0
    private(set) var ended: (code: CloseCode, reason: String)?
    private var drained: EventLoopPromise<Void>?
    var held: HeldMessages
    /// Pages that are still to be answered.
    private var pages: [Int] = []
    /// Rooms of which it was not sent every presence event, because too much waited for it.
    private var missedPresence: Set<RoomName> = []
    /// The rooms in which the shard delivers to this session.
    var handles: [RoomName: RoomHandle] = [:]

    init(
        id: SessionID, shard: Shard, connection: WebSocketConnection, requestID: String, remoteAddress: String,
        claim: Identity.Claim
    ) {
        self.id = id
        self.connectionID = id
        self.claim = claim
        self.shard = shard
        self.lane = Lane(shard: shard.index, format: connection.takesCompressedFrames ? .compressed : .plain)
        self.connection = connection
        self.requestID = requestID
        self.remoteAddress = remoteAddress
        self.client = claim.client ?? id.string
        let limits = shard.configuration.limits
        self.state = SessionState(roomLimit: limits.roomsPerSession)
        self.limits = SessionLimits(
            ratePerSecond: limits.messagesPerSecond, burst: limits.messageBurst, roomLimit: limits.roomsPerSession,
            now: NIODeadline.now().uptimeNanoseconds)
        self.held = HeldMessages(
            maximumCount: NodeConfiguration.heldMessages, maximumBytes: 4 * limits.messageBytes)
    }

    static func == (left: Session, right: Session) -> Bool { left === right }
    func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }

    /// Whom the upgrade request named need not send `auth`.
    func begin() {
        shard.logger.info(
            "connect",
            metadata: [
                "session": "\(id)", "user": "\(claim.user?.string ?? "")", "node": "\(shard.configuration.name)",
                "rooms": "0", "address": "\(remoteAddress)", "request_id": "\(requestID)",
            ])
        guard let user = claim.user, !claim.resumes else { return }
        do throws(WireError) {
            try authenticate(as: user, ClientMessage.Auth(), nil)
        } catch {
            refuse(error, id: nil)
        }
    }

    // MARK: From the connection

    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
        guard ended == nil else { return }
        shard.metrics.received += 1
        if isUnconfirmed {
            isUnconfirmed = false
            shard.send(.confirm(id))
        }
        text.withUnsafeReadableBytes { receive($0) }
    }

    func webSocket(_ connection: WebSocketConnection, receivedBinary: ByteBuffer) {
        guard ended == nil else { return }
        shard.metrics.received += 1
        receiveBinary()
    }

    func webSocketReadComplete(_ connection: WebSocketConnection) {}

    func webSocketReceivedPong(_ connection: WebSocketConnection) {}

    /// Who missed presence events gets the lists as they are now (G6).
    func webSocketCaughtUp(_ connection: WebSocketConnection) {
        let missed = missedPresence
        missedPresence = []
        for room in missed where state.rooms[room] == .joined {
            shard.send(.presence(room: room, session: id, id: nil))
        }
        answerPages()
    }

    private func answerPages() {
        let taken = pages
        pages = []
        for number in taken { shard.send(.pageTaken(number: number)) }
    }

    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
        let rooms = state.rooms.count
        let isDone = code == CloseCode.normal.rawValue || code == CloseCode.goingAway.rawValue
        giveUp(keepingPlace: !isDone)
        answerPages()
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

    // MARK: From the hub, by the shard

    /// - Returns: false when nobody waits for it any more.
    func opened(_ opened: SessionOpened) -> Bool {
        let record = opened.resumed
        guard state.opened(rooms: record.map { Array($0.rooms.keys) } ?? [], status: record?.status),
            let user = state.user
        else { return false }
        id = opened.session
        welcome(user, welcomeID, opened)
        if let record {
            isUnconfirmed = true
            client = record.client.isEmpty ? opened.session.string : record.client
            shard.logger.info(
                "resume",
                metadata: [
                    "session": "\(id)", "user": "\(user)", "node": "\(shard.configuration.name)",
                    "rooms": "\(record.rooms.count)", "request_id": "\(requestID)",
                ])
        }
        return true
    }

    /// The session goes on elsewhere: here nothing of it is left or answered any more.
    func moved() {
        guard ended == nil, let connection else { return }
        ended = (.moved, CloseCode.moved.reason)
        endedRooms = state.rooms.count
        _ = held.release()
        missedPresence = []
        _ = state.close()
        connection.close(code: CloseCode.moved.rawValue, reason: CloseCode.moved.reason)
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
        let reason = reason.isEmpty ? CloseCode.kicked.reason : reason
        guard let room else { return end(.kicked, reason: reason) }
        guard state.leave(room) != nil else { return }
        shard.leave(self, room)
        send(ServerMessage.left(room: room, id: nil, reason: reason))
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

    /// Gives everything up now and closes; the peer gets its time to answer the close frame, the rooms do not wait.
    func end(_ code: CloseCode, reason: String? = nil) {
        guard ended == nil, let connection else { return }
        ended = (code, reason ?? code.reason)
        endedRooms = state.rooms.count
        giveUp(keepingPlace: code.mayResume)
        connection.close(code: code.rawValue, reason: reason ?? code.reason)
    }

    private func giveUp(keepingPlace: Bool) {
        let wasKnown = state.user != nil
        _ = held.release()
        missedPresence = []
        _ = state.close()
        shard.forget(self)
        guard wasKnown else { return }
        shard.send(
            keepingPlace
                ? .detach(id, connection: connectionID) : .close(id, connection: connectionID))
    }

    // MARK: Sending

    func send(_ text: [UInt8]) {
        connection?.send(text: ByteBuffer(bytes: text))
    }

    func sendFrames(_ bytes: UnsafeRawBufferPointer) {
        guard ended == nil else { return }
        connection?.sendFrames(bytes)
    }

    /// Replayed messages are not hurried into a connection that has not taken the last of them.
    func send(page texts: [[UInt8]], number: Int) {
        for text in texts { send(text) }
        pages.append(number)
        if !isBehind || ended != nil { answerPages() }
    }

    var isBehind: Bool { connection?.isBehind ?? false }

    func missedPresence(of room: RoomName) {
        missedPresence.insert(room)
    }

    /// What was meant for its user: nothing stands before `welcome`.
    func sendDirect(_ bytes: UnsafeRawBufferPointer) {
        guard state.isOpen else { return }
        sendFrames(bytes)
    }

    func refuse(_ error: WireError, id requestID: String?, room: String? = nil) {
        shard.metrics.errors += 1
        send(ServerMessage.error(error, id: requestID, room: room))
    }
}
