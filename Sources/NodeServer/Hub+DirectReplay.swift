import ChatCore
import ClusterState
import NIOCore
import WireProtocol

/// What a client that comes back missed in one private room of its user, on its way to it.
final class DirectReplay {
    enum Held {
        /// With the text for this session: the frame, or the ack of its own.
        case message(RoomPosition, text: [UInt8], isAck: Bool)
        case gap(epoch: String, from: Int64, to: Int64)
    }

    let room: RoomName
    let user: UserName
    let session: SessionID
    let connection: SessionID
    /// The last message that the client has; `nil` until it is known.
    var position: RoomPosition?
    /// Something went out: what is missing from here on is only what was missed.
    var hasBegun = false
    /// It is over. The relay may still bring what went out.
    var isLive = false
    /// What came live meanwhile, in order.
    var held: [Held] = []
    private var heldBytes = 0
    /// More came than is held: the log has it.
    var hasOverflowed = false
    /// The log was read for what is missing before the first that is held.
    var hasLooked = false
    /// Goes on with the next room.
    var whenLive: () -> Void = {}
    /// For publishes that others stored, behind all that was missed.
    var acks: [[UInt8]] = []

    private static let maximumBytes = 64 * 1024

    init(room: RoomName, user: UserName, session: SessionID, connection: SessionID) {
        (self.room, self.user, self.session, self.connection) = (room, user, session, connection)
    }

    func hold(_ held: Held) {
        heldBytes += 64
        if case .message(_, let text, _) = held { heldBytes += text.count }
        if heldBytes > Self.maximumBytes { hasOverflowed = true }
        if !hasOverflowed { self.held.append(held) }
    }

    func releaseHeld() -> [Held] {
        defer { (held, heldBytes, hasOverflowed) = ([], 0, false) }
        return held
    }

    /// The ack in whose place a message stands in the log.
    func takeAck(of seq: Int64, in epoch: String) -> [UInt8]? {
        let index = held.firstIndex {
            if case .message(let place, _, true) = $0 { place.seq == seq && place.epoch == epoch } else { false }
        }
        guard let index, case .message(_, let ack, _) = held.remove(at: index) else { return nil }
        return ack
    }
}

/// Clients that come back with `directs`: what they missed in the private rooms of their user, then live, without a hole or a
/// repeat at the seam (G1, G2, G3).
///
/// 1. Rooms that the client named go on behind the message it named. Of the others, which it knows nothing of, it gets all since
///    the moment it gave: `P:{u:USER}:directs` tells which rooms those may be.
/// 2. Until that list is read everything live waits, and then what is of a room that is still being read.
/// 3. One room after the other, a page at a time, as the client takes them. What the log does not have is a gap; a Redis that
///    is away is waited for.
extension Hub {
    private static var replayLimit: Int64 { 1000 }
    private static var replayPage: Int { 300 }

    /// The session is open, and its user's channel heard: what the log does not show comes by the relay.
    func beginReplays(_ id: SessionID, _ asked: ClientMessage.Directs) {
        guard let session = sessions[id] else { return }
        sessions[id]?.replays = [:]
        sessions[id]?.isLookingUp = true
        for (room, place) in asked.rooms {
            replay(room, of: id)?.position = RoomPosition(epoch: place.epoch, seq: place.seq, tag: place.tag ?? "")
        }
        lookUp(id, session.connection, asked)
    }

    private func lookUp(_ id: SessionID, _ connection: SessionID, _ asked: ClientMessage.Directs) {
        guard let session = sessions[id], session.connection == connection else { return }
        let margin = (NodeConfiguration.clockMargin + NodeConfiguration.directNotesEvery).nanoseconds / 1_000_000
        // A note is a little older than the messages that it stands for.
        userStore.directs(of: session.user, since: asked.since - margin).assumeIsolated().whenComplete { result in
            guard self.sessions[id]?.connection == connection else { return }
            guard case .success(let noted) = result else {
                return self.later { self.lookUp(id, connection, asked) }
            }
            for room in noted { _ = self.replay(room, of: id) }
            self.sessions[id]?.isLookingUp = false
            let replays = self.sessions[id]?.replays ?? [:]
            self.sessions[id]?.waitingReplays = Array(replays.values)
            self.nextReplay(of: id, since: asked.since)
        }
    }

    private func nextReplay(of id: SessionID, since moment: Int64) {
        guard let next = sessions[id]?.waitingReplays.popLast() else { return }
        next.whenLive = { self.nextReplay(of: id, since: moment) }
        if next.position != nil { proceed(next) } else { place(next, since: moment) }
    }

    /// The replay of this room, if the session has to wait for one.
    private func replay(_ room: RoomName, of id: SessionID) -> DirectReplay? {
        guard let session = sessions[id], let replays = session.replays else { return nil }
        if let known = replays[room] { return known }
        guard session.isLookingUp else { return nil }
        let new = DirectReplay(room: room, user: session.user, session: id, connection: session.connection)
        sessions[id]?.replays?[room] = new
        return new
    }

    private func isWanted(_ replay: DirectReplay) -> Bool {
        sessions[replay.session]?.replays?[replay.room] === replay
    }

    private func later(_ body: @escaping () -> Void) {
        eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(NodeConfiguration.retryAfterMilliseconds)) { body() }
    }

    /// Of a room that the client did not name.
    private func place(_ replay: DirectReplay, since moment: Int64) {
        place(in: replay.room, before: moment) { result in
            guard self.isWanted(replay) else { return }
            guard case .success(let found) = result else {
                return self.later { self.place(replay, since: moment) }
            }
            replay.position = found.position ?? RoomPosition(epoch: "", seq: 0, tag: "")
            if let position = found.position, !found.isWhole {
                self.tell(replay, gap: position.epoch, from: 1, to: position.seq)
                replay.hasBegun = true
            }
            self.proceed(replay)
        }
    }

    private func proceed(_ replay: DirectReplay) {
        guard isWanted(replay), let position = replay.position else { return }
        // The client's own last message is read too, when its tag is to prove that both mean the same story.
        let proves = !replay.hasBegun && !position.tag.isEmpty && position.seq > 0
        let range = HistoryRange.range(proves ? position.seq : position.seq + 1, .max)
        readPaced(replay.room, range, limit: Self.replayPage) { result in
            guard self.isWanted(replay) else { return }
            switch result {
            case .success(let page): self.received(page, replay, position)
            case .failure: self.later { self.proceed(replay) }
            }
        }
    }

    private func received(_ page: HistoryPage, _ replay: DirectReplay, _ position: RoomPosition) {
        // Redis knows no such room: the next message opens another epoch.
        guard let head = page.head else { return goLive(replay) }
        let isSameStory =
            position.epoch.isEmpty
            || head.epoch == position.epoch && head.seq >= position.seq
                && (replay.hasBegun || isProven(position, page, head))
        guard isSameStory else { return refuse(replay, from: 1) }
        let missed = page.messages.filter { $0.seq > position.seq }
        if missed.isEmpty, head.seq == position.seq { return goLive(replay) }
        guard missed.first?.seq == position.seq + 1, replay.hasBegun || head.seq - position.seq <= Self.replayLimit
        else { return refuse(replay, from: position.seq + 1) }
        let texts = missed.map { message in
            replay.takeAck(of: message.seq, in: head.epoch)
                // With its id an own message counts as acknowledged, and nothing here knows what the replicas have.
                ?? text(of: message, in: replay.room, epoch: head.epoch, for: replicaWait == nil ? replay.user : nil)
        }
        replay.hasBegun = true
        replay.hasLooked = false
        replay.position = missed.last.map { RoomPosition(epoch: head.epoch, seq: $0.seq, tag: $0.tag) }
        let isLast = missed.last?.seq == head.seq
        send(texts, replay) { if isLast { self.goLive(replay) } else { self.proceed(replay) } }
    }

    /// - Parameter next: done when the client has taken them.
    private func send(_ texts: [[UInt8]], _ replay: DirectReplay, next: @escaping () -> Void) {
        guard let shard = sessions[replay.session]?.shard else { return }
        pageNumber += 1
        pagesUnderWay[pageNumber] = { if self.isWanted(replay) { next() } }
        emit(.page(replay.session, texts: texts, number: pageNumber), to: shard)
    }

    private func isProven(_ position: RoomPosition, _ page: HistoryPage, _ head: RoomHead) -> Bool {
        guard !position.tag.isEmpty, position.seq > 0 else { return true }
        if head.seq == position.seq { return head.tag == position.tag }
        return page.messages.first { $0.seq == position.seq }.map { $0.tag == position.tag } ?? true
    }

    /// What is missing is said, and the newest page shown.
    private func refuse(_ replay: DirectReplay, from: Int64) {
        store.history(room: replay.room, range: .latest, limit: 50).assumeIsolated().whenComplete { result in
            guard self.isWanted(replay) else { return }
            guard case .success(let page) = result else { return self.later { self.refuse(replay, from: from) } }
            guard let head = page.head else { return self.goLive(replay) }
            replay.position = RoomPosition(epoch: head.epoch, seq: head.seq, tag: head.tag)
            replay.hasBegun = true
            self.metrics.gaps += 1
            var texts = [ServerMessage.gap(room: replay.room, epoch: head.epoch, from: from, to: head.seq)]
            if !page.messages.isEmpty {
                texts.append(
                    ServerMessage.history(
                        room: replay.room, id: nil, epoch: head.epoch,
                        messages: page.messages.map { self.element(of: $0, for: replay.user) }, more: page.more))
            }
            self.send(texts, replay) { self.goLive(replay) }
        }
    }

    private func tell(_ replay: DirectReplay, gap epoch: String, from: Int64, to: Int64) {
        metrics.gaps += 1
        reply(replay.session, ServerMessage.gap(room: replay.room, epoch: epoch, from: from, to: to))
    }

    /// All that the log had went out: behind it what came live, unless there is a hole between them.
    private func goLive(_ replay: DirectReplay) {
        replay.hasBegun = true
        let isCut = replay.hasOverflowed
        let held = replay.releaseHeld()
        for (index, next) in held.enumerated() where !pass(next, of: replay) {
            for rest in held[index...] { replay.hold(rest) }
            replay.hasLooked = true
            return proceed(replay)
        }
        if isCut { return proceed(replay) }
        replay.isLive = true
        for ack in replay.acks { reply(replay.session, ack) }
        replay.acks = []
        replay.whenLive()
    }

    /// - Returns: false when something is missing before it, that the log may have.
    private func pass(_ held: DirectReplay.Held, of replay: DirectReplay) -> Bool {
        let position = replay.position ?? RoomPosition(epoch: "", seq: 0, tag: "")
        switch held {
        case .message(let place, let text, let isAck):
            if place.epoch == position.epoch {
                if place.seq <= position.seq {
                    if isAck { reply(replay.session, text) }
                    return true
                }
                if place.seq > position.seq + 1 {
                    guard replay.hasLooked else { return false }
                    tell(replay, gap: place.epoch, from: position.seq + 1, to: place.seq - 1)
                }
            } else if !position.epoch.isEmpty {
                tell(replay, gap: place.epoch, from: 1, to: place.seq - 1)
            }
            replay.position = place
            replay.hasLooked = false
            reply(replay.session, text)
        case .gap(let epoch, let from, let to):
            if epoch == position.epoch, to <= position.seq { return true }
            replay.position = RoomPosition(epoch: epoch, seq: to, tag: "")
            tell(replay, gap: epoch, from: epoch == position.epoch ? max(from, position.seq + 1) : from, to: to)
        }
        return true
    }

    // MARK: What comes live

    /// Whether something of this room has to wait for what the session missed, or went out with that.
    func isReplayed(_ held: @autoclosure () -> DirectReplay.Held, in room: RoomName, to id: SessionID) -> Bool {
        guard let replay = replay(room, of: id) else { return false }
        guard replay.isLive else {
            replay.hold(held())
            return true
        }
        // Once the relay is ahead it stays so.
        sessions[id]?.replays?[room] = nil
        guard let position = replay.position, !position.epoch.isEmpty else { return false }
        switch held() {
        case .message(let place, let text, let isAck):
            guard place.epoch == position.epoch else {
                tell(replay, gap: place.epoch, from: 1, to: place.seq - 1)
                return false
            }
            guard place.seq <= position.seq else { return false }
            if isAck { reply(id, text) }
        case .gap(let epoch, _, let to):
            guard epoch == position.epoch, to <= position.seq else { return false }
        }
        sessions[id]?.replays?[room] = replay
        return true
    }

    /// Whether this ack of a private message has to wait.
    func isReplayed(ack: [UInt8], in room: RoomName, to id: SessionID) -> Bool {
        guard room.isDirect, let replay = replay(room, of: id), !replay.isLive else { return false }
        replay.acks.append(ack)
        return true
    }
}
