import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import WireProtocol

/// Private messages as one user of this process hears them: in order, without holes, and repaired like a room's (G1, G2).
final class DirectStream {
    let room: RoomName
    let user: UserName
    var sequencer = RoomSequencer<HubRoom.Relayed>()
    /// What waits behind an own message that is not known to be replicated.
    var hold: RelayHold?
    /// The end of the last gap: the relay acknowledges nothing up to it.
    var swallowed: Int64 = 0

    init(room: RoomName, user: UserName) {
        self.room = room
        self.user = user
    }
}

/// A room of which nothing was heard since its user came, and from when on all is new: milliseconds of Redis's clock.
struct DirectCatchUp {
    let room: RoomName
    let user: UserName
    let since: Int64
}

extension Hub {
    func receiveDirect(_ message: RelayMessage.Message, for user: UserName) {
        guard let room = message.room.flatMap({ try? RoomName(validating: $0) }), let (one, other) = room.participants,
            one == user || other == user
        else { return malformed(keys.userChannel(user)) }
        receive(message.sequenced(behind: MessageText.prefix(room: room)), of: directStream(room, user))
    }

    func receive(_ message: RoomSequencer<HubRoom.Relayed>.Message, of stream: DirectStream) {
        if replicaWait != nil, holds(message, tag: message.tag, in: stream) { return }
        if stream.sequencer.position == nil, users[stream.user]?.missedSince == nil {
            // The first that this process hears of the room: what was before is history.
            let before = RoomPosition(epoch: message.epoch, seq: message.seq - 1, tag: message.previousTag ?? "")
            apply(stream.sequencer.open(at: before), to: stream)
        }
        apply(stream.sequencer.receive(message), to: stream)
    }

    private func directStream(_ room: RoomName, _ user: UserName) -> DirectStream {
        if let known = users[user]?.directs[room] { return known }
        let stream = DirectStream(room: room, user: user)
        users[user]?.directs[room] = stream
        return stream
    }

    func apply(_ events: [RoomSequencer<HubRoom.Relayed>.Event], to stream: DirectStream) {
        for event in events {
            switch event {
            case .deliver(let message): deliver(message, of: stream)
            case .gap(let epoch, let from, let to):
                tellGap(stream, epoch: epoch, from: from, to: to)
            case .read(let from): readLog(stream, from: from)
            case .turn(let epoch, let from):
                store.turnEpoch(room: stream.room, from: epoch, to: Base64URL.random(count: 8, using: &random))
                    .assumeIsolated().whenComplete { result in
                        switch result {
                        case .success: self.readLog(stream, from: from)
                        case .failure: self.readFailed(stream)
                        }
                    }
            }
        }
        if !events.isEmpty { scheduleTurn() }
    }

    private func readLog(_ stream: DirectStream, from: Int64) {
        metrics.logReads += 1
        history(of: stream.room, .range(from, .max), limit: 300).assumeIsolated().whenComplete {
            result in
            switch result {
            case .success(let page):
                if self.replicaWait != nil, self.holds(page, in: stream) { return }
                let head = page.head.map { RoomPosition(epoch: $0.epoch, seq: $0.seq, tag: $0.tag) }
                let messages = page.messages.map { self.relayed($0, epoch: head?.epoch ?? "", in: stream.room) }
                self.apply(stream.sequencer.logRead(messages, head: head), to: stream)
            case .failure:
                self.readFailed(stream)
            }
        }
    }

    private func readFailed(_ stream: DirectStream) {
        stream.sequencer.readFailed()
        directBacklog.append(stream)
    }

    private func deliver(_ message: RoomSequencer<HubRoom.Relayed>.Message, of stream: DirectStream) {
        guard let sessions = users[stream.user]?.sessions else { return }
        let element = message.element
        var origin = element.origin.flatMap { sessions[$0] == nil ? nil : $0 }
        let owed =
            directs[stream.room]?.owed.take(through: message.seq) { $0.user == stream.user } ?? []
        if replicaWait != nil, !Self.isOwed(message.tag, message.seq, owed) { origin = nil }
        let ack = origin.map { _ in
            ServerMessage.ack(
                room: stream.room, rawID: element.id, seq: message.seq, ts: element.ts, tag: message.tag,
                epoch: message.epoch)
        }
        let position = RoomPosition(epoch: message.epoch, seq: message.seq, tag: message.tag)
        let live = sessions.filter { id, _ in
            let own = id == origin ? ack : nil
            return !isReplayed(
                .message(
                    position, text: own ?? Array(element.text.readableBytesView),
                    publish: own.map { _ in waitingPublish(message.tag, message.seq, in: stream.room, owed) }),
                in: stream.room, to: id)
        }
        if let origin { noteRelayed(message.tag, by: origin, inDirect: stream.room) }
        element.text.withUnsafeReadableBytes { text in
            var framing = framing(text)
            for (lane, group) in Dictionary(grouping: live, by: \.value) {
                let frame = framing.append(lane.format, to: &batches[lane.shard].bytes)
                let own = ack.map { self.frame($0, lane) } ?? 0..<0
                batches[lane.shard].directs.append(
                    .init(
                        room: stream.room, sessions: group.map(\.key), frame: frame, origin: origin, own: own))
            }
        }
        settleOwed(owed, by: origin, message.seq, tag: message.tag, room: stream.room)
    }

    private func tellGap(_ stream: DirectStream, epoch: String, from: Int64, to: Int64) {
        metrics.gaps += 1
        stream.swallowed = to
        let text = ServerMessage.gap(room: stream.room, epoch: epoch, from: from, to: to)
        for session in users[stream.user]?.sessions.keys.map({ $0 }) ?? []
        where !isReplayed(.gap(epoch: epoch, from: from, to: to), in: stream.room, to: session) {
            reply(session, text)
        }
        let owed = directs[stream.room]?.owed.take(through: to) { $0.user == stream.user } ?? []
        for (seq, owed) in owed {
            // Of another epoch it is forgotten.
            if owed.epoch == epoch { acknowledge(owed, seq, room: stream.room) } else { deny(owed, room: stream.room) }
        }
    }

    // MARK: After deafness

    /// From the last moment of which it is certain that all was heard, every user here may have missed private messages.
    func directsMayBeMissed(since moment: NIODeadline) {
        for (user, known) in users where known.isHeard {
            users[user]?.missedSince = min(known.missedSince ?? moment, moment)
        }
    }

    /// Those rooms that were heard of before are read on; those that were not are looked up in what the senders noted. Until
    /// that is done for a user, what comes live from such a room waits behind what was missed.
    func repairDirects() {
        for (user, known) in users {
            directBacklog.append(contentsOf: known.directs.values.filter { $0.sequencer.position != nil })
            if known.missedSince != nil { usersToLookUp.insert(user) }
        }
        continueDirectRepair()
    }

    private func lookUp(_ user: UserName) {
        guard let since = users[user]?.missedSince else { return }
        let age = NIODeadline.now() - since + NodeConfiguration.clockMargin
        userStore.directs(of: user, within: age + NodeConfiguration.directNotesEvery)
            .assumeIsolated().whenComplete { result in
                guard case .success((let now, let noted)) = result else {
                    self.logger.debug("private rooms not looked up yet", metadata: ["result": "\(result)"])
                    self.usersToLookUp.insert(user)
                    return
                }
                guard let known = self.users[user] else { return }
                let waiting = known.directs.values.filter { $0.sequencer.position == nil }.map(\.room)
                let rooms = Set(noted).union(waiting).filter { known.directs[$0]?.sequencer.position == nil }
                self.users[user]?.catchUps = rooms
                self.directCatchUps += rooms.map {
                    DirectCatchUp(room: $0, user: user, since: now - age.nanoseconds / 1_000_000)
                }
                self.endLookUp(user)
                self.continueDirectRepair()
            }
    }

    private func endLookUp(_ user: UserName) {
        guard users[user]?.catchUps.isEmpty == true, !usersToLookUp.contains(user) else { return }
        // What began to come meanwhile, of a room that was not noted yet, waits for a place too.
        if users[user]?.directs.values.contains(where: { $0.sequencer.position == nil }) == true {
            usersToLookUp.insert(user)
        } else {
            users[user]?.missedSince = nil
        }
    }

    /// Nothing of this room was heard since its user came: all that was said since the deafness began is new.
    private func catchUp(_ catchUp: DirectCatchUp) {
        place(in: catchUp.room, before: catchUp.since) { result in
            guard case .success(let place) = result else {
                self.directCatchUps.append(catchUp)
                return
            }
            guard self.users[catchUp.user] != nil else { return }
            self.caughtUp(catchUp, from: place)
        }
    }

    /// Where a room stood at a moment: its last message of the time before.
    struct DirectPlace {
        /// `nil`: there is no such room.
        var position: RoomPosition?
        /// False when the log does not reach back so far: the place is the last one that it does not have.
        var isWhole = true
    }

    /// - Parameter moment: milliseconds of Redis's clock.
    func place(
        in room: RoomName, before moment: Int64, back seq: Int64? = nil,
        _ completion: @escaping (Result<DirectPlace, any Error>) -> Void
    ) {
        readPaced(room, seq.map { .before($0) } ?? .latest, limit: 100) { result in
            let page: HistoryPage
            switch result {
            case .success(let read): page = read
            case .failure(let error): return completion(.failure(error))
            }
            guard let head = page.head else { return completion(.success(DirectPlace())) }
            if let known = page.messages.last(where: { $0.ts < moment }) {
                let position = RoomPosition(epoch: head.epoch, seq: known.seq, tag: known.tag)
                return completion(.success(DirectPlace(position: position)))
            }
            let first = page.messages.first?.seq ?? seq ?? head.seq + 1
            if page.more, head.seq - first < self.configuration.historyLimits(of: room).maxMessages {
                return self.place(in: room, before: moment, back: first, completion)
            }
            let position = RoomPosition(epoch: head.epoch, seq: first - 1, tag: "")
            completion(.success(DirectPlace(position: position, isWhole: first <= 1)))
        }
    }

    private func caughtUp(_ catchUp: DirectCatchUp, from place: DirectPlace) {
        if let position = place.position {
            let stream = directStream(catchUp.room, catchUp.user)
            if !place.isWhole { tellGap(stream, epoch: position.epoch, from: 1, to: position.seq) }
            apply(stream.sequencer.open(at: position), to: stream)
            apply(stream.sequencer.verify(), to: stream)
        }
        users[catchUp.user]?.catchUps.remove(catchUp.room)
        endLookUp(catchUp.user)
    }

    /// A private message of this node that neither relay nor log brought yet: its sender's stream is read on.
    func verifyDirect(_ room: RoomName, of user: UserName, epoch: String, seq: Int64) {
        guard users[user] != nil, users[user]?.missedSince == nil else { return }
        let stream = directStream(room, user)
        if stream.sequencer.position == nil {
            apply(stream.sequencer.open(at: RoomPosition(epoch: epoch, seq: seq - 1, tag: "")), to: stream)
        }
        apply(stream.sequencer.verify(), to: stream)
    }

    func continueDirectRepair() {
        guard subscriber?.hears == true, redis.isConnected else { return }
        let most = Self.repairCommandsPerTick / 4
        for user in usersToLookUp.prefix(most) {
            usersToLookUp.remove(user)
            lookUp(user)
        }
        let catchUps = directCatchUps.prefix(most)
        directCatchUps.removeFirst(catchUps.count)
        for next in catchUps { catchUp(next) }
        let count = min(directBacklog.count, most)
        for stream in directBacklog.suffix(count) where users[stream.user]?.directs[stream.room] === stream {
            apply(stream.sequencer.verify(), to: stream)
        }
        directBacklog.removeLast(count)
    }

    // MARK: Before a message goes out

    /// Notes the room for both users, so that a node which cannot hear the message finds it later, and a client that comes
    /// back. On the connection of the publishes, so that none is stored without it, and none counted as replicated. Once in a
    /// while will do, as long as the connection stays: another Redis may answer on the next.
    func noteDirect(_ room: RoomName, users: [UserName]) {
        let now = NIODeadline.now()
        if let noted = notedDirects[room], now - noted < NodeConfiguration.directNotesEvery { return }
        notedDirects[room] = now
        for user in users {
            noteStore.noteDirect(room, of: user).assumeIsolated().whenFailure { _ in
                self.notedDirects[room] = nil
                self.unnotedDirects[room] = users
            }
        }
    }

    /// A room that begins, or begins anew because Redis forgot it: then the note of before is forgotten too.
    func noteAnew(_ room: RoomName, _ outcomes: [PublishOutcome]) {
        guard let users = directs[room]?.users, case .stored(1, _, _)? = outcomes.first else { return }
        notedDirects[room] = nil
        noteDirect(room, users: users)
    }

    private var noteStore: UserStore { replicaWait?.users ?? userStore }

    func repeatNotes() {
        guard !unnotedDirects.isEmpty, noteStore.isConnected else { return }
        let unnoted = unnotedDirects
        unnotedDirects = [:]
        for (room, users) in unnoted { noteDirect(room, users: users) }
    }

    func forgetNotedDirects(_ now: NIODeadline) {
        guard notedDirects.count > 100 else { return }
        notedDirects = notedDirects.filter { now - $0.value < NodeConfiguration.directNotesEvery }
    }
}
