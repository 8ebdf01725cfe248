package import WireProtocol

/// What an operator ordered, and for how long. Times are milliseconds since 1970 by the clock of Redis.
package struct ModerationOrder: Sendable, Hashable {
    package enum Kind: String, Sendable, CaseIterable {
        /// Not let in, and sent away; with a room, out of that room alone.
        case ban
        /// Heard by nobody: messages, private messages, typing and each status but `invisible` are refused, and `info` is told
        /// to nobody; with a room, messages, typing and `info` in that room alone.
        case mute
        /// A token that is good no more; of a user or an address, all that may have been issued up to the second of the order,
        /// as clocks differ; a session to which nobody comes back.
        case revoke
        /// Sent away once. A session does not come back either; that of a user is an order to each of theirs, and stands under
        /// their name in the audit alone; that of a token or an address meets who is there.
        case kick
    }

    package enum Target: Sendable, Hashable {
        case user(UserName)
        case session(SessionID)
        /// Its `jti`.
        case token(String)
        case address(AddressRange)
    }

    /// What there is one order of at most; a second takes its place.
    package struct Key: Sendable, Hashable {
        package let kind: Kind
        package let target: Target
        /// `nil`: everywhere.
        package let room: RoomName?

        /// `nil` for what no order can be: a room is for a ban, mute or kick of a user.
        package init?(_ kind: Kind, _ target: Target, in room: RoomName? = nil) {
            switch (kind, target) {
            case (.ban, .user), (.mute, .user), (.kick, .user): break
            case (.ban, _), (.mute, _), (.revoke, _), (.kick, _): guard room == nil else { return nil }
            }
            self.init(unchecked: kind, target, room)
        }

        init(unchecked kind: Kind, _ target: Target, _ room: RoomName?) {
            (self.kind, self.target, self.room) = (kind, target, room)
        }
    }

    package struct Terms: Sendable, Hashable {
        package let reason: String
        /// The operator.
        package let by: String
        package let since: Int64
        /// `nil`: until it is lifted.
        package let until: Int64?

        package init(reason: String, by: String, since: Int64, until: Int64?) {
            (self.reason, self.by, self.since, self.until) = (reason, by, since, until)
        }

        func isInForce(_ now: Int64) -> Bool { until.map { $0 > now } ?? true }
    }

    package let key: Key
    package let terms: Terms

    package init(_ key: Key, _ terms: Terms) {
        (self.key, self.terms) = (key, terms)
    }
}

/// What of a connection orders can mean.
package struct ModerationSubject: Sendable {
    package struct Token: Sendable {
        package let id: String?
        /// When it was issued at the earliest, in milliseconds since 1970; `nil`: the token does not say, so no order that names
        /// a time spares it.
        package let earliestIssue: Int64?

        package init(id: String?, earliestIssue: Int64?) {
            (self.id, self.earliestIssue) = (id, earliestIssue)
        }

        package init(_ grant: Grant) { self.init(id: grant.tokenID, earliestIssue: grant.earliestIssue) }
    }

    package var user: UserName?
    package var session: SessionID?
    package var token: Token?
    package var address: ClientAddress

    package init(user: UserName?, session: SessionID?, token: Token?, address: ClientAddress) {
        (self.user, self.session, self.token, self.address) = (user, session, token, address)
    }
}
