/// What a node may believe of its own lease, by its own clock alone. Times are monotonic nanoseconds.
///
/// A renewal counts from the moment at which it was *sent*: Redis cannot have granted it earlier, so the node never
/// believes in a lease longer than Redis does.
package struct LeaseClock: Sendable {
    private let duration: UInt64
    private var heldSince: UInt64?
    private var heldUntil: UInt64 = 0

    package init(duration: UInt64) {
        self.duration = duration
    }

    package mutating func renewed(sentAt: UInt64) {
        if heldSince == nil || sentAt >= heldUntil { heldSince = sentAt }
        heldUntil = max(heldUntil, sentAt + duration)
    }

    /// A renewal failed. The lease goes on, but whoever else could not renew then is not dead: they may be in a longer
    /// backoff, and get a whole period from the next renewal on.
    package mutating func renewalFailed() {
        heldSince = nil
    }

    package mutating func lost() {
        heldSince = nil
        heldUntil = 0
    }

    /// Whether a write may go out: false after a stall or an outage, until a renewal was answered.
    package func isHeld(now: UInt64) -> Bool {
        now < heldUntil
    }

    /// Whether this node may declare others dead: only who held its own lease unbroken, with no renewal failed, for a
    /// whole period knows that a silence is theirs and not Redis's (G4).
    package func maySweep(now: UInt64) -> Bool {
        guard let heldSince else { return false }
        return isHeld(now: now) && now - heldSince >= duration
    }
}
