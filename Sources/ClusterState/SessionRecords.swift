package import NIOCore
package import WireProtocol

/// What a session is, so that any node can go on with it.
package struct SessionRecord: Sendable, Hashable {
    package var session: SessionID
    package var user: UserName
    package var owner: Incarnation
    /// Rises by one with each resume and each adoption. Whoever has a lower one owns nothing any more.
    package var generation: Int64
    /// The client instance that scopes the ids of its publishes; empty without one.
    package var client: String
    /// A minified JSON object.
    package var info: String?
    package var status: PresenceStatus
    /// The rooms it is in, and whether it hears its own messages there (`echo`).
    package var rooms: [RoomName: Bool]

    package init(
        session: SessionID, user: UserName, owner: Incarnation, generation: Int64 = 1, client: String = "",
        info: String? = nil, status: PresenceStatus = .online, rooms: [RoomName: Bool] = [:]
    ) {
        self.session = session
        self.user = user
        self.owner = owner
        self.generation = generation
        self.client = client
        self.info = info
        self.status = status
        self.rooms = rooms
    }
}

package enum ResumeResult: Sendable, Hashable {
    /// The caller owns the session. `previousOwner` may be the caller itself. The client's rooms must be joined again with the new generation
    /// (``RoomStore/join(_:)``), which moves them: neither a leave nor a join to others.
    case resumed(SessionRecord, previousOwner: Incarnation?)
    case refused(ResumeRefusal)
}

package enum ResumeRefusal: String, Sendable, Hashable {
    /// There is no such session, or its grace is over.
    case unknown
    /// Neither its current secret nor the one before. Tell no client apart this and `unknown`.
    case secret
    /// It is another user's.
    case user
    /// The incarnation that asks is dead: the node is fenced.
    case dead
}

package enum TakeBackResult: Sendable {
    case taken(AdoptedSession)
    /// It is another's, or nobody can come back to it.
    case none
    /// Its client came back meanwhile, or something else happened to it: to be looked at again.
    case changed
}

/// How a sweeper goes on with the sessions of the dead.
package struct SessionAdoption: Sendable {
    package var grace: TimeAmount
    /// Joins their rooms in the place of the dead incarnation. The sweep waits for it, for less than the time of its claim.
    package var take: @Sendable ([AdoptedSession]) -> EventLoopFuture<Void>

    package init(grace: TimeAmount, take: @escaping @Sendable ([AdoptedSession]) -> EventLoopFuture<Void>) {
        self.grace = grace
        self.take = take
    }
}

/// A session that a sweeper took from a dead incarnation.
package struct AdoptedSession: Sendable, Hashable {
    /// With the sweeper as owner.
    package var record: SessionRecord
    /// What is left until the session must be ended, unless somebody resumes it; not negative.
    package var graceLeft: TimeAmount

    package init(record: SessionRecord, graceLeft: TimeAmount) {
        self.record = record
        self.graceLeft = graceLeft
    }
}
