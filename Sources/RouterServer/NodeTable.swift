package import Affinity
package import NIOCore

/// A node as the registry lists it.
package struct RoutedNode: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable { case ready, draining, dead }

    package let incarnation: Incarnation
    package let host: String
    package let port: Int
    package let state: State
    /// The lease had run out when the list was read; the node may be gone, or Redis was.
    package let isLate: Bool
    /// As the node said of itself, `figuresAge` before the list was read.
    package let sessions: Int
    package let figuresAge: TimeAmount
    /// Its share of the keys, 1 to 1000.
    package let weight: Int
    /// Where clients may reach it without a router; nil where they may not.
    package let url: String?
    /// The longest for which it leaves a WebSocket open on which nobody says anything; nil where it does not say.
    package let silence: TimeAmount?
    /// Since it registered, when the list was read; nil where it is not known.
    package let age: TimeAmount?

    package init(
        name: String,
        incarnation: Int64,
        host: String,
        port: Int,
        state: State = .ready,
        isLate: Bool = false,
        sessions: Int = 0,
        figuresAge: TimeAmount = .zero,
        weight: Int = 100,
        url: String? = nil,
        silence: TimeAmount? = nil,
        age: TimeAmount? = nil
    ) {
        self.incarnation = Incarnation(name: name, number: incarnation)
        self.host = host
        self.port = port
        self.state = state
        self.isLate = isLate
        self.sessions = sessions
        self.figuresAge = figuresAge
        self.weight = weight
        self.url = url
        self.silence = silence
        self.age = age
    }

    package var address: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    package var name: String { incarnation.name }

    package struct Incarnation: Hashable, Sendable {
        /// What the hash knows: stays the same over the node's restarts.
        package let name: String
        /// Rises with each start of the name.
        package let number: Int64
    }
}

/// Who may serve a key, and in which order.
///
/// 1. The order is that of the hash over all nodes that take clients; it does not depend on what this router met.
/// 2. A node that failed is left out of it for a while that doubles from 1 s to 30 s with each failure, until it
///    answers or starts anew; one that had a request and said nothing at once for 16 s, as each try costs a client long.
/// 3. A node whose checks fail (`NodeHealth`) is left out until they go well again.
/// 4. When no node is well, those take clients that still answer checks, if only to say that they are not ready: Redis
///    may be away from all of them. Where none answers, none is left out: it is then rather the network or this router
///    that fails, and a node that is back serves at once.
/// 5. A node that is new among others (`SlowStart`) is passed by for a part of its keys.
/// 6. A pick passes by nodes that have as many sessions as `LoadBound` allows them: those that their figures count, and
///    what this table picked since and was not given back. Where nobody is at the bound or was left out all routers pick
///    alike; what another router picked since the figures is not known here, so several together may go beyond it by
///    that.
package struct NodeTable: Sendable {
    package private(set) var home: Home
    private let bound: LoadBound?
    private var all: [RoutedNode] = []
    /// Sessions and recent picks, in the order of `home.takers`.
    private var loads: [Int] = []
    /// Of them, what may be counted twice.
    private var doubts: [Int] = []
    /// By name, of all nodes.
    private var books: [String: PickBook] = [:]
    private var ejections: [RoutedNode.Incarnation: Ejection] = [:]
    /// Upgrades that the node had and ended without an answer, since its last answer.
    private var breaks: [RoutedNode.Incarnation: Int] = [:]
    /// Of all nodes that were checked.
    private var checks: [RoutedNode.Incarnation: NodeHealth] = [:]
    private var checksFail = false
    private var slowStart: SlowStart

    /// Where keys belong; only a new list changes it.
    package struct Home: Sendable {
        fileprivate let hash: RendezvousHash
        fileprivate(set) var takers: [RoutedNode] = []
        fileprivate var candidates: [RendezvousHash.Candidate] = []

        /// The first choice for the key, ejected or at its bound or not; nil without nodes.
        package func node(of key: String) -> RoutedNode? {
            hash.first(of: candidates, for: key.utf8).map { takers[$0] }
        }

        fileprivate func order(of key: String) -> [Int] { hash.order(of: candidates, for: key.utf8) }

        /// - Parameter share: of its keys, in thousandths.
        fileprivate func takes(_ key: String, _ index: Int, _ share: Int) -> Bool {
            hash.ticket(of: candidates[index], for: key.utf8) < share
        }
    }

    private struct Ejection {
        var failures: Int
        var end: NIODeadline
    }

    private struct PickBook {
        var incarnation: Int64
        var recent = RecentPicks()
        var counts = PickCounts()
    }

    /// Of a node, since it came into the list.
    package struct PickCounts: Sendable, Equatable {
        package var picks = 0
        /// Clients whose first choice it was, and who went elsewhere because it was at its bound.
        package var spills = 0
        /// Times that it was left out as it did not serve a client.
        package var ejections = 0
        package var checks = 0
        package var failedChecks = 0
    }

    /// A client that a node has, or is about to.
    package struct Pick: Sendable {
        package let node: RoutedNode
        fileprivate let slot: RecentPicks.Slot
    }

    /// - Parameters:
    ///   - bound: nil bounds nothing.
    ///   - slowStart: for so long a node is new.
    package init(hash: RendezvousHash, bound: LoadBound? = nil, slowStart: TimeAmount = .zero) {
        home = Home(hash: hash)
        self.bound = bound
        self.slowStart = SlowStart(window: slowStart)
    }

    package var nodes: [RoutedNode] { all }

    /// A draining or dead node takes no clients. One whose lease is late takes some only when all are late: then it is
    /// rather the registry that stood still than every node.
    package mutating func update(_ list: [RoutedNode], now: NIODeadline) {
        var latest: [String: RoutedNode] = [:]
        for node in list where latest[node.name].map({ $0.incarnation.number < node.incarnation.number }) ?? true {
            latest[node.name] = node
        }
        all = latest.values.sorted { $0.name < $1.name }
        let ready = all.filter { $0.state == .ready }
        let punctual = ready.filter { !$0.isLate }
        let takers = punctual.isEmpty ? ready : punctual
        home.takers = takers
        home.candidates = takers.map { [hash = home.hash] in hash.candidate($0.name, weight: $0.weight) }
        let known = Set(all.map(\.incarnation))
        ejections = ejections.filter { known.contains($0.key) }
        breaks = breaks.filter { known.contains($0.key) }
        // A node that drains says that it is not ready, and is not asked.
        let asked = Set(ready.map(\.incarnation))
        checks = checks.filter { asked.contains($0.key) }
        checksFail = checks.values.contains { $0.cause != nil }
        slowStart.listed(all, well: well, now: now)
        balance(latest, now: now)
    }

    private var well: [RoutedNode] { home.takers.filter { checks[$0.incarnation]?.cause == nil } }

    private mutating func balance(_ latest: [String: RoutedNode], now: NIODeadline) {
        books = books.filter { latest[$0.key] != nil }
        for node in all {
            var book = books[node.name] ?? PickBook(incarnation: node.incarnation.number)
            if book.incarnation != node.incarnation.number {
                book.incarnation = node.incarnation.number
                book.recent = RecentPicks()
            }
            book.recent.forget(before: now - node.figuresAge)
            books[node.name] = book
        }
        loads = home.takers.map { $0.sessions + (books[$0.name]?.recent.count ?? 0) }
        doubts = home.takers.map { books[$0.name]?.recent.doubtful ?? 0 }
    }

    /// The nodes to try for the key, first choice first, without those that are left out.
    package func order(for key: String, now: NIODeadline) -> [RoutedNode] {
        let order = home.order(of: key)
        return newLast(admitted(order, now: now), held: held(order, key, now: now)).map { home.takers[$0] }
    }

    private func admitted(_ order: [Int], now: NIODeadline) -> [Int] {
        guard checksFail || !ejections.isEmpty else { return order }
        let conditions = order.map { condition(home.takers[$0], now: now) }
        guard let best = conditions.min(), best < .absent else { return order }
        return zip(order, conditions).filter { $0.1 == best }.map(\.0)
    }

    /// Nodes behind those that are well: they answer checks, if only to say that they are not ready. They have their part of the
    /// sessions, so that the first of many to be well again does not get what is everybody's.
    private func reserve(_ order: [Int], behind admitted: [Int], now: NIODeadline) -> [Int] {
        guard checksFail, admitted.count < order.count else { return [] }
        return order.filter { !admitted.contains($0) && condition(home.takers[$0], now: now) == .unready }
    }

    /// The nodes that do not take the key yet, and of how much of their keys they take in thousandths.
    private func held(_ order: [Int], _ key: String, now: NIODeadline) -> [Int: Int] {
        guard slowStart.isUnderWay else { return [:] }
        var held: [Int: Int] = [:]
        for index in order {
            if let share = slowStart.share(of: home.takers[index], now: now), !home.takes(key, index, share) {
                held[index] = share
            }
        }
        return held
    }

    private func newLast(_ order: [Int], held: [Int: Int]) -> [Int] {
        guard !held.isEmpty else { return order }
        return order.filter { held[$0] == nil } + order.filter { held[$0] != nil }
    }

    private enum Condition: Int, Comparable {
        case well
        /// Answers, and says that it is not ready.
        case unready
        /// Did not serve a client, or its checks get no answer.
        case absent

        static func < (one: Condition, other: Condition) -> Bool { one.rawValue < other.rawValue }
    }

    private func condition(_ node: RoutedNode, now: NIODeadline) -> Condition {
        guard ejected(node, now: now) == nil else { return .absent }
        switch checks[node.incarnation]?.cause {
        case nil: return .well
        case .notReady: return .unready
        case .refused, .unreachable, .silent, .broken: return .absent
        }
    }

    /// The first choice for the key, ejected or not; nil without nodes.
    package func home(of key: String) -> RoutedNode? { home.node(of: key) }

    // MARK: Picks

    /// As `order`, but those below their bounds first, and the first of all counted. Who goes on to another after a failure
    /// counts there, whatever its bound.
    package mutating func pick(for key: String, now: NIODeadline) -> (nodes: [RoutedNode], pick: Pick?) {
        var order = home.order(of: key)
        order = newLast(admitted(order, now: now), held: held(order, key, now: now))
        guard let first = order.first else { return ([], nil) }
        order += reserve(home.order(of: key), behind: order, now: now)
        let limits = limits(of: order, now: now)
        if choice(of: order, limits) > 0 {
            books[home.takers[first].name]?.counts.spills += 1
            order = order.filter { isBelow(limits, $0) } + order.filter { !isBelow(limits, $0) }
        }
        return (order.map { home.takers[$0] }, take(home.takers[order[0]], at: order[0], now: now))
    }

    /// Counts a client that another node failed; nil when the node is not listed any more.
    package mutating func take(_ node: RoutedNode, now: NIODeadline) -> Pick? {
        take(node, at: home.takers.firstIndex { $0.incarnation == node.incarnation }, now: now)
    }

    private mutating func take(_ node: RoutedNode, at index: Int?, now: NIODeadline) -> Pick? {
        guard let book = books.index(forKey: node.name), books.values[book].incarnation == node.incarnation.number
        else {
            return nil
        }
        books.values[book].counts.picks += 1
        if let index { loads[index] += 1 }
        return Pick(node: node, slot: books.values[book].recent.add(at: now))
    }

    /// The node did not get the client, or lost it before it took it.
    package mutating func giveBack(_ pick: Pick) {
        let node = pick.node
        guard let book = books.index(forKey: node.name), books.values[book].incarnation == node.incarnation.number,
            books.values[book].recent.remove(pick.slot)
        else { return }
        if let index = home.takers.firstIndex(where: { $0.incarnation == node.incarnation }) {
            loads[index] -= 1
            doubts[index] = books.values[book].recent.doubtful
        }
    }

    /// The place in the order of who gets the next client. Somebody is below the bound, see `LoadBound`; if nobody were, it
    /// is the first.
    private func choice(of order: [Int], _ limits: Limits?) -> Int {
        order.firstIndex { isBelow(limits, $0) } ?? 0
    }

    /// Nodes that are left out count neither as nodes nor with what they have.
    private struct Limits {
        let bound: LoadBound
        var sessions = 0
        var weight = 0
        /// Weights of all takers while one of them is new: as much less as it takes less keys.
        var slowed: [Int]?
    }

    private func limits(of order: [Int], now: NIODeadline) -> Limits? {
        guard let bound else { return nil }
        var limits = Limits(bound: bound, slowed: slowStart.isUnderWay ? slowedWeights(now: now) : nil)
        var doubts = 0
        for index in order {
            limits.sessions += loads[index] - self.doubts[index]
            limits.weight += weight(index, limits)
            doubts += self.doubts[index]
        }
        // Each node has at most what is counted, all together at least what is sure, so that nobody goes beyond the bound.
        // Where that leaves nobody below it, the doubtful count for all alike.
        if doubts > 0, !order.contains(where: { isBelow(limits, $0) }) { limits.sessions += doubts }
        return limits
    }

    /// As fine as `LoadBound` takes them.
    private func slowedWeights(now: NIODeadline) -> [Int] {
        let scale = RendezvousHash.weights.upperBound / (home.candidates.lazy.map(\.weight).max() ?? 1)
        return home.candidates.indices.map { index in
            let share = slowStart.share(of: home.takers[index], now: now) ?? SlowStart.whole
            return max(1, home.candidates[index].weight * scale * share / SlowStart.whole)
        }
    }

    private func weight(_ index: Int, _ limits: Limits) -> Int {
        limits.slowed?[index] ?? home.candidates[index].weight
    }

    private func limit(_ limits: Limits, _ index: Int) -> Int {
        limits.bound.limit(sessions: limits.sessions, weight: weight(index, limits), of: limits.weight)
    }

    private func isBelow(_ limits: Limits?, _ index: Int) -> Bool {
        limits.map { loads[index] < limit($0, index) } ?? true
    }

    /// By name; of nodes that left the list nothing.
    package var pickCounts: [(node: String, counts: PickCounts)] {
        all.map { ($0.name, books[$0.name]?.counts ?? PickCounts()) }
    }

    /// Who would get a client of the key now, and why.
    package func route(for key: String, now: NIODeadline) -> KeyRoute {
        let order = home.order(of: key)
        let held = held(order, key, now: now)
        let admitted = newLast(admitted(order, now: now), held: held)
        let candidates = admitted + reserve(order, behind: admitted, now: now)
        let limits = limits(of: candidates, now: now)
        let picked = candidates.isEmpty ? nil : candidates[choice(of: candidates, limits)]
        var entries = order.map { index in
            let node = home.takers[index]
            let isLeftOut = !admitted.contains(index) && index != picked
            let verdict: KeyRoute.Verdict =
                if isLeftOut {
                    failingCheck(node).map { .down($0) } ?? .ejected(ejected(node, now: now) ?? .zero)
                } else if index == picked {
                    .picked
                } else if let share = held[index] {
                    .slowStart(share)
                } else if !isBelow(limits, index) { .atBound } else { .reserve }
            return KeyRoute.Entry(
                node: node, recentPicks: loads[index] - node.sessions,
                limit: isLeftOut ? nil : limits.map { limit($0, index) }, verdict: verdict)
        }
        let takers = Set(home.takers.map(\.name))
        for node in all where !takers.contains(node.name) {
            let verdict: KeyRoute.Verdict =
                switch node.state {
                case .ready: .late
                case .draining: .draining
                case .dead: .dead
                }
            entries.append(
                KeyRoute.Entry(
                    node: node, recentPicks: books[node.name]?.recent.count ?? 0, limit: nil, verdict: verdict))
        }
        return KeyRoute(key: key, candidates: order.count, entries: entries)
    }

    // MARK: Failures

    /// The node refused a connection or let it run into its deadline. Failures of connections that were under way
    /// when it was ejected do not count again.
    package mutating func failed(_ node: RoutedNode, now: NIODeadline) { eject(node, atLeast: 1, now: now) }

    /// The node had a request and let its deadline pass without an answer.
    package mutating func hung(_ node: RoutedNode, now: NIODeadline) { eject(node, atLeast: 5, now: now) }

    /// The node had an upgrade and ended the connection without an answer. Once is an accident, or the client's doing; from the
    /// third in a row on the node is left out.
    package mutating func broke(_ node: RoutedNode, now: NIODeadline) {
        guard all.contains(where: { $0.incarnation == node.incarnation }) else { return }
        breaks[node.incarnation, default: 0] += 1
        if breaks[node.incarnation, default: 0] >= 3 { eject(node, atLeast: 1, now: now) }
    }

    private mutating func eject(_ node: RoutedNode, atLeast least: Int, now: NIODeadline) {
        guard all.contains(where: { $0.incarnation == node.incarnation }), ejected(node, now: now) == nil else {
            return
        }
        let failures = min(max((ejections[node.incarnation]?.failures ?? 0) + 1, least), 6)
        let seconds = min(Int64(1) << Int64(failures - 1), 30)
        ejections[node.incarnation] = Ejection(failures: failures, end: now + .seconds(seconds))
        books[node.name]?.counts.ejections += 1
    }

    package mutating func answered(_ node: RoutedNode) {
        if !ejections.isEmpty { ejections[node.incarnation] = nil }
        if !breaks.isEmpty { breaks[node.incarnation] = nil }
    }

    /// How long the node is still left out; nil when it is not.
    package func ejected(_ node: RoutedNode, now: NIODeadline) -> TimeAmount? {
        guard let end = ejections[node.incarnation]?.end, end > now else { return nil }
        return end - now
    }

    /// What a check of the node came to; nil: it went well. Who rises is no longer left out for anything.
    package mutating func checked(_ node: RoutedNode, _ failure: CheckFailure?, now: NIODeadline) -> NodeHealth.Change?
    {
        guard all.contains(where: { $0.incarnation == node.incarnation && $0.state == .ready }) else { return nil }
        var health = checks[node.incarnation] ?? NodeHealth()
        let change = failure.map { health.failed($0, now: now) } ?? health.passed(now: now)
        checks[node.incarnation] = health
        books[node.name]?.counts.checks += 1
        if failure != nil { books[node.name]?.counts.failedChecks += 1 }
        guard let change else { return nil }
        checksFail = checks.values.contains { $0.cause != nil }
        if case .rose = change {
            ejections[node.incarnation] = nil
            breaks[node.incarnation] = nil
            slowStart.rose(node, now: now)
        }
        slowStart.choose(among: well, now: now)
        return change
    }

    package func health(of node: RoutedNode) -> NodeHealth { checks[node.incarnation] ?? NodeHealth() }

    /// Why the checks of the node leave it out; nil when they do not.
    package func failingCheck(_ node: RoutedNode) -> CheckFailure? { checks[node.incarnation]?.cause }

    /// When there may be a node again that has none now, in whole seconds; at least 1.
    package func retryAfter(now: NIODeadline) -> Int {
        let waits = home.takers.compactMap { ejected($0, now: now)?.nanoseconds }
        return waits.min().map { Int(($0 + 999_999_999) / 1_000_000_000) } ?? 1
    }
}
