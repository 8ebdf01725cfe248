import Affinity
import Logging
import NIOCore
import Synchronization
import TLSClient
import Telemetry
import WebSocketTransport

/// What all connections of a router share.
final class RouterCore: Sendable {
    let configuration: RouterConfiguration
    let logger: Logger
    let upgrades: UpgradeLimit
    let answers = AnswerCounts()
    let gate: ConnectionGate
    /// nil: everything is proxied.
    let handover: HandoverSender?
    let handedOver = Atomic(0)
    let kept: KeptOfLoops
    /// Requests that went over a connection which was kept.
    let reuses = Atomic(0)
    let meters = NodeMeters()
    /// nil: tunnels stay on the loops of their connections.
    let tunnels: TunnelLoops?
    let dialer: NodeDialer
    let failedAccepts: ThrottledLine
    let missingHeaders: ThrottledLine
    private let table: Mutex<NodeTable>
    private let connections = Mutex(Connections())

    private struct Connections {
        /// Those that have not moved to a tunnel.
        var channels: [ObjectIdentifier: any Channel] = [:]
        var count = 0
        var isDraining = false
        var whenEmpty: EventLoopPromise<Void>?
    }

    /// Given to a client's pipeline: end the connection as soon as no request is under way, and the first was answered; a
    /// tunnel after so long.
    struct Drain: Sendable {
        let time: TimeAmount
    }

    init(configuration: RouterConfiguration, tunnels: TunnelLoops? = nil, logger: Logger) {
        self.configuration = configuration
        self.tunnels = tunnels
        self.logger = logger
        dialer = NodeDialer(configuration, trouble: OwnTrouble(logger: logger))
        failedAccepts = ThrottledLine(.error, "connections wait and cannot be taken", logger: logger)
        missingHeaders = ThrottledLine(
            .warning, "a connection of a trusted proxy has no header of the PROXY protocol and was closed",
            logger: logger)
        // A header of the PROXY protocol says whose a connection is.
        var limits = configuration.limits
        if configuration.writesProxyProtocol { limits.nodeKeptConnections = 0 }
        kept = KeptOfLoops(limits: limits)
        upgrades = UpgradeLimit(perSecond: configuration.limits.upgradesPerSecond)
        gate = ConnectionGate(limits: configuration.gate, trustedProxies: configuration.trustedProxies) {
            address, cause, seconds in
            logger.warning(
                "an address is barred",
                metadata: ["address": "\(address)", "cause": "\(cause.rawValue)", "seconds": "\(seconds)"])
        }
        let isPlain = configuration.tls == nil && configuration.nodeTLS == nil
        handover =
            configuration.handsOver && isPlain ? HandoverSender(patience: configuration.limits.answerTime) : nil
        table = Mutex(
            NodeTable(
                hash: RendezvousHash(key: configuration.affinityKey), bound: configuration.bound,
                slowStart: configuration.slowStart))
    }

    // MARK: Nodes

    var nodes: NodeTable { table.withLock { $0 } }

    func update(_ list: [RoutedNode]) {
        table.withLock { $0.update(list, now: .now()) }
        handover?.keep(only: Set(list.map(\.address)))
        meters.keep(only: Set(list.map(\.name)))
    }

    func order(for key: String) -> [RoutedNode] {
        table.withLock { $0.order(for: key, now: .now()) }
    }

    /// As `order`, for a client that is to stay with the node: the first of them has it from now on.
    func pick(for key: String) -> (nodes: [RoutedNode], pick: NodeTable.Pick?) {
        table.withLock { $0.pick(for: key, now: .now()) }
    }

    /// The node is about to have a client that another failed.
    func take(_ node: RoutedNode) -> NodeTable.Pick? {
        table.withLock { $0.take(node, now: .now()) }
    }

    /// Nothing came of it.
    func giveBack(_ pick: NodeTable.Pick) {
        table.withLock { $0.giveBack(pick) }
    }

    func failed(_ node: RoutedNode) {
        eject(node, "a node does not take connections") { $0.failed(node, now: $1) }
    }

    /// The node had a request and answered nothing in time.
    func hung(_ node: RoutedNode) {
        eject(node, "a node does not answer") { $0.hung(node, now: $1) }
    }

    /// The node had an upgrade and ended the connection without an answer.
    func broke(_ node: RoutedNode) {
        eject(node, "a node ends upgrades without an answer") { $0.broke(node, now: $1) }
    }

    private func eject(
        _ node: RoutedNode, _ message: Logger.Message, reason: (any Error)? = nil,
        _ mark: (inout NodeTable, NIODeadline) -> Void
    ) {
        let ejected: TimeAmount? = table.withLock { table in
            let now = NIODeadline.now()
            guard table.ejected(node, now: now) == nil else { return nil }
            mark(&table, now)
            return table.ejected(node, now: now)
        }
        guard let ejected else { return }
        var metadata: Logger.Metadata = [
            "node": "\(node.name)", "address": "\(node.address)",
            "ejected_ms": .stringConvertible(ejected.nanoseconds / 1_000_000),
        ]
        if let reason { metadata["reason"] = "\(reason)" }
        logger.warning(message, metadata: metadata)
    }

    /// A connection to the node was not made.
    func failed(_ node: RoutedNode, _ error: any Error) {
        if error is TLSFailure {
            return eject(node, "TLS with a node fails", reason: error) { $0.failed(node, now: $1) }
        }
        if ConnectFailure.isOfNode(error) { failed(node) } else { dialer.trouble.cannotConnect(to: node, error) }
    }

    func reused() { reuses.add(1, ordering: .relaxed) }

    /// What a check of the node came to, nil where it went well. Returns whether it is settled.
    func checked(_ node: RoutedNode, _ failure: CheckFailure?) -> Bool {
        let (change, isSettled) = table.withLock { table in
            (table.checked(node, failure, now: .now()), table.health(of: node).isSettled)
        }
        var metadata: Logger.Metadata = ["node": "\(node.name)", "address": "\(node.address)"]
        switch change {
        case .fell(let failure):
            metadata["cause"] = "\(failure.word)"
            metadata["reason"] = "GET /readyz \(failure.reason)"
            logger.warning("a node fails its checks and gets no new clients", metadata: metadata)
        case .rose(let time):
            metadata["down_ms"] = .stringConvertible(time.nanoseconds / 1_000_000)
            logger.notice("a node passes its checks again", metadata: metadata)
        case nil: break
        }
        return isSettled
    }

    func answered(_ node: RoutedNode) {
        table.withLock { $0.answered(node) }
    }

    /// A cookie's value that leads to `node` when all is well, so that the next request meets the same node as this one;
    /// any value where chance has it so.
    func cookie(for node: RoutedNode) -> String {
        var generator = SystemRandomNumberGenerator()
        let home = table.withLock { $0.home }
        var value = ""
        for _ in 0..<64 {
            value = AffinityKey.cookieValue(random: (generator.next(), generator.next()))
            if home.node(of: value)?.name == node.name { break }
        }
        return value
    }

    // MARK: Connections

    /// Sets up an accepted channel; on its loop.
    func serve(_ channel: any Channel, from peer: IPAddress, as admission: ConnectionGate.Admission) throws {
        let end = ConnectionEnd()
        end.add { self.gate.ended(peer, as: admission) }
        guard add(channel, end) else {
            end.ended()
            throw ChannelError.ioOnClosedChannel
        }
        try channel.syncOptions?.setOption(.allowRemoteHalfClosure, value: true)
        try channel.syncOptions?.setOption(.maxMessagesPerRead, value: 1)
        try channel.syncOptions?.setOption(.recvAllocator, value: FirstReadAllocator())
        try channel.pipeline.syncOperations.addHandler(
            ClientConnection(core: self, peer: peer, admission: admission, end: end))
        try configuration.tls?.value.secure(channel)
        if configuration.readsProxyProtocol, configuration.trustedProxies.contains(peer) {
            try channel.pipeline.syncOperations.addHandler(ProxyProtocolReader(), position: .first)
        }
    }

    /// On any thread.
    func cannotAccept(_ error: IOError) { failedAccepts.say(["error": "\(error)"]) }

    /// A trusted proxy that writes no header loses every connection until somebody sets it up.
    func cannotRead(_ header: ProxyProtocol.Malformed, of proxy: IPAddress) {
        gate.note(.badHandshake, of: proxy)
        missingHeaders.say(["reason": "\(header.reason)", "client": "\(proxy)"])
    }

    /// False when the router drains: the connection is to be closed at once.
    private func add(_ channel: any Channel, _ end: ConnectionEnd) -> Bool {
        let isAdded = connections.withLock { connections in
            guard !connections.isDraining else { return false }
            connections.channels[ObjectIdentifier(channel)] = channel
            connections.count += 1
            return true
        }
        guard isAdded else { return false }
        end.add { self.ended() }
        channel.closeFuture.whenComplete { _ in
            self.connections.withLock { $0.channels[ObjectIdentifier(channel)] = nil }
            end.channelClosed()
        }
        return true
    }

    private func ended() {
        let promise = connections.withLock { connections in
            connections.count -= 1
            return connections.count == 0 ? connections.whenEmpty : nil
        }
        promise?.succeed()
    }

    var isDraining: Bool { connections.withLock { $0.isDraining } }

    /// Tunnels included.
    var openConnections: Int { connections.withLock(\.count) }

    /// Takes no more connections, closes the idle ones, ends tunnels evenly over `time`, and succeeds when the last is gone.
    /// Called once.
    func drain(within time: TimeAmount, on eventLoop: any EventLoop) -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        let (channels, isEmpty) = connections.withLock { connections in
            connections.isDraining = true
            connections.whenEmpty = promise
            return (Array(connections.channels.values), connections.count == 0)
        }
        kept.closeAll()
        if isEmpty { promise.succeed() }
        tunnels?.endAll(within: time)
        // The last one has still time for its end, as in `TunnelSet`.
        let ending = configuration.limits.tunnels.ending
        let last = time > ending * 2 ? time - ending : time
        for (number, channel) in channels.enumerated() {
            let share = TimeAmount.nanoseconds(last.nanoseconds / Int64(channels.count) * Int64(number + 1))
            channel.pipeline.fireUserInboundEventTriggered(Drain(time: share))
        }
        return promise.futureResult
    }

    func closeAll() {
        for channel in connections.withLock({ Array($0.channels.values) }) { channel.close(promise: nil) }
    }
}
