import NIOCore
import Synchronization

/// New WebSockets a second: `perSecond` for long, and as many at once after a quiet second.
package struct UpgradeRate: Sendable {
    private let price: UInt64
    private let capacity: UInt64
    /// In nanoseconds, so that no fraction of an upgrade is rounded away.
    private var credit: UInt64
    private var updatedAt: UInt64

    /// - Parameters:
    ///   - perSecond: at least 1.
    ///   - now: monotonic nanoseconds, as in `take`.
    package init(perSecond: Int, now: UInt64) {
        let perSecond = UInt64(max(perSecond, 1))
        price = max(1_000_000_000 / perSecond, 1)
        capacity = price * perSecond
        credit = capacity
        updatedAt = now
    }

    /// False when there are too many.
    package mutating func take(now: UInt64) -> Bool {
        if now > updatedAt {
            credit = min(capacity, credit + min(now - updatedAt, capacity))
            updatedAt = now
        }
        guard credit >= price else { return false }
        credit -= price
        return true
    }
}

/// The `UpgradeRate` of one process, for all of its loops. When everybody comes back at once, those over the rate are
/// sent away before they cost anything, each for another time.
package final class UpgradeLimit: Sendable {
    private struct State {
        var rate: UpgradeRate?
        var refused = 0
    }

    private let state: Mutex<State>

    /// - Parameter perSecond: 0 takes all.
    package init(perSecond: Int) {
        let now = NIODeadline.now().uptimeNanoseconds
        state = Mutex(State(rate: perSecond > 0 ? UpgradeRate(perSecond: perSecond, now: now) : nil))
    }

    /// nil when the upgrade may go on; otherwise the seconds of `Retry-After`, 1 to 3 by chance.
    package func take() -> Int? {
        let isTaken = state.withLock { state in
            let isTaken = state.rate?.take(now: NIODeadline.now().uptimeNanoseconds) ?? true
            if !isTaken { state.refused += 1 }
            return isTaken
        }
        return isTaken ? nil : Int.random(in: 1...3)
    }

    /// How many were sent away so far.
    package var refused: Int { state.withLock { $0.refused } }
}
