package import ChatCore
import ClusterState
package import NIOCore
package import TokenAuth
package import WebSocketTransport
import WireProtocol

/// Everything that a node is told from outside.
package struct NodeConfiguration: Sendable {
    package enum Authentication: Sendable {
        /// Whoever says a name has it: for development only.
        case none
        case token(TokenVerifier)
    }

    package var name: String
    package var host = "127.0.0.1"
    package var port = 8081
    /// Where `/metrics`, `/healthz` and `/readyz` stand for those who run the node.
    package var internalHost = "127.0.0.1"
    package var internalPort = 9081
    /// `host:port` that routers dial; the bound address when `nil`.
    package var advertise: String?
    /// Its share of clients next to that of the other nodes, 1 to 1000.
    package var weight = 100
    /// Where clients may reach it without a router; routers tell them when they ask.
    package var url: String?
    package var version: String
    package var authentication: Authentication
    /// Fetches keys for `authentication`, once the node runs.
    package var keySource: JWKSSource?
    package var limits = Limits()
    package var heartbeat: TimeAmount = .seconds(25)
    /// How long after a ping a connection without any answer is gone.
    package var heartbeatTimeout: TimeAmount = .seconds(10)
    package var lease: TimeAmount = .seconds(10)
    /// How long a session without a connection may be resumed; nothing: it ends at once.
    package var resumeGrace: TimeAmount = .seconds(30)
    package var drainDeadline: TimeAmount = .seconds(30)
    /// Clients a second that are sent away by a node which drains, or more where the deadline asks for it; 0: all at once.
    package var drainRate = 500
    /// What holds for which rooms; those of a namespace that is not here there are none.
    package var namespaces = Namespaces()
    /// A publish is acknowledged when so many replicas have it.
    package var ackReplicas = 0
    /// Those whose `X-Forwarded-For` is believed.
    package var trustedProxies = TrustedProxies.loopback
    /// Their connections begin with a header of the PROXY protocol.
    package var readsProxyProtocol = false
    /// What clients and routers speak TLS with; nil: they speak HTTP as it is.
    package var tls: TLSCredentials?
    /// Which connections are taken.
    package var gate = GateLimits()
    package var origins = OriginPolicy(rules: [.any], allowsMissing: true)
    /// Agree on permessage-deflate with clients that offer it.
    package var compression = false
    /// So many loops of routers of this host may give it connections that they accepted; 0: none may.
    package var handoverLines = 0

    package struct Limits: Sendable {
        /// A session's frames a second; 0 lifts the limit.
        package var messagesPerSecond = 30
        package var messageBurst = 60
        package var messageBytes = 65536
        package var roomsPerSession = 100
        /// Bytes of a session's frames a second; 0 lifts the limit.
        package var bytesPerSecond = 0
        package var byteBurst = 1 << 20
        /// A user's frames a second, over all nodes; 0 lifts the limit.
        package var userMessagesPerSecond = 0
        /// Also of those that may still be resumed; 0 lifts the limit.
        package var sessionsPerUser = 0
        /// Of the process in RAM; with more no new connection is taken. 0 lifts the limit.
        package var memoryBytes = 0
        package var outboundBytes = 1 << 20
        /// New WebSockets of the node, and as many at once; 0 lifts the limit.
        package var upgradesPerSecond = 2000
        /// Publishes of this node that wait for Redis: more are refused as `unavailable`.
        package var waitingPublishes = 10_000
        package var waitingPublishBytes = 16 << 20
        /// Rooms with more users get counts without names in presence events.
        package var presenceListUsers = 500

        package init() {}
    }

    package init(name: String, version: String, authentication: Authentication) {
        self.name = name
        self.version = version
        self.authentication = authentication
    }

    /// A publish is answered within this time and a tick, whatever Redis does (G5: 5 s, less what the way back takes).
    static let publishDeadline: TimeAmount = .milliseconds(4250)
    /// A join, or the opening of a session, is answered within this time.
    static let joinDeadline: TimeAmount = .milliseconds(4500)
    /// Messages of one session that wait for its opening or a join; their bytes are at most those of four of full size.
    static let heldMessages = 64
    /// How long an own message may be missing from the relay before the log is read.
    static let relayPatience: TimeAmount = .seconds(1)
    /// A message may be stamped so much earlier than it was published: a batch has one time.
    static let clockMargin: TimeAmount = .seconds(2)
    /// A private room is noted for its users once in this time while they talk.
    static let directNotesEvery: TimeAmount = .seconds(5)
    /// How long the new owner of a session may take to take over its memberships.
    static let takeoverPatience: TimeAmount = .seconds(10)
    /// A sweep waits so long for the memberships of adopted sessions to move.
    static let adoptionPatience: TimeAmount = .seconds(4)
    static let retryAfterMilliseconds: Int64 = 1000
    /// Of the drain deadline: for the last client to close its side, and for Redis.
    var drainReserve: TimeAmount { .nanoseconds(min(drainDeadline.nanoseconds / 2, 6_000_000_000)) }

    /// - Returns: for a room of no namespace, which nobody may be in, that of the standard.
    func historyLimits(of room: RoomName) -> HistoryLimits {
        HistoryLimits(namespaces.rules(of: room) ?? namespaces.standard)
    }

    /// Whether this says that a token names a key which nobody published so far: mostly one that was made up.
    func isOfUnknownKey(_ error: WireError) -> Bool { error.code == .unavailable && keySource?.hasKeys == true }

    var authenticationTimeout: TimeAmount {
        switch authentication {
        case .none: .seconds(30)
        case .token: .seconds(5)
        }
    }
}
