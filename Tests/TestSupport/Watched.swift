import Dispatch
import Synchronization

/// What was waited for did not happen.
package struct TimedOut: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }
}

/// A value whose changes can be waited for: a test is told, it does not sleep and look.
package final class Watched<Value: Sendable>: Sendable {
    private struct Waiter {
        /// Looks at the value; true ends the wait.
        let look: @Sendable (inout Value) -> Bool
        let resume: @Sendable ((any Error)?) -> Void
    }

    private struct State {
        var value: Value
        var waiters: [(id: Int, waiter: Waiter)] = []
        var nextID = 0
    }

    private let state: Mutex<State>

    package init(_ value: Value) {
        state = Mutex(State(value: value))
    }

    package var current: Value { state.withLock { $0.value } }

    @discardableResult
    package func update<Result: Sendable>(_ change: (inout Value) -> Result) -> Result {
        let (result, ready) = state.withLock { state in
            let result = change(&state.value)
            var ready: [Waiter] = []
            if !state.waiters.isEmpty {
                var kept: [(id: Int, waiter: Waiter)] = []
                for entry in state.waiters {
                    if entry.waiter.look(&state.value) { ready.append(entry.waiter) } else { kept.append(entry) }
                }
                state.waiters = kept
            }
            return (result, ready)
        }
        for waiter in ready { waiter.resume(nil) }
        return result
    }

    /// Waits until `look` gives a value. It may take something out of the watched value, and is called under its lock,
    /// at first and after each change.
    ///
    /// - Throws: ``TimedOut`` with `what` after `limit`.
    package func wait<Result: Sendable>(
        within limit: Duration,
        _ what: @autoclosure @escaping @Sendable () -> String,
        until look: @escaping @Sendable (inout Value) -> Result?
    ) async throws -> Result {
        let found = Found<Result>()
        let start = ContinuousClock.now
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            let waiter = Waiter(
                look: { value in
                    guard let result = look(&value) else { return false }
                    found.result.withLock { $0 = result }
                    return true
                },
                resume: { error in
                    if let error { continuation.resume(throwing: error) } else { continuation.resume() }
                }
            )
            let id: Int? = state.withLock { state in
                if waiter.look(&state.value) { return nil }
                state.nextID += 1
                state.waiters.append((state.nextID, waiter))
                return state.nextID
            }
            guard let id else { return waiter.resume(nil) }
            let components = limit.components
            let nanoseconds = components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
            DispatchQueue.global().asyncAfter(deadline: .now() + .nanoseconds(Int(nanoseconds))) {
                let expired = self.state.withLock { state -> Bool in
                    guard let index = state.waiters.firstIndex(where: { $0.id == id }) else { return false }
                    state.waiters.remove(at: index)
                    return true
                }
                if expired { waiter.resume(TimedOut("waited \(start.duration(to: .now)) for \(what())")) }
            }
        }
        guard let result = found.result.withLock({ $0 }) else { throw TimedOut("lost the result of \(what())") }
        return result
    }
}

private final class Found<Result: Sendable>: Sendable {
    let result = Mutex<Result?>(nil)
}

/// Runs blocking work off the threads that run the tests.
package func offPool<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue(label: "off-pool").async {
            continuation.resume(with: Swift.Result { try work() })
        }
    }
}

/// For what cannot tell by itself (a port that opens, a key in Redis): asks again until it says yes.
///
/// - Throws: ``TimedOut`` with `what` and the last error after `limit`.
package func poll<Result: Sendable>(
    within limit: Duration,
    every pause: Duration = .milliseconds(50),
    _ what: String,
    _ ask: @Sendable () async throws -> Result?
) async throws -> Result {
    let start = ContinuousClock.now
    var last: (any Error)?
    repeat {
        do {
            if let result = try await ask() { return result }
            last = nil
        } catch {
            last = error
        }
        try await Task.sleep(for: pause)
    } while start.duration(to: .now) < limit
    throw TimedOut("waited \(limit) for \(what)\(last.map { ", last: \($0)" } ?? "")")
}

/// So many may run at once; who asks first is served first. Keeps a machine with few cores from testing its own load.
package final class Gate: Sendable {
    private struct State {
        var free: Int
        var queue: [(weight: Int, resume: CheckedContinuation<Void, Never>)] = []
    }

    private let state: Mutex<State>

    package init(_ permits: Int) {
        state = Mutex(State(free: permits))
    }

    package func run<Result>(
        weight: Int,
        isolation: isolated (any Actor)? = #isolation,
        _ body: () async throws -> Result
    ) async rethrows -> Result {
        await withCheckedContinuation { continuation in
            let now = state.withLock { state in
                guard state.queue.isEmpty, state.free >= weight else {
                    state.queue.append((weight, continuation))
                    return false
                }
                state.free -= weight
                return true
            }
            if now { continuation.resume() }
        }
        defer { release(weight) }
        return try await body()
    }

    private func release(_ weight: Int) {
        let ready = state.withLock { state in
            state.free += weight
            var ready: [CheckedContinuation<Void, Never>] = []
            while let first = state.queue.first, first.weight <= state.free {
                state.free -= first.weight
                ready.append(state.queue.removeFirst().resume)
            }
            return ready
        }
        for continuation in ready { continuation.resume() }
    }
}
