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
    private let figures: () -> NodeFigures
    private let onBegin: (Incarnation) -> Void
    private let onDrainRequested: () -> Void
    private var clock: LeaseClock
    private(set) var incarnation: Incarnation?
    private var isRegistering = false
    private var isRenewing = false
    private var isSweeping = false
    private var isStopped = false
    private var task: RepeatedTask?
    private let eventLoop: any EventLoop

    init(
        eventLoop: any EventLoop, nodes: NodeStore, name: String, duration: TimeAmount, logger: Logger,
        figures: @escaping () -> NodeFigures, onBegin: @escaping (Incarnation) -> Void,
        onDrainRequested: @escaping () -> Void
    ) {
        self.eventLoop = eventLoop
        self.nodes = nodes
        self.name = name
        self.duration = duration
        self.logger = logger
        self.figures = figures
        self.onBegin = onBegin
        self.onDrainRequested = onDrainRequested
        self.clock = LeaseClock(duration: UInt64(duration.nanoseconds))
    }

    /// The lease is good for writes at this moment, by this process's own clock.
    var isHeld: Bool {
        incarnation != nil && clock.isHeld(now: NIODeadline.now().uptimeNanoseconds)
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
        guard !isRenewing else { return }
        isRenewing = true
        let sentAt = NIODeadline.now().uptimeNanoseconds
        nodes.heartbeat(incarnation, figures: figures(), lease: duration).assumeIsolated().whenComplete { result in
            self.isRenewing = false
            guard self.incarnation == incarnation, !self.isStopped else { return }
            switch result {
            case .success(.held(let drainRequested)):
                self.clock.renewed(sentAt: sentAt)
                if drainRequested { self.onDrainRequested() }
            case .success(.dead):
                self.logger.warning(
                    "this node was declared dead and starts anew", metadata: ["incarnation": "\(incarnation)"])
                self.fenced()
            case .failure(let error):
                self.logger.debug("lease not renewed", metadata: ["error": "\(error)"])
            }
        }
    }

    func fenced() {
        guard incarnation != nil else { return }
        incarnation = nil
        clock.lost()
        register()
    }

    private func register() {
        guard !isRegistering, !isStopped else { return }
        isRegistering = true
        let sentAt = NIODeadline.now().uptimeNanoseconds
        nodes.register(name: name, figures: figures(), lease: duration).assumeIsolated().whenComplete { result in
            self.isRegistering = false
            guard !self.isStopped else { return }
            switch result {
            case .success(let incarnation):
                self.incarnation = incarnation
                self.clock.renewed(sentAt: sentAt)
                self.logger.info("registered", metadata: ["incarnation": "\(incarnation)"])
                self.onBegin(incarnation)
            case .failure(let error):
                self.logger.warning("could not register", metadata: ["error": "\(error)"])
            }
        }
    }

    private func sweep() {
        guard let incarnation, !isSweeping, !isStopped,
            clock.maySweep(now: NIODeadline.now().uptimeNanoseconds)
        else { return }
        isSweeping = true
        nodes.sweepLapsed(by: incarnation).assumeIsolated().whenComplete { result in
            self.isSweeping = false
            guard case .success(let reports) = result else { return }
            for report in reports {
                self.logger.notice("swept a dead node", metadata: ["report": "\(report)"])
            }
        }
    }
}
