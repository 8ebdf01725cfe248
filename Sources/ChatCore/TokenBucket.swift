/// A rate with burst: `burst` tokens at most, refilled at `ratePerSecond`. Times are monotonic nanoseconds.
package struct TokenRate: Sendable {
    private let nanosecondsPerToken: UInt64
    private let capacity: UInt64

    /// `nil` when `ratePerSecond` is 0: no limit.
    package init?(ratePerSecond: Int, burst: Int) {
        guard ratePerSecond > 0 else { return nil }
        nanosecondsPerToken = 1_000_000_000 / UInt64(ratePerSecond)
        capacity = UInt64(max(burst, 1)) * nanosecondsPerToken
    }

    /// - Parameters:
    ///   - count: at most the burst; more is never there.
    ///   - fullAt: of one who is held to this rate: when all tokens are there again. All that is to be kept of it, in
    ///     nanoseconds, so that no fraction of a token is ever rounded away.
    package func take(_ count: Int = 1, fullAt: inout UInt64, now: UInt64) -> TokenBucket.TakeAction {
        let price = UInt64(count) * nanosecondsPerToken
        let missing = max(fullAt, now) - now
        guard missing + price <= capacity else {
            return .refuse(retryAfterMilliseconds: Int64((missing + price - capacity) / 1_000_000) + 1)
        }
        fullAt = now + missing + price
        return .pass
    }
}

/// A ``TokenRate`` and one who is held to it. Times are monotonic nanoseconds.
package struct TokenBucket: Sendable {
    private let rate: TokenRate
    private var fullAt: UInt64

    /// `nil` when `ratePerSecond` is 0: no limit.
    package init?(ratePerSecond: Int, burst: Int, now: UInt64) {
        guard let rate = TokenRate(ratePerSecond: ratePerSecond, burst: burst) else { return nil }
        self.rate = rate
        fullAt = now
    }

    package enum TakeAction: Sendable, Equatable {
        case pass
        /// Milliseconds, at least 1, until the tokens are there.
        case refuse(retryAfterMilliseconds: Int64)
    }

    /// - Parameter count: at most the burst; more is never there.
    package mutating func take(_ count: Int = 1, now: UInt64) -> TakeAction {
        rate.take(count, fullAt: &fullAt, now: now)
    }
}
