package import Affinity
package import NIOCore
package import TLSClient
import TokenAuth
package import WebSocketTransport

package struct RouterConfiguration: Sendable {
    package var host: String
    /// 0 takes a free one.
    package var port: Int
    /// The key of the hash; the same in every router of the cluster.
    package var affinityKey: (UInt64, UInt64)
    /// What the hash takes.
    package var affinity = AffinityRule.standard
    /// From how many sessions on a node gets no more; nil: it gets all whose keys lead to it.
    package var bound: LoadBound? = LoadBound()
    /// How long a node that is new among others takes but a part of its keys.
    package var slowStart = SlowStart.standard
    /// Pages of which origins are told where a node is (`/locate`).
    package var origins = OriginPolicy(allowsMissing: true)
    package var trustedProxies: TrustedProxies
    /// Connections of trusted proxies begin with a header of the PROXY protocol.
    package var readsProxyProtocol = false
    package var limits = RouterLimits()
    /// How often nodes are asked whether they are ready; nil: never.
    package var checks: HealthChecker.Times? = HealthChecker.Times()
    /// What clients speak TLS with; nil: they speak HTTP as it is.
    package var tls: TLSCredentials?
    /// What it speaks TLS with to nodes; nil: it speaks HTTP as it is.
    package var nodeTLS: FollowedFiles<TLSClient, TLSFailure>?
    /// Connections to nodes begin with a header of the PROXY protocol, which names the client; none is kept for another.
    package var writesProxyProtocol = false
    /// From where it dials nodes; nil: the kernel chooses.
    package var nodeSources: NodeSources?
    /// Gives WebSockets to nodes of this host, where neither clients nor nodes speak TLS.
    package var handsOver = false
    /// Which connections are taken.
    package var gate = GateLimits()
    /// Whom a token is about, without proof; nil when it is no token.
    package var subject: @Sendable (String) -> String?

    package init(
        host: String,
        port: Int,
        affinityKey: (UInt64, UInt64),
        trustedProxies: TrustedProxies = TrustedProxies([]),
        subject: @escaping @Sendable (String) -> String? = { TokenVerifier.unverifiedSubject(of: $0) }
    ) {
        self.host = host
        self.port = port
        self.affinityKey = affinityKey
        self.trustedProxies = trustedProxies
        self.subject = subject
    }

    /// The hash's key out of the cluster's secret: HKDF-SHA256, 128 bits as two little-endian words.
    package static func affinityKey(secret: String) -> (UInt64, UInt64) {
        let bytes = KeyDerivation.deriveKey(secret: secret, purpose: "martlet affinity", length: 16)
        return bytes.withUnsafeBytes { bytes in
            (
                UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self)),
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
    }
}

package struct RouterLimits: Sendable {
    /// New WebSockets, and as many at once: more are answered 503. 0 lifts the limit.
    package var upgradesPerSecond = 2000
    /// Bytes of a request's or an answer's head.
    package var headBytes = 64 * 1024
    /// From a connection's start, or a later request's first byte, to the end of the head.
    package var headTime: TimeAmount = .seconds(10)
    /// Between two requests of a connection.
    package var keepAliveTime: TimeAmount = .seconds(60)
    /// For a node to accept a connection; as much again for the handshake of TLS.
    package var connectTime: TimeAmount = .seconds(2)
    /// For a node to answer an upgrade, or another request that may go to the next node, before the next one is tried.
    package var answerTime: TimeAmount = .seconds(5)
    /// Without a byte in either direction, while any other request, or any answer, is under way.
    package var exchangeIdle: TimeAmount = .seconds(60)
    /// Connections to one node that a loop keeps for further requests; 0: each request has its own.
    package var nodeKeptConnections = 4
    /// Those to all nodes.
    package var keptConnections = 1024
    /// How long such a one is kept without a request: well below the 75 s after which a node closes it.
    package var nodeKeepAliveTime: TimeAmount = .seconds(30)
    /// Of a tunnel that ends, or half of which has. Where nothing moves it ends after twice its node's `silence`, if that is told.
    package var tunnels = TunnelTimes()
    /// For a client to close after the last answer of its connection.
    package var lingerTime: TimeAmount = .seconds(2)

    package init() {}
}

/// How long a tunnel may stand still. A ``TunnelSet`` looks every `sweep`, so that those in it may last that much longer.
package struct TunnelTimes: Sendable {
    /// One direction has ended.
    package var halfClosed: TimeAmount = .seconds(30)
    /// It ends, and one end does not take what it is still to have, or does not end its own side.
    package var ending: TimeAmount = .seconds(5)
    package var sweep: TimeAmount = .seconds(5)

    package init() {}
}
