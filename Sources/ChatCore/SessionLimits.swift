/// How much one session may ask for. Times are monotonic nanoseconds.
///
/// 1. Frames at a rate with a burst, whatever is in them.
/// 2. Joined rooms at the same rate, with a burst in which all rooms of a session fit: a rejoin is one frame.
/// 3. Refusals: who goes on all the same, ``refusalsPerBurst`` bursts within ``refusalWindow``, is closed.
/// 4. Answers to refused frames without an id, which nobody waits for: a few a second.
package struct SessionLimits: Sendable {
    package static let refusalsPerBurst = 4
    package static let refusalWindow: UInt64 = 10_000_000_000
    package static let unnamedAnswersPerSecond = 10

    /// What all sessions of a node are held to.
    package final class Rates: Sendable {
        fileprivate let frames: TokenRate
        fileprivate let joins: TokenRate
        fileprivate let unnamedAnswers: TokenRate
        fileprivate let maximumRefusals: Int

        /// `nil` when `ratePerSecond` is 0: no limit.
        package init?(ratePerSecond: Int, burst: Int, roomLimit: Int) {
            guard let frames = TokenRate(ratePerSecond: ratePerSecond, burst: burst),
                let joins = TokenRate(ratePerSecond: ratePerSecond, burst: max(burst, roomLimit)),
                let unnamedAnswers = TokenRate(
                    ratePerSecond: unnamedAnswersPerSecond, burst: unnamedAnswersPerSecond)
            else { return nil }
            self.frames = frames
            self.joins = joins
            self.unnamedAnswers = unnamedAnswers
            self.maximumRefusals = refusalsPerBurst * burst
        }
    }

    private let rates: Rates
    /// Each: when that bucket is full again.
    private var frames: UInt64
    private var joins: UInt64
    private var unnamedAnswers: UInt64
    private var windowStartedAt: UInt64
    private var refusals = 0

    package init(_ rates: Rates, now: UInt64) {
        self.rates = rates
        (frames, joins, unnamedAnswers, windowStartedAt) = (now, now, now, now)
    }

    package enum TakeAction: Sendable, Equatable {
        case pass
        /// Milliseconds, at least 1, after which as much may pass.
        case refuse(retryAfterMilliseconds: Int64)
        /// Too much was refused already.
        case close
    }

    package mutating func takeFrame(now: UInt64) -> TakeAction {
        action(rates.frames.take(fullAt: &frames, now: now), now: now)
    }

    /// - Parameter count: distinct rooms of one frame, at most the room limit.
    package mutating func takeJoins(_ count: Int, now: UInt64) -> TakeAction {
        action(rates.joins.take(count, fullAt: &joins, now: now), now: now)
    }

    package mutating func mayAnswerUnnamed(now: UInt64) -> Bool {
        rates.unnamedAnswers.take(fullAt: &unnamedAnswers, now: now) == .pass
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
