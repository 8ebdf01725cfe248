import ChatCore
import ClusterState
import Logging
import NIOCore
import ProtobufCodec
import Telemetry
import TokenAuth
import WebSocketTransport
import WireProtocol

/// One connection's conversation: decodes what the client asks, lets ``SessionState`` decide, and acts. Confined to the
/// loop of its connection.
final class Session: WebSocketDelegate, FrameReceiver, WheelElement {
    /// Its connection's, until it turns out to go on with an earlier one.
    private(set) var id: SessionID
    /// Names this connection alone.
    let connectionID: SessionID
    let shard: Shard
    /// Of the client instance, which scopes publish ids; `nil`: the session's own id.
    private var givenClient: String?
    private let requestID: String
    var state: SessionState
    /// What the user's token gives; `nil` without one.
    var grant: Grant?
    var limits: SessionLimits?
    private(set) var connection: WebSocketConnection?
    /// Publishes get rising numbers, for those that came without an id.
    var publishes: UInt64 = 0
    /// `nil` for most who are open.
    private var seldom: Seldom?
    var wheelPlace = WheelPlace()
    /// The rooms in which the shard delivers to this session.
    var handles = FewMap<RoomName, RoomHandle>()
    /// It goes on with a new secret, of which the client has not yet shown that it has it.
    private var isUnconfirmed = false
    /// It is who the upgrade request said.
    private var isClaimed = false
    /// `token_expiring` was sent of the token in force.
    var wasToldOfExpiry = false
    /// See ``leaveStrangers()``.
    var isStranger: Bool
    /// Where what is sent to many reaches it.
    let lane: Lane

    /// What an open session that is not behind does not need, and therefore does not own.
    private final class Seldom {
        /// What the upgrade request said.
        var claim: Identity.Claim?
        /// Rooms that `auth` named.
        var firstJoins: [ClientMessage.Join] = []
        var welcomeID: String?
        var held = HeldMessages()
        /// Pages that are still to be answered, because much waits for it.
        var pages: [Int] = []
        /// Rooms of which it was not sent every presence event, because too much waited for it.
        var missedPresence: Set<RoomName> = []
        var end: (code: CloseCode, reason: String, rooms: Int)?

        var isVoid: Bool {
            claim == nil && firstJoins.isEmpty && welcomeID == nil && held.isEmpty && pages.isEmpty
                && missedPresence.isEmpty && end == nil
        }
    }

    private func note(_ change: (Seldom) -> Void) {
        let noted = seldom ?? Seldom()
        change(noted)
        seldom = noted.isVoid ? nil : noted
    }

    init(
        id: SessionID, shard: Shard, connection: WebSocketConnection, requestID: String, claim: Identity.Claim,
        isStranger: Bool
    ) {
        let seldom = Seldom()
        seldom.claim = claim
        self.seldom = seldom
        self.id = id
        self.connectionID = id
        self.shard = shard
        let isCompressed = connection.takesCompressedFrames
        let format: FrameFormat =
            connection.subprotocol == NodeRoutes.protobuf
            ? (isCompressed ? .compressedProtobuf : .protobuf) : (isCompressed ? .compressedJSON : .json)
        self.lane = Lane(shard: shard.index, format: format)
        self.connection = connection
        self.requestID = requestID
        self.isStranger = isStranger
        self.givenClient = claim.client
        self.state = SessionState(roomLimit: shard.configuration.limits.roomsPerSession)
        self.limits = shard.rates.map { SessionLimits($0, now: NIODeadline.now().uptimeNanoseconds) }
    }

    /// Names the client instance that scopes publish ids; its own session unless the client gave one.
    var client: String {
        get { givenClient ?? id.string }
        set { givenClient = newValue }
    }

    /// The client's own, behind whatever proxies it comes.
    var address: IPAddress { connection?.clientAddress ?? .unspecified }

    /// Who the upgrade request said it is, if it said so.
    var claimedUser: UserName? { seldom?.claim?.user ?? (isClaimed ? state.knownUser : nil) }
    var claimedGrant: Grant? { seldom?.claim?.grant }
    var claimedClient: String? { seldom?.claim?.client }

    var held: HeldMessages {
        get { seldom?.held ?? HeldMessages() }
        set {
            guard seldom != nil || !newValue.isEmpty else { return }
            note { $0.held = newValue }
        }
    }

    /// Until it is open.
    var welcomeID: String? {
        get { seldom?.welcomeID }
        set { note { $0.welcomeID = newValue } }
    }

    func keep(firstJoins joins: [ClientMessage.Join]) { note { $0.firstJoins = joins } }

    /// The rooms that `auth` named, to be asked for now, and the id of its request.
    func endOpening() -> (joins: [ClientMessage.Join], id: String?) {
        guard let seldom else { return ([], nil) }
        let ended = (seldom.firstJoins, seldom.welcomeID)
        isClaimed = seldom.claim?.user == state.user
        note {
            $0.firstJoins = []
            $0.welcomeID = nil
            // Where `auth` named another than the upgrade request, that claim still stands for an `auth` without a name.
            if isClaimed || $0.claim?.user == nil { $0.claim = nil }
        }
        return ended
    }

    static func == (left: Session, right: Session) -> Bool { left === right }
    func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }

    /// Whom the upgrade request named need not send `auth`.
    ///
    /// - Parameter exclusion: why it may not come in.
    func begin(_ exclusion: ModerationOrder?) {
        shard.logger.info(
            "connect",
            metadata: [
                "session": "\(id)", "user": "\(claimedUser?.string ?? "")", "node": "\(shard.configuration.name)",
                "rooms": "0", "address": "\(address)", "request_id": "\(requestID)",
            ])
        if let exclusion {
            shard.authenticated(self)
            return turnAway(exclusion)
        }
        guard let claim = seldom?.claim, let user = claim.user, !claim.resumes else { return }
        do throws(WireError) {
            try authenticate(as: user, claim.grant, ClientMessage.Auth(), nil)
        } catch {
            refuse(error, id: nil)
        }
    }

    // MARK: From the connection

    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
        received(text, as: .json)
    }

    func webSocket(_ connection: WebSocketConnection, receivedBinary bytes: ByteBuffer) {
        received(bytes, as: .protobuf)
    }

    private func received(_ frame: ByteBuffer, as encoding: FrameEncoding) {
        guard !isEnding else { return }
        shard.metrics.received += 1
        guard encoding == lane.format.encoding else { return receiveForeign(bytes: frame.readableBytes) }
        if isUnconfirmed {
            isUnconfirmed = false
            shard.send(.confirm(id))
        }
        frame.withUnsafeReadableBytes { receive($0) }
    }

    func webSocketReadComplete(_ connection: WebSocketConnection) {}

    func webSocketReceivedPing(_ connection: WebSocketConnection) {
        if !isEnding { receiveControl() }
    }

    func webSocketReceivedPong(_ connection: WebSocketConnection) {
        if !isEnding { receiveControl() }
    }

    /// Who missed presence events gets the lists as they are now (G6).
    func webSocketCaughtUp(_ connection: WebSocketConnection) {
        let missed = seldom?.missedPresence ?? []
        forgetMissed()
        for room in missed where sees(room) {
            shard.send(.presence(room: room, session: id, id: nil))
        }
        answerPages()
    }

    private func answerPages() {
        guard let taken = seldom?.pages, !taken.isEmpty else { return }
        note { $0.pages = [] }
        for number in taken { shard.send(.pageTaken(number: number)) }
    }

    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
        let closing = Standstill.Closing(session: self, connection: connection, code: code, reason: reason)
        guard shard.standstill?.append(closing) != true else { return }
        let rooms = state.rooms.count
        let isDone = code == CloseCode.normal.rawValue || code == CloseCode.goingAway.rawValue
        giveUp(keepingPlace: !isDone)
        answerPages()
        shard.remove(self)
        leaveStrangers()
        self.connection = nil
        let end = seldom?.end
        shard.logger.info(
            "disconnect",
            metadata: [
                "session": "\(id)", "user": "\(state.knownUser?.string ?? "")", "node": "\(shard.configuration.name)",
                "rooms": "\(end?.rooms ?? rooms)", "code": "\(end?.code.rawValue ?? code)",
                "reason": "\(end?.reason ?? reason)",
                "request_id": "\(requestID)",
            ])
    }

    /// It was told to go: nothing is read from it or sent to it any more.
    var isEnding: Bool { seldom?.end != nil }

    private func willEnd(_ code: CloseCode, _ reason: String) {
        note { $0.end = (code, reason, state.rooms.count) }
    }

    // MARK: From the hub, by the shard

    /// - Returns: false when nobody waits for it any more.
    func opened(_ opened: SessionOpened) -> Bool {
        let record = opened.resumed
        guard state.opened(rooms: record.map { Array($0.rooms.keys) } ?? [], status: record?.status, rights),
            let user = state.user
        else { return false }
        id = opened.session
        send(ServerMessage.welcome(welcome(user, opened), id: welcomeID))
        shard.watchToken(of: self)
        if let record {
            isUnconfirmed = true
            givenClient = record.client.isEmpty ? nil : record.client
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
        guard !isEnding, let connection else { return }
        willEnd(.moved, CloseCode.moved.reason)
        _ = held.release()
        forgetMissed()
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
        note(.noAuth)
        answer(WireError(.notAuthenticated, "no auth came in time"), id: nil)
        end(.authenticationTimeout)
    }

    /// So many are silent that it goes for one who may not be.
    func givesWay() {
        note(.noAuth)
        answer(
            WireError(.notAuthenticated, "many wait to say who they are; connect again, and send auth at once"), id: nil
        )
        end(.overloaded)
        leaveStrangers()
    }

    /// Says when the node will close the connection, so that nobody is away longer than a reconnect takes.
    func announceEnd(in delay: TimeAmount) {
        guard !isEnding else { return }
        send(ServerMessage.reconnect(delayMilliseconds: delay.nanoseconds / 1_000_000, reason: "draining"))
    }

    /// Gives everything up now and closes; the peer gets its time to answer the close frame, the rooms do not wait.
    func end(_ code: CloseCode, reason: String? = nil) {
        guard !isEnding, let connection else { return }
        shard.catchUp(self)
        willEnd(code, reason ?? code.reason)
        giveUp(keepingPlace: code.mayResume)
        connection.close(code: code.rawValue, reason: reason ?? code.reason)
    }

    private func giveUp(keepingPlace: Bool) {
        let wasKnown = state.user != nil
        _ = held.release()
        forgetMissed()
        _ = state.close()
        shard.forget(self)
        guard wasKnown else { return }
        shard.send(
            keepingPlace
                ? .detach(id, connection: connectionID, origin) : .close(id, connection: connectionID))
    }

    // MARK: Sending

    /// - Parameter text: JSON, also where the client speaks protobuf.
    func send(_ text: [UInt8]) {
        switch lane.format.encoding {
        case .json: connection?.send(text: ByteBuffer(bytes: text))
        case .protobuf:
            guard let frame = text.withUnsafeBytes(ServerFrames.protobuf) else { return }
            connection?.send(binary: ByteBuffer(bytes: frame))
        }
    }

    func sendFrames(_ bytes: UnsafeRawBufferPointer) {
        guard !isEnding else { return }
        connection?.sendFrames(bytes)
    }

    /// Replayed messages are not hurried into a connection that has not taken the last of them.
    func send(page texts: [[UInt8]], number: Int) {
        for text in texts { send(text) }
        note { $0.pages.append(number) }
        if !isBehind || isEnding { answerPages() }
    }

    var isBehind: Bool { connection?.isBehind ?? false }

    func missedPresence(of room: RoomName) {
        note { $0.missedPresence.insert(room) }
    }

    private func forgetMissed() {
        if seldom?.missedPresence.isEmpty == false { note { $0.missedPresence = [] } }
    }

    /// What was meant for its user: nothing stands before `welcome`.
    func sendDirect(_ bytes: UnsafeRawBufferPointer) {
        guard state.isOpen else { return }
        sendFrames(bytes)
    }

    /// What its client did wrong is noted.
    func refuse(_ error: WireError, id requestID: String?, room: String? = nil) {
        noteRefusal(error.code)
        answer(error, id: requestID, room: room)
    }

    private func answer(_ error: WireError, id requestID: String?, room: String? = nil) {
        shard.metrics.errors += 1
        send(ServerMessage.error(error, id: requestID, room: room))
    }
}
