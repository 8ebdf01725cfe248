import NIOCore

/// When a JWK Set is fetched, and what tokens hear meanwhile that no key fits.
///
/// 1. Fetched again when its time is over (`max-age` within bounds, else 5 minutes); after a failure sooner.
/// 2. A `kid` that no key has brings the next fetch forward, but fetches are at least ``missInterval`` apart: what
///    strangers write into tokens drives nothing faster.
/// 3. Such a token is told to come again until a fetch that began after it was seen has brought an answer, then that its key is
///    unknown: for as long as no other fetch may begin. One that fails says nothing, and nothing again of what was said before.
struct JWKSSchedule {
    static let missInterval: TimeAmount = .seconds(10)
    static let standardAge: Int64 = 300
    static let ages: ClosedRange<Int64> = 60...3600
    static let longestRetry: Int64 = 30
    static let maximumWaiting = 1024

    private(set) var nextFetch: NIODeadline
    private(set) var isFetching = false
    private(set) var hasKeys = false
    private(set) var failures = 0
    private var lastStart: NIODeadline?
    /// Names, by their hash, that were asked for since the last fetch began, and since the one before it.
    private var waiting: Set<Int> = []
    private var asked: Set<Int> = []
    /// Those that an answer did not have, until the next fetch begins.
    private var absent: Set<Int> = []

    init(now: NIODeadline) { nextFetch = now }

    enum MissAction: Equatable {
        /// No fetch will help.
        case refuse
        /// `wakesUp`: the next fetch was brought forward.
        case comeAgain(milliseconds: Int64, wakesUp: Bool)
    }

    mutating func missing(_ keyID: String?, now: NIODeadline) -> MissAction {
        guard hasKeys else { return .comeAgain(milliseconds: 1000, wakesUp: false) }
        guard let keyID else { return .refuse }
        let name = keyID.hashValue
        let earliest = lastStart.map { $0 + Self.missInterval } ?? now
        if absent.contains(name), now < earliest { return .refuse }
        // More than that at once are a flood; they come again and are as unknown then.
        if waiting.count < Self.maximumWaiting { waiting.insert(name) }
        let start = max(now, earliest)
        let wakesUp = !isFetching && start < nextFetch
        if wakesUp { nextFetch = start }
        return .comeAgain(milliseconds: 1000 + (start - now).nanoseconds / 1_000_000, wakesUp: wakesUp)
    }

    /// - Returns: whether a fetch begins now.
    mutating func begin(now: NIODeadline) -> Bool {
        guard !isFetching, now >= nextFetch else { return false }
        isFetching = true
        lastStart = now
        asked = waiting
        waiting = []
        absent = []
        return true
    }

    mutating func succeeded(maximumAge: Int64?, now: NIODeadline) {
        isFetching = false
        hasKeys = true
        failures = 0
        absent = asked
        let age = min(max(maximumAge ?? Self.standardAge, Self.ages.lowerBound), Self.ages.upperBound)
        nextFetch = now + .seconds(age)
        bringForward()
    }

    mutating func failed(now: NIODeadline) {
        isFetching = false
        failures += 1
        waiting.formUnion(asked)
        nextFetch = now + .seconds(min(1 << min(failures, 10), Self.longestRetry))
        bringForward()
    }

    /// For names that were asked for during the fetch.
    private mutating func bringForward() {
        guard !waiting.isEmpty, let lastStart else { return }
        nextFetch = min(nextFetch, lastStart + Self.missInterval)
    }
}
