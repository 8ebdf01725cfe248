import ChatCore
import ClusterState
import Logging
import NIOCore

/// Holds this node's lease: registers an incarnation, renews it, gets a new one when it was declared dead, and sweeps
/// nodes whose lease has ended (G4). Confined to the hub's loop.
final class LeaseKeeper {
    private let nodes: NodeStore
    private let name: String
    private let duration: TimeAmount
    private let logger: Logger
    private let tell: () -> NodeFigures
    private let onBegin: (Incarnation) -> Void
    private let onAnswer: (NodeFigures, Bool) -> Void
    private let adoption: SessionAdoption?
    private let onNameTaken: (NodeNameTaken) -> Void
    private var clock: LeaseClock
    private(set) var incarnation: Incarnation?
    /// The last one, that was declared dead.
    private var former: Incarnation?
    /// The end of the lease by Redis's clock, of the last heartbeat that was answered.
    private var leaseEnd: Int64?
    /// The last one, of an operator's, that a heartbeat brought.
    private var order: DrainOrder?
    private var isRegistering = false
    private var isRenewing = false
    private var mustBeatAgain = false
    private var isSweeping = false
    private var isStopped = false
    private var task: RepeatedTask?
    private let eventLoop: any EventLoop

    /// - Parameter onAnswer: to a heartbeat: what that said, and whether the node is to drain.
    init(
        eventLoop: any EventLoop, nodes: NodeStore, name: String, duration: TimeAmount, logger: Logger,
        adoption: SessionAdoption?,
        figures: @escaping () -> NodeFigures, onBegin: @escaping (Incarnation) -> Void,
        onAnswer: @escaping (NodeFigures, Bool) -> Void, onNameTaken: @escaping (NodeNameTaken) -> Void
    ) {
        self.eventLoop = eventLoop
        self.nodes = nodes
        self.name = name
        self.duration = duration
        self.logger = logger
        tell = figures
        self.adoption = adoption
        self.onBegin = onBegin
        self.onAnswer = onAnswer
        self.onNameTaken = onNameTaken
        self.clock = LeaseClock(duration: UInt64(duration.nanoseconds))
    }

    /// The lease is good for writes at this moment, by this process's own clock.
    var isHeld: Bool {
        incarnation != nil && clock.isHeld(now: NIODeadline.now().uptimeNanoseconds)
    }

    private var figures: NodeFigures {
        var figures = tell()
        figures.order = order
        return figures
    }

    /// Four renewals to a lease, so that two lost ones do not end it.
    func start() {
        let interval = TimeAmount.nanoseconds(max(duration.nanoseconds / 4, 100_000_000))
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        task = eventLoop.scheduleRepeatedTask(initialDelay: .zero, delay: interval) { _ in
            bound.value.beat()
            bound.value.sweep()
        }
    }

    func stop() {
        isStopped = true
        task?.cancel()
        task = nil
    }

    /// At once: figures or draining changed, or Redis is back.
    func beat() {
        guard !isStopped else { return }
        guard let incarnation else { return register() }
        guard !isRenewing else {
            // What is under way may carry older figures.
            mustBeatAgain = true
            return
        }
        isRenewing = true
        mustBeatAgain = false
        let sentAt = NIODeadline.now().uptimeNanoseconds
        let figures = figures
        nodes.heartbeat(incarnation, figures: figures, lease: duration).assumeIsolated().whenComplete { result in
            self.isRenewing = false
            guard self.incarnation == incarnation, !self.isStopped else { return }
            switch result {
            case .success(.held(let order, let leaseEnd)):
                self.order = order
                self.clock.renewed(sentAt: sentAt)
                self.leaseEnd = leaseEnd
                if self.mustBeatAgain { self.beat() }
                self.onAnswer(figures, order?.mustDrain == true)
            case .success(.dead):
                self.fenced()
            case .failure(let error):
                self.clock.renewalFailed()
                self.logger.debug("lease not renewed", metadata: ["error": "\(error)"])
                if self.mustBeatAgain { self.beat() }
            }
        }
    }

    /// The incarnation is dead. The node gets a new one, unless another process has its name by now: two of one name
    /// would fence each other for ever.
    func fenced() {
        guard let incarnation else { return }
        logger.warning("this node was declared dead", metadata: ["incarnation": "\(incarnation)"])
        former = incarnation
        self.incarnation = nil
        leaseEnd = nil
        clock.lost()
        register()
    }

    private func register() {
        guard !isStopped else { return }
        guard !isRegistering else {
            mustBeatAgain = true
            return
        }
        isRegistering = true
        let figures = figures
        let successor =
            former.map { nodes.successor(of: $0, startedAt: figures.startedAt) }
            ?? eventLoop.makeSucceededFuture(nil)
        successor.assumeIsolated().whenComplete { result in
            self.isRegistering = false
            guard !self.isStopped else { return }
            switch result {
            case .success(nil):
                self.register(with: figures)
            case .success(let other?):
                self.stop()
                self.onNameTaken(NodeNameTaken(by: other))
            case .failure(let error):
                self.logger.warning("could not register", metadata: ["error": "\(error)"])
            }
        }
    }

    private func register(with figures: NodeFigures) {
        isRegistering = true
        let sentAt = NIODeadline.now().uptimeNanoseconds
        nodes.register(name: name, figures: figures, lease: duration, after: former).assumeIsolated().whenComplete {
            result in
            self.isRegistering = false
            guard !self.isStopped else { return }
            switch result {
            case .success(let incarnation):
                self.former = nil
                self.incarnation = incarnation
                self.clock.renewed(sentAt: sentAt)
                self.logger.info("registered", metadata: ["incarnation": "\(incarnation)"])
                self.onBegin(incarnation)
                // Whether it is to drain may have changed while it was cut off.
                self.beat()
            case .failure(let error):
                self.logger.warning("could not register", metadata: ["error": "\(error)"])
            }
        }
    }

    private func sweep() {
        guard let incarnation, let leaseEnd, !isSweeping, !isStopped,
            clock.maySweep(now: NIODeadline.now().uptimeNanoseconds)
        else { return }
        isSweeping = true
        nodes.sweepLapsed(by: incarnation, notAfter: leaseEnd, adoption: adoption).assumeIsolated().whenComplete {
            result in
            self.isSweeping = false
            switch result {
            case .success(let reports):
                for report in reports {
                    if report.failure == nil {
                        self.logger.notice("swept a dead node", metadata: ["report": "\(report)"])
                    } else {
                        self.logger.warning("could not sweep a dead node", metadata: ["report": "\(report)"])
                    }
                }
            case .failure(let error):
                self.logger.warning("could not look for dead nodes", metadata: ["error": "\(error)"])
            }
        }
    }
}

/// Why a node ends by itself: another process runs under its name.
package struct NodeNameTaken: Error, Sendable, CustomStringConvertible {
    package let description: String

    init(by other: NodeRecord) {
        description =
            "another process runs as \(other.incarnation.name) (\(other.incarnation) at \(other.figures.address)); "
            + "give each node its own MARTLET_NODE_NAME"
    }
}
