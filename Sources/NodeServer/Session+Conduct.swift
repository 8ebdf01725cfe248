import ChatCore
import NIOCore
import WebSocketTransport
import WireProtocol

/// How its client behaves, as the node's guards hear of it.
extension Session {
    /// - Parameter cause: counted for its address, and where it is known for its user too.
    func note(_ cause: AnomalyCause) {
        guard let address = connection?.clientAddress else { return }
        shard.guards.gate.note(cause, of: address)
        guard cause == .flood, let user = state.knownUser, let seconds = shard.guards.users.note(cause, of: user)
        else { return }
        shard.send(.barred(user, seconds: seconds))
    }

    /// One frame, by the limits of its session and of its user.
    func take(bytes count: Int) -> SessionLimits.TakeAction {
        let now = NIODeadline.now().uptimeNanoseconds
        shard.noticeStandstill(now)
        let taken = limits?.takeFrame(bytes: count, now: now) ?? .pass
        guard taken == .pass, let user = state.user, case .refuse(let wait) = shard.guards.take(user) else {
            return taken
        }
        return limits?.refused(retryAfterMilliseconds: wait, now: now) ?? .refuse(retryAfterMilliseconds: wait)
    }

    /// What is refused to nobody yet was no first message; a bad token is one at any time.
    func noteRefusal(_ code: WireError.Code) {
        switch code {
        case .authenticationFailed: note(.badToken)
        case .malformedJSON, .malformedProtobuf, .unknownType, .invalidField, .binaryNotSupported, .textNotSupported,
            .notAuthenticated:
            if state.knownUser == nil { note(.badFrame) }
        default: break
        }
    }

    /// Counted among those that have not said who they are, until it has or is gone.
    func leaveStrangers() {
        guard isStranger else { return }
        isStranger = false
        shard.guards.gate.strangerLeft()
    }

    /// - Throws: for a user who was closed for flooding again and again.
    func requireUnbarred(_ user: UserName) throws(WireError) {
        guard let refusal = shard.guards.users.check(user) else { return }
        throw WireError(
            .rateLimited, "too much was sent over the limits; wait retry_ms and connect again",
            retryAfterMilliseconds: Int64(refusal.retryAfterSeconds) * 1000)
    }
}
