import Testing
import WebSocketTransport

private let second: UInt64 = 1_000_000_000

@Suite("How addresses behave, and what they may do")
struct ConductTableTests {
    private func table(_ limits: ConductLimits, capacity: Int = 1000) -> ConductTable<Int> {
        ConductTable(limits: limits, capacity: capacity)
    }

    @Test("connections at once are counted by key, and the end of one makes room")
    func connections() {
        var table = table(ConductLimits(connections: 2))
        #expect(table.connect(1, now: 0) == nil && table.connect(1, now: 0) == nil)
        #expect(table.connect(1, now: 0)?.reason == .connections)
        #expect(table.connect(2, now: 0) == nil)
        table.disconnect(1, now: 0)
        #expect(table.connect(1, now: 0) == nil)
        table.disconnect(3, now: 0)
        #expect(table.connect(1, now: 0)?.reason == .connections)
    }

    @Test("T19: handshakes pass at the rate, after a burst of four seconds' worth")
    func handshakes() {
        var table = table(ConductLimits(handshakesPerSecond: 10))
        #expect((0..<100).count { _ in table.handshake(1, now: second) == nil } == 40)
        #expect(table.handshake(1, now: second)?.reason == .handshakes)
        #expect((0..<100).count { _ in table.handshake(1, now: 2 * second) == nil } == 10)
        #expect(table.handshake(2, now: 2 * second) == nil)
    }

    @Test("T19: anomalies bar a key, each time for twice as long, and are forgotten")
    func bars() {
        var table = table(ConductLimits(faults: 10))
        var now = second
        var penalties: [Int] = []
        for _ in 0..<9 {
            var barred: Int?
            while barred == nil { barred = table.note(1, of: 1, now: now) }
            let seconds = barred ?? 0
            penalties.append(seconds)
            #expect(table.connect(1, now: now)?.reason == .barred)
            #expect(table.handshake(1, now: now)?.reason == .barred)
            #expect(table.connect(2, now: now) == nil)
            #expect(table.check(1, now: now + UInt64(seconds - 1) * second)?.retryAfterSeconds == 1)
            now += UInt64(seconds) * second
            #expect(table.check(1, now: now) == nil)
        }
        #expect(penalties == [10, 20, 40, 80, 160, 320, 640, 640, 640])
        now += 700 * second
        while table.note(1, of: 1, now: now) == nil {}
        #expect(table.check(1, now: now)?.retryAfterSeconds == 10)
    }

    @Test("few anomalies over a long time bar nobody: they fade by half a minute")
    func fading() {
        var table = table(ConductLimits(faults: 10))
        for minute in 0..<1000 {
            for _ in 0..<4 { #expect(table.note(1, of: 1, now: UInt64(minute) * 60 * second) == nil) }
        }
    }

    @Test("who is barred elsewhere is barred here, and for twice as long the next time")
    func elsewhere() {
        var table = table(ConductLimits(faults: 2))
        table.bar(1, seconds: 20, now: 0)
        #expect(table.check(1, now: 19 * second)?.reason == .barred)
        #expect(table.check(1, now: 20 * second) == nil)
        _ = table.note(1, of: 1, now: 20 * second)
        #expect(table.note(1, of: 1, now: 20 * second) == 40)
        table.bar(1, seconds: .max, now: 0)
        #expect(table.check(1, now: 640 * second) == nil)
        var lifted = self.table(ConductLimits())
        lifted.bar(1, seconds: 20, now: 0)
        #expect(lifted.check(1, now: 0) == nil)
    }

    @Test("T24: a flood of keys does not grow it; who is connected is kept, and who did nothing takes no place")
    func bounded() {
        var table = table(ConductLimits(connections: 1, handshakesPerSecond: 1, faults: 2), capacity: 100)
        #expect(table.connect(-1, now: 0) == nil)
        for key in 0..<100_000 { _ = table.note(1, of: key, now: UInt64(key)) }
        #expect(table.count <= 101)
        #expect(table.connect(-1, now: 1)?.reason == .connections)
        var quiet = self.table(ConductLimits(connections: 1))
        for key in 0..<1000 {
            #expect(quiet.connect(key, now: 0) == nil)
            quiet.disconnect(key, now: 0)
        }
        #expect(quiet.count == 0)
    }

    @Test("0 lifts each limit")
    func lifted() {
        var table = table(ConductLimits())
        for _ in 0..<1000 {
            #expect(table.connect(1, now: 0) == nil && table.handshake(1, now: 0) == nil)
            #expect(table.note(100, of: 1, now: 0) == nil)
        }
    }
}
