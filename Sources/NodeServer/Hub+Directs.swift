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

    init(room: RoomName, user: UserName) {
        self.room = room
        self.user = user
    }
}

extension Hub {
    func receiveDirect(_ message: RelayMessage.Message, for user: UserName) {
        guard let room = message.room.flatMap({ try? RoomName(validating: $0) }) else {
            return malformed(keys.userChannel(user))
        }
        let stream = directStream(room, user)
        let relayed = HubRoom.Relayed(
            text: ByteBuffer(bytes: message.frame), origin: message.originSession, id: message.id, ts: message.ts)
        if stream.sequencer.position == nil {
            // The first that this process hears of the room: what was before is history.
            let before = RoomPosition(epoch: message.epoch, seq: message.seq - 1, tag: message.previousTag)
            apply(stream.sequencer.open(at: before), to: stream)
        }
        apply(
            stream.sequencer.receive(
                .init(
                    epoch: message.epoch, seq: message.seq, tag: message.tag, previousTag: message.previousTag,
                    element: relayed)),
            to: stream)
    }

    private func directStream(_ room: RoomName, _ user: UserName) -> DirectStream {
        if let known = users[user]?.directs[room] { return known }
        let stream = DirectStream(room: room, user: user)
        users[user]?.directs[room] = stream
        return stream
    }

    private func apply(_ events: [RoomSequencer<HubRoom.Relayed>.Event], to stream: DirectStream) {
        for event in events {
            switch event {
            case .deliver(let message): deliver(message, of: stream)
            case .gap(let epoch, let from, let to):
                // Of a room that begins, or begins anew, nothing need be missing.
                metrics.gaps += 1
                send(ServerMessage.gap(room: stream.room, epoch: epoch, from: from, to: to), to: stream.user)
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
        store.history(room: stream.room, range: .range(from, .max), limit: 300).assumeIsolated().whenComplete {
            result in
            switch result {
            case .success(let page):
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
        let origin = element.origin.flatMap { sessions[$0] == nil ? nil : $0 }
        if origin != nil { directs[stream.room]?.owed.delivered(message.seq) }
        let ack = origin.map { _ in
            ServerMessage.ack(room: stream.room, rawID: element.id, seq: message.seq, ts: element.ts, tag: message.tag)
        }
        element.text.withUnsafeReadableBytes { text in
            for (shard, group) in Dictionary(grouping: sessions, by: \.value) {
                let frame = frame(text, shard)
                let own = ack.map { self.frame($0, shard) } ?? frame.upperBound..<frame.upperBound
                batches[shard].directs.append(
                    .init(sessions: group.map(\.key), frame: frame, origin: origin, own: own))
            }
        }
    }

    private func send(_ text: [UInt8], to user: UserName) {
        for session in users[user]?.sessions.keys.map({ $0 }) ?? [] { reply(session, text) }
    }

    // MARK: After deafness

    /// Every private room of every user here may have missed something: those that were heard of before are read on; those
    /// that were not are looked up in what the senders noted.
    func repairDirects() {
        let deaf = NIODeadline.now() - (deafSince ?? .now())
        deafSince = nil
        for (user, known) in users {
            directBacklog.append(contentsOf: known.directs.values)
            // Something is deaf for a while before it is known to be.
            let age = deaf + NodeConfiguration.deafnessUnnoticed
            userStore.directs(of: user, within: age).assumeIsolated().whenSuccess { now, rooms in
                for room in rooms where self.users[user]?.directs[room] == nil {
                    self.catchUp(room, user, since: now - age.nanoseconds / 1_000_000)
                }
            }
        }
        continueDirectRepair()
    }

    /// Nothing of this room was heard since its user came: all that was said since the deafness began is new.
    private func catchUp(_ room: RoomName, _ user: UserName, since: Int64) {
        store.history(room: room, range: .latest, limit: 100).assumeIsolated().whenSuccess { page in
            guard self.users[user] != nil, self.users[user]?.directs[room] == nil, let head = page.head else { return }
            let missed = page.messages.filter { $0.ts >= since }
            let stream = self.directStream(room, user)
            let before = (missed.first?.seq ?? head.seq + 1) - 1
            let tag = page.messages.last { $0.seq == before }?.tag ?? ""
            self.apply(stream.sequencer.open(at: RoomPosition(epoch: head.epoch, seq: before, tag: tag)), to: stream)
            for message in missed {
                self.apply(
                    stream.sequencer.receive(self.relayed(message, epoch: head.epoch, in: room)), to: stream)
            }
        }
    }

    func continueDirectRepair() {
        guard !directBacklog.isEmpty, subscriber?.hears == true, redis.isConnected else { return }
        let count = min(directBacklog.count, Self.repairCommandsPerTick / 4)
        for stream in directBacklog.suffix(count) where users[stream.user]?.directs[stream.room] === stream {
            apply(stream.sequencer.verify(), to: stream)
        }
        directBacklog.removeLast(count)
    }

    // MARK: Before a message goes out

    /// Notes the room for both users, so that a node which cannot hear the message finds it later. Once in a while will do.
    func noteDirect(_ room: RoomName, users: [UserName]) {
        let now = NIODeadline.now()
        if let noted = notedDirects[room], now - noted < NodeConfiguration.directNotesEvery { return }
        notedDirects[room] = now
        for user in users {
            userStore.noteDirect(room, of: user).assumeIsolated().whenFailure { _ in self.notedDirects[room] = nil }
        }
    }

    func forgetNotedDirects(_ now: NIODeadline) {
        guard notedDirects.count > 100 else { return }
        notedDirects = notedDirects.filter { now - $0.value < NodeConfiguration.directNotesEvery }
    }
}
