import ChatCore
import ClusterState
import NIOCore
import NIOHTTP1
import RedisClient
import Synchronization
import TLSClient
import Telemetry
import WebAssets
import WebSocketTransport
import WireProtocol

/// The few HTTP paths of a node, and the upgrade at `/ws`.
final class NodeRoutes: Sendable {
    static let protobuf = "martlet.v1.protobuf"
    static let subprotocols = ["martlet.v1.json", protobuf]

    let hub: Hub
    let shards: [Shard]
    let configuration: NodeConfiguration
    private let guards: NodeGuards
    private let upgrades: UpgradeLimit
    /// Set once the node has started; until then it is not ready.
    private let control = Mutex<NIOLoopBound<NodeControl>?>(nil)

    init(hub: Hub, shards: [Shard], configuration: NodeConfiguration, guards: NodeGuards) {
        self.hub = hub
        self.shards = shards
        self.configuration = configuration
        self.guards = guards
        upgrades = UpgradeLimit(perSecond: configuration.limits.upgradesPerSecond)
    }

    func started(_ control: NIOLoopBound<NodeControl>) {
        self.control.withLock { $0 = control }
    }

    func respond(to request: HTTPRequest, on loop: any EventLoop) -> EventLoopFuture<HTTPResponse> {
        let answer: EventLoopFuture<HTTPResponse>
        switch request.path {
        case "/healthz":
            answer = loop.makeSucceededFuture(.text("ok\n"))
        case "/readyz": answer = readiness()
        case _ where request.refusal != nil: return loop.makeSucceededFuture(request.refusal ?? Self.notReady("full"))
        default:
            guard let asset = WebAssets.find(path: request.path) else {
                return loop.makeSucceededFuture(
                    .error(
                        .notFound, reason: "not_found", message: "there is nothing at this path; /ws speaks WebSocket"))
            }
            answer = loop.makeSucceededFuture(Self.response(asset, request))
        }
        guard request.method == .GET || request.method == .HEAD else {
            return loop.makeSucceededFuture(.methodNotAllowed)
        }
        return answer.hop(to: loop)
    }

    /// What the internal port answers.
    var internalPaths: [String: HTTPServer.RequestHandler] {
        [
            "/healthz": { _, loop in loop.makeSucceededFuture(.text("ok\n")) },
            "/readyz": { _, _ in self.readiness() },
            "/metrics": { _, _ in self.metrics() },
        ]
    }

    func upgrade(_ request: HTTPRequest, on loop: any EventLoop) -> UpgradeDecision {
        guard request.path == "/ws" else {
            return .refuse(.error(.notFound, reason: "not_found", message: "WebSocket is spoken at /ws"))
        }
        // One that a router gave away as the drain began is taken, and leaves with the last: no other node can have it.
        guard let shard = shards.first(where: { $0.eventLoop === loop }), !shard.isDraining || request.isAdopted else {
            return .refuse(Self.notReady("draining"))
        }
        guard hub.moderation.isRead else { return .refuse(Self.notReady("starting")) }
        var subject = ModerationSubject(
            user: nil, session: nil, token: nil, address: ClientAddress(request.clientAddress))
        if let refusal = originRefusal(request) { return .refuse(refusal) }
        // Before its token, so that a banned address costs no look at one.
        if let order = hub.moderation.exclusion(of: subject) { return turnAway(request, shard, order) }
        let claim: Identity.Claim
        do throws(WireError) {
            claim = try Identity.claim(request, configuration.authentication)
        } catch {
            if configuration.isOfUnknownKey(error) { guards.gate.note(.badToken, of: request.clientAddress) }
            return .refuse(Identity.refusal(error))
        }
        (subject.user, subject.token) = (claim.user, claim.grant.map { .init($0) })
        if let order = hub.moderation.exclusion(of: subject) { return turnAway(request, shard, order) }
        if let user = claim.user, let refusal = guards.users.check(user) {
            return .refuse(
                .error(
                    .tooManyRequests, reason: "user_barred",
                    message: "too much was sent over the limits in this user's name; wait and try again",
                    headers: ["Retry-After": String(refusal.retryAfterSeconds)]))
        }
        // Last, so that a bad token takes nobody's turn.
        if let refusal = refusalOfTurn() { return .refuse(refusal) }
        if claim.user == nil, let refusal = refusalOfStranger(shard) { return .refuse(refusal.response) }
        return accept(request, shard, claim)
    }

    private func refusalOfTurn() -> HTTPResponse? {
        upgrades.take().map { seconds in
            .error(
                .serviceUnavailable, reason: "too_many_upgrades",
                message: "too many clients connect at once; try again", headers: ["Retry-After": String(seconds)])
        }
    }

    /// Where as many as may be have not said who they are, the one that has been silent longest gives way: clients say it
    /// as soon as they are connected, so silent ones keep nobody out.
    private func refusalOfStranger(_ shard: Shard) -> GateRefusal? {
        guard let refusal = guards.gate.strangerCame() else { return nil }
        return shard.endLongestStranger() ? guards.gate.strangerCame() : refusal
    }

    /// Of a handshake that is refused a page in a browser learns nothing, and would come again for ever: it is accepted, and
    /// closed with a code. A token that is revoked is a bad token like others: a client has to get a new one.
    private func turnAway(_ request: HTTPRequest, _ shard: Shard, _ order: ModerationOrder) -> UpgradeDecision {
        guard order.key.kind != .revoke else { return .refuse(Identity.refusal(order.wireError)) }
        if let refusal = refusalOfTurn() { return .refuse(refusal) }
        return accept(request, shard, .nobody, exclusion: order)
    }

    private func accept(
        _ request: HTTPRequest, _ shard: Shard, _ claim: Identity.Claim, exclusion: ModerationOrder? = nil
    ) -> UpgradeDecision {
        let subprotocol = request.offeredSubprotocols.lazy.compactMap { offered in
            Self.subprotocols.first { $0 == offered }
        }.first
        return .accept(subprotocol: subprotocol) { connection in
            let session = Session(
                id: SessionID(), shard: shard, connection: connection, requestID: request.requestID,
                claim: claim, isStranger: claim.user == nil && exclusion == nil)
            shard.add(session)
            session.begin(exclusion)
            return session
        }
    }

    private func originRefusal(_ request: HTTPRequest) -> HTTPResponse? {
        switch configuration.origins.check(request) {
        case .allowed: nil
        case .missing:
            .error(
                .forbidden, reason: "origin_missing",
                message: "send an Origin, or let the server allow clients without one (MARTLET_ORIGIN_MISSING)")
        case .foreign:
            .error(
                .forbidden, reason: "origin_not_allowed",
                message: "pages of this origin may not connect here; the server's MARTLET_ORIGINS names those that may")
        }
    }

    private static func response(_ asset: WebAsset, _ request: HTTPRequest) -> HTTPResponse {
        var headers: HTTPHeaders = [
            "ETag": asset.etag, "Cache-Control": "no-cache",
            "Content-Security-Policy": WebAssets.contentSecurityPolicy,
        ]
        if request.asksForStrictTransport { headers.add(name: "Strict-Transport-Security", value: "max-age=31536000") }
        if request.headers.first(name: "if-none-match") == asset.etag {
            return HTTPResponse(status: .notModified, headers: headers)
        }
        headers.add(name: "Content-Type", value: asset.contentType)
        return HTTPResponse(status: .ok, headers: headers, body: ByteBuffer(bytes: asset.bytes))
    }

    // MARK: Health

    private func readiness() -> EventLoopFuture<HTTPResponse> {
        guard let control = control.withLock({ $0 }) else {
            return hub.eventLoop.makeSucceededFuture(Self.notReady("starting"))
        }
        return hub.eventLoop.submit {
            guard let reason = control.value.reasonNotReady else {
                return .text("ready\n")
            }
            return Self.notReady(reason)
        }
    }

    private static func notReady(_ reason: String) -> HTTPResponse {
        .error(.serviceUnavailable, reason: "not_ready", message: reason, headers: ["Retry-After": "1"])
    }

    private var certificateMetrics: [UInt8] {
        var text = MetricsText()
        for certificate in configuration.tls?.value.certificates ?? [] {
            text.certificate(certificate.file, notAfter: certificate.notAfter)
        }
        return text.bytes
    }

    private func metrics() -> EventLoopFuture<HTTPResponse> {
        guard let control = control.withLock({ $0 }) else {
            return hub.eventLoop.makeSucceededFuture(Self.notReady("starting"))
        }
        let hub = self.hub
        let figures = hub.eventLoop.submit {
            (
                hub.metrics.snapshot(
                    sessions: hub.sessions.count, waitingPublishes: hub.waitingPublishes,
                    isConnected: hub.redis.isConnected, hears: hub.subscriber?.hears == true,
                    holdsLease: control.value.holdsLease),
                control.value.reasonNotReady == nil
            )
        }
        let perShard = EventLoopFuture.whenAllSucceed(shards.map { $0.figures() }, on: hub.eventLoop)
        return figures.and(perShard).map { figures, shards in
            let bytes =
                NodeMetricsText.render(
                    figures.0, shards, upgradesRefused: self.upgrades.refused, isReady: figures.1)
                + self.guards.metrics() + (self.configuration.keySource?.metrics ?? []) + self.certificateMetrics
            return HTTPResponse(
                status: .ok, headers: ["Content-Type": MetricsText.contentType], body: ByteBuffer(bytes: bytes))
        }
    }
}
