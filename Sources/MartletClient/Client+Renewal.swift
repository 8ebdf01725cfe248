import WireProtocol

// A token that ends while the connection is open (`docs/protocol.md`, "The end of a token").
extension ClientStateMachine {
    mutating func tokenExpiring(in milliseconds: Int64, now: Int64) -> [Effect] {
        let event = Effect.emit(.tokenExpiring(milliseconds: milliseconds))
        guard isOnline, identity == .provider else { return [event] }
        renewal = Renewal(endsAt: now + milliseconds)
        return [event, .askForRenewal]
    }

    /// What the user's provider gave.
    mutating func renew(withToken token: String, now: Int64) -> [Effect] {
        guard isOnline, renewal != nil else { return [] }
        self.token = token
        return [say(ClientFrame.auth(token: token, client: client, id: Self.authID))]
    }

    /// The provider failed, or the server did not take what it gave. Once the old token's time is over the server closes, and
    /// the next connect asks again.
    mutating func renewalFailed(now: Int64) {
        guard let failed = renewal else { return }
        let again = now + failed.wait
        renewal = again < failed.endsAt ? Renewal(endsAt: failed.endsAt, askAgainAt: again, wait: 2 * failed.wait) : nil
    }

    mutating func tickRenewal(now: Int64) -> [Effect] {
        guard let again = renewal?.askAgainAt, now >= again else { return [] }
        renewal?.askAgainAt = nil
        return [.askForRenewal]
    }

    /// An `auth` that could not be judged for now, or was not understood: no reason to end, as another attempt may do.
    mutating func authFailed(_ refusal: ServerFrame.Refusal, now: Int64) -> [Effect] {
        guard isOnline else { return [.giveUp(reason: refusal.message, wait: refusal.retryAfter ?? 0)] }
        renewalFailed(now: now)
        return []
    }
}
