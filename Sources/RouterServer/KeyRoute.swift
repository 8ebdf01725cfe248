package import NIOCore
package import WireProtocol

/// How a key's nodes stand at a moment, from its first choice on: the candidates in the order of the hash, behind them those
/// that take no clients.
package struct KeyRoute: Sendable {
    package enum Verdict: Sendable, Equatable {
        /// The next client goes there.
        case picked
        /// Passed by, or would be.
        case atBound
        /// May be picked, but another is.
        case reserve
        /// Passed by, as it is new and takes so many thousandths of its keys by now, and not this one yet.
        case slowStart(Int)
        /// Left out by this router for so long after a failure.
        case ejected(TimeAmount)
        /// Left out by this router until its checks go well again.
        case down(CheckFailure)
        case draining
        case dead
        case late

        /// What programs are told.
        package var word: String {
            switch self {
            case .picked: "picked"
            case .atBound: "at_bound"
            case .reserve: "reserve"
            case .slowStart: "slow_start"
            case .ejected: "ejected"
            case .down: "down"
            case .draining: "draining"
            case .dead: "dead"
            case .late: "late"
            }
        }
    }

    package struct Entry: Sendable {
        package let node: RoutedNode
        /// Clients that whoever asks picked it for, and that its sessions do not count yet.
        package let recentPicks: Int
        /// What it may have; nil where nothing is bounded, and for a node that takes no clients.
        package let limit: Int?
        package let verdict: Verdict

        package var load: Int { node.sessions + recentPicks }
    }

    package let key: String
    /// How many of the entries, from the first on, the hash has ordered.
    package let candidates: Int
    package let entries: [Entry]

    package var picked: RoutedNode? {
        entries.first { $0.verdict == .picked }?.node
    }

    /// Why that node is picked or not, for people.
    package func reason(of index: Int) -> String {
        let entry = entries[index]
        let figures = entry.limit.map { "\(entry.load) of \($0) sessions" } ?? "\(entry.load) sessions"
        switch entry.verdict {
        case .picked where index == 0: return "picked: the first choice, \(figures)"
        case .picked: return "picked: the first that may have more, \(figures)"
        case .atBound: return "passed by: at its bound, \(figures)"
        case .reserve: return "in reserve: \(figures)"
        case .slowStart(let share): return "passed by: it is new and takes \(share / 10) % of its keys, \(figures)"
        case .ejected(let time): return "left out for \(time.nanoseconds / 1_000_000) ms: it failed"
        case .down(let failure): return "left out: its checks fail, GET /readyz \(failure.reason)"
        case .draining: return "drains: takes no clients"
        case .dead: return "dead"
        case .late: return "its lease is late, that of others is not: takes no clients"
        }
    }

    /// An array of `{"node","place","verdict","why","weight","sessions","picks","bound"}`; `place` counts from 1 and is null
    /// for a node that takes no clients, `bound` as `Entry.limit`.
    package func writeEntries(to json: inout JSONWriter) {
        json.beginArray()
        for (index, entry) in entries.enumerated() {
            json.beginObject()
            json.member("node", entry.node.name)
            json.key("place")
            if index < candidates { json.value(index + 1) } else { json.null() }
            json.member("verdict", entry.verdict.word)
            json.member("why", reason(of: index))
            json.member("weight", entry.node.weight)
            json.member("sessions", entry.node.sessions)
            json.member("picks", entry.recentPicks)
            json.key("bound")
            if let limit = entry.limit { json.value(limit) } else { json.null() }
            json.endObject()
        }
        json.endArray()
    }
}
