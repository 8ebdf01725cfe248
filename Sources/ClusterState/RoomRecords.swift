package import ChatCore
package import NIOCore
package import WireProtocol

/// One session in one room.
package struct Membership: Sendable, Hashable {
    package var room: RoomName
    package var session: SessionID
    package var user: UserName
    package var incarnation: Incarnation
    /// Rises with each move of the session to another owner.
    package var generation: Int64
    /// Milliseconds since 1970. 0 in a join: the time of Redis. A move and a rejoin keep the first.
    package var joinedAt: Int64
    package var status: PresenceStatus
    /// A minified JSON object (no raw line end in it).
    package var info: String?

    package init(
        room: RoomName, session: SessionID, user: UserName, incarnation: Incarnation, generation: Int64 = 1,
        joinedAt: Int64 = 0, status: PresenceStatus = .online, info: String? = nil
    ) {
        self.room = room
        self.session = session
        self.user = user
        self.incarnation = incarnation
        self.generation = generation
        self.joinedAt = joinedAt
        self.status = status
        self.info = info
    }

    /// Reads a value of `P:{r:ROOM}:sessions`; `nil` when it is not one.
    package init?(room: RoomName, session: String, value: String) {
        let lines = value.split(separator: "\n", maxSplits: 5, omittingEmptySubsequences: false)
        guard lines.count == 6, let session = SessionID(session), let incarnation = Incarnation(String(lines[0])),
            let generation = Int64(lines[1]), let joinedAt = Int64(lines[2]),
            let status = PresenceStatus(rawValue: String(lines[3])),
            let user = try? UserName(validating: String(lines[4]))
        else { return nil }
        self.init(
            room: room, session: session, user: user, incarnation: incarnation, generation: generation,
            joinedAt: joinedAt, status: status, info: lines[5].isEmpty ? nil : String(lines[5]))
    }
}

/// Where a room stands.
package struct RoomHead: Sendable, Hashable {
    /// Turns when Redis may have forgotten something; seqs of two epochs cannot be compared.
    package var epoch: String
    /// Of the last message; 0 when there was none.
    package var seq: Int64
    /// Of the last message; `-` when there was none.
    package var tag: String
    /// Rises by one with each change among the visible users.
    package var pv: Int64
    /// Visible users.
    package var count: Int

    package init(epoch: String, seq: Int64, tag: String, pv: Int64, count: Int) {
        self.epoch = epoch
        self.seq = seq
        self.tag = tag
        self.pv = pv
        self.count = count
    }
}

/// Why a join changed nothing.
package enum JoinRefusal: String, Sendable, Hashable {
    /// The incarnation has a tombstone in the room: it is fenced.
    case dead
    /// A newer owner holds the session: this one is over here, and the incarnation is as alive as before.
    case older
}

package struct JoinResult: Sendable, Hashable {
    package var head: RoomHead
    /// JSON objects `{"user":…}`, with `status` unless it is online, and with `info` if there is any; at most 100, and the
    /// one who came among them. Read right after the join, so an event with a `pv` above the head's may be in it already.
    package var members: [String]
    /// `nil`: the session is in the room. Else nothing changed, and the rest is empty.
    package var refusal: JoinRefusal?

    package init(head: RoomHead, members: [String]) {
        self.head = head
        self.members = members
    }

    package init(refusal: JoinRefusal) {
        self.init(head: RoomHead(epoch: "", seq: 0, tag: "", pv: 0, count: 0), members: [])
        self.refusal = refusal
    }
}

/// One message on its way into a room.
package struct Publication: Sendable {
    /// What makes a repetition one: `user\nclient\nid`, or a unique one of the node's making.
    package var dedupeKey: String
    /// Four characters of base64url, random.
    package var tag: String
    /// The session that gets an ack instead of the message.
    package var origin: SessionID?
    /// The client's id as it stands between the quotes of its JSON string; empty without one.
    package var clientID: String
    package var from: UserName
    /// JSON members, for instance `"from":"bob","text":"hi"`.
    package var body: ByteBuffer

    package init(
        dedupeKey: String, tag: String, origin: SessionID?, clientID: String, from: UserName,
        body: ByteBuffer
    ) {
        self.dedupeKey = dedupeKey
        self.tag = tag
        self.origin = origin
        self.clientID = clientID
        self.from = from
        self.body = body
    }

    /// Tells a repetition from another body under the same id, and one message of a batch from all others. FNV-1a, 64 bits
    /// (draft-eastlake-fnv), of the key, a zero and the body.
    var fingerprint: UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func add(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        for byte in dedupeKey.utf8 { add(byte) }
        add(0)
        for byte in body.readableBytesView { add(byte) }
        return hash
    }
}

package enum PublishOutcome: Sendable, Hashable {
    case stored(seq: Int64, ts: Int64, epoch: String)
    /// It was stored before, with this seq and tag, and was not relayed again.
    case duplicate(seq: Int64, ts: Int64, tag: String, epoch: String)
    /// The id came before with another body.
    case idReused
}

/// How much of a room's past is kept.
package struct HistoryLimits: Sendable, Hashable {
    /// 0: the room has no log.
    package var maxMessages: Int
    /// Milliseconds, at least 1.
    package var maxAge: Int64
    /// Milliseconds for which `meta` (epoch, seq) outlives the log of a room without members: 30 days.
    package var afterlife: Int64

    package init(maxMessages: Int = 1000, maxAge: Int64 = 86_400_000, afterlife: Int64 = 2_592_000_000) {
        self.maxMessages = max(0, maxMessages)
        self.maxAge = max(1, maxAge)
        self.afterlife = max(1, afterlife)
    }

    package init(_ rules: NamespaceRules) {
        self.init(maxMessages: rules.historyMessages, maxAge: rules.historyMilliseconds)
    }
}

/// A piece of a room's log.
package struct HistoryPage: Sendable, Hashable {
    /// Of the moment in which the messages were read; `nil` when there is no such room.
    package var head: RoomHead?
    /// Oldest first. An entry that no version of this wrote is left out.
    package var messages: [StoredMessage]
    /// The range has more than this page: older ones for ``HistoryRange/latest`` and ``HistoryRange/before(_:)``, newer
    /// ones for the others. Whoever wants them asks again from where the page ends.
    package var more: Bool
    /// The seq of one that Redis still has though it is too old to be read, as is all before it.
    package var tooOld: Int64?

    package init(head: RoomHead?, messages: [StoredMessage], more: Bool) {
        self.head = head
        self.messages = messages
        self.more = more
    }
}

/// One entry of a room's log.
package struct StoredMessage: Sendable, Hashable {
    package var seq: Int64
    package var tag: String
    /// Milliseconds since 1970, by the clock of Redis; never less than that of the message before.
    package var ts: Int64
    package var from: UserName
    /// The session that sent it; empty when none did.
    package var origin: String
    /// As in ``Publication/clientID``.
    package var clientID: String
    /// As in ``Publication/body``.
    package var body: ByteBuffer

    package init(
        seq: Int64, tag: String, ts: Int64, from: UserName, origin: String, clientID: String, body: ByteBuffer
    ) {
        self.seq = seq
        self.tag = tag
        self.ts = ts
        self.from = from
        self.origin = origin
        self.clientID = clientID
        self.body = body
    }
}
