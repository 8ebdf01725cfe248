import ClusterState
import Logging
import NIOCore
import RedisClient
import Telemetry
import WebSocketTransport

/// Ties the lease to the hub, and says whether the node is ready. Confined to the hub's loop.
final class NodeControl {
    let hub: Hub
    private let guards: NodeGuards
    private var watch: RepeatedTask?
    private let configuration: NodeConfiguration
    private let address: String
    private let startedAt = WallClock.milliseconds()
    private let onEvent: (Node.Event) -> Void
    private(set) var isDraining = false
    private var ending = NodeFigures.Ending.no
    private var lease: LeaseKeeper?
    private var traffic = TrafficMeter()

    init(
        configuration: NodeConfiguration, hub: Hub, guards: NodeGuards, address: String, logger: Logger,
        onEvent: @escaping (Node.Event) -> Void
    ) {
        self.configuration = configuration
        self.hub = hub
        self.guards = guards
        self.address = address
        self.onEvent = onEvent
        self.lease = LeaseKeeper(
            eventLoop: hub.eventLoop, nodes: hub.nodes, name: configuration.name, duration: configuration.lease,
            logger: logger,
            adoption: hub.mayResume
                ? SessionAdoption(grace: configuration.resumeGrace) { [hub] adopted in
                    hub.eventLoop.flatSubmit { hub.adopt(adopted) }
                } : nil,
            figures: { [unowned self] in figures() },
            onBegin: { hub.begin($0) }, onAnswer: { [unowned self] in answered($0, mustDrain: $1) },
            onNameTaken: { onEvent(.stop(because: $0)) })
    }

    func start() {
        hub.eventLoop.assertInEventLoop()
        hub.mayWrite = { [unowned self] in hub.incarnation != nil && lease?.isHeld == true }
        hub.onFenced = { [unowned self] in lease?.fenced() }
        // What it says, and since when, stands in Redis.
        hub.onDrainOrder = { [unowned self] incarnation in
            if incarnation == hub.incarnation { lease?.beat() }
        }
        hub.onUserBarred = { [guards] in guards.users.bar($0, seconds: $1) }
        let loopBound = NIOLoopBound(self, eventLoop: hub.eventLoop)
        hub.redis.setStateHandler { isConnected in
            guard isConnected else { return }
            loopBound.value.lease?.beat()
            loopBound.value.hub.moderationFeed.read()
            loopBound.value.hub.reconcileAll()
        }
        lease?.start()
        watch = hub.eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) {
            [guards, unowned hub] _ in
            guards.watchMemory()
            hub.exchangeUserRates(guards)
            loopBound.value.measure()
        }
    }

    /// Says in Redis whether the node takes clients, and whether it is ending.
    func announce(draining: Bool, ending: NodeFigures.Ending) {
        (isDraining, self.ending) = (draining, ending)
        lease?.beat()
    }

    /// Of what a heartbeat said that went out before the last change, the answer means nothing.
    private func answered(_ said: NodeFigures, mustDrain: Bool) {
        if mustDrain { onEvent(said.ending == .unlessTakenBack ? .confirmed : .ordered) }
        if !mustDrain, said.draining { onEvent(.takenBack) }
    }

    /// What the node has in Redis goes, or passes to the survivors with the sessions that may still be resumed; after this
    /// nothing of it is written.
    func end() -> EventLoopFuture<Void> {
        hub.eventLoop.assertInEventLoop()
        lease?.stop()
        watch?.cancel()
        hub.mayWrite = { false }
        guard let incarnation = hub.incarnation else { return hub.eventLoop.makeSucceededVoidFuture() }
        let passesOn =
            hub.keepsSessions ? hub.nodes.abdicate(incarnation) : hub.eventLoop.makeSucceededFuture(false)
        let bound = NIOLoopBound(hub, eventLoop: hub.eventLoop)
        return passesOn.flatMap { passedOn in
            guard !passedOn else { return bound.eventLoop.makeSucceededVoidFuture() }
            return bound.value.leaveAll().flatMap { bound.value.nodes.deregister(incarnation) }
        }
    }

    /// Why the node cannot deliver now; `nil` when it can (G5).
    var reasonNotReady: String? {
        if isDraining { return "draining" }
        if !hub.redis.isConnected { return "Redis does not answer" }
        if lease?.isHeld != true || hub.incarnation == nil { return "the lease is not held" }
        if hub.subscriber?.hears != true { return "the subscription does not hear itself" }
        if !hub.moderation.isRead { return "the orders of operators are not read yet" }
        return guards.reasonNotReady
    }

    var holdsLease: Bool { lease?.isHeld == true }

    private func measure() {
        EventLoopFuture.whenAllSucceed(hub.shards.map { $0.traffic() }, on: hub.eventLoop).assumeIsolated()
            .whenSuccess { shards in
                self.traffic.read(publishes: self.hub.metrics.publishes, shards, now: .now())
            }
    }

    private func figures() -> NodeFigures {
        NodeFigures(
            address: address, version: configuration.version, sessions: hub.sessions.count, rooms: hub.rooms.count,
            draining: isDraining, startedAt: startedAt, weight: configuration.weight, url: configuration.url,
            silenceMs: (configuration.heartbeat + configuration.heartbeatTimeout).nanoseconds / 1_000_000,
            traffic: traffic.figures, ending: ending)
    }
}
