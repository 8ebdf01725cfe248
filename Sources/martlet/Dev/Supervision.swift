/// Which children of `martlet dev` run, which come next, and when each is ended. A value: the driver brings events and
/// the time (milliseconds of any clock that only rises) and does what comes back.
///
/// 1. Tiers start in order, each once all of the tier before has been ready; they end in the opposite order.
/// 2. A child that ends by itself starts again after a delay that doubles from 0.5 s to 10 s and is forgotten once the
///    child has been ready for 30 s.
/// 3. After `stop` nothing starts. A tier has `patience` to end after SIGTERM, then gets SIGKILL; a second `stop` is
///    SIGKILL for all, unless it comes within half a second: `timeout` and some shells send one twice.
struct Supervision: Sendable {
    enum Phase: Equatable, Sendable {
        /// Not started yet, because its tier has not begun.
        case idle
        case starting
        case ready(since: Int64)
        /// Ended by itself; starts at the time.
        case waiting(until: Int64)
        /// Ended after `stop`, or never ran when it came.
        case ended
    }

    enum Action: Equatable, Sendable {
        case start(Int)
        case reportRestart(Int, inMilliseconds: Int64)
        case reportReady(Int, again: Bool)
        /// All children are ready for the first time.
        case announce
        case terminate(Int)
        case kill(Int)
        case finish
    }

    private enum Mode: Equatable { case running, ending(tier: Int, killAt: Int64), killing, finished }

    static let firstDelay: Int64 = 500
    static let longestDelay: Int64 = 10_000
    static let forgetAfter: Int64 = 30_000
    static let sameStopWithin: Int64 = 500

    private let tiers: [Int]
    private let patience: Int64
    private(set) var phases: [Phase]
    private var failures: [Int]
    private var wasReady: [Bool]
    private var announced = false
    private var mode = Mode.running
    private var stoppedAt: Int64 = 0

    /// - Parameters:
    ///   - tiers: one number a child; lower ones start first and end last.
    ///   - patience: milliseconds between SIGTERM and SIGKILL.
    init(tiers: [Int], patience: Int64) {
        self.tiers = tiers
        self.patience = patience
        phases = tiers.map { _ in .idle }
        failures = tiers.map { _ in 0 }
        wasReady = tiers.map { _ in false }
    }

    var isStopping: Bool { mode != .running }

    /// When `tick` has something to do; nil when only an event can change anything.
    var deadline: Int64? {
        if case .ending(_, let killAt) = mode { return killAt }
        guard mode == .running else { return nil }
        return phases.compactMap { if case .waiting(let until) = $0 { until } else { nil } }.min()
    }

    mutating func begin() -> [Action] { startTiers() }

    mutating func ready(_ child: Int, now: Int64) -> [Action] {
        guard mode == .running, phases[child] == .starting else { return [] }
        phases[child] = .ready(since: now)
        var actions: [Action] = announced ? [.reportReady(child, again: wasReady[child])] : []
        wasReady[child] = true
        actions += startTiers()
        if !announced, wasReady.allSatisfy({ $0 }) {
            announced = true
            actions.append(.announce)
        }
        return actions
    }

    mutating func ended(_ child: Int, now: Int64) -> [Action] {
        guard mode == .running else {
            phases[child] = .ended
            return continueEnding(now: now)
        }
        if case .ready(let since) = phases[child], now - since >= Self.forgetAfter { failures[child] = 0 }
        let delay = min(Self.longestDelay, Self.firstDelay << min(failures[child], 10))
        failures[child] += 1
        phases[child] = .waiting(until: now + delay)
        return [.reportRestart(child, inMilliseconds: delay)]
    }

    mutating func stop(now: Int64) -> [Action] {
        switch mode {
        case .running:
            for child in phases.indices where !runs(child) { phases[child] = .ended }
            stoppedAt = now
            mode = .ending(tier: (tiers.max() ?? 0) + 1, killAt: now)
            return continueEnding(now: now)
        case .ending:
            guard now - stoppedAt >= Self.sameStopWithin else { return [] }
            mode = .killing
            return phases.indices.filter(runs).map { .kill($0) }
        case .killing, .finished:
            return []
        }
    }

    mutating func tick(now: Int64) -> [Action] {
        switch mode {
        case .running:
            var actions: [Action] = []
            for (child, phase) in phases.enumerated() {
                guard case .waiting(let until) = phase, until <= now else { continue }
                phases[child] = .starting
                actions.append(.start(child))
            }
            return actions
        case .ending(let tier, let killAt) where killAt <= now:
            mode = .ending(tier: tier, killAt: now + patience)
            return phases.indices.filter { runs($0) && tiers[$0] >= tier }.map { .kill($0) }
        case .ending, .killing, .finished:
            return []
        }
    }

    private func runs(_ child: Int) -> Bool {
        switch phases[child] {
        case .starting, .ready: true
        case .idle, .waiting, .ended: false
        }
    }

    /// Starts every idle child all of whose lower tiers have been ready once.
    private mutating func startTiers() -> [Action] {
        let unready = phases.indices.filter { !wasReady[$0] }.map { tiers[$0] }.min() ?? Int.max
        let startable = phases.indices.filter { phases[$0] == .idle && tiers[$0] <= unready }
        for child in startable { phases[child] = .starting }
        return startable.map { .start($0) }
    }

    /// Once nothing runs in the tier that is ending and above it: SIGTERM to the next one down, or the end.
    private mutating func continueEnding(now: Int64) -> [Action] {
        let left = phases.indices.filter(runs)
        guard let top = left.map({ tiers[$0] }).max() else {
            guard mode != .finished else { return [] }
            mode = .finished
            return [.finish]
        }
        guard case .ending(let tier, _) = mode, top < tier else { return [] }
        mode = .ending(tier: top, killAt: now + patience)
        return left.filter { tiers[$0] == top }.map { .terminate($0) }
    }
}
