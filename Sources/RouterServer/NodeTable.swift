package import Affinity
package import NIOCore

/// A node as the registry lists it.
package struct RoutedNode: Sendable, Equatable {
    package enum State: String, Sendable, CaseIterable { case ready, draining, dead }

    /// What the hash knows: stays the same over the node's restarts.
    package let name: String
    /// Rises with each start of the name.
    package let incarnation: Int64
    package let host: String
    package let port: Int
    package let state: State
    /// The lease had run out when the list was read; the node may be gone, or Redis was.
    package let isLate: Bool
    package let sessions: Int

    package init(
        name: String,
        incarnation: Int64,
        host: String,
        port: Int,
        state: State = .ready,
        isLate: Bool = false,
        sessions: Int = 0
    ) {
        self.name = name
        self.incarnation = incarnation
        self.host = host
        self.port = port
        self.state = state
        self.isLate = isLate
        self.sessions = sessions
    }

    package var address: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    fileprivate var start: Start { Start(name: name, incarnation: incarnation) }

    fileprivate struct Start: Hashable, Sendable {
        let name: String
        let incarnation: Int64
    }
}

/// Who may serve a key, and in which order.
///
/// 1. The order is that of the hash over all nodes that take clients; it does not depend on what this router met.
/// 2. A node that failed is left out of it for a while that doubles from 1 s to 30 s with each failure, until it
///    answers or starts anew; one that had a request and said nothing at once for 16 s, as each try costs a client long.
/// 3. When all have failed, none is left out: it is then rather the network or this router that fails, and a node that
///    is back serves at once.
package struct NodeTable: Sendable {
    private let hash: RendezvousHash
    private var all: [RoutedNode] = []
    private var takers: [RoutedNode] = []
    private var candidates: [RendezvousHash.Candidate] = []
    private var ejections: [RoutedNode.Start: Ejection] = [:]

    private struct Ejection {
        var failures: Int
        var end: NIODeadline
    }

    package init(hash: RendezvousHash) { self.hash = hash }

    package var nodes: [RoutedNode] { all }

    /// A draining or dead node takes no clients. One whose lease is late takes some only when all are late: then it is
    /// rather the registry that stood still than every node.
    package mutating func update(_ list: [RoutedNode]) {
        var latest: [String: RoutedNode] = [:]
        for node in list where latest[node.name].map({ $0.incarnation < node.incarnation }) ?? true {
            latest[node.name] = node
        }
        all = latest.values.sorted { $0.name < $1.name }
        let ready = all.filter { $0.state == .ready }
        let punctual = ready.filter { !$0.isLate }
        takers = punctual.isEmpty ? ready : punctual
        candidates = takers.map { hash.candidate($0.name) }
        let known = Set(all.map(\.start))
        ejections = ejections.filter { known.contains($0.key) }
    }

    /// The nodes to try for the key, first choice first, without the ejected; with all of them when all are.
    package func order(for key: String, now: NIODeadline) -> [RoutedNode] {
        let order = hash.order(of: candidates, for: key.utf8).map { takers[$0] }
        guard !ejections.isEmpty else { return order }
        let admitted = order.filter { ejected($0, now: now) == nil }
        return admitted.isEmpty ? order : admitted
    }

    /// The first choice for the key, ejected or not; nil without nodes.
    package func home(of key: String) -> RoutedNode? {
        hash.first(of: candidates, for: key.utf8).map { takers[$0] }
    }

    /// The node refused a connection or let it run into its deadline. Failures of connections that were under way
    /// when it was ejected do not count again.
    package mutating func failed(_ node: RoutedNode, now: NIODeadline) { eject(node, atLeast: 1, now: now) }

    /// The node had a request and let its deadline pass without an answer.
    package mutating func hung(_ node: RoutedNode, now: NIODeadline) { eject(node, atLeast: 5, now: now) }

    private mutating func eject(_ node: RoutedNode, atLeast least: Int, now: NIODeadline) {
        guard all.contains(where: { $0.start == node.start }), ejected(node, now: now) == nil else { return }
        let failures = min(max((ejections[node.start]?.failures ?? 0) + 1, least), 6)
        let seconds = min(Int64(1) << Int64(failures - 1), 30)
        ejections[node.start] = Ejection(failures: failures, end: now + .seconds(seconds))
    }

    package mutating func answered(_ node: RoutedNode) {
        if !ejections.isEmpty { ejections[node.start] = nil }
    }

    /// How long the node is still left out; nil when it is not.
    package func ejected(_ node: RoutedNode, now: NIODeadline) -> TimeAmount? {
        guard let end = ejections[node.start]?.end, end > now else { return nil }
        return end - now
    }

    /// When there may be a node again that has none now, in whole seconds; at least 1.
    package func retryAfter(now: NIODeadline) -> Int {
        let waits = takers.compactMap { ejected($0, now: now)?.nanoseconds }
        return waits.min().map { Int(($0 + 999_999_999) / 1_000_000_000) } ?? 1
    }
}
