package import ClusterState
package import Logging
package import NIOCore
package import RedisClient
import Synchronization
import Telemetry

/// Says in Redis that this router is there and what it does, for `martlet admin routers` and nobody else.
///
/// 1. A lease of ten seconds, renewed four times as often, in one round trip each; one try at a time.
/// 2. A Redis that is away is waited for without a word: the directory of nodes says so. One that refuses is warned of once,
///    until it has taken a line. The router serves in any case.
///
/// `@unchecked Sendable`: all state is touched on the client's event loop alone.
package final class RouterRegistration: @unchecked Sendable {
    package static let lease: TimeAmount = .seconds(10)
    private static let interval: TimeAmount = .milliseconds(2500)
    private static let patience: TimeAmount = .seconds(2)

    private let store: RouterStore
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let router: Router
    private let id = String(UInt64.random(in: 0 ... .max), radix: 36)
    private var figures: RouterFigures
    private var rate = RateWindow(seconds: 5)
    private var repeating: RepeatedTask?
    private var telling: EventLoopFuture<Void>?
    private var isDue = false
    private var isWarned = false

    /// - Parameter figures: what stays as it is: name, addresses, version and start.
    package init(
        of router: Router, as figures: RouterFigures, client: RedisClient, keys: ClusterKeys, logger: Logger
    ) {
        self.router = router
        self.figures = figures
        self.logger = logger
        store = RouterStore(redis: client, keys: keys)
        eventLoop = client.eventLoop
    }

    package func start() {
        eventLoop.execute {
            self.repeating = self.eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: Self.interval) { _ in
                self.tell()
            }
        }
    }

    /// Says at once that the router takes nobody any more.
    package func beginDraining() {
        eventLoop.execute {
            self.figures.draining = true
            self.tell()
        }
    }

    /// The router is listed no more. Never fails, and takes two seconds at most.
    package func end() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            self.repeating?.cancel()
            self.repeating = nil
            let before = self.telling ?? self.eventLoop.makeSucceededVoidFuture()
            let promise = self.eventLoop.makePromise(of: Void.self)
            let timeout = self.eventLoop.scheduleTask(in: Self.patience) { promise.succeed(()) }
            before.flatMap { self.store.end(id: self.id) }.whenComplete { _ in
                timeout.cancel()
                promise.succeed(())
            }
            return promise.futureResult
        }
    }

    private func tell() {
        guard repeating != nil else { return }
        guard telling == nil else {
            // What is under way may carry older figures.
            isDue = true
            return
        }
        isDue = false
        router.fill(&figures, rate: &rate, now: .now())
        let told = store.tell(figures, id: id, lease: Self.lease)
        telling = told.recover { _ in }
        told.whenComplete { result in
            self.telling = nil
            switch result {
            case .success: self.isWarned = false
            case .failure(let error as RedisError) where error.code == .server: self.warn(error)
            case .failure: break
            }
            if self.isDue { self.tell() }
        }
    }

    private func warn(_ error: RedisError) {
        guard !isWarned else { return }
        isWarned = true
        logger.warning(
            "Redis does not list this router, so `martlet admin routers` does not show it; it serves all the same",
            metadata: ["error": "\(error)"])
    }
}

extension Router {
    /// What changes of a router's figures.
    fileprivate func fill(_ figures: inout RouterFigures, rate: inout RateWindow, now: NIODeadline) {
        let table = core.nodes
        figures.connections = core.openConnections
        figures.requests = core.answers.total + core.handedOver.load(ordering: .relaxed)
        rate.read(figures.requests, at: now.uptimeNanoseconds)
        figures.requestsPerSecond = rate.perSecond
        figures.nodes = table.nodes.count
        figures.readyNodes = table.home.takers.count { table.failingCheck($0) == nil }
        figures.ejected = table.nodes.filter {
            table.ejected($0, now: now) != nil || table.failingCheck($0) != nil
        }.map(\.name)
        if core.isDraining { figures.draining = true }
    }
}
