import Glibc
import TestSupport
import Testing

@testable import Affinity

/// What holds for many keys at once. The keys, and so the results, are the same on every run.
///
/// A million keys are some 15 s of a core in a debug build; MARTLET_TEST_KEYS takes more or fewer of them.
@Suite("Rendezvous hashing over many keys")
struct RendezvousPropertyTests {
    private static let hash = RendezvousHash(key: (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210))
    private static let keys = getenv("MARTLET_TEST_KEYS").flatMap { Int(String(cString: $0)) } ?? 1_000_000

    private static func candidates(_ weights: [Int]) -> [RendezvousHash.Candidate] {
        weights.enumerated().map { hash.candidate("node-\($0.offset)", weight: $0.element) }
    }

    /// The name of each key's first choice. Other tests have deadlines, and are let through.
    private static func homes(_ candidates: [RendezvousHash.Candidate]) async -> [Int] {
        var homes: [Int] = []
        homes.reserveCapacity(keys)
        for key in 0..<keys {
            homes.append(withUnsafeBytes(of: UInt64(key).littleEndian) { hash.first(of: candidates, for: $0) ?? -1 })
            if key % 2_000 == 0 { await Task.yield() }
        }
        return homes
    }

    /// Pearson's χ² of how many keys each candidate has against its share by weight.
    private static func chiSquare(_ homes: [Int], _ weights: [Int]) -> Double {
        var counts = [Int](repeating: 0, count: weights.count)
        for home in homes { counts[home] += 1 }
        let total = Double(weights.reduce(0, +))
        return zip(counts, weights).reduce(0) { sum, pair in
            let expected = Double(homes.count) * Double(pair.1) / total
            let difference = Double(pair.0) - expected
            return sum + difference * difference / expected
        }
    }

    @Test(
        "keys are spread as chance would, by weight",
        arguments: [
            [100, 100], [Int](repeating: 100, count: 10), [100, 200], [1, 1000], [100, 100, 50, 400, 10, 1, 1000, 333],
        ])
    func spread(weights: [Int]) async {
        let value = Self.chiSquare(await Self.homes(Self.candidates(weights)), weights)
        // Mean and standard deviation of χ² are f and √2f: chance exceeds this less than once in 10^6 tries.
        let freedom = Double(weights.count - 1)
        #expect(value < freedom + 7 * (2 * freedom).squareRoot() + 14, "χ² \(value)")
    }

    @Test("one of N nodes that goes or comes moves no key between the others, and at most 1.1/N of all")
    func movement() async {
        let weights = [Int](repeating: 100, count: 10)
        let all = Self.candidates(weights)
        let before = await Self.homes(all)
        // Removing the last; and the other way round, adding it to nine.
        let after = await Self.homes(Array(all.dropLast()))
        let moved = zip(before, after).count { $0 != $1 }
        #expect(zip(before, after).allSatisfy { $0 == $1 || $0 == 9 })
        // A tenth is expected; of a million keys 1 % more of all is 33 standard deviations away.
        #expect(Double(moved) <= 1.1 / 10 * Double(Self.keys), "\(moved) of \(Self.keys)")
    }

    @Test("a weight that changes moves keys to or from its node alone, and as many as it must")
    func reweighing() async {
        let before = await Self.homes(Self.candidates([100, 100, 100, 100]))
        let after = await Self.homes(Self.candidates([100, 100, 100, 200]))
        let moved = zip(before, after).filter { $0 != $1 }
        #expect(moved.allSatisfy { $0.1 == 3 })
        // From 1/4 of all to 2/5; within six standard deviations.
        let share = Double(moved.count) / Double(Self.keys)
        #expect(abs(share - 0.15) < 6 * (0.15 * 0.85 / Double(Self.keys)).squareRoot(), "\(share)")
        let back = await Self.homes(Self.candidates([100, 100, 100, 50]))
        #expect(zip(before, back).allSatisfy { $0 == $1 || $0 == 3 })
    }

    @Test("equal weights give the same order, whatever they are: that of the hashes")
    func equalWeights() {
        let standard = Self.candidates([100, 100, 100, 100, 100])
        let other = Self.candidates([7, 7, 7, 7, 7])
        // Here two weights differ, so that logarithms are compared, but not among the first five.
        let mixed = Self.candidates([100, 100, 100, 100, 100, 1])
        for key in 0..<2_000 {
            let bytes = Array("user-\(key)".utf8)
            let order = Self.hash.order(of: standard, for: bytes)
            #expect(Self.hash.order(of: other, for: bytes) == order)
            #expect(Self.hash.order(of: mixed, for: bytes).filter { $0 < 5 } == order)
        }
    }

    @Test("the order by weight is the same in whatever order the nodes are learnt, and its first is the first choice")
    func agreement() {
        var generator = SplitMix(seed: 3)
        var shuffled = Self.candidates([100, 250, 1, 1000, 33, 100])
        let candidates = shuffled
        for key in 0..<2_000 {
            shuffled.shuffle(using: &generator)
            let bytes = Array("user-\(key)".utf8)
            let order = Self.hash.order(of: candidates, for: bytes).map { candidates[$0].name }
            #expect(Self.hash.order(of: shuffled, for: bytes).map { shuffled[$0].name } == order)
            #expect(Self.hash.first(of: shuffled, for: bytes).map { shuffled[$0].name } == order[0])
        }
    }

    @Test("is pinned with weights: a release that gives another order would move clients")
    func pinned() {
        let candidates = Self.candidates([100, 200, 50, 1000])
        let orders = ["alice", "bob", "carol", "Zoë", ""].map { key in
            Self.hash.order(of: candidates, for: key.utf8).map(String.init).joined()
        }
        #expect(orders == ["3102", "3120", "3120", "0321", "2310"])
    }

    @Test("a weight out of range counts as the nearest")
    func ranges() {
        #expect(Self.hash.candidate("a", weight: 0).weight == 1)
        #expect(Self.hash.candidate("a", weight: 5000).weight == 1000)
    }
}
