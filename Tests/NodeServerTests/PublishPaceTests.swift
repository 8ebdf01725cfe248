import ChatCore
import Testing
import WireProtocol

@testable import NodeServer

@Suite("The pace of publishes")
struct PublishPaceTests {
    private static let millisecond: UInt64 = 1_000_000
    private let sessions: [SessionID]

    init() {
        var random = FastRandom(seed: 1)
        sessions = (0..<400).map { _ in SessionID(using: &random) }
    }

    /// Lets publishes come at these milliseconds, of sessions in turns, in as many rooms, and tells when which went together.
    private func rounds(_ arrivals: [UInt64], sessions count: Int = 400, rooms: Int = 100) -> [[UInt64]] {
        var pace = PublishPace()
        var rounds: [[UInt64]] = []
        var waiting: [UInt64] = []
        var due: UInt64?
        func go(_ now: UInt64) {
            let wait = pace.wait(publishes: waiting.count, rooms: min(rooms, waiting.count), now: now)
            due = wait == 0 ? nil : now + wait
            guard wait == 0 else { return }
            pace.left()
            rounds.append(waiting)
            waiting = []
        }
        for (number, arrival) in arrivals.enumerated() {
            let now = arrival * Self.millisecond
            if let time = due, time <= now { go(time) }
            pace.arrived(from: sessions[number % count], now: now)
            waiting.append(arrival)
            go(now)
        }
        if let time = due { go(time) }
        return rounds
    }

    @Test("few publishes go one by one, at once")
    func few() {
        let arrivals = stride(from: UInt64(1000), to: 3000, by: 3).map(\.self)
        #expect(rounds(arrivals) == arrivals.map { [$0] })
    }

    @Test("many gather for four milliseconds from the first that waits")
    func many() {
        let rounds = rounds(Array(1000..<1043))
        #expect(Array(rounds.prefix(7)) == (UInt64(1000)..<1007).map { [$0] })
        #expect(rounds.dropFirst(7).first == [1007, 1008, 1009, 1010])
        #expect(rounds.dropFirst(7).allSatisfy { $0.count >= 3 })
        #expect(rounds.flatMap(\.self) == Array(1000..<1043))
    }

    @Test("nobody waits where each room has four already")
    func enough() {
        let counts = rounds(Array(repeating: 1000, count: 19), rooms: 1).map(\.count)
        #expect(counts == [1, 1, 1, 1, 1, 1, 1, 4, 4, 4])
    }

    @Test(
        "clients who wait for the ack of each message are held up by nobody, however many and however fast",
        arguments: [1, 2, 3, 8, 40])
    func closedLoop(clients: Int) {
        var pace = PublishPace()
        var now = 1000 * Self.millisecond
        var held: [UInt64] = []
        for _ in 0..<500 {
            for client in 0..<clients { pace.arrived(from: sessions[client], now: now) }
            let wait = pace.wait(publishes: clients, rooms: clients, now: now)
            if wait > 0 { held.append(now) }
            now += wait
            pace.left()
            now += Self.millisecond / 2
        }
        // The first time that many come, it cannot be known yet.
        #expect(held.count <= 2)
    }
}
