import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient
import Synchronization
import WebSocketTransport

/// How a node ends, and how it sends its clients away before.
extension Node {
    /// What ``DrainState`` is told.
    enum Event: Sendable {
        /// By an operator, through Redis.
        case ordered
        case takenBack
        case stop(because: NodeNameTaken?)
        /// No client is left of the drain with that number, or their time is over.
        case left(drain: Int)
        /// The order still stood when Redis heard that the node ends.
        case confirmed
        /// Redis did not say in time whether it does.
        case unconfirmed(drain: Int)
    }

    /// Ends the node: it drains first. May be called again; returns at once.
    package func stop() { tell.yield(.stop(because: nil)) }

    /// Serves clients until the node is told to end, or an operator had it drain and did not take that back while clients
    /// were there. It then takes no more clients (the port still answers `/healthz` and `/readyz`), sends those that are
    /// there away in their turn, removes what the node has in Redis, and ends, all within the drain deadline.
    ///
    /// - Throws: ``NodeNameTaken`` when it had to end because another process has its name.
    package func run() async throws {
        var state = DrainState()
        var failure: NodeNameTaken?
        var deadline = NIODeadline.now()
        events: for await event in events {
            switch event {
            case .ordered:
                if state.ordered() == .sendAway { deadline = await drain(state.drain, ending: .no) }
            case .takenBack:
                if state.takenBack() == .takeClients { await takeClients() }
            case .stop(let reason):
                failure = failure ?? reason
                switch state.stop() {
                case .sendAway: deadline = await drain(state.drain, ending: .yes)
                case .goOn: await announce(draining: true, ending: .yes)
                case .end: break events
                case .none: break
                }
            case .left(let drain):
                switch state.left(drain: drain) {
                case .ask:
                    await announce(draining: true, ending: .unlessTakenBack)
                    let patience = max(deadline - Self.answerTime, .now() + Self.answerTime)
                    hub.eventLoop.scheduleTask(deadline: patience) { [tell] in
                        tell.yield(.unconfirmed(drain: drain))
                    }
                case .end: break events
                case .none: break
                }
            case .confirmed:
                if state.confirmed(drain: state.drain) == .end { break events }
            case .unconfirmed(let drain):
                if state.confirmed(drain: drain) == .end { break events }
            }
        }
        await end(until: max(deadline, .now() + Self.answerTime))
        if let failure { throw failure }
    }

    /// Of the last second, which belongs to Redis: to say whether an order still stands, and to hear what the node leaves.
    private static let answerTime = TimeAmount.milliseconds(500)

    private func announce(draining: Bool, ending: NodeFigures.Ending) async {
        _ = try? await hub.eventLoop.submit { self.control.value.announce(draining: draining, ending: ending) }.get()
    }

    /// - Returns: when the node must have ended.
    private func drain(_ number: Int, ending: NodeFigures.Ending) async -> NIODeadline {
        let deadline = NIODeadline.now() + configuration.drainDeadline
        logger.notice(
            "draining",
            metadata: [
                "deadline_s": "\(configuration.drainDeadline.nanoseconds / 1_000_000_000)",
                "clients_per_second": .stringConvertible(configuration.drainRate),
            ])
        // Routers then proxy, and hear the node's 503 themselves.
        guards.isDraining.store(true, ordering: .relaxed)
        await announce(draining: true, ending: ending)
        let left = await sendAway()
        // What has not closed by then is closed with the process; the last second belongs to Redis.
        let isOver = hub.eventLoop.makePromise(of: Void.self)
        let timeout = hub.eventLoop.scheduleTask(deadline: deadline - .seconds(1)) { isOver.succeed() }
        left.hop(to: hub.eventLoop).whenComplete { _ in isOver.succeed() }
        isOver.futureResult.whenComplete { [tell] _ in
            timeout.cancel()
            tell.yield(.left(drain: number))
        }
        return deadline
    }

    /// Tells every client to go, one after the other, at the rate that is set or as much faster as the deadline asks.
    /// Succeeds when the last connection is closed.
    private func sendAway() async -> EventLoopFuture<Void> {
        let counts = shards.map { shard in shard.eventLoop.submit { shard.beginDraining() } }
        guard let counts = try? await EventLoopFuture.whenAllSucceed(counts, on: hub.eventLoop).get() else {
            return hub.eventLoop.makeSucceededVoidFuture()
        }
        let now = NIODeadline.now()
        let pace = DrainPace(
            clients: counts.reduce(0, +), perSecond: configuration.drainRate,
            patience: configuration.drainDeadline.nanoseconds - configuration.drainReserve.nanoseconds)
        let left = zip(shards, DrainPace.places(of: counts)).map { shard, places in
            let moments = places.map { now + .nanoseconds(pace.departure(of: $0)) }
            return shard.eventLoop.flatSubmit { shard.sendAway(at: moments) }
        }
        return EventLoopFuture.andAllComplete(left, on: hub.eventLoop)
    }

    /// After a drain that was taken back.
    private func takeClients() async {
        for shard in shards { _ = try? await shard.eventLoop.submit { shard.stay() }.get() }
        guards.isDraining.store(false, ordering: .relaxed)
        await announce(draining: false, ending: .no)
        let sessions = try? await hub.eventLoop.submit { self.hub.sessions.count }.get()
        logger.notice("taking clients again", metadata: ["sessions": .stringConvertible(sessions ?? 0)])
    }

    private func end(until deadline: NIODeadline) async {
        handovers?.stop()
        let isOver = hub.eventLoop.makePromise(of: Void.self)
        let timeout = hub.eventLoop.scheduleTask(deadline: deadline) { isOver.succeed() }
        hub.eventLoop.flatSubmit { self.control.value.end() }.whenComplete { _ in isOver.succeed() }
        try? await isOver.futureResult.get()
        timeout.cancel()
        for shard in shards { try? await shard.eventLoop.submit { shard.stop() }.get() }
        _ = try? await server.close().get()
        _ = try? await internalServer.close().get()
        _ = try? await hub.eventLoop.flatSubmit { self.hub.stop() }.get()
        _ = try? await redis.close().get()
        logger.notice("ended")
    }
}
