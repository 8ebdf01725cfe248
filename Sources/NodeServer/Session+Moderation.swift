import ChatCore
import ClusterState
import Telemetry
import WebSocketTransport
import WireProtocol

/// What operators ordered, at the gates of one connection.
extension Session {
    private var subject: ModerationSubject {
        ModerationSubject(
            user: state.user, session: id, token: grant.map { .init($0) }, address: ClientAddress(address))
    }

    /// Says no and closes, if `user` may not come in, not with this token, or may not take up the session.
    func isExcluded(_ user: UserName, _ grant: Grant?, resuming session: SessionID?) -> Bool {
        guard let moderation = shard.moderation else { return false }
        let subject = ModerationSubject(
            user: user, session: session ?? id, token: grant.map { .init($0) }, address: ClientAddress(address))
        guard let order = moderation.table.exclusion(of: subject, moderation.now) else { return false }
        // Without the id of its request: a client would take the answer for one about how it asked.
        refuse(order.wireError, id: nil)
        end(order.closeCode, reason: order.closeReason)
        return true
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
        for room in state.rooms.keys.map({ $0 }) {
            if let order = new.ban(of: user, from: room, now) { kicked(from: room, reason: order.closeReason) }
        }
    }

    func ban(from room: RoomName) -> ModerationOrder? {
        guard let moderation = shard.moderation, let user = state.user else { return nil }
        return moderation.table.ban(of: user, from: room, moderation.now)
    }

    func refuseIfBanned(from room: RoomName) throws(WireError) {
        if let order = ban(from: room) { throw order.wireError }
    }

    /// What is behind this is said to others.
    func refuseIfMuted(in room: RoomName) throws(WireError) {
        guard let moderation = shard.moderation, moderation.table.hasMutes,
            let order = moderation.table.mute(of: subject, in: room, moderation.now)
        else { return }
        throw order.wireError
    }
}

extension Shard {
    /// Whoever an order that is new means goes now.
    func moderate(_ moderation: Moderation, new: ModerationTable) {
        self.moderation = moderation
        guard !new.isEmpty else { return }
        let now = moderation.now
        for session in sessions.values.map({ $0 }) {
            catchUp(session)
            session.obey(new, now)
        }
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
        case .revoke: "the token was revoked"
        }
    }

    /// Without `retry_ms`, though most orders end: what was refused while they held is not to be said behind them by itself.
    var wireError: WireError {
        let (code, what): (WireError.Code, String) =
            switch key.kind {
            case .ban, .kick: (.banned, key.room.map { "you are banned from \($0)" } ?? "you are banned")
            case .mute: (.muted, key.room.map { "you are muted in \($0)" } ?? "you are muted")
            case .revoke: (.authenticationFailed, "the token was revoked")
            }
        let end = terms.until.map { " until \(Timestamp.text(milliseconds: $0))" } ?? ""
        return WireError(code, what + end + (terms.reason.isEmpty ? "" : ": \(terms.reason)"))
    }
}

extension ModerationSubject.Token {
    init(_ grant: Grant) { self.init(id: grant.tokenID, issuedAt: grant.issuedAt) }
}

extension ClientAddress {
    init(_ address: IPAddress) { self.init(high: address.high, low: address.low) }
}
