import ChatCore
import ClusterState
import Logging
import NIOCore
import ProtobufCodec
import RedisClient
import WebSocketTransport
import WireProtocol

/// What Redis relays: into the sequencer of its room, framed once, into the batches of the shards that have members.
extension Hub: RedisSubscriberDelegate {
    func subscriber(
        _ subscriber: RedisSubscriber, received payload: UnsafeRawBufferPointer, on channel: UnsafeRawBufferPointer
    ) {
        metrics.relayed += 1
        let name = String(decoding: channel, as: UTF8.self)
        if let room = roomsByChannel[name] {
            guard let message = RelayMessage.parse(payload) else { return malformed(name) }
            receive(message, in: room)
        } else if let user = keys.user(ofChannel: name), users[user] != nil {
            guard let message = RelayMessage.parse(payload) else { return malformed(name) }
            receive(message, for: user)
        } else if name == keys.controlChannel {
            if ModerationChange.isOne(payload) { return moderationFeed.heard(payload) }
            switch ControlMessage.parse(payload) {
            case .drain(let incarnation), .undrain(let incarnation): onDrainOrder(incarnation)
            case .barred(let user, let seconds): onUserBarred(user, seconds)
            case .up, .down, .draining, nil: break
            }
        }
    }

    func malformed(_ channel: String) {
        metrics.relayMalformed += 1
        logger.warning("a relayed message makes no sense", metadata: ["channel": "\(channel)"])
    }

    func subscriberFinishedReading(_ subscriber: RedisSubscriber) {
        endTurn()
    }

    func subscriberBecameDeaf(_ subscriber: RedisSubscriber) {
        logger.warning("the subscription is deaf: rooms will be repaired when it hears again")
        metrics.deafness += 1
        directsMayBeMissed(since: subscriber.heardUntil)
        for room in rooms.values { room.needsPresenceText = true }
    }

    func subscriberHearsAgain(_ subscriber: RedisSubscriber) {
        logger.info("the subscription hears", metadata: ["rooms": "\(rooms.count)"])
        moderationFeed.read()
        repairAll()
        repairDirects()
        doubtAll()
    }

    private func receive(_ message: RelayMessage, in room: HubRoom) {
        switch message {
        case .messages(let messages):
            // That of a private room comes by its users' channels alone.
            guard messages.first?.room == nil else { return malformed(room.channel) }
            for message in messages { receive(message, in: room) }
        case .presence(let presence):
            receive(presence, in: room)
        case .typing(let origin, let frame):
            append(frame, to: room, as: .typing, except: SessionID(origin))
        case .kick, .moved:
            malformed(room.channel)
        }
    }

    private func receive(_ message: RelayMessage.Message, in room: HubRoom) {
        if replicaWait != nil, holds(message.sequenced(behind: room.prefix), tag: message.tag, in: room) { return }
        if room.sequencer.advanceIfNext(
            epoch: message.epoch, seq: message.seq, tag: message.tag, previousTag: message.previousTag)
        {
            var text = textBuffer
            textBuffer = []
            message.write(behind: room.prefix, to: &text)
            text.withUnsafeBytes {
                append(
                    $0, origin: message.origin, id: message.id, seq: message.seq, tag: message.tag, ts: message.ts,
                    of: room)
            }
            text.removeAll(keepingCapacity: true)
            textBuffer = text
        } else {
            apply(room.sequencer.receive(message.sequenced(behind: room.prefix)), to: room)
        }
    }

    private func receive(_ presence: RelayMessage.Presence, in room: HubRoom) {
        guard presence.pv > room.pv else { return }
        guard room.showsPresence else {
            room.pv = presence.pv
            return
        }
        let first = presence.pv - Int64(presence.changes.count) + 1
        if first > room.pv + 1, room.pv > 0 {
            room.needsPresenceText = true
            readPresence(room)
        }
        for (offset, change) in presence.changes.enumerated() {
            let (kind, member): (PresenceTick.Change, String) =
                switch change {
                case .joined(let member): (.joined, member)
                case .left(let member): (.left, member)
                case .status(let member): (.updated, member)
                }
            room.presence.add(
                kind, key: MemberText.user(of: member), member: member, count: presence.count,
                pv: first + Int64(offset))
        }
        room.pv = presence.pv
        if !room.isPresenceDirty {
            room.isPresenceDirty = true
            dirtyPresence.append(room)
        }
    }

    /// One event a room and tick; in large rooms with counts alone.
    func flushPresence() {
        guard !dirtyPresence.isEmpty else { return }
        for room in dirtyPresence {
            let tick = room.presence
            room.presence = PresenceTick()
            room.isPresenceDirty = false
            let named = tick.count <= configuration.limits.presenceListUsers
            append(
                ServerMessage.presence(
                    room: room.name, joined: named ? tick.members(.joined) : [],
                    left: named ? tick.members(.left) : [], updated: named ? tick.members(.updated) : [],
                    count: tick.count, pv: tick.pv),
                to: room, as: .presence)
        }
        dirtyPresence = []
    }

    private func receive(_ message: RelayMessage, for user: UserName) {
        guard let sessions = users[user]?.sessions else { return }
        switch message {
        case .messages(let messages):
            for message in messages { receiveDirect(message, for: user) }
        case .kick(let room, let reason):
            for (session, lane) in sessions {
                emit(.kicked(session, room: room, reason: reason), to: lane.shard)
            }
            kickDetached(user, from: room)
        case .moved(let session, let generation):
            moved(session, generation: generation)
        case .presence, .typing:
            malformed(keys.userChannel(user))
        }
    }

    // MARK: Into the batches

    func append(_ message: RoomSequencer<HubRoom.Relayed>.Message, of room: HubRoom) {
        message.element.text.withUnsafeReadableBytes { text in
            append(
                text, origin: message.element.origin, id: message.element.id, seq: message.seq, tag: message.tag,
                ts: message.element.ts, of: room)
        }
    }

    private func append(
        _ text: UnsafeRawBufferPointer, origin: SessionID?, id: String, seq: Int64, tag: String, ts: Int64,
        of room: HubRoom
    ) {
        let owed = room.owed.take(through: seq)
        defer { settleOwed(owed, by: origin, seq, tag: tag, room: room.name) }
        // Also when the sender has left the room since, or comes back without a word of what it missed: its publish is
        // answered. Who asks for that gets it in its place there.
        var local = origin.flatMap { room.isRecovering($0) ? nil : sessions[$0]?.lane }
        if replicaWait != nil, !Self.isOwed(tag, seq, owed) { local = nil }
        let mark = local == nil ? nil : mark(of: tag, owed, in: room)
        if local != nil, let origin, !room.queue.isEmpty { noteRelayed(tag, by: origin, in: room) }
        var framing = framing(text)
        for shard in batches.indices {
            guard let local, local.shard == shard else {
                append(&framing, to: room, shard, as: .message, except: nil, mark: mark)
                continue
            }
            let ack = ServerMessage.ack(
                room: room.name, rawID: id, seq: seq, ts: ts, tag: tag, epoch: room.sequencer.position?.epoch ?? "")
            append(
                &framing, to: room, shard, as: .message, except: origin, (frame(ack, local), local.format), mark: mark)
        }
    }

    /// Of a message that this node published, if it is measured.
    private func mark(
        of tag: String, _ owed: [(seq: Int64, publish: HubRoom.OwedAck)], in room: HubRoom
    ) -> DeliveryMark? {
        guard let standsFor = deliverySampling.next() else { return nil }
        let deadline =
            owed.last { $0.publish.tag == tag }?.publish.deadline
            ?? room.queue.sent { $0.publication.tag == tag }?.deadline
        let patience = UInt64(NodeConfiguration.publishDeadline.nanoseconds)
        guard let deadline, deadline > patience else { return nil }
        return DeliveryMark(cameAt: deadline - patience, standsFor: standsFor)
    }

    /// One text for everybody in the room.
    func append(_ text: [UInt8], to room: HubRoom, as kind: FrameKind) {
        text.withUnsafeBytes { append($0, to: room, as: kind, except: nil) }
    }

    private func append(
        _ text: UnsafeRawBufferPointer, to room: HubRoom, as kind: FrameKind, except origin: SessionID?
    ) {
        var framing = framing(text)
        for shard in batches.indices { append(&framing, to: room, shard, as: kind, except: origin) }
    }

    /// - Parameter own: what `origin` gets instead, also when it has left the room.
    private func append(
        _ framing: inout Framing, to room: HubRoom, _ shard: Int, as kind: FrameKind, except origin: SessionID?,
        _ own: (range: Range<Int>, format: FrameFormat)? = nil, mark: DeliveryMark? = nil
    ) {
        var frames = InlineArray<4, Range<Int>>(repeating: 0..<0)
        var isWanted = false
        for format in FrameFormat.all
        where room.interest[Lane(shard: shard, format: format)] > 0 || format == own?.format {
            frames[Int(format.rawValue)] = framing.append(format, to: &batches[shard].bytes)
            isWanted = true
        }
        guard isWanted else { return }
        batches[shard].entries.append(
            .init(room: room.handle, frames: frames, origin: origin, own: own?.range ?? 0..<0, kind: kind, mark: mark))
    }

    func framing(_ text: UnsafeRawBufferPointer) -> Framing {
        Framing(text, compressor: configuration.compression ? compressor : nil, metrics: metrics)
    }

    /// One text for one session.
    func frame(_ text: [UInt8], _ lane: Lane) -> Range<Int> {
        text.withUnsafeBytes { bytes in
            let start = batches[lane.shard].bytes.writerIndex
            switch lane.format.encoding {
            case .json: WebSocketFrame.appendText(bytes, to: &batches[lane.shard].bytes)
            case .protobuf:
                ServerFrames.protobuf(bytes)?.withUnsafeBytes {
                    WebSocketFrame.append($0, opcode: .binary, to: &batches[lane.shard].bytes)
                }
            }
            return start..<batches[lane.shard].bytes.writerIndex
        }
    }

    // MARK: Answers from the store

    static var presenceAgain: TimeAmount { .milliseconds(250) }

    /// A list that was read before an event which the session has got is read again: where people come and go all the time
    /// the answer does not wait for that, and a later list follows it.
    func answerPresence(_ name: RoomName, _ session: SessionID, _ id: String?, attempts: Int = 3) {
        store.presence(room: name, limit: 100).assumeIsolated().whenComplete { result in
            switch result {
            case .success((let head, let members)):
                if let head, let room = self.rooms[name], head.epoch == room.epoch, head.pv < room.pv {
                    guard attempts == 1 else {
                        return self.answerPresence(name, session, id, attempts: attempts - 1)
                    }
                    self.eventLoop.assumeIsolated().scheduleTask(in: Self.presenceAgain) {
                        guard self.rooms[name]?.members[session]?.isDelivered == true else { return }
                        self.answerPresence(name, session, nil)
                    }
                }
                let text = ServerMessage.presence(
                    room: name, id: id, members: members, count: head?.count ?? 0, pv: head?.pv ?? 0)
                self.answer(session, RoomAnswer(room: name, action: .presence, id: id, text: text))
            case .failure(let error):
                self.reply(session, ServerMessage.error(self.wireError(error), id: id, room: name.string))
            }
        }
    }

    func answerHistory(_ request: HistoryRequest) {
        history(of: request.room, request.range, limit: request.limit)
            .assumeIsolated().whenComplete { result in
                switch result {
                case .success(let page):
                    let text = ServerMessage.history(
                        room: request.room, id: request.id, epoch: page.head?.epoch,
                        messages: page.messages.map { self.element(of: $0, for: request.user) }, more: page.more)
                    self.answer(
                        request.session, RoomAnswer(room: request.room, action: .history, id: request.id, text: text))
                case .failure(let error):
                    self.reply(
                        request.session,
                        ServerMessage.error(self.wireError(error), id: request.id, room: request.room.string))
                }
            }
    }

    /// A stored message as a frame; its own `id` is given back to the user who sent it.
    func text(of message: StoredMessage, in room: RoomName, epoch: String, for user: UserName?) -> [UInt8] {
        MessageText.frame(
            room: room, epoch: epoch, seq: message.seq, tag: message.tag, body: message.body.readableBytesView,
            ts: message.ts, rawID: message.from == user ? message.clientID : "")
    }

    func element(of message: StoredMessage, for user: UserName?) -> [UInt8] {
        MessageText.element(
            seq: message.seq, tag: message.tag, body: message.body.readableBytesView, ts: message.ts,
            rawID: message.from == user ? message.clientID : "")
    }
}

extension RelayMessage.Message {
    /// The client's id, JSON-escaped without its quotes; empty without one.
    var id: String { clientID.isEmpty ? "" : String(decoding: clientID, as: UTF8.self) }

    /// Writes what clients get.
    func write(behind prefix: [UInt8], to text: inout [UInt8]) {
        MessageText.append(
            prefix: prefix, epoch: room == nil ? nil : epoch, seq: seq, tag: tag, body: body, ts: ts, to: &text)
    }

    /// A copy, which may outlive the receive buffer.
    func sequenced(behind prefix: [UInt8]) -> RoomSequencer<HubRoom.Relayed>.Message {
        var text: [UInt8] = []
        text.reserveCapacity(prefix.count + body.count + 96)
        write(behind: prefix, to: &text)
        return .init(
            epoch: epoch, seq: seq, tag: tag, previousTag: previousTag,
            element: .init(text: ByteBuffer(bytes: text), origin: origin, id: id, ts: ts))
    }
}

/// Reads the member objects that the presence scripts write: `{"user":"…"` comes first in each.
enum MemberText {
    /// The bytes of the user's JSON literal: the same in each object of one user, and of no other.
    static func user(of member: String) -> [UInt8] {
        var literal: [UInt8] = []
        var isEscaped = false
        for byte in member.utf8.dropFirst("{\"user\":\"".utf8.count) {
            if byte == UInt8(ascii: "\""), !isEscaped { break }
            isEscaped = byte == UInt8(ascii: "\\") && !isEscaped
            literal.append(byte)
        }
        return literal
    }
}
