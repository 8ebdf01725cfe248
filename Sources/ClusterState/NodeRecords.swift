package import WireProtocol

/// What a node says of itself with each heartbeat.
package struct NodeFigures: Sendable, Hashable {
    /// `host:port` that routers dial.
    package var address: String
    package var version: String
    package var sessions: Int
    package var rooms: Int
    package var draining: Bool
    /// Milliseconds since 1970 by the node's own clock. It tells two processes apart that hold one incarnation number,
    /// as may happen after Redis was restored from an old copy, so it must not change during the node's life.
    package var startedAt: Int64
    /// Its share of clients next to that of the other nodes.
    package var weight: Int
    /// Where clients reach it without a router, `wss://host/ws`; nil where they do not.
    package var url: String?
    /// The longest for which it leaves a WebSocket open on which nobody says anything, in milliseconds; nil of a node that does
    /// not say.
    package var silenceMs: Int64?
    /// nil of a node that does not say.
    package var traffic: NodeTraffic?
    package var ending: Ending
    /// The last that the node knows.
    package var order: DrainOrder?

    /// Whether a node that drains ends, whatever an operator says.
    package enum Ending: Sendable, Hashable {
        case no
        case yes
        /// Redis decides, and the answer says so.
        case unlessTakenBack
    }

    package static let weights = 1...1000
    /// Of nodes that say none.
    package static let defaultWeight = 100

    package init(
        address: String, version: String, sessions: Int, rooms: Int, draining: Bool, startedAt: Int64,
        weight: Int = defaultWeight, url: String? = nil, silenceMs: Int64? = nil, traffic: NodeTraffic? = nil,
        ending: Ending = .no,
        order: DrainOrder? = nil
    ) {
        self.address = address
        self.version = version
        self.sessions = sessions
        self.rooms = rooms
        self.draining = draining
        self.startedAt = startedAt
        self.weight = weight
        self.url = url
        self.silenceMs = silenceMs
        self.traffic = traffic
        self.ending = ending
        self.order = order
    }
}

/// What a node carries, over the last few seconds.
package struct NodeTraffic: Sendable, Hashable {
    /// Publishes taken from clients, a second.
    package var messagesIn: Double
    /// Room events given to sessions, a second.
    package var messagesOut: Double
    /// From the moment that a publish was read from its sender's connection to the one at which its message was handed to the
    /// socket of the last member on one event loop of the same node; nil when there was none.
    package var p99Milliseconds: Double?

    package init(messagesIn: Double, messagesOut: Double, p99Milliseconds: Double?) {
        self.messagesIn = messagesIn
        self.messagesOut = messagesOut
        self.p99Milliseconds = p99Milliseconds
    }

    /// `IN OUT P99`, `-` for none.
    var text: String {
        let p99 = p99Milliseconds.map { "\($0.rounded(toPlaces: 2))" } ?? "-"
        return "\(messagesIn.rounded(toPlaces: 1)) \(messagesOut.rounded(toPlaces: 1)) \(p99)"
    }

    /// nil for what makes no sense.
    init?(text: String) {
        let words = text.split(separator: " ")
        let numbers = words.map { Double($0).flatMap { $0.isFinite && $0 >= 0 ? $0 : nil } }
        guard words.count == 3, let messagesIn = numbers[0], let messagesOut = numbers[1] else { return nil }
        self.init(messagesIn: messagesIn, messagesOut: messagesOut, p99Milliseconds: numbers[2])
    }
}

/// What became of taking an order to drain back.
package enum UndrainResult: Sendable, Hashable {
    case takenBack
    /// None stood.
    case wasNotOrdered
    /// By a signal, or after its drain: that is not taken back.
    case isEnding
    /// A version from before orders to drain could be taken back.
    case isUnable
    /// Or unknown.
    case isDead
}

package enum HeartbeatResult: Sendable, Hashable {
    /// `order`: the one that holds; nil when none was ever given. `leaseEnd`: milliseconds of Redis's clock.
    case held(order: DrainOrder?, leaseEnd: Int64)
    /// Fenced: another declared this incarnation dead, or Redis does not know it. It may only register anew.
    case dead
}

/// One incarnation as Redis knows it.
package struct NodeRecord: Sendable, Hashable {
    package enum State: String, Sendable {
        case ready
        /// The node says that it drains, or was asked to.
        case draining
        /// Fenced. Listed until its sweep is ten minutes past or its name registers again.
        case dead
    }

    package let incarnation: Incarnation
    package let figures: NodeFigures
    package let state: State
    /// Milliseconds that are left of the lease by the clock of Redis; negative when it is past. A past lease alone fences
    /// nobody.
    package let leaseMs: Int64
    /// How old the figures are, in milliseconds by the clock of Redis; 0 where the node does not say when it told them.
    package let figuresAgeMs: Int64
    /// Since it registered, in milliseconds by the clock of Redis; nil where the node did not write that down.
    package let ageMs: Int64?

    package init(
        incarnation: Incarnation, figures: NodeFigures, state: State, leaseMs: Int64, figuresAgeMs: Int64 = 0,
        ageMs: Int64? = nil
    ) {
        self.incarnation = incarnation
        self.figures = figures
        self.state = state
        self.leaseMs = leaseMs
        self.figuresAgeMs = figuresAgeMs
        self.ageMs = ageMs
    }
}

/// What one call did for one dead incarnation.
package struct SweepReport: Sendable, Hashable {
    package let incarnation: Incarnation
    package internal(set) var rooms = 0
    /// Memberships removed, one for each session and room.
    package internal(set) var memberships = 0
    package internal(set) var sessions = 0
    /// False when the claim was lost on the way: another goes on. Also when the sweep failed.
    package internal(set) var isComplete = false
    /// What Redis said when it failed; the next call tries again.
    package internal(set) var failure: String?
}

/// An order or announcement on the control channel: `up I`, `down I`, `drain I`, `undrain I`, `draining I`,
/// `barred SECONDS USER`; ``ModerationChange``s go there too.
package enum ControlMessage: Sendable, Hashable, CustomStringConvertible {
    case up(Incarnation)
    case down(Incarnation)
    /// That incarnation has an order, which stands in its record.
    case drain(Incarnation)
    /// The order is taken back.
    case undrain(Incarnation)
    case draining(Incarnation)
    /// Closed for flooding again and again: for so long no node is to take this user's connections.
    case barred(UserName, seconds: Int)

    /// `nil` for what is none of them; an unknown verb is a newer version's and harmless.
    package static func parse(_ payload: UnsafeRawBufferPointer) -> ControlMessage? {
        guard payload.count <= 256, let text = String(validating: payload, as: UTF8.self) else { return nil }
        let words = text.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false)
        if words.count == 3, words[0] == "barred", let seconds = Int(words[1]), (1...86400).contains(seconds),
            let user = try? UserName(validating: String(words[2]))
        {
            return .barred(user, seconds: seconds)
        }
        guard words.count == 2, let incarnation = Incarnation(String(words[1])) else { return nil }
        return switch words[0] {
        case "up": .up(incarnation)
        case "down": .down(incarnation)
        case "drain": .drain(incarnation)
        case "undrain": .undrain(incarnation)
        case "draining": .draining(incarnation)
        default: nil
        }
    }

    package var description: String {
        switch self {
        case .up(let incarnation): "up \(incarnation)"
        case .down(let incarnation): "down \(incarnation)"
        case .drain(let incarnation): "drain \(incarnation)"
        case .undrain(let incarnation): "undrain \(incarnation)"
        case .draining(let incarnation): "draining \(incarnation)"
        case .barred(let user, let seconds): "barred \(seconds) \(user)"
        }
    }
}
