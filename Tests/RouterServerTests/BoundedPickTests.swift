import Affinity
import NIOCore
import Testing

@testable import RouterServer

@Suite("Picks with bounded load")
struct BoundedPickTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
    private let names = (0..<6).map { "node-\($0)" }

    private func node(
        _ name: String, _ incarnation: Int64 = 1, sessions: Int = 0, weight: Int = 100, age: TimeAmount = .zero,
        state: RoutedNode.State = .ready, isLate: Bool = false
    ) -> RoutedNode {
        RoutedNode(
            name: name, incarnation: incarnation, host: "127.0.0.1", port: 1, state: state, isLate: isLate,
            sessions: sessions, figuresAge: age, weight: weight)
    }

    private func table(_ nodes: [RoutedNode], _ bound: LoadBound? = LoadBound(percent: 125, floor: 3)) -> NodeTable {
        var table = NodeTable(hash: RendezvousHash(key: (1, 2)), bound: bound)
        table.update(nodes, now: start)
        return table
    }

    private func load(_ table: NodeTable, _ name: String) -> Int? {
        table.route(for: "k", now: start).entries.first { $0.node.name == name }?.load
    }

    @Test("the first choice until it is at the floor, then the next in the order, and so on")
    func spill() {
        var table = table(names.prefix(3).map { node($0) })
        let order = table.order(for: "k", now: start).map(\.name)
        // With an eighth the average with its quarter would be more than the floor.
        let picks = (0..<7).map { _ in table.pick(for: "k", now: start) }
        #expect(picks.map { $0.pick?.node.name } == (0..<7).map { order[$0 / 3] })
        #expect(picks.map { $0.nodes[0].name } == picks.map { $0.pick?.node.name })
        // Who was passed by is tried last.
        #expect(picks[3].nodes.map(\.name) == [order[1], order[2], order[0]])
        #expect(table.pickCounts.map(\.counts.spills).reduce(0, +) == 4)
        #expect(table.pickCounts.first { $0.node == order[0] }?.counts == .init(picks: 3, spills: 4))
        #expect(table.order(for: "k", now: start).map(\.name) == order, "the order knows no load")
    }

    @Test("nobody is above the bound, however keys and clients come and go, at one router")
    func bound() {
        for seed in 0..<20 as Range<UInt64> {
            var generator = Generator(seed: seed)
            let percent = [100, 110, 125, 200, 1000][Int(seed % 5)]
            let floor = [0, 3, 40][Int(seed % 3)]
            let weights = names.map { _ in [100, 100, 50, 400][Int.random(in: 0..<4, using: &generator)] }
            var table = table(
                zip(names, weights).map { node($0, weight: $1) }, LoadBound(percent: percent, floor: floor))
            var loads = [Int](repeating: 0, count: names.count)
            var open: [NodeTable.Pick] = []
            for _ in 0..<1_000 {
                if !open.isEmpty, Int.random(in: 0..<3, using: &generator) == 0 {
                    let pick = open.remove(at: .random(in: 0..<open.count, using: &generator))
                    table.giveBack(pick)
                    if let index = names.firstIndex(of: pick.node.name) { loads[index] -= 1 }
                }
                // One key in four is that of everybody.
                let key = Int.random(in: 0..<4, using: &generator) == 0 ? 0 : Int.random(in: 0..<50, using: &generator)
                guard let pick = table.pick(for: "key-\(key)", now: start).pick,
                    let index = names.firstIndex(of: pick.node.name)
                else { return #expect(Bool(false), "nobody was picked") }
                open.append(pick)
                loads[index] += 1
                let all = loads.reduce(0, +)
                // ⌈percent × sessions × weight ÷ weights⌉, in whole numbers.
                let (share, whole) = (percent * all * weights[index], 100 * weights.reduce(0, +))
                #expect(loads[index] <= max(floor, (share + whole - 1) / whole), "seed \(seed): \(loads) \(weights)")
            }
            #expect(names.indices.allSatisfy { load(table, names[$0]) == loads[$0] })
        }
    }

    @Test("two routers that learn of nodes in different orders agree on every order, and on every pick below the bound")
    func agreement() {
        var generator = Generator(seed: 11)
        var one = table([], LoadBound(percent: 125, floor: 100_000))
        var other = table([], LoadBound(percent: 125, floor: 100_000))
        var present: Set<String> = []
        for round in 0..<40 {
            if let name = names.randomElement(using: &generator), present.remove(name) == nil { present.insert(name) }
            let nodes = present.sorted().map { node($0, Int64(round + 1), weight: $0 == "node-1" ? 250 : 100) }
            one.update(nodes.shuffled(using: &generator), now: start)
            other.update(nodes.shuffled(using: &generator), now: start)
            for _ in 0..<50 {
                let key = "user-\(Int.random(in: 0..<1_000_000, using: &generator))"
                let order = one.order(for: key, now: start).map(\.name)
                #expect(other.order(for: key, now: start).map(\.name) == order)
                #expect(Set(order) == present)
                // Unlike histories: what one picked before does not count while nobody is at the bound.
                if Bool.random(using: &generator) { _ = one.pick(for: key, now: start) }
                #expect(one.pick(for: key, now: start).nodes == other.pick(for: key, now: start).nodes)
            }
        }
    }

    @Test("sessions that the registry counts are load, and new figures replace the picks that they know of")
    func figures() {
        var table = table([node("a"), node("b")])
        var now = start
        func pick() -> String? { table.pick(for: "k", now: now).pick?.node.name }
        let first = pick()
        let second = first == "a" ? "b" : "a"
        now = now + .seconds(2)
        _ = (pick(), pick())
        #expect(first.flatMap { load(table, $0) } == 3)
        #expect(pick() == second)
        // Told a second ago, before the last three picks.
        let list = [
            node("a", sessions: first == "a" ? 1 : 0, age: .seconds(1)),
            node("b", sessions: first == "b" ? 1 : 0, age: .seconds(1)),
        ]
        table.update(list, now: now)
        #expect(first.flatMap { load(table, $0) } == 3)
        // And again, with the same figures two seconds later.
        table.update(list.map { node($0.name, sessions: $0.sessions, age: .seconds(3)) }, now: now + .seconds(2))
        #expect(first.flatMap { load(table, $0) } == 3)
        // Figures that know of all.
        now = now + .seconds(2)
        table.update([node("a", sessions: 5), node("b", sessions: 1)], now: now)
        #expect(load(table, "a") == 5)
        #expect(load(table, "b") == 1)
        #expect((0..<2).map { _ in pick() } == ["b", "b"])
    }

    @Test("a pick that is given back counts no more, and one that figures know of cannot be given back")
    func givingBack() {
        var table = table([node("a"), node("b")], LoadBound(percent: 100, floor: 1))
        let first = table.pick(for: "k", now: start)
        #expect(table.pick(for: "k", now: start).nodes[0].name != first.nodes[0].name)
        if let pick = first.pick {
            table.giveBack(pick)
            #expect(load(table, pick.node.name) == 0)
            #expect(table.pick(for: "k", now: start).pick?.node == pick.node)
            table.update([node("a"), node("b")], now: start + .seconds(5))
            table.giveBack(pick)
            #expect(load(table, pick.node.name) == 0)
        }
    }

    @Test("a new start of a node has nobody yet, and what was picked for the last is not its own")
    func restart() {
        var table = table([node("a")])
        let old = table.pick(for: "k", now: start).pick
        table.update([node("a", 2)], now: start)
        #expect(load(table, "a") == 0)
        _ = table.pick(for: "k", now: start)
        if let old { table.giveBack(old) }
        #expect(load(table, "a") == 1)
        #expect(table.take(node("a", 1), now: start) == nil)
        #expect(table.take(node("gone"), now: start) == nil)
    }

    @Test("a node that drains keeps its clients, and neither counts nor weighs among those that take some")
    func draining() {
        var table = table([
            node("a", sessions: 1_000, state: .draining), node("b", sessions: 1_000, isLate: true), node("c"),
            node("d"),
        ])
        let picked = (0..<4).map { _ in table.pick(for: "k", now: start).pick?.node.name }
        #expect(Set(picked) == ["c", "d"])
        #expect(picked.count { $0 == picked[0] } == 3)
    }

    @Test("an ejected node leaves its share to the others, whose bound rises with it")
    func ejected() {
        var table = table(["a", "b", "c"].map { node($0, sessions: 100) }, LoadBound(percent: 125, floor: 0))
        table.failed(node("a"), now: start)
        let picks = (0..<200).map { table.pick(for: "user-\($0)", now: start).pick?.node.name }
        #expect(picks.allSatisfy { $0 == "b" || $0 == "c" })
        let loads = ["b", "c"].map { load(table, $0) ?? 0 }
        #expect(loads.reduce(0, +) == 400)
        #expect(loads.allSatisfy { $0 <= 250 })
        let entry = table.route(for: "k", now: start).entries.first { $0.node.name == "a" }
        #expect(entry?.verdict == .ejected(.seconds(1)))
        #expect(entry?.limit == nil)
    }

    @Test("where all have the average, and the factor is 100 %, the first choice gets the next client")
    func even() {
        var table = table(["a", "b"].map { node($0, sessions: 10) }, LoadBound(percent: 100, floor: 0))
        let route = table.route(for: "k", now: start)
        #expect(route.entries.map(\.limit) == [11, 11])
        #expect(table.pick(for: "k", now: start).pick?.node == route.entries[0].node)
        #expect(table.pick(for: "k", now: start).pick?.node == route.entries[1].node)
    }

    @Test("without a bound one node gets all of a key's clients")
    func unbounded() {
        var table = table(names.map { node($0) }, nil)
        let home = table.home(of: "k")
        for _ in 0..<1_000 { #expect(table.pick(for: "k", now: start).pick?.node == home) }
        #expect(table.route(for: "k", now: start).entries.allSatisfy { $0.limit == nil })
        #expect(table.pickCounts.allSatisfy { $0.counts.spills == 0 })
    }

    @Test("the route of a key tells the order, the figures, and why each node is picked or not")
    func route() {
        var table = table(names.prefix(3).map { node($0) } + [node("z", state: .dead), node("y", state: .draining)])
        let order = table.order(for: "k", now: start).map(\.name)
        for _ in 0..<3 { _ = table.pick(for: "k", now: start) }
        let route = table.route(for: "k", now: start)
        #expect(route.picked?.name == order[1])
        #expect(route.entries.map(\.node.name) == order + ["y", "z"])
        #expect(route.entries.map(\.verdict) == [.atBound, .picked, .reserve, .draining, .dead])
        #expect(route.candidates == 3)
        #expect(
            (0..<5).map { route.reason(of: $0) } == [
                "passed by: at its bound, 3 of 3 sessions", "picked: the first that may have more, 0 of 3 sessions",
                "in reserve: 0 of 3 sessions", "drains: takes no clients", "dead",
            ])
        #expect(table.pick(for: "k", now: start).pick?.node == route.picked)
        #expect(self.table([]).route(for: "k", now: start).picked == nil)
    }

    @Test("picks of a minute and more without new figures all count")
    func longSilence() {
        var picks = RecentPicks()
        var now = start
        let first = picks.add(at: now)
        for _ in 0..<5_000 {
            now = now + .milliseconds(100)
            _ = picks.add(at: now)
        }
        #expect(picks.count == 5_001)
        let removedFirst = picks.remove(first)
        #expect(!removedFirst, "it counts as of the oldest minute that is told apart")
        picks.forget(before: now)
        #expect(picks.count == 2)
        let late = picks.add(at: start)
        let removedLate = picks.remove(late)
        #expect(removedLate)
        #expect(picks.count == 2)
    }

    @Test("figures of the moment may know of the last picks or not, and of no later ones")
    func doubt() {
        var picks = RecentPicks()
        let slots = [0, 100, 220, 240].map { picks.add(at: start + .milliseconds($0)) }
        picks.forget(before: start + .milliseconds(250))
        #expect(picks.count == 3 && picks.doubtful == 3)
        let later = picks.add(at: start + .milliseconds(260))
        #expect(picks.count == 4 && picks.doubtful == 3)
        let removed = [slots[3], later, slots[0]].map { picks.remove($0) }
        #expect(removed == [true, true, false])
        #expect(picks.count == 2 && picks.doubtful == 2)
        picks.forget(before: start + .milliseconds(900))
        #expect(picks.count == 0 && picks.doubtful == 0)
    }

    @Test(
        "nobody is above the bound, though figures come late, know of the last picks or not, and all clients have one key"
    )
    func boundOfLateFigures() {
        for seed in 0..<20 as Range<UInt64> {
            var generator = Generator(seed: seed)
            let count = [3, 4, 6][Int(seed % 3)]
            let names = Array(names.prefix(count))
            var table = table(names.map { node($0) }, LoadBound(percent: 125, floor: 10))
            var now = start
            // When each node's clients had a session.
            var sessions: [String: [NIODeadline]] = [:]
            var told: [String: NIODeadline] = [:]
            for number in 1...600 {
                now = now + .milliseconds(.random(in: 1...40, using: &generator))
                guard let picked = table.pick(for: "k", now: now).pick?.node.name else {
                    return #expect(Bool(false), "nobody was picked")
                }
                sessions[picked, default: []].append(now + .milliseconds(.random(in: 1...40, using: &generator)))
                let most = sessions.values.map(\.count).max() ?? 0
                let bound = max(10, (125 * number + 100 * count - 1) / (100 * count))
                #expect(most <= bound, "seed \(seed): \(most) of \(number), where \(bound) may be")
                guard Int.random(in: 0..<30, using: &generator) == 0 else { continue }
                let list = names.map { name in
                    let time = max(
                        told[name] ?? start, now - .milliseconds(.random(in: 0...2_000, using: &generator)))
                    told[name] = time
                    // The clock that dates figures is read after them.
                    let counted = sessions[name, default: []].count { $0 <= time - .milliseconds(20) }
                    return node(name, sessions: counted, age: now - time)
                }
                table.update(list, now: now)
            }
        }
    }

    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        init(seed: UInt64) { state = seed &* 0x2545_f491_4f6c_dd1d | 1 }
        /// Marsaglia's xorshift.
        mutating func next() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
    }
}
