import ChatCore
import ClusterState
import Logging
import NIOCore
import RedisClient

/// Publishes that count as stored only when so many replicas have them (`MARTLET_ACK_REPLICAS`).
///
/// 1. Batches go over a connection of their own, and `WAIT` behind them on the same one: it speaks of what that
///    connection wrote, so neither another connection nor another Redis behind the same address can answer for them.
/// 2. One `WAIT` covers all batches of a round. What it does not cover, because it came short, or the connection ended,
///    has an unknown outcome: the same ids go out again, and a duplicate waits like any other publish.
///
/// Confined to the hub's loop.
final class ReplicaWait {
    /// So long replicas may take before nothing more is published until they follow again.
    private static let patience: TimeAmount = .seconds(1)
    /// A publish that has less time left is not sent: it could not be stored and counted within it.
    static let leastLeft = patience + .milliseconds(500)

    struct NotReplicated: Error {}

    private let redis: RedisClient
    private let store: RoomStore
    /// On the connection of the batches.
    let users: UserStore
    private let key: String
    private let replicas: Int
    private let metrics: HubMetrics
    private let logger: Logger
    private var rounds = ReplicationRounds()
    /// Stored on this connection, and not yet known to be on the replicas.
    private var stored: [(Bool) -> Void] = []
    private var wasShort = false
    /// Publishes may go out again.
    var onOpen: () -> Void = {}
    /// The connection is new, and nothing was written on it yet.
    var onConnect: () -> Void = {}

    init(replicas: Int, like redis: RedisClient, keys: ClusterKeys, metrics: HubMetrics, logger: Logger) {
        var configuration = redis.configuration
        configuration.clientName += "-publish"
        self.redis = RedisClient(
            configuration: configuration, scripts: ClusterScripts.all, eventLoop: redis.eventLoop,
            logger: logger)
        store = RoomStore(redis: self.redis, keys: keys)
        users = UserStore(redis: self.redis, keys: keys)
        key = keys.replicaWait
        (self.replicas, self.metrics, self.logger) = (replicas, metrics, logger)
    }

    /// On its event loop.
    func start() {
        let wait = NIOLoopBound(self, eventLoop: redis.eventLoop)
        redis.setStateHandler { isConnected in
            if isConnected { wait.value.connected() } else { wait.value.connectionLost() }
        }
        redis.start()
    }

    func stop() -> EventLoopFuture<Void> { redis.close() }

    var mayPublish: Bool { rounds.mayPublish && redis.isConnected }

    /// As ``RoomStore/publish(to:channels:_:limits:newEpoch:timeout:)``, once the replicas have the batch too.
    ///
    /// - Parameters:
    ///   - deadline: when the first of the batch has to be answered; monotonic nanoseconds.
    ///   - publish: is told where, and by when Redis has to answer so that replicas can be counted in time.
    ///   - completion: fails with ``NotReplicated`` when the batch is stored and too few replicas are known to have it.
    func publish(
        deadline: UInt64, _ publish: (RoomStore, UInt64) -> EventLoopFuture<[PublishOutcome]>,
        _ completion: @escaping (Result<[PublishOutcome], any Error>) -> Void
    ) {
        let end = rounds.sent(deadline: deadline)
        let patience = UInt64(Self.patience.nanoseconds)
        publish(store, end > patience ? end - patience : 0).assumeIsolated().whenComplete { result in
            switch result {
            case .success:
                self.stored.append { completion($0 ? result : .failure(NotReplicated())) }
            case .failure:
                completion(result)
            }
            self.take(self.rounds.answered(isStored: (try? result.get()) != nil))
        }
    }

    /// Called now and then.
    func countIfDue() {
        guard redis.isConnected else { return }
        take(rounds.due())
    }

    private func take(_ action: ReplicationRounds.Action) {
        switch action {
        case .none: break
        case .count: count()
        }
    }

    /// Of a connection that wrote nothing `WAIT` would ask for nothing: a batch of duplicates stores nothing.
    private func count() {
        metrics.replicaWaits += 1
        let patience = Self.patience.nanoseconds / 1_000_000
        let timeout = TimeAmount.milliseconds(patience + 100)
        let written = redis.command(["SET", .string(key), "", "PX", "10000"], timeout: timeout)
        let counted = redis.command(["WAIT", .integer(Int64(replicas)), .integer(patience)], timeout: timeout)
        written.and(counted).assumeIsolated().whenComplete { result in
            let isEnough = (try? result.get().1.int).map { $0 >= self.replicas } ?? false
            self.rounds.counted(isEnough: isEnough)
            self.say(isEnough, result)
            self.settle(isEnough)
            if isEnough { self.onOpen() }
        }
    }

    private func say(_ isEnough: Bool, _ result: Result<(RESPValue, RESPValue), any Error>) {
        if !isEnough { metrics.replicaWaitsShort += 1 }
        guard isEnough == wasShort else { return }
        wasShort = !isEnough
        if isEnough {
            logger.notice("enough replicas follow: messages are stored again", metadata: ["replicas": "\(replicas)"])
        } else {
            var metadata: Logger.Metadata = ["replicas": "\(replicas)"]
            switch result {
            case .success((_, let count)): metadata["following"] = "\(count.int ?? 0)"
            case .failure(let error): metadata["cause"] = "\(error)"
            }
            logger.warning("too few replicas follow: no message is stored until they do", metadata: metadata)
        }
    }

    private func settle(_ isReplicated: Bool) {
        let settled = stored
        stored = []
        for confirm in settled { confirm(isReplicated) }
    }

    private func connected() {
        onConnect()
        countIfDue()
    }

    private func connectionLost() {
        rounds.connectionLost()
        settle(false)
    }
}
