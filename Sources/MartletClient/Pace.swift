/// How fast a client may send without a refusal: a token bucket a little slower than the server's, which counts every
/// frame. No more than a burst is on its way at once: even a server that reads them all at one moment refuses none.
struct Pace: Equatable {
    static let burst: Int64 = 20
    /// Above it a pace in milliseconds says nothing.
    static let fastest: Int64 = 1_000_000
    /// One message, in the unit of ``credit``: at a rate of one a second, nine of ten thousand come in a millisecond.
    private static let message: Int64 = 10_000

    /// 0 is no limit.
    private let perSecond: Int64
    private var credit: Int64
    private var countedAt: Int64

    /// - Parameter perSecond: what the server said; `nil` or 0 when it limits nothing.
    init(perSecond: Int64? = nil, now: Int64 = 0) {
        self.perSecond = perSecond.flatMap { (1...Self.fastest).contains($0) ? $0 : nil } ?? 0
        credit = Self.capacity(self.perSecond)
        countedAt = now
    }

    var isLimited: Bool { perSecond > 0 }

    private static func capacity(_ perSecond: Int64) -> Int64 { min(perSecond, burst) * message }

    /// - Returns: `nil` when a message may go now, or the milliseconds after which to ask again.
    mutating func take(now: Int64) -> Int64? {
        guard perSecond > 0 else { return nil }
        let passed = min(max(0, now - countedAt), 60_000)
        countedAt = now
        credit = min(Self.capacity(perSecond), credit + passed * 9 * perSecond)
        guard credit < Self.message else {
            credit -= Self.message
            return nil
        }
        return (Self.message - credit) / (9 * perSecond) + 1
    }

    /// The server counts otherwise.
    mutating func refused(now: Int64) {
        credit = 0
        countedAt = now
    }
}
