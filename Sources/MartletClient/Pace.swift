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
        guard isLimited else { return nil }
        refill(now: now)
        guard credit < Self.message else {
            credit -= Self.message
            return nil
        }
        return (Self.message - credit) / (9 * perSecond) + 1
    }

    /// A frame that is no message goes out. The server counts it too, so the messages wait for it.
    mutating func count() {
        if isLimited { credit = max(credit - Self.message, -Self.capacity(perSecond)) }
    }

    /// Whether a frame that need not be sent may go now.
    mutating func hasCredit(now: Int64) -> Bool {
        refill(now: now)
        return !isLimited || credit >= Self.message
    }

    private mutating func refill(now: Int64) {
        let passed = min(max(0, now - countedAt), 60_000)
        countedAt = now
        credit = min(Self.capacity(perSecond), credit + passed * 9 * perSecond)
    }

    /// The server counts otherwise.
    mutating func refused(now: Int64) {
        credit = 0
        countedAt = now
    }
}
