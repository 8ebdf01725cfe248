/// A rate limit with burst: `burst` tokens at most, refilled at `ratePerSecond`. Times are monotonic nanoseconds.
package struct TokenBucket: Sendable {
    private let nanosecondsPerToken: UInt64
    private let capacity: UInt64
    /// Stored as credit in nanoseconds, so that no fraction of a token is ever rounded away.
    private var credit: UInt64
    private var updatedAt: UInt64

    /// `nil` when `ratePerSecond` is 0: no limit.
    package init?(ratePerSecond: Int, burst: Int, now: UInt64) {
        guard ratePerSecond > 0 else { return nil }
        self.nanosecondsPerToken = 1_000_000_000 / UInt64(ratePerSecond)
        self.capacity = UInt64(max(burst, 1)) * nanosecondsPerToken
        self.credit = capacity
        self.updatedAt = now
    }

    package enum TakeAction: Sendable, Equatable {
        case pass
        /// Milliseconds, at least 1, until the tokens are there.
        case refuse(retryAfterMilliseconds: Int64)
    }

    /// - Parameter count: at most the burst; more is never there.
    package mutating func take(_ count: Int = 1, now: UInt64) -> TakeAction {
        let price = UInt64(count) * nanosecondsPerToken
        if now > updatedAt {
            credit = min(capacity, credit + min(now - updatedAt, capacity))
            updatedAt = now
        }
        guard credit >= price else {
            return .refuse(retryAfterMilliseconds: Int64((price - credit) / 1_000_000) + 1)
        }
        credit -= price
        return .pass
    }
}
