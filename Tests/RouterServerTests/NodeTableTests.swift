import Affinity
import NIOCore
import Testing

@testable import RouterServer

@Suite("Who may serve a key")
struct NodeTableTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000_000)

    private func node(
        _ name: String,
        _ incarnation: Int64 = 1,
        state: RoutedNode.State = .ready,
        isLate: Bool = false
    ) -> RoutedNode {
        RoutedNode(name: name, incarnation: incarnation, host: "127.0.0.1", port: 1, state: state, isLate: isLate)
    }

    private func table(_ nodes: [RoutedNode]) -> NodeTable {
        var table = NodeTable(hash: RendezvousHash(key: (1, 2)))
        table.update(nodes, now: start)
        return table
    }

    @Test("the order is the hash's, over names alone")
    func order() {
        let names = ["node-a", "node-b", "node-c"]
        let first = table(names.map { node($0) })
        let second = table(names.reversed().map { node($0, 9) })
        let hash = RendezvousHash(key: (1, 2))
        for number in 0..<100 {
            let key = "user-\(number)"
            #expect(first.order(for: key, now: start).map(\.name) == hash.order(of: names, for: key.utf8))
            #expect(second.order(for: key, now: start).map(\.name) == hash.order(of: names, for: key.utf8))
            #expect(first.home(of: key)?.name == hash.order(of: names, for: key.utf8)[0])
        }
    }

    @Test("T25: the order of the nodes is that of the cluster's secret, the same for all its routers")
    func secret() {
        let names = (0..<8).map { "node-\($0)" }
        func homes(_ secret: String) -> [String?] {
            var table = NodeTable(hash: RendezvousHash(key: RouterConfiguration.affinityKey(secret: secret)))
            table.update(names.map { node($0) }, now: start)
            return (0..<800).map { table.home(of: "user-\($0)")?.name }
        }
        let own = homes("the secret of a cluster")
        #expect(own == homes("the secret of a cluster"))
        for other in ["", "the secret of a cluste", "the secret of another"] {
            // By chance one of eight.
            let same = zip(own, homes(other)).count { $0 == $1 }
            #expect((50...160).contains(same), "\(same) of 800")
        }
    }

    @Test("draining and dead nodes take no clients, and stay listed")
    func states() {
        let table = table([node("a", state: .draining), node("b", state: .dead), node("c")])
        #expect(table.order(for: "k", now: start).map(\.name) == ["c"])
        #expect(table.nodes.map(\.name) == ["a", "b", "c"])
    }

    @Test("of one name only the latest start counts")
    func incarnations() {
        let table = table([node("a", 3), node("a", 4, state: .draining), node("a", 2)])
        #expect(table.nodes.map(\.incarnation.number) == [4])
        #expect(table.order(for: "k", now: start).isEmpty)
    }

    @Test("a late node takes clients only when all are late")
    func late() {
        #expect(table([node("a", isLate: true), node("b")]).order(for: "k", now: start).map(\.name) == ["b"])
        #expect(table([node("a", isLate: true), node("b", isLate: true)]).order(for: "k", now: start).count == 2)
        #expect(
            table([node("a", isLate: true), node("b", state: .draining)]).order(for: "k", now: start).map(\.name) == [
                "a"
            ]
        )
    }

    @Test("a node that fails is left out for 1, 2, 4 … 30 seconds")
    func ejection() {
        var table = table([node("a"), node("b")])
        var now = start
        for seconds in [1, 2, 4, 8, 16, 30, 30] as [Int64] {
            table.failed(node("a"), now: now)
            #expect(table.ejected(node("a"), now: now) == .seconds(seconds))
            #expect(table.order(for: "k", now: now).map(\.name) == ["b"])
            // What was under way when it was ejected does not count.
            table.failed(node("a"), now: now + .milliseconds(10))
            now = now + .seconds(seconds)
            #expect(table.ejected(node("a"), now: now) == nil)
            #expect(table.order(for: "k", now: now).count == 2)
        }
        table.answered(node("a"))
        table.failed(node("a"), now: now)
        #expect(table.ejected(node("a"), now: now) == .seconds(1))
    }

    @Test("a node that lets a request run into its deadline is left out for 16 seconds at once, then for 30")
    func hung() {
        var table = table([node("a"), node("b")])
        table.hung(node("a"), now: start)
        #expect(table.ejected(node("a"), now: start) == .seconds(16))
        table.hung(node("a"), now: start + .seconds(16))
        #expect(table.ejected(node("a"), now: start + .seconds(16)) == .seconds(30))
        table.answered(node("a"))
        table.failed(node("a"), now: start)
        #expect(table.ejected(node("a"), now: start) == .seconds(1))
    }

    @Test("a node that ends three upgrades in a row without an answer is left out, then longer at each further one")
    func broke() {
        var table = table([node("a"), node("b")])
        table.broke(node("a"), now: start)
        table.broke(node("a"), now: start)
        table.answered(node("a"))
        for _ in 0..<2 { table.broke(node("a"), now: start) }
        #expect(table.ejected(node("a"), now: start) == nil)
        table.broke(node("a"), now: start)
        #expect(table.ejected(node("a"), now: start) == .seconds(1))
        table.broke(node("a"), now: start + .seconds(1))
        #expect(table.ejected(node("a"), now: start + .seconds(1)) == .seconds(2))
        table.answered(node("a"))
        table.broke(node("a"), now: start + .seconds(3))
        #expect(table.ejected(node("a"), now: start + .seconds(3)) == nil)
    }

    @Test("when every node has failed none is left out, and one that answers is the only one again")
    func allFailed() {
        var table = table([node("a"), node("b")])
        let order = table.order(for: "k", now: start)
        table.failed(node("a"), now: start)
        table.failed(node("b"), now: start)
        #expect(table.order(for: "k", now: start) == order)
        #expect(table.retryAfter(now: start) == 1)
        table.answered(node("b"))
        #expect(table.order(for: "k", now: start).map(\.name) == ["b"])
    }

    @Test("a new start of the node is not punished for the last")
    func restart() {
        var table = table([node("a"), node("b")])
        table.failed(node("a"), now: start)
        table.update([node("a", 2), node("b")], now: start)
        #expect(table.order(for: "k", now: start).count == 2)
        table.failed(node("gone"), now: start)
        table.update([node("a", 2), node("b"), node("gone")], now: start)
        #expect(table.order(for: "k", now: start).count == 3)
    }

    @Test("ejection does not change where keys belong")
    func home() {
        var table = table([node("a"), node("b")])
        let before = (0..<50).map { table.home(of: "k\($0)")?.name }
        table.failed(node("a"), now: start)
        #expect((0..<50).map { table.home(of: "k\($0)")?.name } == before)
    }

    @Test("Retry-After is when the first node may be tried again")
    func retryAfter() {
        var table = table([node("a"), node("b")])
        #expect(NodeTable(hash: RendezvousHash(key: (1, 2))).retryAfter(now: start) == 1)
        for _ in 0..<3 {
            table.failed(node("a"), now: start)
            table.failed(node("b"), now: start)
        }
        table.failed(node("a"), now: start + .seconds(1))
        table.failed(node("b"), now: start + .seconds(1))
        #expect(table.retryAfter(now: start + .milliseconds(1500)) == 2)
    }

    @Test("an address of a record is host and port, of IPv6 in brackets")
    func addresses() throws {
        #expect(try #require(RoutedNode.hostAndPort("node-1:8081")) == ("node-1", 8081))
        #expect(try #require(RoutedNode.hostAndPort("[::1]:80")) == ("::1", 80))
        for bad in ["", ":80", "host", "host:", "host:0", "host:65536", "host:x", "[]:1"] {
            #expect(RoutedNode.hostAndPort(bad) == nil)
        }
    }
}

@Suite("One request's way through the nodes")
struct RouteAttemptTests {
    private let a = RoutedNode(name: "a", incarnation: 1, host: "h", port: 1)
    private let b = RoutedNode(name: "b", incarnation: 1, host: "h", port: 2)

    private func attempt(_ method: String = "GET", upgrade: Bool = false, body: Bool = false) -> RouteAttempt {
        RouteAttempt(nodes: [a, b], method: method, isUpgrade: upgrade, hasBody: body)
    }

    @Test("a refused connection goes to the next, whatever the request is, until nobody is left")
    func refused() {
        var attempt = attempt("POST", body: true)
        #expect(attempt.start() == .dial(a))
        #expect(attempt.connectFailed() == .dial(b))
        #expect(attempt.current == b)
        #expect(attempt.connectFailed() == .fail(.noNode))
        var none = RouteAttempt(nodes: [], method: "GET", isUpgrade: false, hasBody: false)
        #expect(none.start() == .fail(.noNode))
        #expect(none.current == nil)
    }

    @Test("503 sends an upgrade on, and reaches the client when it is the last word or no upgrade")
    func draining() {
        var upgrade = attempt(upgrade: true)
        _ = upgrade.start()
        #expect(upgrade.answered(status: 503) == .dial(b))
        #expect(upgrade.answered(status: 503) == .relay)
        var plain = attempt()
        _ = plain.start()
        #expect(plain.answered(status: 503) == .relay)
        var refused = attempt(upgrade: true)
        _ = refused.start()
        #expect(refused.answered(status: 401) == .relay)
    }

    @Test("what was sent is sent again only when that is safe")
    func broken() {
        for (method, body, repeats) in [
            ("GET", false, true), ("HEAD", false, true), ("POST", false, false), ("GET", true, false),
        ] {
            var attempt = attempt(method, body: body)
            _ = attempt.start()
            #expect(attempt.broke() == (repeats ? .dial(b) : .fail(.badGateway)))
        }
    }

    @Test("a node that does not answer loses to the next what may be repeated, and that alone")
    func late() {
        for (method, upgrade, body, repeats) in [
            ("GET", true, false, true), ("GET", false, false, true), ("HEAD", false, false, true),
            ("POST", false, false, false), ("GET", false, true, false),
        ] {
            var attempt = attempt(method, upgrade: upgrade, body: body)
            _ = attempt.start()
            #expect(attempt.timedOut() == (repeats ? .dial(b) : .fail(.gatewayTimeout)))
            if repeats { #expect(attempt.timedOut() == .fail(.gatewayTimeout)) }
        }
    }
}
