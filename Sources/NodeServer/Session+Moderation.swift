import ChatCore
import ClusterState
import Telemetry
import WebSocketTransport
import WireProtocol

/// What operators ordered, at the gates of one connection.
extension Session {
    private var subject: ModerationSubject { subject(state.user, grant) }

    /// What orders can mean of the connection, for when it is gone.
    var origin: SessionOrigin {
        SessionOrigin(token: grant.map { .init($0) }, address: ClientAddress(address))
    }

    private func subject(
        _ user: UserName?, _ grant: Grant?, resuming session: SessionID? = nil
    ) -> ModerationSubject {
        ModerationSubject(
            user: user, session: session ?? id, token: grant.map { .init($0) }, address: ClientAddress(address))
    }

    /// Says no and closes, if `user` may not come in, not with this token, or may not take up the session.
    func isExcluded(_ user: UserName, _ grant: Grant?, resuming session: SessionID?) -> Bool {
        guard let order = shard.hub.moderation.exclusion(of: subject(user, grant, resuming: session)) else {
            return false
        }
        turnAway(order)
        return true
    }

    /// As above, for an `auth`. One on an open connection changes nothing where its token alone is met by a revocation.
    ///
    /// - Throws: what is wrong with that token; the one in force stays so.
    func isExcluded(_ user: UserName, _ grant: Grant?, _ auth: ClientMessage.Auth) throws(WireError) -> Bool {
        guard let known = state.user else { return isExcluded(user, grant, resuming: auth.resume?.session) }
        // Another user's is refused without a look at what was ordered of that one.
        guard known == user else { return false }
        let moderation = shard.hub.moderation
        guard let order = moderation.exclusion(of: subject(user, grant)) else { return false }
        if order.key.kind == .revoke, moderation.exclusion(of: subject) == nil { throw order.wireError }
        turnAway(order)
        return true
    }

    func turnAway(_ order: ModerationOrder) {
        // Without the id of its request: a client would take the answer for one about how it asked. Who was kicked is not
        // forbidden to come, and the close says all.
        if order.key.kind == .ban { note(.banned) }
        if order.key.kind != .kick { refuse(order.wireError, id: nil) }
        end(order.closeCode, reason: order.closeReason)
    }

    /// Which session it goes on with is known now.
    func isExcludedAsResumed() -> Bool {
        guard let user = state.user else { return false }
        return isExcluded(user, grant, resuming: id)
    }

    /// - Parameter new: what was not in force before.
    func obey(_ new: ModerationTable, _ now: Int64) {
        if let order = new.expulsion(of: subject, now) {
            return end(order.closeCode, reason: order.closeReason)
        }
        guard let user = state.user else { return }
        let bans = state.rooms.keys.compactMap { room in new.ban(of: user, from: room, now).map { (room, $0) } }
        guard !bans.isEmpty else { return }
        shard.catchUp(self)
        for (room, order) in bans { kicked(from: room, reason: order.closeReason) }
    }

    func ban(from room: RoomName) -> ModerationOrder? {
        state.user.flatMap { shard.hub.moderation.ban(of: $0, from: room) }
    }

    func refuseIfBanned(from room: RoomName) throws(WireError) {
        if let order = ban(from: room) { throw order.wireError }
    }

    /// Whether what `user` says of themselves is for nobody.
    func isMuted(_ user: UserName, _ grant: Grant?, resuming session: SessionID?) -> Bool {
        shard.hub.moderation.mute(of: subject(user, grant, resuming: session), in: nil) != nil
    }

    /// What is behind this is said to others.
    ///
    /// - Parameter room: `nil`: in all of them.
    func refuseIfMuted(in room: RoomName?) throws(WireError) {
        if let order = shard.hub.moderation.mute(of: subject, in: room) { throw order.wireError }
    }
}

extension ModerationOrder {
    /// A revoked token is as good as none: another one is welcome.
    var closeCode: CloseCode {
        switch key.kind {
        case .ban, .mute: .banned
        case .kick: .kicked
        case .revoke: .authenticationFailed
        }
    }

    /// What the client is told.
    var closeReason: String {
        guard terms.reason.isEmpty else { return terms.reason }
        return switch key.kind {
        case .ban, .mute: CloseCode.banned.reason
        case .kick: CloseCode.kicked.reason
        case .revoke: revoked
        }
    }

    private var revoked: String {
        if case .session = key.target { "the session was revoked" } else { "the token was revoked" }
    }

    /// Without `retry_ms`, though most orders end: what was refused while they held is not to be said behind them by itself.
    var wireError: WireError {
        let (code, what): (WireError.Code, String) =
            switch key.kind {
            case .ban, .kick: (.banned, key.room.map { "you are banned from \($0)" } ?? "you are banned")
            case .mute: (.muted, key.room.map { "you are muted in \($0)" } ?? "you are muted")
            case .revoke: (.authenticationFailed, revoked)
            }
        let end = terms.until.map { " until \(Timestamp.text(milliseconds: $0))" } ?? ""
        return WireError(code, what + end + (terms.reason.isEmpty ? "" : ": \(terms.reason)"))
    }
}

extension ClientAddress {
    init(_ address: IPAddress) { self.init(high: address.high, low: address.low) }
}
