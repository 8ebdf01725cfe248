package import NIOCore

/// Which nodes are new among others, and how much of their keys they take: `slowstart` of HAProxy, `slow_start_config` of
/// Envoy, but by keys instead of weights.
///
/// 1. A node is new for `window` from its registration, or from when its checks went well again, if another that is well was
///    there a whole window before it. So nobody is held back where all came together, as at the start of a cluster.
/// 2. It then takes the part of its keys that `share` tells, from a tenth on, in a straight line. Which keys those are says
///    `RendezvousHash.ticket`: who has come to it stays, and each key moves to it once.
/// 3. Ages are the registry's, so routers agree on who came; when a node was well again is each router's own to see. Where
///    the registry does not tell them, a node is as old as this router has known it, and those of the first list are old.
package struct SlowStart: Sendable {
    package static let standard: TimeAmount = .seconds(30)
    /// Of `share`: all keys.
    package static let whole = 1000
    package static let least = 100

    /// Nanoseconds; 0: nobody is held back.
    private let window: Int64
    /// Nanoseconds since this machine started, less than 0 before.
    private var births: [RoutedNode.Incarnation: Int64] = [:]
    /// The births of those that are new.
    private var ramps: [RoutedNode.Incarnation: Int64] = [:]

    package init(window: TimeAmount) { self.window = max(window.nanoseconds, 0) }

    /// False: every node takes all its keys. True from the list or the check on that brought somebody new until one that
    /// finds nobody new any more, which may be long after the window.
    package var isUnderWay: Bool { !ramps.isEmpty }

    /// - Parameters:
    ///   - nodes: all that are listed.
    ///   - well: those of them that take clients and whose checks go well.
    package mutating func listed(_ nodes: [RoutedNode], well: [RoutedNode], now: NIODeadline) {
        let time = Self.nanoseconds(now)
        let isFirst = births.isEmpty
        births = Dictionary(
            nodes.map { node in
                let told = node.age.map { time - min(max($0.nanoseconds, 0), .max / 2) }
                return (node.incarnation, births[node.incarnation] ?? told ?? (isFirst ? .min / 2 : time))
            }, uniquingKeysWith: { $1 })
        choose(among: well, now: now)
    }

    /// The node's checks go well again.
    package mutating func rose(_ node: RoutedNode, now: NIODeadline) {
        births[node.incarnation] = Self.nanoseconds(now)
    }

    package mutating func choose(among well: [RoutedNode], now: NIODeadline) {
        let time = Self.nanoseconds(now)
        guard window > 0, let oldest = well.compactMap({ births[$0.incarnation] }).min() else { return ramps = [:] }
        ramps = births.filter { $0.value - oldest >= window && time - $0.value < window }
    }

    /// Of its keys, in thousandths; nil: all.
    package func share(of node: RoutedNode, now: NIODeadline) -> Int? {
        guard let birth = ramps[node.incarnation] else { return nil }
        // While no list comes `ramps` stays, and the age grows on. A window is an hour at most, which is below 2^42.
        let share = min(Self.nanoseconds(now) - birth, window) * Int64(Self.whole) / window
        return share < Self.whole ? max(Int(share), Self.least) : nil
    }

    /// So few that no birth is too far away to subtract.
    private static func nanoseconds(_ time: NIODeadline) -> Int64 {
        min(Int64(clamping: time.uptimeNanoseconds), .max / 2)
    }
}
