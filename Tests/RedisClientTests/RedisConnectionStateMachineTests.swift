import Testing

@testable import RedisClient

@Suite("The connection's states")
struct RedisConnectionStateMachineTests {
    private typealias Machine = RedisConnectionStateMachine
    private let steps: [Machine.GreetingStep] = [
        .authenticate, .name, .select(3), .load(index: 0, name: "join"), .ping,
    ]

    private func greeting() -> Machine {
        var machine = Machine()
        #expect(machine.start() == .dial)
        #expect(machine.dialSucceeded(greeting: steps) == .greet)
        return machine
    }

    private func ready(at now: Int64 = 0) -> Machine {
        var machine = greeting()
        for _ in steps.dropLast() {
            #expect(machine.greetingReply(error: nil, now: now) == .wait)
        }
        #expect(machine.greetingReply(error: nil, now: now) == .becomeReady)
        #expect(machine.isReady)
        return machine
    }

    @Test("start, dial, greet, ready; starting twice dials once")
    func becomesReady() {
        var machine = ready()
        #expect(machine.start() == .none)
    }

    @Test("each failed attempt waits longer than the one before, until a connection settled")
    func attempts() {
        var machine = Machine()
        _ = machine.start()
        for attempt in 0..<5 {
            #expect(machine.connectionLost(now: 0) == .wait(attempt: attempt, wasReady: false))
            #expect(machine.redialDue() == .dial)
        }
        _ = machine.dialSucceeded(greeting: [.ping])
        #expect(machine.connectionLost(now: 0) == .wait(attempt: 5, wasReady: false))
        _ = machine.redialDue()
        _ = machine.dialSucceeded(greeting: [.ping])
        _ = machine.greetingReply(error: nil, now: 0)
        #expect(machine.connectionLost(now: Machine.settledAfter) == .wait(attempt: 0, wasReady: true))
        #expect(machine.redialDue() == .dial)
        #expect(machine.connectionLost(now: Machine.settledAfter) == .wait(attempt: 1, wasReady: false))
    }

    @Test("a Redis that greets and ends each connection is dialled ever more slowly")
    func flapping() {
        var machine = Machine()
        _ = machine.start()
        for attempt in 0..<5 {
            _ = machine.dialSucceeded(greeting: [.ping])
            _ = machine.greetingReply(error: nil, now: 100)
            #expect(machine.connectionLost(now: 200) == .wait(attempt: attempt, wasReady: true))
            #expect(machine.redialDue() == .dial)
        }
    }

    @Test("events of a connection that is no more change nothing")
    func lateEvents() {
        var waiting = greeting()
        _ = waiting.connectionLost(now: 0)
        #expect(waiting.connectionLost(now: 0) == .none)
        #expect(waiting.dialSucceeded(greeting: steps) == .drop)
        #expect(waiting.redialDue() == .dial)
        #expect(waiting.redialDue() == .none)
    }

    @Test("closed in any state is closed for ever, and a socket that connects later is dropped")
    func close() {
        var idle = Machine()
        #expect(idle.close() == .none)
        #expect(idle.start() == .none)

        var dialling = Machine()
        _ = dialling.start()
        #expect(dialling.close() == .none)
        #expect(dialling.dialSucceeded(greeting: steps) == .drop)
        #expect(dialling.connectionLost(now: 0) == .none)

        var waiting = greeting()
        _ = waiting.connectionLost(now: 0)
        #expect(waiting.close() == .none)
        #expect(waiting.redialDue() == .none)

        var greeted = greeting()
        #expect(greeted.close() == .closeConnection)
        var connected = ready()
        #expect(connected.close() == .closeConnection)
        #expect(!connected.isReady)
        #expect(connected.close() == .none)
    }

    @Test("the errors of the greeting that end an attempt, each with a sentence")
    func greetingErrors() {
        let errors: [(Int, String, String)] = [
            (0, "WRONGPASS invalid", "Redis refused the user or password: WRONGPASS invalid"),
            (2, "ERR DB index is out of range", "Redis refused database 3: ERR DB index is out of range"),
            (3, "NOPERM this user", "Redis refused the script join: NOPERM this user"),
            (
                3, "NOAUTH Authentication required.",
                "Redis asks for a password and the URL has none: NOAUTH Authentication required."
            ),
            (1, "ERR max number of clients reached", "Redis is not ready: ERR max number of clients reached"),
            (3, "LOADING Redis is loading", "Redis is not ready: LOADING Redis is loading"),
            (4, "LOADING Redis is loading", "Redis is not ready: LOADING Redis is loading"),
        ]
        for (step, error, cause) in errors {
            var machine = greeting()
            for _ in 0..<step {
                #expect(machine.greetingReply(error: nil, now: 0) == .wait)
            }
            #expect(machine.greetingReply(error: error, now: 0) == .fail(cause))
            #expect(!machine.isReady)
        }
    }

    @Test("a user who may neither name the connection nor PING is served")
    func toleratedErrors() {
        var machine = greeting()
        _ = machine.greetingReply(error: nil, now: 0)
        #expect(machine.greetingReply(error: "NOPERM client", now: 0) == .wait)
        _ = machine.greetingReply(error: nil, now: 0)
        _ = machine.greetingReply(error: nil, now: 0)
        #expect(machine.greetingReply(error: "NOPERM ping", now: 0) == .becomeReady)
    }

    @Test("the redial delay doubles from the first bound to the last, times a random factor, and never overflows")
    func delay() {
        let bounds: ClosedRange<Int64> = 100...5000
        let delays = (0..<8).map { Machine.redialDelay(attempt: $0, bounds: bounds, random: 1) }
        #expect(delays == [100, 200, 400, 800, 1600, 3200, 5000, 5000])
        #expect(Machine.redialDelay(attempt: 3, bounds: bounds, random: 0) == 0)
        #expect(Machine.redialDelay(attempt: 3, bounds: bounds, random: 0.5) == 400)
        #expect(Machine.redialDelay(attempt: .max, bounds: Int64.max / 2...Int64.max / 2, random: 0.5) > 0)
        #expect(Machine.redialDelay(attempt: -1, bounds: bounds, random: 1) == 100)
    }
}
