/// What misbehaviour is counted as.
package enum AnomalyCause: String, Sendable, CaseIterable {
    /// No HTTP, no head in time, no handshake of RFC 6455, or one for a path that has none.
    case badHandshake = "bad_handshake"
    case badOrigin = "bad_origin"
    case badToken = "bad_token"
    /// A frame against RFC 6455, a frame never finished, or a first message that is none.
    case badFrame = "bad_frame"
    /// Connected, and never said who it is.
    case noAuth = "no_auth"
    /// Came though it is banned.
    case banned
    /// Went on over its limits until it was closed.
    case flood

    /// What one adds to the score.
    package var weight: Double { self == .flood ? 25 : 1 }
}

/// Why a key may not do something now, and when it may try again.
package struct ConductRefusal: Sendable, Equatable {
    package enum Reason: String, Sendable, CaseIterable {
        /// It has as many connections as it may have.
        case connections = "address_connections"
        /// It opens connections faster than it may.
        case handshakes = "address_handshakes"
        /// Its score went over the limit.
        case barred
    }

    package let reason: Reason
    /// At least 1.
    package let retryAfterSeconds: Int
}

/// How each of many keys (addresses, users) behaves, and what it may do. Times are monotonic nanoseconds.
///
/// 1. Connections at once, and handshakes a second with a burst of ``burstSeconds``.
/// 2. Anomalies add up to a score, which halves every ``halfLife``. Who reaches the limit is barred for ``firstPenalty``;
///    again within ``memory`` after that for twice as long, and so on up to ``longestPenalty``.
/// 3. Bounded: kept are those who have connections, and of the others at most `capacity`, the longest unseen forgotten
///    first. Who did nothing lately takes no place at all.
package struct ConductTable<Key: Hashable & Sendable>: Sendable {
    package static var burstSeconds: Int { 4 }
    package static var halfLife: Double { 60_000_000_000 }
    package static var firstPenalty: UInt64 { 10_000_000_000 }
    package static var longestPenalty: UInt64 { 640_000_000_000 }
    package static var memory: UInt64 { 600_000_000_000 }

    private struct Record: Sendable {
        var connections: Int32 = 0
        var penalties: UInt8 = 0
        var score: Float = 0
        var scoredAt: UInt64 = 0
        var handshakesFullAt: UInt64 = 0
        var barredUntil: UInt64 = 0
    }

    private let limits: ConductLimits
    private let capacity: Int
    private var live: [Key: Record] = [:]
    /// Without connections, in two generations: when the younger is full it becomes the older, which is forgotten.
    private var recent: [Key: Record] = [:]
    private var older: [Key: Record] = [:]

    package init(limits: ConductLimits, capacity: Int) {
        self.limits = limits
        self.capacity = max(capacity, 2)
    }

    /// Keys of which something is kept.
    package var count: Int { live.count + recent.count + older.count }

    /// Counts a connection of `key`, unless it has too many or is barred.
    package mutating func connect(_ key: Key, now: UInt64) -> ConductRefusal? {
        let most = limits.connections
        return update(key, now: now) { record in
            if let refusal = Self.bar(record, now: now) { return refusal }
            guard most == 0 || Int(record.connections) < most else {
                return ConductRefusal(reason: .connections, retryAfterSeconds: 5)
            }
            record.connections += 1
            return nil
        }
    }

    /// The end of a connection that ``connect(_:now:)`` counted.
    package mutating func disconnect(_ key: Key, now: UInt64) {
        guard live[key] != nil else { return }
        update(key, now: now) { $0.connections -= 1 }
    }

    /// Takes a handshake of `key`, unless they come too fast or it is barred.
    package mutating func handshake(_ key: Key, now: UInt64) -> ConductRefusal? {
        let rate = UInt64(limits.handshakesPerSecond)
        return update(key, now: now) { record in
            if let refusal = Self.bar(record, now: now) { return refusal }
            guard rate > 0 else { return nil }
            let price = 1_000_000_000 / rate
            let missing = max(record.handshakesFullAt, now) - now + price
            let most = UInt64(Self.burstSeconds) * rate * price
            guard missing <= most else {
                return ConductRefusal(reason: .handshakes, retryAfterSeconds: Int((missing - most) / 1_000_000_000) + 1)
            }
            record.handshakesFullAt = now + missing
            return nil
        }
    }

    /// Whether `key` is barred.
    package mutating func check(_ key: Key, now: UInt64) -> ConductRefusal? {
        update(key, now: now) { Self.bar($0, now: now) }
    }

    /// Counts an anomaly.
    ///
    /// - Returns: for how many seconds `key` is barred because of it; `nil` when it is not, or was before.
    package mutating func note(_ weight: Double, of key: Key, now: UInt64) -> Int? {
        guard limits.faults > 0 else { return nil }
        let most = Float(limits.faults)
        return update(key, now: now) { record in
            record.score = Self.score(of: record, now: now) + Float(weight)
            record.scoredAt = now
            // What faded within moments still counts.
            guard record.score + 0.5 >= most, record.barredUntil <= now else { return nil }
            if now > record.barredUntil + Self.memory { record.penalties = 0 }
            let penalty = min(Self.longestPenalty, Self.firstPenalty << UInt64(min(record.penalties, 10)))
            record.penalties = min(record.penalties, 250) + 1
            record.barredUntil = now + penalty
            record.score = most / 2
            return Int(penalty / 1_000_000_000)
        }
    }

    /// It was barred elsewhere: the next time is longer here, too.
    package mutating func bar(_ key: Key, seconds: Int, now: UInt64) {
        guard limits.faults > 0 else { return }
        let penalty = min(Self.longestPenalty, UInt64(min(max(0, seconds), 86400)) * 1_000_000_000)
        var penalties: UInt8 = 1
        while Self.firstPenalty << UInt64(penalties - 1) < penalty { penalties += 1 }
        update(key, now: now) { record in
            record.barredUntil = max(record.barredUntil, now + penalty)
            record.penalties = max(record.penalties, penalties)
        }
    }

    private static func bar(_ record: Record, now: UInt64) -> ConductRefusal? {
        guard record.barredUntil > now else { return nil }
        return ConductRefusal(
            reason: .barred, retryAfterSeconds: Int((record.barredUntil - now + 999_999_999) / 1_000_000_000))
    }

    private static func score(of record: Record, now: UInt64) -> Float {
        guard record.score > 0 else { return 0 }
        let halvings = Double(max(now, record.scoredAt) - record.scoredAt) / halfLife
        return halvings > 20 ? 0 : record.score * Float(power(of: halvings))
    }

    /// 2 to the power of minus `halvings`, by its series: no library of mathematics is needed for a score.
    private static func power(of halvings: Double) -> Double {
        var result = 1.0
        for _ in 0..<Int(halvings) { result /= 2 }
        let rest = (halvings - Double(Int(halvings))) * 0.693_147_180_56
        return result * (1 - rest * (1 - rest / 2 * (1 - rest / 3 * (1 - rest / 4))))
    }

    private static func isBlank(_ record: Record, now: UInt64) -> Bool {
        record.handshakesFullAt <= now && score(of: record, now: now) < 0.5
            && (record.penalties == 0 || now > record.barredUntil + memory)
    }

    @discardableResult
    private mutating func update<Result>(_ key: Key, now: UInt64, _ body: (inout Record) -> Result) -> Result {
        var record = live[key] ?? recent.removeValue(forKey: key) ?? older.removeValue(forKey: key) ?? Record()
        let result = body(&record)
        if record.connections > 0 {
            live[key] = record
        } else {
            live[key] = nil
            guard !Self.isBlank(record, now: now) else { return result }
            if recent.count >= capacity / 2 {
                older = recent
                recent = [:]
            }
            recent[key] = record
        }
        return result
    }
}

/// Of each key; 0 lifts a limit.
package struct ConductLimits: Sendable {
    /// Connections at once.
    package var connections = 0
    package var handshakesPerSecond = 0
    /// Anomalies, as their weights add up and fade, that bar the key.
    package var faults = 0

    package init(connections: Int = 0, handshakesPerSecond: Int = 0, faults: Int = 0) {
        (self.connections, self.handshakesPerSecond, self.faults) = (connections, handshakesPerSecond, faults)
    }
}
