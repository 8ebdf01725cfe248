import Testing

@testable import martlet

@Suite("Supervision of a dev cluster")
struct SupervisionTests {
    /// Redis in tier 0, two nodes in tier 1.
    private func begun() -> Supervision {
        var state = Supervision(tiers: [0, 1, 1], patience: 8000)
        #expect(state.begin() == [.start(0)])
        return state
    }

    private func running() -> Supervision {
        var state = begun()
        #expect(state.ready(0, now: 0) == [.start(1), .start(2)])
        #expect(state.ready(1, now: 0) == [])
        #expect(state.ready(2, now: 0) == [.announce])
        return state
    }

    @Test("a tier starts once all below it are ready, and the cluster is announced once")
    func start() {
        var state = running()
        #expect(state.ready(2, now: 1) == [])
        #expect(state.deadline == nil)
    }

    @Test("a child that ends starts again, later each time, and at once again after 30 s of health")
    func restart() {
        var state = running()
        var now: Int64 = 1000
        for delay: Int64 in [500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
            #expect(state.ended(1, now: now) == [.reportRestart(1, inMilliseconds: delay)])
            #expect(state.deadline == now + delay)
            #expect(state.tick(now: now + delay - 1) == [])
            now += delay
            #expect(state.tick(now: now) == [.start(1)])
        }
        #expect(state.ready(1, now: now) == [.reportReady(1, again: true)])
        #expect(state.ended(1, now: now + 30_000) == [.reportRestart(1, inMilliseconds: 500)])
    }

    @Test("a Redis that dies before it was ready keeps the nodes waiting")
    func redisFails() {
        var state = begun()
        #expect(state.ended(0, now: 0) == [.reportRestart(0, inMilliseconds: 500)])
        #expect(state.tick(now: 500) == [.start(0)])
        #expect(state.ready(0, now: 600) == [.start(1), .start(2)])
    }

    @Test("stop ends nodes before Redis and starts nothing any more")
    func stop() {
        var state = running()
        #expect(state.ended(2, now: 0) == [.reportRestart(2, inMilliseconds: 500)])
        #expect(state.stop(now: 100) == [.terminate(1)])
        #expect(state.tick(now: 600) == [])
        #expect(state.ended(1, now: 700) == [.terminate(0)])
        #expect(state.ended(0, now: 800) == [.finish])
        #expect(state.stop(now: 900) == [])
    }

    @Test("who does not end in time is killed, tier by tier")
    func patience() {
        var state = running()
        #expect(state.stop(now: 0) == [.terminate(1), .terminate(2)])
        #expect(state.ended(1, now: 10) == [])
        #expect(state.deadline == 8000)
        #expect(state.tick(now: 7999) == [])
        #expect(state.tick(now: 8000) == [.kill(2)])
        #expect(state.ended(2, now: 8001) == [.terminate(0)])
        #expect(state.tick(now: 16_001) == [.kill(0)])
        #expect(state.ended(0, now: 16_002) == [.finish])
    }

    @Test("a second stop kills all at once")
    func impatience() {
        var state = running()
        _ = state.stop(now: 0)
        #expect(state.stop(now: 499) == [], "the same signal, sent twice")
        #expect(state.stop(now: 500) == [.kill(0), .kill(1), .kill(2)])
        #expect(state.ended(0, now: 2) == [])
        #expect(state.ended(1, now: 2) == [])
        #expect(state.ended(2, now: 2) == [.finish])
    }

    @Test("stop before anything runs is the end")
    func stopIdle() {
        var state = Supervision(tiers: [0, 1], patience: 1)
        #expect(state.stop(now: 0) == [.finish])
    }
}
