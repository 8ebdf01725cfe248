package import ClusterState
package import Logging
package import NIOCore
package import RedisClient

/// The nodes as Redis lists them: read at the start, every two seconds, at once when the control channel says that
/// something changed, and when the subscription hears again after it was deaf.
///
/// 1. One reading at a time; what is asked for meanwhile is one more after it.
/// 2. While Redis is away nothing is told, so the last list stands.
/// 3. An empty list after one that was not is told only when it has been empty for `emptyPatience`: a Redis that came
///    back without its data knows no nodes until they have registered anew, and they serve all the same.
///
/// `@unchecked Sendable`: all state is touched on the client's event loop alone.
package final class RedisNodeDirectory: NodeDirectory, RedisSubscriberDelegate, @unchecked Sendable {
    private static let interval: TimeAmount = .seconds(2)
    private static let emptyPatience: TimeAmount = .seconds(15)

    private let store: NodeStore
    private let client: RedisClient
    private let keys: ClusterKeys
    private let logger: Logger
    private let eventLoop: any EventLoop

    private var changed: (@Sendable ([RoutedNode]) -> Void)?
    private var subscriber: RedisSubscriber?
    private var repeating: RepeatedTask?
    private var isReading = false
    private var isDue = false
    private var lastFound: NIODeadline?
    private var names: [String] = []
    private var failing = false

    package init(client: RedisClient, keys: ClusterKeys, logger: Logger) {
        self.client = client
        self.keys = keys
        self.logger = logger
        eventLoop = client.eventLoop
        store = NodeStore(redis: client, keys: keys)
    }

    package func start(_ changed: @escaping @Sendable ([RoutedNode]) -> Void) {
        eventLoop.execute {
            self.changed = changed
            let unique = String(UInt64.random(in: 0 ... .max), radix: 36)
            let subscriber = RedisSubscriber(
                client: self.client,
                probeChannel: "\(self.keys.controlChannel):probe:router-\(unique)",
                delegate: self,
                logger: self.logger
            )
            self.subscriber = subscriber
            subscriber.start()
            subscriber.subscribe(self.keys.controlChannel).whenComplete { _ in }
            self.repeating = self.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.interval) { _ in
                self.refresh()
            }
        }
    }

    package func stop() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            self.changed = nil
            self.repeating?.cancel()
            guard let subscriber = self.subscriber else { return self.eventLoop.makeSucceededVoidFuture() }
            self.subscriber = nil
            return subscriber.stop()
        }
    }

    private func refresh() {
        guard changed != nil else { return }
        guard !isReading else {
            isDue = true
            return
        }
        isReading = true
        store.list().whenComplete { result in
            self.isReading = false
            switch result {
            case .success(let records):
                self.failing = false
                self.tell(records.compactMap(RoutedNode.init))
            case .failure(let error):
                if !self.failing {
                    self.logger.warning(
                        "cannot read the nodes from Redis; going on with those known",
                        metadata: ["error": "\(error)"]
                    )
                }
                self.failing = true
            }
            if self.isDue {
                self.isDue = false
                self.refresh()
            }
        }
    }

    private func tell(_ nodes: [RoutedNode]) {
        if !nodes.isEmpty {
            lastFound = .now()
        } else if let lastFound, NIODeadline.now() - lastFound < Self.emptyPatience {
            return
        }
        let described = nodes.map { "\($0.name).\($0.incarnation.number)=\($0.state.rawValue)" }
        if described != names {
            names = described
            logger.info("nodes", metadata: ["nodes": "\(described.joined(separator: " "))"])
        }
        changed?(nodes)
    }

    // MARK: RedisSubscriberDelegate

    package func subscriber(
        _ subscriber: RedisSubscriber,
        received payload: UnsafeRawBufferPointer,
        on channel: UnsafeRawBufferPointer
    ) {
        refresh()
    }

    package func subscriberFinishedReading(_ subscriber: RedisSubscriber) {}

    package func subscriberBecameDeaf(_ subscriber: RedisSubscriber) {}

    package func subscriberHearsAgain(_ subscriber: RedisSubscriber) { refresh() }
}

extension RoutedNode {
    /// nil when the record has no address that could be dialled.
    package init?(_ record: NodeRecord) {
        guard let (host, port) = Self.hostAndPort(record.figures.address) else { return nil }
        let state: State =
            switch record.state {
            case .ready: .ready
            case .draining: .draining
            case .dead: .dead
            }
        self.init(
            name: record.incarnation.name,
            incarnation: record.incarnation.number,
            host: host,
            port: port,
            state: state,
            isLate: record.leaseMs < 0,
            sessions: min(max(record.figures.sessions, 0), 1_000_000_000),
            figuresAge: .milliseconds(min(max(record.figuresAgeMs, 0), 60_000)),
            weight: record.figures.weight,
            url: record.figures.url,
            silence: record.figures.silenceMs.map { .milliseconds($0) },
            age: record.ageMs.map { .milliseconds(min(max($0, 0), 1_000_000_000_000)) }
        )
    }

    /// `host:port`, `[IPv6]:port`.
    static func hostAndPort(_ address: String) -> (String, Int)? {
        guard let colon = address.lastIndex(of: ":"),
            let port = Int(address[address.index(after: colon)...]), (1...65535).contains(port)
        else { return nil }
        var host = address[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        return host.isEmpty ? nil : (String(host), port)
    }
}
