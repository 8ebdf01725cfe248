import Affinity
import Logging
import NIOCore
import NIOPosix
import Synchronization
import WebSocketTransport

@testable import RouterServer

/// A node on a loopback socket that a test plays, or that answers every head by one rule.
final class FakeNode: Sendable {
    let name: String
    private let listener: any Channel
    private let wires: Box<Arrivals>
    private let seen: Box<[String]>

    private struct Arrivals {
        var wires: [Wire] = []
        var waiting: [EventLoopPromise<Wire>] = []
    }

    private final class Box<Value>: Sendable {
        let value: Mutex<Value>
        init(_ value: consuming sending Value) { self.value = Mutex(value) }
    }

    /// - Parameter answer: what every request's head is answered with; then the connection is closed. Nil when the test
    ///   answers itself.
    static func start(_ name: String, port: Int = 0, answer: (@Sendable (String) -> String)? = nil) async throws
        -> FakeNode
    {
        let wires = Box(Arrivals())
        let seen = Box<[String]>([])
        let listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let wire = answer.map { answer in Wire { Self.reply(to: $0, answer, seen) } } ?? Wire()
                    try channel.pipeline.syncOperations.addHandler(wire)
                    let waiting = wires.value.withLock { wires in
                        if wires.waiting.isEmpty {
                            wires.wires.append(wire)
                            return nil as EventLoopPromise<Wire>?
                        }
                        return wires.waiting.removeFirst()
                    }
                    waiting?.succeed(wire)
                }
            }
            .bind(host: "127.0.0.1", port: port).get()
        return FakeNode(name: name, listener: listener, wires: wires, seen: seen)
    }

    private init(name: String, listener: any Channel, wires: Box<Arrivals>, seen: Box<[String]>) {
        self.name = name
        self.listener = listener
        self.wires = wires
        self.seen = seen
    }

    private static func reply(to wire: Wire, _ answer: @Sendable (String) -> String, _ seen: Box<[String]>) {
        let bytes = wire.drainReceived()
        let head = String(decoding: bytes, as: UTF8.self)
        seen.value.withLock { $0.append(head) }
        guard let channel = wire.channel else { return }
        channel.writeAndFlush(ByteBuffer(string: answer(head))).whenComplete { _ in channel.close(promise: nil) }
    }

    var port: Int { listener.localAddress?.port ?? 0 }

    /// Heads that were answered by the rule.
    var heads: [String] { seen.value.withLock { $0 } }

    var node: RoutedNode { RoutedNode(name: name, incarnation: 1, host: "127.0.0.1", port: port) }

    struct NoConnection: Error {}

    /// The next connection that nobody took yet, within two minutes.
    func connection() async throws -> Wire {
        let late = MultiThreadedEventLoopGroup.singleton.any().makePromise(of: Wire.self)
        let deadline = late.futureResult.eventLoop.scheduleTask(in: .minutes(2)) { late.fail(NoConnection()) }
        wires.value.withLock { wires in
            if wires.wires.isEmpty {
                wires.waiting.append(late)
            } else {
                late.succeed(wires.wires.removeFirst())
            }
        }
        defer { deadline.cancel() }
        return try await late.futureResult.get()
    }

    var connectionsWaiting: Int { wires.value.withLock { $0.wires.count } }

    /// Refuses connections from now on.
    func stop() async throws { try await listener.close().get() }
}

/// Tells what it is told.
final class FixedDirectory: NodeDirectory {
    private let state: Mutex<(nodes: [RoutedNode], changed: (@Sendable ([RoutedNode]) -> Void)?)>

    init(_ nodes: [RoutedNode]) { state = Mutex((nodes, nil)) }

    func start(_ changed: @escaping @Sendable ([RoutedNode]) -> Void) {
        let nodes = state.withLock { state in
            state.changed = changed
            return state.nodes
        }
        changed(nodes)
    }

    func set(_ nodes: [RoutedNode]) { state.withLock { $0.changed }?(nodes) }

    func stop() -> EventLoopFuture<Void> { MultiThreadedEventLoopGroup.singleton.any().makeSucceededVoidFuture() }
}

extension RouterLimits {
    /// No deadline that a busy machine could miss; a test that is about one sets it.
    static var patient: RouterLimits {
        var limits = RouterLimits()
        limits.headTime = .minutes(10)
        limits.keepAliveTime = .minutes(10)
        limits.connectTime = .minutes(10)
        limits.answerTime = .minutes(10)
        limits.exchangeIdle = .minutes(10)
        limits.tunnels.halfClosed = .minutes(10)
        return limits
    }
}

/// A router over some nodes, ended after `body`.
///
/// - Parameter keepsNodes: else every request finds a connection of its own at its node.
func withRouter(
    over nodes: [RoutedNode],
    limits: RouterLimits = .patient,
    gate: GateLimits = GateLimits(),
    trusted: [String] = [],
    readsProxyProtocol: Bool = false,
    tls: TLSCredentials? = nil,
    bound: LoadBound? = LoadBound(),
    affinity: AffinityRule = .standard,
    log: LogRecorder? = nil,
    keepsNodes: Bool = false,
    sources: [String]? = nil,
    writesProxyProtocol: Bool = false,
    group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton,
    checks: HealthChecker.Times? = nil,
    _ body: (Router, Int, FixedDirectory) async throws -> Void
) async throws {
    var configuration = RouterConfiguration(
        host: "127.0.0.1",
        port: 0,
        affinityKey: (1, 2),
        trustedProxies: TrustedProxies(trusted.compactMap { AddressBlock($0) }),
        subject: { $0.hasPrefix("token-of-") ? String($0.dropFirst(9)) : nil }
    )
    configuration.limits = limits
    configuration.gate = gate
    if !keepsNodes { configuration.limits.nodeKeptConnections = 0 }
    configuration.nodeSources = try sources.map { try NodeSources($0.compactMap { IPAddress($0) }) }
    configuration.writesProxyProtocol = writesProxyProtocol
    configuration.readsProxyProtocol = readsProxyProtocol
    configuration.tls = tls
    configuration.bound = bound
    configuration.affinity = affinity
    configuration.checks = checks
    let directory = FixedDirectory(nodes)
    var logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() })
    if let log { logger = Logger(label: "test", factory: { _ in log }) }
    let router = try Router.start(
        configuration,
        directory: directory,
        group: group,
        logger: logger
    )
    do {
        try await body(router, router.localAddress?.port ?? 0, directory)
    } catch {
        try await router.drain(within: .zero).get()
        throw error
    }
    try await router.drain(within: .zero).get()
}

/// Keeps the metadata of every line.
final class LogRecorder: LogHandler, Sendable {
    let lines = Mutex<[(message: String, metadata: Logger.Metadata)]>([])
    var logLevel: Logger.Level {
        get { .info }
        set {}
    }
    var metadata: Logger.Metadata {
        get { [:] }
        set {}
    }
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }

    func log(event: LogEvent) {
        let message = event.message.description
        let metadata = event.metadata ?? [:]
        lines.withLock { $0.append((message, metadata)) }
    }
}
