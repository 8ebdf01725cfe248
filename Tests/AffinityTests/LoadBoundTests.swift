import TestSupport
import Testing

@testable import Affinity

@Suite("How many sessions a node may have")
struct LoadBoundTests {
    @Test("is the factor times the average with the next session, rounded up, and never below the floor")
    func limit() {
        let bound = LoadBound(percent: 125, floor: 10)
        // 1.25 × 100 ÷ 4 = 31.25.
        #expect(bound.limit(sessions: 99, weight: 100, of: 400) == 32)
        #expect(bound.limit(sessions: 127, weight: 100, of: 400) == 40)
        #expect(bound.limit(sessions: 128, weight: 100, of: 400) == 41)
        #expect(bound.limit(sessions: 0, weight: 100, of: 400) == 10)
        #expect(LoadBound(percent: 100, floor: 0).limit(sessions: 0, weight: 1, of: 1) == 1)
    }

    @Test("goes by weight")
    func weight() {
        let bound = LoadBound(percent: 200, floor: 0)
        #expect(bound.limit(sessions: 999, weight: 300, of: 1000) == 600)
        #expect(bound.limit(sessions: 999, weight: 1, of: 1000) == 2)
    }

    @Test("takes the nearest of what is out of range, and the largest figures without overflow")
    func ranges() {
        #expect(LoadBound(percent: 0, floor: -1) == LoadBound(percent: 100, floor: 0))
        #expect(LoadBound(percent: 5000, floor: .max) == LoadBound(percent: 1000, floor: 1_000_000_000))
        let bound = LoadBound(percent: 1000, floor: 0)
        #expect(bound.limit(sessions: .max, weight: 1000, of: 1000) == 10_000_000_000_010)
        #expect(bound.limit(sessions: -5, weight: 100, of: 0) > 0)
    }

    @Test(
        "leaves room for one more, whatever the weights and the factor, as the limits add up to more than all sessions")
    func room() {
        var generator = SplitMix(seed: 7)
        for _ in 0..<2_000 {
            let weights = (0..<Int.random(in: 1...12, using: &generator)).map { _ in
                Int.random(in: 1...1000, using: &generator)
            }
            let sessions = Int.random(in: 0...100_000, using: &generator)
            let bound = LoadBound(percent: Int.random(in: 100...1000, using: &generator), floor: 0)
            let total = weights.reduce(0, +)
            let limits = weights.map { bound.limit(sessions: sessions, weight: $0, of: total) }
            #expect(limits.reduce(0, +) > sessions)
        }
    }
}
