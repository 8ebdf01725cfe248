import NIOCore
import Synchronization

/// A ``ConductTable`` for all loops of a process.
package final class ConductGuard<Key: Hashable & Sendable>: Sendable {
    /// A key was barred: why, and for how many seconds. Called for at most ten a second.
    package typealias BarHandler = @Sendable (Key, AnomalyCause, Int) -> Void

    private final class Part: Sendable {
        let table: Mutex<ConductTable<Key>>
        init(_ table: ConductTable<Key>) { self.table = Mutex(table) }
    }

    private struct Counts {
        var anomalies: [AnomalyCause: Int] = [:]
        var refusals: [ConductRefusal.Reason: Int] = [:]
        var barred = 0
        var lines: UpgradeRate
    }

    private let parts: [Part]
    private let counts: Mutex<Counts>
    private let onBar: BarHandler

    /// - Parameter capacity: of keys without connections; one takes less than 128 bytes.
    package init(limits: ConductLimits, capacity: Int = 65536, onBar: @escaping BarHandler = { _, _, _ in }) {
        parts = (0..<8).map { _ in Part(ConductTable(limits: limits, capacity: capacity / 8)) }
        counts = Mutex(Counts(lines: UpgradeRate(perSecond: 10, now: Self.now)))
        self.onBar = onBar
    }

    private static var now: UInt64 { NIODeadline.now().uptimeNanoseconds }

    private func part(of key: Key) -> Part { parts[Int(UInt(bitPattern: key.hashValue) % UInt(parts.count))] }

    package func connect(_ key: Key) -> ConductRefusal? {
        counted(part(of: key).table.withLock { $0.connect(key, now: Self.now) })
    }

    package func disconnect(_ key: Key) {
        part(of: key).table.withLock { $0.disconnect(key, now: Self.now) }
    }

    package func handshake(_ key: Key) -> ConductRefusal? {
        counted(part(of: key).table.withLock { $0.handshake(key, now: Self.now) })
    }

    package func check(_ key: Key) -> ConductRefusal? {
        counted(part(of: key).table.withLock { $0.check(key, now: Self.now) })
    }

    /// - Returns: for how many seconds the key is barred because of it; `nil` when it is not, or was before.
    @discardableResult
    package func note(_ cause: AnomalyCause, of key: Key) -> Int? {
        let now = Self.now
        let seconds = part(of: key).table.withLock { $0.note(cause.weight, of: key, now: now) }
        let mayTell = counts.withLock { counts in
            counts.anomalies[cause, default: 0] += 1
            guard seconds != nil else { return false }
            counts.barred += 1
            return counts.lines.take(now: now)
        }
        if let seconds, mayTell { onBar(key, cause, seconds) }
        return seconds
    }

    /// Another process did, and told so.
    package func bar(_ key: Key, seconds: Int) {
        part(of: key).table.withLock { $0.bar(key, seconds: seconds, now: Self.now) }
    }

    /// Counts an anomaly of nobody whom limits hold for.
    package func noteUnnamed(_ cause: AnomalyCause) {
        counts.withLock { $0.anomalies[cause, default: 0] += 1 }
    }

    private func counted(_ refusal: ConductRefusal?) -> ConductRefusal? {
        guard let refusal else { return nil }
        counts.withLock { $0.refusals[refusal.reason, default: 0] += 1 }
        return refusal
    }

    /// Since the start.
    package var anomalies: [AnomalyCause: Int] { counts.withLock { $0.anomalies } }
    package var refusals: [ConductRefusal.Reason: Int] { counts.withLock { $0.refusals } }
    package var barred: Int { counts.withLock { $0.barred } }
    /// Keys of which something is kept.
    package var keys: Int { parts.reduce(0) { $0 + $1.table.withLock { $0.count } } }
}
