import Testing

@testable import Affinity

@Suite struct RendezvousHashTests {
    private let hash = RendezvousHash(key: (0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321))
    private let nodes = ["node-a", "node-b", "node-c", "node-d", "node-e"]

    private func first(_ key: String, among nodes: [String]) -> String {
        hash.order(of: nodes, for: key.utf8)[0]
    }

    @Test("spreads keys over five nodes within 20 % of even, whatever the keys look like")
    func spread() {
        let kinds: [(Int) -> String] = [
            { "user-\($0)" }, { String($0) }, { "\($0 % 250).\($0 / 250).0.1" }, { String($0, radix: 36) + "@example" },
        ]
        for kind in kinds {
            var counts: [String: Int] = [:]
            for number in 0..<10_000 { counts[first(kind(number), among: nodes), default: 0] += 1 }
            for node in nodes {
                #expect((1600...2400).contains(counts[node] ?? 0), "\(node) has \(counts)")
            }
        }
    }

    @Test("the second choices of one node's keys are spread over all others too")
    func secondChoices() {
        var counts: [String: Int] = [:]
        for number in 0..<20_000 {
            let order = hash.order(of: nodes, for: "user-\(number)".utf8)
            if order[0] == "node-c" { counts[order[1], default: 0] += 1 }
        }
        #expect(counts.count == 4)
        for (node, count) in counts { #expect((800...1200).contains(count), "\(node) \(counts)") }
    }

    @Test("removing one of five nodes moves only its keys, and adding one takes only its share")
    func movement() {
        for gone in nodes {
            let rest = nodes.filter { $0 != gone }
            for number in 0..<2_000 {
                let key = "user-\(number)"
                let before = first(key, among: nodes)
                let after = first(key, among: rest)
                #expect(before == gone || before == after)
            }
        }
    }

    @Test("1,000 keys stay where they are, in every router, in whatever order it learnt of the nodes")
    func agreement() {
        let other = RendezvousHash(key: (0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321))
        var shuffled = nodes
        for number in 0..<1_000 {
            shuffled.shuffle()
            let key = "user-\(number)"
            let order = hash.order(of: nodes, for: key.utf8)
            #expect(other.order(of: shuffled, for: key.utf8) == order)
            #expect(order.sorted() == nodes)
        }
    }

    @Test("prepared candidates give the same order, and the first of it without a sort")
    func prepared() {
        let candidates = nodes.map { hash.candidate($0) }
        for number in 0..<1_000 {
            let key = "user-\(number)"
            let order = hash.order(of: nodes, for: key.utf8)
            #expect(hash.order(of: candidates, for: key.utf8).map { nodes[$0] } == order)
            #expect(hash.first(of: candidates, for: key.utf8).map { nodes[$0] } == order[0])
        }
        #expect(hash.first(of: [RendezvousHash.Candidate](), for: "x".utf8) == nil)
        #expect(hash.order(of: [String](), for: "x".utf8).isEmpty)
    }

    @Test("T25: another secret gives another order, so that keys cannot be chosen to meet on one node")
    func keyed() {
        let other = RendezvousHash(key: (1, 2))
        let keys = (0..<1_000).map { "user-\($0)" }
        let onFirst = keys.filter { first($0, among: nodes) == "node-a" }
        let still = onFirst.filter { other.order(of: nodes, for: $0.utf8)[0] == "node-a" }
        #expect(still.count * 3 < onFirst.count)
    }

    @Test("is pinned: a release that gives another order would move every client")
    func pinned() {
        let orders = ["alice", "bob", "carol", "Zoë", ""].map { key in
            hash.order(of: nodes, for: key.utf8).map { String($0.suffix(1)) }.joined()
        }
        #expect(orders == ["edabc", "acebd", "ebdca", "acbed", "dabec"])
    }
}
