package import WireProtocol

/// Every key and channel of the cluster in Redis (docs/redis.md).
///
/// What one script touches shares one hash tag: `{i:I}`, `{r:ROOM}`, `{u:USER}`, `{s:S}` or
/// `{orders}`. User names are percent-encoded; room names, session ids and incarnations hold no brace by their own rules.
package struct ClusterKeys: Sendable, Hashable {
    package let prefix: String

    package init(prefix: String) {
        self.prefix = prefix
    }

    // MARK: nodes

    /// Hash: incarnation to address and figures; a hint for finding nodes, not the truth.
    package var nodes: String { "\(prefix):nodes" }
    /// String: the last incarnation number that any node was given.
    package var incarnationCounter: String { "\(prefix):incarnation" }
    /// String: empty, written before each count of the replicas.
    package var replicaWait: String { "\(prefix):wait" }

    /// Hash: lease end, state, address, start, version, figures.
    package func node(_ incarnation: Incarnation) -> String { "\(prefix):{i:\(incarnation)}" }
    /// Set: rooms in which the incarnation may have sessions.
    package func nodeRooms(_ incarnation: Incarnation) -> String { "\(prefix):{i:\(incarnation)}:rooms" }
    /// Hash: session to user.
    package func nodeSessions(_ incarnation: Incarnation) -> String { "\(prefix):{i:\(incarnation)}:sessions" }

    /// Hash: a router's id to the end of its lease and what it says of itself; for people alone.
    package var routers: String { "\(prefix):routers" }

    // MARK: moderation

    /// Hash: what was ordered to its terms, and `version`.
    package var orders: String { "\(prefix):{orders}" }
    /// Stream: who ordered what, when.
    package var audit: String { "\(prefix):{orders}:audit" }

    // MARK: rooms

    /// Hash: epoch, seq, tag, pv, ts, count and what the scripts remember beside them.
    package func roomMeta(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:meta" }
    /// Stream: entry `SEQ-0`.
    package func roomLog(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:log" }
    /// Hash: session to incarnation, generation, joined at, status, user, info.
    package func roomSessions(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:sessions" }
    /// Hash: user to the number of their sessions of each status, and info.
    package func roomUsers(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:users" }
    /// Set: the sessions of one incarnation in the room.
    package func roomSessions(_ room: RoomName, on incarnation: Incarnation) -> String {
        "\(prefix):{r:\(room.string)}:on:\(incarnation)"
    }
    /// Hash: tombstones of incarnations.
    package func roomDead(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:dead" }
    /// Hash: publish id to seq, time and fingerprint; the current two minutes.
    package func roomSent(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:sent" }
    /// The same, the two minutes before.
    package func roomSentPrevious(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:sent.prev" }
    /// Hash: user to the last seq read.
    package func roomRead(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}:read" }

    // MARK: users and sessions

    /// Hash: session to incarnation and generation.
    package func userSessions(_ user: UserName) -> String { "\(prefix):{u:\(user.percentEncoded)}:sessions" }
    /// Sorted set: private room to when it last had something new (ms, by Redis).
    package func userRate(_ user: UserName) -> String { "\(prefix):{u:\(user.percentEncoded)}:rate" }
    package func userDirects(_ user: UserName) -> String { "\(prefix):{u:\(user.percentEncoded)}:directs" }
    /// Hash: owner, generation, user, hashes of the secret and the one before, client, info, status, rooms, end of the grace.
    package func session(_ session: SessionID) -> String { "\(prefix):{s:\(session.string)}" }

    // MARK: channels

    package func roomChannel(_ room: RoomName) -> String { "\(prefix):{r:\(room.string)}" }
    package func userChannel(_ user: UserName) -> String { "\(prefix):{u:\(user.percentEncoded)}" }
    /// The inverse of ``userChannel(_:)``.
    package func user(ofChannel channel: String) -> UserName? {
        let start = "\(prefix):{u:"
        guard channel.hasPrefix(start), channel.hasSuffix("}") else { return nil }
        return UserName(percentEncoded: channel.dropFirst(start.count).dropLast())
    }
    package var controlChannel: String { "\(prefix):control" }
}
