import TestSupport
import Testing

@testable import RedisClient

private typealias Machine = SubscriptionStateMachine<Int>

private func makeMachine(chunk: Int = 256, window: Int = 2048) -> Machine {
    Machine(
        probeChannel: "probe",
        timing: .init(probeInterval: 20, deafAfter: 50, silenceTimeout: 100, chunk: chunk, window: window)
    )
}

/// Connected, the probe channel confirmed and one probe heard, at time 0.
private func hearing(_ channels: [String] = []) -> Machine {
    var machine = makeMachine()
    for channel in channels {
        _ = machine.subscribe(channel, waiter: 0)
    }
    for channel in machine.linkUp(now: 0).flatMap({ $0 }) {
        _ = machine.confirmed(.subscribe, channel)
    }
    #expect(machine.heardProbe(now: 0) == true)
    #expect(machine.hears)
    return machine
}

extension SubscriptionStateMachine.SubscribeAction {
    fileprivate var name: String {
        switch self {
        case .succeed: "succeed"
        case .send: "send"
        case .wait: "wait"
        case .fail: "fail"
        }
    }
}

@Suite("Subscriptions")
struct SubscriptionStateMachineTests {
    @Test("the probe channel is asked for first, and the first probe goes once it is confirmed")
    func start() {
        var machine = makeMachine()
        #expect(machine.subscribe("a", waiter: 1).name == "wait")
        #expect(machine.linkUp(now: 0) == [["probe", "a"]])
        let probe = machine.confirmed(.subscribe, "probe")
        #expect(probe.publishProbe)
        #expect(!probe.hearsAgain)
        #expect(machine.heardProbe(now: 1) == false)
        let channel = machine.confirmed(.subscribe, "a")
        #expect(channel.succeeded == [1])
        #expect(channel.hearsAgain)
        #expect(machine.hears)
    }

    @Test("it does not hear before a probe came back, however much is confirmed")
    func probeIsNeeded() {
        var machine = makeMachine()
        _ = machine.linkUp(now: 0)
        #expect(!machine.confirmed(.subscribe, "probe").hearsAgain)
        #expect(machine.heardProbe(now: 1) == true)
        #expect(machine.heardProbe(now: 2) == false)
    }

    @Test("a new channel is written at once; a confirmed one is answered at once; one on its way is waited for")
    func subscribe() {
        var machine = hearing()
        #expect(machine.subscribe("a", waiter: 1).name == "send")
        #expect(machine.subscribe("a", waiter: 2).name == "wait")
        #expect(machine.confirmed(.subscribe, "a").succeeded == [1, 2])
        #expect(machine.subscribe("a", waiter: 3).name == "succeed")
        #expect(machine.hears)
    }

    @Test("unsubscribed and subscribed again before the confirmation: the second SUBSCRIBE's confirmation counts")
    func unsubscribeThenSubscribe() {
        var machine = hearing()
        _ = machine.subscribe("a", waiter: 1)
        _ = machine.confirmed(.subscribe, "a")
        #expect(machine.unsubscribe("a").send)
        #expect(machine.subscribe("a", waiter: 2).name == "send")
        #expect(machine.confirmed(.unsubscribe, "a").succeeded.isEmpty)
        #expect(machine.subscribe("a", waiter: 3).name == "wait")
        #expect(machine.confirmed(.subscribe, "a").succeeded == [2, 3])
    }

    @Test("subscribed and unsubscribed before the confirmation: the waiter fails and nothing stays")
    func subscribeThenUnsubscribe() {
        var machine = hearing()
        _ = machine.subscribe("a", waiter: 1)
        let action = machine.unsubscribe("a")
        #expect(action.failed == [1])
        #expect(action.send)
        #expect(!machine.unsubscribe("a").send)
        #expect(machine.confirmed(.subscribe, "a").succeeded.isEmpty)
        #expect(machine.confirmed(.unsubscribe, "a").succeeded.isEmpty)
        #expect(machine.wantedChannels == 1)
        #expect(machine.subscribe("a", waiter: 2).name == "send")
    }

    @Test("unsubscribing what nobody subscribed, or the probe channel, does nothing")
    func unsubscribeNothing() {
        var machine = hearing()
        #expect(!machine.unsubscribe("a").send)
        #expect(!machine.unsubscribe("probe").send)
        #expect(machine.hears)
    }

    @Test("after a reconnect every wanted channel is asked for again, and only then it hears again")
    func reconnect() {
        var machine = hearing(["a", "b", "c"])
        _ = machine.unsubscribe("b")
        #expect(machine.linkDown() == true)
        #expect(machine.linkDown() == false)
        #expect(!machine.hears)
        #expect(machine.subscribe("d", waiter: 4).name == "wait")
        #expect(!machine.unsubscribe("a").send)
        let asked = machine.linkUp(now: 100).flatMap { $0 }
        #expect(asked.first == "probe")
        #expect(Set(asked) == ["probe", "c", "d"])
        _ = machine.confirmed(.subscribe, "probe")
        #expect(machine.heardProbe(now: 101) == false)
        #expect(!machine.confirmed(.subscribe, "c").hearsAgain)
        let last = machine.confirmed(.subscribe, "d")
        #expect(last.hearsAgain)
        #expect(last.succeeded == [4])
    }

    @Test("channels are asked for in chunks, and no more than the window's at a time")
    func chunks() {
        var machine = makeMachine(chunk: 10, window: 40)
        for number in 0..<99 {
            _ = machine.subscribe("c\(number)", waiter: number)
        }
        var asked = machine.linkUp(now: 0)
        #expect(asked.map(\.count) == [10, 10, 10, 10])
        var unconfirmed = asked.flatMap { $0 }
        var all = unconfirmed
        while !unconfirmed.isEmpty {
            asked = machine.confirmed(.subscribe, unconfirmed.removeFirst()).send
            all += asked.flatMap { $0 }
            unconfirmed += asked.flatMap { $0 }
            #expect(unconfirmed.count <= 40)
        }
        #expect(all.count == 100)
        #expect(Set(all).count == 100)
        #expect(machine.heardProbe(now: 0) == true)
    }

    @Test("unsubscribed while it waits for its turn: not asked for, and not waited for")
    func unsubscribeInTheQueue() {
        var machine = makeMachine(chunk: 1, window: 1)
        for name in ["a", "b"] {
            _ = machine.subscribe(name, waiter: 1)
        }
        #expect(machine.linkUp(now: 0) == [["probe"]])
        #expect(!machine.unsubscribe("a").send)
        let next = machine.confirmed(.subscribe, "probe").send
        #expect(next == [["b"]])
        #expect(machine.heardProbe(now: 1) == false)
        #expect(machine.confirmed(.subscribe, "b").hearsAgain)
    }

    @Test("the last channel to recover is unsubscribed: it hears again")
    func unsubscribeTheLast() {
        var machine = makeMachine()
        _ = machine.subscribe("a", waiter: 1)
        _ = machine.linkUp(now: 0)
        _ = machine.confirmed(.subscribe, "probe")
        _ = machine.heardProbe(now: 1)
        let action = machine.unsubscribe("a")
        #expect(action.hearsAgain)
        #expect(action.failed == [1])
        #expect(machine.hears)
    }

    @Test("a channel that Redis unsubscribes by itself ends the connection")
    func unsubscribedByRedis() {
        var machine = hearing(["a"])
        #expect(machine.confirmed(.unsubscribe, "a").disconnect)
        #expect(!machine.confirmed(.subscribe, "a").disconnect)
        #expect(!machine.confirmed(.unsubscribe, "unknown").disconnect)
    }

    @Test("stopping fails all who wait, and all who ask later")
    func stop() {
        var machine = hearing()
        _ = machine.subscribe("a", waiter: 1)
        #expect(machine.stop() == [1])
        #expect(!machine.hears)
        #expect(machine.subscribe("b", waiter: 2).name == "fail")
        #expect(machine.linkUp(now: 0).isEmpty)
        #expect(machine.linkDown() == false)
        #expect(machine.heardProbe(now: 0) == false)
    }
}

@Suite("Probes")
struct SubscriptionProbeTests {
    @Test("a probe is due each interval, and none before its channel is confirmed")
    func interval() {
        var machine = makeMachine()
        #expect(!machine.tick(now: 0).publishProbe)
        _ = machine.linkUp(now: 0)
        #expect(!machine.tick(now: 1).publishProbe)
        _ = machine.confirmed(.subscribe, "probe")
        machine.probeIsSent(now: 2)
        #expect((1...4).map { machine.tick(now: 2 + $0 * 10).publishProbe } == [false, true, false, true])
    }

    @Test("a probe that Redis took and that did not come back: deaf once, and dial again")
    func deafForSure() {
        var machine = hearing()
        machine.probeIsSent(now: 20)
        machine.probeWasPublished(sentAt: 20, now: 21)
        #expect(!machine.tick(now: 49).becameDeaf)
        #expect(machine.tick(now: 50) == .init(publishProbe: false, becameDeaf: true, disconnect: true))
        #expect(!machine.hears)
        #expect(machine.linkDown() == false)
    }

    @Test("while other messages come the probe may stand behind them: deaf, and given up only after a longer while")
    func probeInABacklog() {
        var machine = hearing()
        machine.probeIsSent(now: 20)
        machine.probeWasPublished(sentAt: 20, now: 21)
        machine.heardBytes(now: 50)
        let deaf = machine.tick(now: 50)
        #expect(deaf.becameDeaf)
        #expect(!deaf.disconnect)
        machine.heardBytes(now: 120)
        #expect(!machine.tick(now: 120).disconnect)
        #expect(machine.tick(now: 121).disconnect)
        #expect(machine.heardProbe(now: 122) == true)
        #expect(!machine.tick(now: 123).disconnect)
    }

    @Test("Redis took no probe: deaf, and the connection is kept until it was silent for too long")
    func deafForLackOfProbes() {
        var machine = hearing()
        machine.heardBytes(now: 10)
        let deaf = machine.tick(now: 60)
        #expect(deaf.becameDeaf)
        #expect(!deaf.disconnect)
        #expect(!machine.tick(now: 109).becameDeaf)
        #expect(!machine.tick(now: 109).disconnect)
        #expect(machine.tick(now: 110).disconnect)
    }

    @Test("deaf on a connection that stayed: the next probe that comes back heals it")
    func healsInPlace() {
        var machine = hearing()
        #expect(machine.tick(now: 60).becameDeaf)
        #expect(machine.heardProbe(now: 70) == true)
        #expect(machine.hears)
        #expect(!machine.tick(now: 119).becameDeaf)
        #expect(machine.tick(now: 120).becameDeaf)
    }

    @Test("the answer to a probe that was heard meanwhile proves nothing")
    func answerAfterProbe() {
        var machine = hearing()
        machine.probeIsSent(now: 20)
        #expect(machine.heardProbe(now: 21) == false)
        machine.probeWasPublished(sentAt: 20, now: 22)
        machine.heardBytes(now: 71)
        #expect(machine.tick(now: 71) == .init(publishProbe: true, becameDeaf: true, disconnect: false))
    }

    @Test("a process that stood still is not deaf before it had time to read")
    func stall() {
        var machine = hearing()
        machine.extend(by: 1000)
        #expect(!machine.tick(now: 1049).becameDeaf)
        #expect(machine.tick(now: 1050).becameDeaf)
    }
}

@Suite("Subscriptions against a model of Redis")
struct SubscriptionModelTests {
    /// Two pipes and a set of channels, which is all that classic pub/sub is.
    private struct Redis {
        var toServer: [(Machine.Word, String)] = []
        var toClient: [(Machine.Word, String)] = []
        var subscribed: Set<String> = []

        mutating func serve() {
            guard !toServer.isEmpty else { return }
            let (word, name) = toServer.removeFirst()
            switch word {
            case .subscribe: subscribed.insert(name)
            case .unsubscribe: subscribed.remove(name)
            }
            toClient.append((word, name))
        }
    }

    @Test("whatever is asked, lost and confirmed in whatever order, Redis ends with what is wanted", arguments: 0..<200)
    func convergence(_ seed: UInt64) {
        var random = SplitMix(seed: seed)
        var machine = makeMachine(chunk: 2, window: 4)
        var redis: Redis?
        var wanted: Set<String> = []
        var asked = 0
        var answered: [Int: Bool] = [:]
        func answer(_ waiters: [Int], _ success: Bool) {
            for waiter in waiters {
                #expect(answered[waiter] == nil, "answered twice")
                answered[waiter] = success
            }
        }
        func write(_ chunks: [[String]]) {
            redis?.toServer += chunks.flatMap { $0 }.map { (.subscribe, $0) }
        }
        func receive() {
            guard redis?.toClient.isEmpty == false, let (word, name) = redis?.toClient.removeFirst() else { return }
            let action = machine.confirmed(word, name)
            #expect(!action.disconnect)
            if !action.succeeded.isEmpty {
                #expect(wanted.contains(name))
            }
            answer(action.succeeded, true)
            write(action.send)
        }
        func step(_ choice: Int) {
            let name = "c\(Int.random(in: 0..<6, using: &random))"
            switch choice {
            case 0..<30:
                wanted.insert(name)
                asked += 1
                switch machine.subscribe(name, waiter: asked) {
                case .succeed(let waiter):
                    #expect(redis?.subscribed.contains(name) == true)
                    answer([waiter], true)
                case .send: redis?.toServer.append((.subscribe, name))
                case .wait: break
                case .fail: Issue.record("not stopped")
                }
            case 30..<55:
                wanted.remove(name)
                let action = machine.unsubscribe(name)
                answer(action.failed, false)
                if action.send {
                    redis?.toServer.append((.unsubscribe, name))
                }
            case 55..<75: redis?.serve()
            case 75..<95: receive()
            default:
                if redis == nil {
                    redis = Redis()
                    write(machine.linkUp(now: 0))
                } else {
                    redis = nil
                    _ = machine.linkDown()
                }
            }
        }
        for _ in 0..<400 {
            step(Int.random(in: 0..<100, using: &random))
        }
        if redis == nil {
            redis = Redis()
            write(machine.linkUp(now: 0))
        }
        for _ in 0..<1000 {
            redis?.serve()
            receive()
        }
        #expect(redis?.subscribed == wanted.union(["probe"]))
        #expect(answered.count == asked)
        _ = machine.heardProbe(now: 1)
        #expect(machine.hears)
    }
}
