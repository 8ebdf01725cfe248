import ChatCore
import Glibc
import NIOCore
import NIOPosix
import Synchronization

/// What a ``FaultProxy`` does to the bytes of its connections. Without more, it passes all on at once.
package struct Fault: Sendable, Equatable {
    package enum Way: Int, Sendable, CaseIterable {
        case toServer
        case toClient

        var opposite: Way { self == .toServer ? .toClient : .toServer }
    }

    /// How much later bytes arrive. The order of bytes stays.
    package var latency: Duration = .zero
    /// Up to so much more, another each time.
    package var jitter: Duration = .zero
    /// For each connection and way.
    package var bytesPerSecond: Int?
    /// Taken and never passed on, and no end is passed on either: a half-open connection. A connection that lost bytes
    /// so stays deaf in that way until somebody closes it, also when the fault is over.
    package var swallowed: Set<Way> = []
    /// Kept until the fault is over, then passed on: an outage shorter than TCP's patience.
    package var held: Set<Way> = []
    /// Each byte in a write of its own.
    package var isSplit = false

    package init() {}

    /// Nothing comes through and nobody is told.
    package static var blackHole: Fault {
        var fault = Fault()
        fault.swallowed = [.toServer, .toClient]
        return fault
    }
}

/// A TCP proxy on loopback whose network can be made bad at run time: between clients and router, router and nodes,
/// nodes and Redis.
///
/// 1. Passes bytes, ends and resets on, with back-pressure, as ``Fault`` says.
/// 2. Cuts and resets connections, and refuses new ones, when told.
/// 3. Tells apart connections on which the client said a certain word, as `SUBSCRIBE`.
package final class FaultProxy: Sendable {
    /// The connections that a call is about. Marked are those on which the client said the mark, within its first 8 KiB.
    package enum Links: Sendable {
        case all
        case marked
        case unmarked
    }

    package struct Figures: Sendable, Equatable {
        package var accepted = 0
        package var open = 0
        package var marked = 0
        /// Since the start, read from clients and from servers; of it ``swallowed`` were not passed on.
        package var fromClients = 0
        package var fromServers = 0
        package var swallowed = 0
    }

    package let port: Int
    package let figures = Watched(Figures())
    private let listener: any Channel
    private let core: NIOLoopBoundBox<FaultCore>

    private init(listener: any Channel, core: NIOLoopBoundBox<FaultCore>) {
        (self.listener, self.core) = (listener, core)
        port = listener.localAddress?.port ?? 0
        let figures = figures
        core.eventLoop.execute { core.value.figures = figures }
    }

    /// - Parameters:
    ///   - mark: what a client says on the connections that are `.marked`.
    ///   - words: replaced in what clients say, by words of the same length: a script without one of its lines.
    ///   - isNarrow: segments as of a real network, with which the kernel of a server keeps up to 1 MB for a connection that
    ///     is not read, and not several as over loopback.
    ///   - seed: of the jitter.
    package static func start(
        to target: Int, on port: Int? = nil, mark: String? = nil, words: [String: String] = [:],
        isNarrow: Bool = false, seed: UInt64 = 1
    ) async throws -> FaultProxy {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        let core = NIOLoopBoundBox<FaultCore>.makeBoxSendingValue(
            FaultCore(
                target: target, mark: mark.map { Array($0.utf8) } ?? [], words: words, isNarrow: isNarrow, seed: seed),
            eventLoop: eventLoop)
        let listener = try await ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 1024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.autoRead, value: false)
            .childChannelOption(.allowRemoteHalfClosure, value: true)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try core.value.accept(channel, on: eventLoop) }
            }
            .bind(host: "127.0.0.1", port: try port ?? FreePort.next()).get()
        return FaultProxy(listener: listener, core: core)
    }

    /// From now on, also for bytes that wait. A fault for `.marked` or `.unmarked` replaces that of `.all` there.
    package func set(_ fault: Fault, for links: Links = .all) async {
        await run { $0.set(fault, for: links) }
    }

    /// No fault for anybody. What was swallowed stays so.
    package func heal() async {
        await run { $0.heal() }
    }

    /// Ends connections in order (FIN to both sides), without what waits. New ones are taken.
    package func cut(_ links: Links = .all) async {
        await run { $0.end(links, resets: false) }
    }

    /// Ends connections with RST to both sides.
    package func reset(_ links: Links = .all) async {
        await run { $0.end(links, resets: true) }
    }

    /// New connections are reset as soon as they are made, until it is set back.
    package func refuse(_ refuses: Bool) async {
        await run { $0.refuses = refuses }
    }

    /// New connections go to another server.
    package func redirect(to target: Int) async {
        await run { $0.target = target }
    }

    package func stop() async {
        try? await listener.close().get()
        await run { $0.end(.all, resets: true) }
    }

    private func run(_ body: @escaping @Sendable (FaultCore) -> Void) async {
        try? await core.eventLoop.submit { [core] in body(core.value) }.get()
    }
}

/// The state of a proxy, confined to its event loop.
final class FaultCore {
    var target: Int
    var refuses = false
    var figures: Watched<FaultProxy.Figures>?
    let mark: [UInt8]
    let words: [(from: String, to: String)]
    private let isNarrow: Bool
    var random: FastRandom
    private var faults: (all: Fault, marked: Fault?, unmarked: Fault?) = (Fault(), nil, nil)
    private var links: [ObjectIdentifier: FaultLink] = [:]

    init(target: Int, mark: [UInt8], words: [String: String], isNarrow: Bool, seed: UInt64) {
        (self.target, self.mark, self.words) = (target, mark, words.map { ($0.key, $0.value) })
        self.isNarrow = isNarrow
        random = FastRandom(seed: seed)
    }

    func fault(of link: FaultLink) -> Fault { (link.isMarked ? faults.marked : faults.unmarked) ?? faults.all }

    func accept(_ client: any Channel, on eventLoop: any EventLoop) throws {
        let link = FaultLink(core: self, client: client)
        try client.pipeline.syncOperations.addHandler(FaultEnd(link, .toServer))
        guard !refuses else { return link.end(resets: true) }
        links[ObjectIdentifier(link)] = link
        figures?.update { ($0.accepted, $0.open) = ($0.accepted + 1, $0.open + 1) }
        let bound = NIOLoopBound(link, eventLoop: eventLoop)
        var bootstrap = ClientBootstrap(group: eventLoop)
        if isNarrow {
            // The send buffer of the other end begins at some multiple of the segments.
            bootstrap = bootstrap.channelOption(.tcpOption(.init(rawValue: TCP_MAXSEG)), value: 1400)
                .channelOption(.socketOption(.so_rcvbuf), value: 32 * 1024)
        }
        bootstrap.channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelInitializer { server in
                server.eventLoop.makeCompletedFuture {
                    bound.value.server = server
                    try server.pipeline.syncOperations.addHandler(FaultEnd(bound.value, .toClient))
                }
            }
            .connect(host: "127.0.0.1", port: target)
            .whenComplete { result in
                if case .success = result { bound.value.start() } else { bound.value.end(resets: true) }
            }
    }

    func over(_ link: FaultLink) {
        guard links.removeValue(forKey: ObjectIdentifier(link)) != nil else { return }
        figures?.update { figures in
            figures.open -= 1
            if link.isMarked { figures.marked -= 1 }
        }
    }

    func set(_ fault: Fault, for links: FaultProxy.Links) {
        switch links {
        case .all: faults.all = fault
        case .marked: faults.marked = fault
        case .unmarked: faults.unmarked = fault
        }
        pumpAll()
    }

    func heal() {
        faults = (Fault(), nil, nil)
        pumpAll()
    }

    func end(_ which: FaultProxy.Links, resets: Bool) {
        for link in links.values {
            switch which {
            case .all: link.end(resets: resets)
            case .marked: if link.isMarked { link.end(resets: resets) }
            case .unmarked: if !link.isMarked { link.end(resets: resets) }
            }
        }
    }

    private func pumpAll() {
        for link in links.values { for way in Fault.Way.allCases { link.pump(way) } }
    }
}
