package import NIOCore

/// Asks every node of the list for `/readyz` again and again, each by itself.
///
/// 1. One question a node at a time; the next one `interval` after the last, sooner while its answer may change something.
/// 2. Each time is off by up to a tenth, so that routers which start together do not ask together.
/// 3. Nodes that drain or are dead are not asked.
///
/// `@unchecked Sendable`: all state is touched on its event loop alone.
package final class HealthChecker: @unchecked Sendable {
    package struct Times: Sendable {
        package var interval: TimeAmount = .seconds(2)
        /// Where the last answer was another than those before.
        package var fastInterval: TimeAmount = .milliseconds(500)
        /// For the connection, the handshake of TLS and the answer together.
        package var deadline: TimeAmount = .seconds(1)

        package init() {}
    }

    private final class Watch {
        var node: RoutedNode
        var timer: Scheduled<Void>?

        init(_ node: RoutedNode) { self.node = node }
    }

    private let eventLoop: any EventLoop
    private let times: Times
    private let dialer: NodeDialer
    private let tell: @Sendable (RoutedNode, CheckFailure?) -> Bool
    private var watches: [RoutedNode.Incarnation: Watch] = [:]
    private var hasStopped = false

    /// - Parameter tell: what a check came to, nil where it was 200; returns whether the node is settled (`NodeHealth`).
    ///   Called on the event loop.
    init(
        on eventLoop: any EventLoop, times: Times, dialer: NodeDialer,
        tell: @escaping @Sendable (RoutedNode, CheckFailure?) -> Bool
    ) {
        (self.eventLoop, self.times, self.dialer, self.tell) = (eventLoop, times, dialer, tell)
    }

    /// From now on asks these nodes.
    func follow(_ nodes: [RoutedNode]) {
        eventLoop.execute {
            guard !self.hasStopped else { return }
            let asked = Dictionary(
                nodes.filter { $0.state == .ready }.map { ($0.incarnation, $0) }, uniquingKeysWith: { $1 })
            for (incarnation, watch) in self.watches where asked[incarnation] == nil {
                watch.timer?.cancel()
                self.watches[incarnation] = nil
            }
            for (incarnation, node) in asked {
                if let watch = self.watches[incarnation] {
                    watch.node = node
                } else {
                    let watch = Watch(node)
                    self.watches[incarnation] = watch
                    self.schedule(watch, in: self.times.interval * .random(in: 0...1))
                }
            }
        }
    }

    func stop() {
        eventLoop.execute {
            self.hasStopped = true
            for watch in self.watches.values { watch.timer?.cancel() }
            self.watches = [:]
        }
    }

    private func schedule(_ watch: Watch, in time: TimeAmount) {
        watch.timer = eventLoop.assumeIsolated().scheduleTask(in: time) { [weak self, weak watch] in
            if let self, let watch { self.check(watch) }
        }
    }

    private func check(_ watch: Watch) {
        let (node, began) = (watch.node, NIODeadline.now())
        HealthCheck.ask(node, on: eventLoop, by: dialer, within: times.deadline)
            .assumeIsolated().whenComplete { result in
                guard self.watches[node.incarnation] === watch else { return }
                var isSettled = true
                switch result {
                case .success(.passed): isSettled = self.tell(node, nil)
                case .success(.failed(let failure)): isSettled = self.tell(node, failure)
                case .success(.unknown): break
                case .failure(let error): self.dialer.trouble.cannotConnect(to: node, error)
                }
                let interval = (isSettled ? self.times.interval : self.times.fastInterval) * .random(in: 0.9...1.1)
                self.schedule(watch, in: max(began + interval - .now(), .nanoseconds(0)))
            }
    }
}

extension TimeAmount {
    fileprivate static func * (time: TimeAmount, factor: Double) -> TimeAmount {
        .nanoseconds(Int64(Double(time.nanoseconds) * factor))
    }
}
