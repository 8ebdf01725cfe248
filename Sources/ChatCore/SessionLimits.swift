/// How much one session may ask for. Times are monotonic nanoseconds.
///
/// 1. Frames at a rate with a burst, whatever is in them, and their bytes at another.
/// 2. Joined rooms at the same rate, with a burst in which all rooms of a session fit: a rejoin is one frame.
/// 3. Refusals: who goes on all the same, ``refusalsPerBurst`` bursts within ``refusalWindow``, is closed.
/// 4. Answers to refused frames without an id, which nobody waits for: a few a second.
package struct SessionLimits: Sendable {
    package static let refusalsPerBurst = 4
    package static let refusalWindow: UInt64 = 10_000_000_000
    package static let unnamedAnswersPerSecond = 10

    /// What all sessions of a node are held to.
    package final class Rates: Sendable {
        fileprivate let frames: TokenRate?
        fileprivate let joins: TokenRate?
        fileprivate let bytes: TokenRate?
        fileprivate let byteBurst: Int
        fileprivate let unnamedAnswers: TokenRate?
        fileprivate let maximumRefusals: Int

        /// A rate of 0 lifts its limit; `nil` when both are 0.
        ///
        /// - Parameter byteBurst: a frame with more counts as so many.
        package init?(ratePerSecond: Int, burst: Int, roomLimit: Int, bytesPerSecond: Int = 0, byteBurst: Int = 0) {
            guard ratePerSecond > 0 || bytesPerSecond > 0 else { return nil }
            frames = TokenRate(ratePerSecond: ratePerSecond, burst: burst)
            joins = TokenRate(ratePerSecond: ratePerSecond, burst: max(burst, roomLimit))
            bytes = TokenRate(ratePerSecond: bytesPerSecond, burst: byteBurst)
            self.byteBurst = max(byteBurst, 1)
            unnamedAnswers = TokenRate(ratePerSecond: unnamedAnswersPerSecond, burst: unnamedAnswersPerSecond)
            self.maximumRefusals = refusalsPerBurst * burst
        }
    }

    private let rates: Rates
    /// Each: when that bucket is full again.
    private var frames: UInt64
    private var joins: UInt64
    private var bytes: UInt64
    private var unnamedAnswers: UInt64
    private var windowStartedAt: UInt64
    private var refusals = 0

    package init(_ rates: Rates, now: UInt64) {
        self.rates = rates
        (frames, joins, bytes, unnamedAnswers, windowStartedAt) = (now, now, now, now, now)
    }

    package enum TakeAction: Sendable, Equatable {
        case pass
        /// Milliseconds, at least 1, after which as much may pass.
        case refuse(retryAfterMilliseconds: Int64)
        /// Too much was refused already.
        case close
    }

    package mutating func takeFrame(bytes count: Int = 0, now: UInt64) -> TakeAction {
        let taken = rates.frames?.take(fullAt: &frames, now: now) ?? .pass
        guard taken == .pass, let rate = rates.bytes else { return action(taken, now: now) }
        return action(rate.take(min(count, rates.byteBurst), fullAt: &bytes, now: now), now: now)
    }

    /// What is refused for another reason counts as what is refused here.
    package mutating func refused(retryAfterMilliseconds: Int64, now: UInt64) -> TakeAction {
        action(.refuse(retryAfterMilliseconds: retryAfterMilliseconds), now: now)
    }

    /// - Parameter count: distinct rooms of one frame, at most the room limit.
    package mutating func takeJoins(_ count: Int, now: UInt64) -> TakeAction {
        action(rates.joins?.take(count, fullAt: &joins, now: now) ?? .pass, now: now)
    }

    package mutating func mayAnswerUnnamed(now: UInt64) -> Bool {
        (rates.unnamedAnswers?.take(fullAt: &unnamedAnswers, now: now) ?? .pass) == .pass
    }

    private mutating func action(_ taken: TokenBucket.TakeAction, now: UInt64) -> TakeAction {
        guard case .refuse(let milliseconds) = taken else { return .pass }
        if now >= windowStartedAt + Self.refusalWindow {
            windowStartedAt = now
            refusals = 0
        }
        refusals += 1
        return refusals > rates.maximumRefusals ? .close : .refuse(retryAfterMilliseconds: milliseconds)
    }
}
