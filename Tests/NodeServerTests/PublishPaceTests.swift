import Testing

@testable import NodeServer

@Suite("The pace of publishes")
struct PublishPaceTests {
    private static let millisecond: UInt64 = 1_000_000

    /// Lets publishes come at these milliseconds, in as many rooms, and tells when which went together.
    private func rounds(_ arrivals: [UInt64], rooms: Int = 100) -> [[UInt64]] {
        var pace = PublishPace()
        var rounds: [[UInt64]] = []
        var waiting: [UInt64] = []
        var due: UInt64?
        func go(_ now: UInt64) {
            let wait = pace.wait(publishes: waiting.count, rooms: min(rooms, waiting.count), now: now)
            due = wait == 0 ? nil : now + wait
            guard wait == 0 else { return }
            pace.left(waiting.count, now: now)
            rounds.append(waiting)
            waiting = []
        }
        for arrival in arrivals {
            let now = arrival * Self.millisecond
            if let time = due, time <= now { go(time) }
            pace.arrived(1, now: now)
            waiting.append(arrival)
            go(now)
        }
        if let time = due { go(time) }
        return rounds
    }

    @Test("few publishes go one by one, at once")
    func few() {
        let arrivals = stride(from: UInt64(1000), to: 3000, by: 20).map(\.self)
        #expect(rounds(arrivals) == arrivals.map { [$0] })
    }

    @Test("many gather for four milliseconds from the first that waits")
    func many() {
        let rounds = rounds(Array(1000..<1030))
        #expect(rounds.prefix(4) == [[1000], [1001], [1002], [1003, 1004, 1005, 1006]])
        #expect(rounds.dropFirst(3).allSatisfy { $0.count >= 3 })
        #expect(rounds.flatMap(\.self) == Array(1000..<1030))
    }

    @Test("nobody waits where each room has four already")
    func enough() {
        #expect(rounds(Array(repeating: 1000, count: 11), rooms: 1).map(\.count) == [1, 1, 1, 4, 4])
    }

    @Test("who waits for the ack of each message, however fast, is held up once a second")
    func closedLoop() {
        var pace = PublishPace()
        var now = 1000 * Self.millisecond
        let end = now + 3000 * Self.millisecond
        var held: [UInt64] = []
        while now < end {
            pace.arrived(1, now: now)
            let wait = pace.wait(publishes: 1, rooms: 1, now: now)
            if wait > 0 { held.append(now / Self.millisecond) }
            now += wait
            #expect(pace.wait(publishes: 1, rooms: 1, now: now) == 0)
            pace.left(1, now: now)
            now += Self.millisecond
        }
        #expect(held.count == 3)
    }
}
