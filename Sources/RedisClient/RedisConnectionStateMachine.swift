/// One client's way to Redis: dialling, greeting, being ready, waiting to dial again.
///
/// 1. Decides what comes after each event of the connection.
/// 2. Judges the replies to the greeting (AUTH, CLIENT SETNAME, SELECT, SCRIPT LOAD, PING).
/// 3. Bounds the delay before each redial.
struct RedisConnectionStateMachine {
    private enum State {
        /// Not started. Goes to `dialling` or `closed`.
        case idle
        /// A socket is being connected, for the attempt-th time (from 0) since the last settled connection. Goes to
        /// `greeting`, `waiting` or `closed`.
        case dialling(attempt: Int)
        /// The greeting was written whole; these steps were not answered yet. Goes to `ready`, `waiting` or `closed`.
        case greeting(attempt: Int, unanswered: ArraySlice<GreetingStep>)
        /// Commands can be written, since this time. Goes to `waiting` or `closed`.
        case ready(attempt: Int, since: Int64)
        /// No connection until the redial is due. Goes to `dialling` or `closed`.
        case waiting(attempt: Int)
        /// Ended by its owner, for ever.
        case closed
    }

    /// One command of the greeting, in the order they are sent.
    enum GreetingStep: Hashable, Sendable {
        case authenticate
        case name
        case select(Int)
        case load(index: Int, name: String)
        /// A server that is still loading its data refuses this one.
        case ping
    }

    private var state = State.idle

    var isReady: Bool {
        if case .ready = state { true } else { false }
    }

    var isGreeting: Bool {
        if case .greeting = state { true } else { false }
    }

    enum StartAction: Equatable {
        case dial
        case none
    }

    mutating func start() -> StartAction {
        switch state {
        case .idle:
            state = .dialling(attempt: 0)
            return .dial
        case .dialling, .greeting, .ready, .waiting, .closed:
            return .none
        }
    }

    enum DialSucceededAction: Equatable {
        case greet
        /// Closed meanwhile: drop the new socket.
        case drop
    }

    mutating func dialSucceeded(greeting steps: [GreetingStep]) -> DialSucceededAction {
        switch state {
        case .dialling(let attempt):
            state = .greeting(attempt: attempt, unanswered: steps[...])
            return .greet
        case .idle, .greeting, .ready, .waiting, .closed:
            return .drop
        }
    }

    enum LostAction: Equatable {
        /// Dial again after `redialDelay(attempt:)`. `wasReady` tells a lost connection from a failed attempt.
        case wait(attempt: Int, wasReady: Bool)
        case none
    }

    /// A connection that was ready for less than this (nanoseconds) counts as one more failed attempt, so that a Redis
    /// that greets and then ends each connection is not dialled without pause.
    static let settledAfter: Int64 = 5_000_000_000

    /// The dial failed, or the connection ended for whatever reason.
    mutating func connectionLost(now: Int64) -> LostAction {
        switch state {
        case .dialling(let attempt), .greeting(let attempt, _):
            state = .waiting(attempt: attempt + 1)
            return .wait(attempt: attempt, wasReady: false)
        case .ready(let attempt, let since):
            let next = now - since >= Self.settledAfter ? 0 : attempt
            state = .waiting(attempt: next + 1)
            return .wait(attempt: next, wasReady: true)
        case .idle, .waiting, .closed:
            return .none
        }
    }

    enum GreetingReplyAction: Equatable {
        case wait
        case becomeReady
        /// Close this connection and dial again; the sentence says why.
        case fail(String)
    }

    /// - Parameters:
    ///   - error: the text of Redis' error, nil when the step succeeded.
    ///   - now: nanoseconds of a monotonic clock.
    mutating func greetingReply(error: String?, now: Int64) -> GreetingReplyAction {
        guard case .greeting(let attempt, var unanswered) = state, let step = unanswered.popFirst() else {
            return .fail("Redis answered more than it was asked")
        }
        if let error, !step.tolerates(error) {
            return .fail(step.failure(error))
        }
        if unanswered.isEmpty {
            state = .ready(attempt: attempt, since: now)
            return .becomeReady
        }
        state = .greeting(attempt: attempt, unanswered: unanswered)
        return .wait
    }

    enum RedialAction: Equatable {
        case dial
        case none
    }

    mutating func redialDue() -> RedialAction {
        switch state {
        case .waiting(let attempt):
            state = .dialling(attempt: attempt)
            return .dial
        case .idle, .dialling, .greeting, .ready, .closed:
            return .none
        }
    }

    enum CloseAction: Equatable {
        case closeConnection
        case none
    }

    mutating func close() -> CloseAction {
        let previous = state
        state = .closed
        switch previous {
        case .greeting, .ready: return .closeConnection
        case .idle, .dialling, .waiting, .closed: return .none
        }
    }

    /// "Full jitter": anywhere between nothing and a bound that doubles with each failed attempt, so that many clients
    /// that lost one Redis together do not come back together.
    ///
    /// - Parameters:
    ///   - bounds: the first and the last bound, in nanoseconds.
    ///   - random: 0 ..< 1.
    static func redialDelay(attempt: Int, bounds: ClosedRange<Int64>, random: Double) -> Int64 {
        let doublings = min(max(attempt, 0), 16)
        let (product, overflow) = bounds.lowerBound.multipliedReportingOverflow(by: 1 << Int64(doublings))
        let bound = overflow ? bounds.upperBound : min(product, bounds.upperBound)
        return Int64(Double(bound) * random)
    }
}

extension RedisConnectionStateMachine.GreetingStep {
    fileprivate func tolerates(_ error: String) -> Bool {
        switch self {
        // An ACL user may be forbidden either, and can serve all the same.
        case .ping: error.hasPrefix("NOPERM")
        // A name is for people who read CLIENT LIST. Other errors are not about the name: "ERR max number of clients
        // …".
        case .name: error.hasPrefix("NOPERM") || error.hasPrefix("ERR unknown")
        case .authenticate, .select, .load: false
        }
    }

    fileprivate func failure(_ error: String) -> String {
        if error.hasPrefix("NOAUTH") {
            return "Redis asks for a password and the URL has none: \(error)"
        }
        if error.hasPrefix("LOADING") {
            return "Redis is not ready: \(error)"
        }
        return switch self {
        case .authenticate: "Redis refused the user or password: \(error)"
        case .select(let database): "Redis refused database \(database): \(error)"
        case .load(_, let name): "Redis refused the script \(name): \(error)"
        case .name, .ping: "Redis is not ready: \(error)"
        }
    }
}
