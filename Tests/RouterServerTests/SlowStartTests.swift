import Affinity
import NIOCore
import Testing

@testable import RouterServer

@Suite("Slow start")
struct SlowStartTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)
    private let keys = (0..<2_000).map { "user-\($0)" }
    private let old: TimeAmount = .hours(1)

    private func node(
        _ name: String, _ incarnation: Int64 = 1, age: TimeAmount?, sessions: Int = 0, weight: Int = 100
    ) -> RoutedNode {
        RoutedNode(
            name: name, incarnation: incarnation, host: "127.0.0.1", port: 1, sessions: sessions, weight: weight,
            age: age)
    }

    private func table(
        _ nodes: [RoutedNode], at time: NIODeadline? = nil, bound: LoadBound? = nil, window: TimeAmount = .seconds(30)
    ) -> NodeTable {
        var table = NodeTable(hash: RendezvousHash(key: (1, 2)), bound: bound, slowStart: window)
        table.update(nodes, now: time ?? start)
        return table
    }

    private func homes(_ table: NodeTable, at time: NIODeadline) -> [String?] {
        keys.map { table.order(for: $0, now: time).first?.name }
    }

    @Test(
        "a new node gets a tenth of its keys, then as much as its part of the window, then all; what came to it stays")
    func ramp() {
        for weights in [[100, 100, 100, 100], [50, 200, 100, 1000]] {
            let names = ["a", "b", "c", "d"]
            let nodes = zip(names, weights).map { node($0, age: $0 == "d" ? .zero : old, weight: $1) }
            let table = table(nodes)
            let pure = keys.map { table.home(of: $0)?.name }
            let own = pure.count { $0 == "d" }
            var before: Set<Int> = []
            for millisecond in stride(from: Int64(0), through: 31_000, by: 1_500) {
                let time = start + .milliseconds(millisecond)
                let now = homes(table, at: time)
                let has = Set(now.indices.filter { now[$0] == "d" })
                #expect(has.isSuperset(of: before), "after \(millisecond) ms")
                #expect(now.indices.allSatisfy { pure[$0] == "d" || now[$0] == pure[$0] })
                let share = max(0.1, min(1, Double(millisecond) / 30_000))
                // Four times the standard deviation.
                let noise = 4 * (Double(own) * share * (1 - share)).squareRoot()
                #expect(abs(Double(has.count) - Double(own) * share) <= noise, "\(has.count) of \(own) at \(share)")
                before = has
            }
            #expect(homes(table, at: start + .seconds(30)) == pure)
        }
    }

    @Test("a key that it does not take yet goes where it would go without the node, and the node is tried last")
    func passedBy() {
        let others = ["a", "b", "c"].map { node($0, age: old) }
        let table = table(others + [node("d", age: .zero)])
        let without = self.table(others)
        for key in keys {
            let order = table.order(for: key, now: start).map(\.name)
            let rest = without.order(for: key, now: start).map(\.name)
            #expect(order.filter { $0 != "d" } == rest)
            if table.home(of: key)?.name == "d", order.first != "d" { #expect(order == rest + ["d"]) }
        }
    }

    @Test("routers agree, whenever they came and whatever their clocks say")
    func agreement() {
        let first = table(["a", "b", "c"].map { node($0, age: $0 == "c" ? .seconds(2) : old) })
        // Started nine seconds later, on a machine that booted at another time.
        let other = NIODeadline.uptimeNanoseconds(77_000_000_000)
        let second = table(
            ["c", "b", "a"].map { node($0, age: $0 == "c" ? .seconds(11) : .hours(3)) }, at: other + .seconds(9))
        for seconds in stride(from: Int64(9), to: 40, by: 3) {
            #expect(homes(first, at: start + .seconds(seconds)) == homes(second, at: other + .seconds(seconds)))
        }
    }

    @Test("nobody is held back where all are new, however the window of the first ends")
    func clusterStart() {
        var table = table([])
        for second in 0..<70 as Range<Int64> {
            let now = start + .seconds(second)
            let list = [("a", 0), ("b", 7), ("c", 29)].filter { $0.1 <= second }.map {
                node($0.0, age: .seconds(second - $0.1))
            }
            table.update(list, now: now)
            for key in keys.prefix(100) {
                #expect(table.order(for: key, now: now).first == table.home(of: key), "at \(second) s")
            }
        }
        // One that comes later is held back by these.
        let late = start + .seconds(70)
        table.update([node("a", age: .seconds(70)), node("d", age: .zero)], now: late)
        #expect(homes(table, at: late).count { $0 == "d" } < keys.count / 10)
    }

    @Test("without the registry's word a node is as old as the router knows it, and those of its first list are old")
    func unknownAge() {
        var table = table([node("a", age: nil), node("b", age: nil)])
        #expect(homes(table, at: start) == keys.map { table.home(of: $0)?.name })
        let now = start + .seconds(5)
        table.update([node("a", age: nil), node("b", age: nil), node("c", age: nil)], now: now)
        for seconds in [0, 10] as [Int64] {
            let time = now + .seconds(seconds)
            table.update([node("a", age: nil), node("b", age: nil), node("c", age: nil)], now: time)
            let share = homes(table, at: time).count { $0 == "c" }
            let own = keys.count { table.home(of: $0)?.name == "c" }
            #expect(share < own / (seconds == 0 ? 5 : 2) && share > 0)
        }
    }

    @Test("without another list the window ends all the same, and ages may grow as they like")
    func noMoreLists() {
        // Also of one that came before this machine started.
        for start in [start, NIODeadline.uptimeNanoseconds(1)] {
            let table = table([node("a", age: old), node("b", age: .seconds(1))], at: start)
            #expect(homes(table, at: start) != keys.map { table.home(of: $0)?.name })
            for time in [start + .seconds(30), start + .hours(24 * 107), .distantFuture] {
                #expect(homes(table, at: time) == keys.map { table.home(of: $0)?.name })
            }
        }
        var table = table([node("a", age: .nanoseconds(.max)), node("b", age: .zero)], at: .distantFuture)
        #expect(homes(table, at: .distantFuture) != keys.map { table.home(of: $0)?.name })
        table.update([node("a", age: nil)], now: .distantFuture)
        #expect(table.pick(for: "k", now: .distantFuture).pick?.node.name == "a")
    }

    @Test("a new start of a node begins small; so does a node that rose again, but not where all did")
    func again() {
        let both = ["a", "b"].map { node($0, age: old) }
        func isHeld(_ table: NodeTable, _ name: String, at time: NIODeadline) -> Bool {
            let own = keys.indices.filter { table.home(of: keys[$0])?.name == name }
            let now = homes(table, at: time)
            return own.count { now[$0] == name } < own.count
        }
        var table = table(both)
        table.update([both[0], node("b", 2, age: .zero)], now: start)
        #expect(isHeld(table, "b", at: start) && !isHeld(table, "a", at: start))

        table = self.table(both)
        _ = table.checked(both[1], .refused, now: start)
        for _ in 0..<2 { _ = table.checked(both[1], nil, now: start + .seconds(5)) }
        #expect(isHeld(table, "b", at: start + .seconds(34)) && !isHeld(table, "b", at: start + .seconds(35)))

        table = self.table(both)
        for node in both { _ = table.checked(node, .refused, now: start) }
        for (node, second) in zip(both, [5, 9] as [Int64]) {
            for _ in 0..<2 { _ = table.checked(node, nil, now: start + .seconds(second)) }
        }
        #expect(!isHeld(table, "a", at: start + .seconds(9)) && !isHeld(table, "b", at: start + .seconds(9)))
    }

    @Test("a node serves all when those before it are gone, and where the window is 0")
    func alone() {
        var table = table([node("a", age: old), node("b", age: .zero)])
        _ = table.checked(node("a", age: old), .refused, now: start)
        #expect(Set(homes(table, at: start)) == ["b"])
        table.update([node("b", age: .zero)], now: start)
        #expect(Set(homes(table, at: start)) == ["b"])
        table = self.table([node("a", age: old), node("b", age: .zero)], window: .zero)
        #expect(homes(table, at: start) == keys.map { table.home(of: $0)?.name })
    }

    @Test("the bound follows the share: a new node is not filled up because the others have more than the average")
    func bounded() {
        var table = table(
            [node("a", age: old, sessions: 5_000), node("b", age: old, sessions: 5_000), node("c", age: .zero)],
            bound: LoadBound(percent: 125, floor: 0))
        let route = table.route(for: "k", now: start)
        let limits = Dictionary(uniqueKeysWithValues: route.entries.map { ($0.node.name, $0.limit) })
        // 1.25 × 10,001 sessions, by weights of 1,000, 1,000 and 100.
        #expect(limits == ["a": 5_953, "b": 5_953, "c": 596])
        let picked = keys.prefix(300).map { table.pick(for: $0, now: start).pick?.node.name }
        #expect(picked.count { $0 == "c" } < 30)
        #expect(table.pickCounts.allSatisfy { $0.counts.spills == 0 })
        #expect(
            table.route(for: "k", now: start + .seconds(30)).entries.allSatisfy { ($0.limit ?? 0) > 4_000 })
    }

    @Test("the route says of a node that it is new, and how much it takes")
    func route() throws {
        let table = table([node("a", age: old), node("b", age: .seconds(12))])
        let key = try #require(
            keys.first { table.home(of: $0)?.name == "b" && table.order(for: $0, now: start).first?.name == "a" })
        let route = table.route(for: key, now: start)
        #expect(route.entries.map(\.verdict) == [.slowStart(400), .picked])
        #expect(route.reason(of: 0) == "passed by: it is new and takes 40 % of its keys, 0 sessions")
    }
}
