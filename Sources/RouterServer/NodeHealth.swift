package import NIOCore

/// Why a question `GET /readyz` to a node was not answered with 200.
package enum CheckFailure: Sendable, Equatable {
    /// It lives, and says that it cannot deliver, with this status.
    case notReady(Int)
    /// Nobody listens there.
    case refused
    /// The way to it, or its name, was not found.
    case unreachable
    /// It took the connection, or did not even that, and said nothing in time.
    case silent
    /// It cut the connection, spoke no HTTP, or TLS failed.
    case broken

    /// What programs are told.
    package var word: String {
        switch self {
        case .notReady: "not_ready"
        case .refused: "refused"
        case .unreachable: "unreachable"
        case .silent: "silent"
        case .broken: "broken"
        }
    }

    /// The end of the sentence "its checks fail: GET /readyz …".
    package var reason: String {
        switch self {
        case .notReady(let status): "is answered \(status)"
        case .refused: "finds nobody listening"
        case .unreachable: "does not reach it"
        case .silent: "is not answered in time"
        case .broken: "ends without an answer"
        }
    }
}

/// What a node's answers to `GET /readyz` make of it: `fall` and `rise` of HAProxy. One bad answer is an accident, and one good
/// answer of a node that failed is not yet its recovery.
package struct NodeHealth: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        /// Takes clients; the last so many checks failed. To `down` when they are `fall`, or when nobody listens.
        case up(failures: Int)
        /// Takes no clients; the last so many checks went well. To `up` when they are `rise`. The cause is the latest.
        case down(CheckFailure, since: NIODeadline, successes: Int)
    }

    package enum Change: Sendable, Equatable {
        case fell(CheckFailure)
        case rose(after: TimeAmount)
    }

    static let fall = 3
    static let rise = 2

    /// Who comes new into the registry has shown that it lives.
    package private(set) var state = State.up(failures: 0)

    package init() {}

    /// nil while it takes clients.
    package var cause: CheckFailure? {
        switch state {
        case .up: nil
        case .down(let cause, _, _): cause
        }
    }

    /// False while the next answer may change something: it is then asked sooner.
    package var isSettled: Bool {
        switch state {
        case .up(let failures): failures == 0
        case .down(_, _, let successes): successes == 0
        }
    }

    package mutating func passed(now: NIODeadline) -> Change? {
        switch state {
        case .up:
            state = .up(failures: 0)
            return nil
        case .down(let cause, let since, let successes):
            guard successes + 1 >= Self.rise else {
                state = .down(cause, since: since, successes: successes + 1)
                return nil
            }
            state = .up(failures: 0)
            return .rose(after: now - since)
        }
    }

    package mutating func failed(_ failure: CheckFailure, now: NIODeadline) -> Change? {
        switch state {
        case .up(let failures):
            guard failures + 1 >= Self.fall || failure == .refused else {
                state = .up(failures: failures + 1)
                return nil
            }
            state = .down(failure, since: now, successes: 0)
            return .fell(failure)
        case .down(_, let since, _):
            state = .down(failure, since: since, successes: 0)
            return nil
        }
    }
}
