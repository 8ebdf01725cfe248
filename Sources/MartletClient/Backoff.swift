/// How long to wait before the next attempt: full jitter under a bound that starts at 1 s and doubles to 30 s, so that
/// clients which lost the same node do not come back together (AWS, "Exponential Backoff And Jitter").
struct Backoff: Equatable {
    static let first: Int64 = 1000
    static let longest: Int64 = 30_000
    /// Online for so long, the next loss starts small again.
    static let stable: Int64 = 10_000

    private(set) var attempts = 0

    /// What a close code asks for (`docs/protocol.md`).
    enum Advice: Equatable {
        case resume
        case backOffFirst
        case stop

        init(closeCode: Int) {
            switch closeCode {
            case 4100..<4200: self = .backOffFirst
            case 4200..<4300: self = .stop
            default: self = .resume
            }
        }
    }

    /// Milliseconds to wait. `random` is in 0..<1.
    mutating func next(_ advice: Advice, random: Double) -> Int64 {
        if advice == .backOffFirst { attempts = max(attempts, 3) }
        let bound = min(Self.longest, Self.first << min(attempts, 10))
        attempts += 1
        return Int64(Double(bound) * random) + (advice == .backOffFirst ? 2 * Self.first : 0)
    }

    mutating func reset() {
        attempts = 0
    }
}
