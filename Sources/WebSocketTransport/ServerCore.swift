import NIOCore
import NIOHTTP1

/// What a server was started with.
struct ServerSettings: Sendable {
    let limits: SharedLimits
    let webSocketPath: String
    let trustedProxies: TrustedProxies
    let readsProxyProtocol: Bool
    let gate: ConnectionGate?
    let tls: TLSCredentials?
    let onUnreadable: HTTPServer.UnreadableHandler
    let onRequest: HTTPServer.RequestHandler
    let onUpgrade: HTTPServer.UpgradeHandler
}

/// The server's part on each event loop.
final class ServerCore: Sendable {
    private let loops: [ObjectIdentifier: ServerLoop]
    private let group: any EventLoopGroup

    let isSecure: Bool

    init(settings: ServerSettings, group: any EventLoopGroup) {
        self.group = group
        isSecure = settings.tls != nil
        var loops: [ObjectIdentifier: ServerLoop] = [:]
        for eventLoop in group.makeIterator() {
            loops[ObjectIdentifier(eventLoop)] = ServerLoop(eventLoop: eventLoop, settings: settings)
        }
        self.loops = loops
    }

    /// Sets up an accepted channel; on its loop.
    ///
    /// - Parameter isAdopted: another process accepted it, and read what it begins with.
    func serve(
        _ channel: any Channel, from peer: IPAddress, as admission: ConnectionGate.Admission, isAdopted: Bool = false
    ) throws {
        guard let loop = loops[ObjectIdentifier(channel.eventLoop)] else {
            throw ChannelError.inappropriateOperationForState
        }
        let settings = loop.settings
        try HTTPServerConnection.install(
            on: channel, server: loop, peer: peer, admission: admission,
            readsProxyProtocol: settings.readsProxyProtocol && !isAdopted && settings.trustedProxies.contains(peer),
            isAdopted: isAdopted)
    }

    func stopKeepingAlive() {
        for loop in loops.values { loop.eventLoop.execute { loop.isStopping = true } }
    }

    func close() -> EventLoopFuture<Void> {
        let ends = loops.values.map { loop in
            loop.eventLoop.flatSubmit { loop.close() }
        }
        return EventLoopFuture.andAllComplete(ends, on: group.any())
    }
}

/// A connection in its server's list.
protocol ServerConnection: AnyObject {
    /// The list's own: the row, -1 when there is none.
    var serverRow: Int32 { get set }
    func serverIsClosing()
}

/// One server's connections on one event loop.
///
/// `@unchecked Sendable`: all but the constants is used on `eventLoop` only.
final class ServerLoop: @unchecked Sendable {
    let eventLoop: any EventLoop
    let settings: ServerSettings
    /// No new connection is to be kept alive.
    var isStopping = false
    private var connections: [any ServerConnection] = []
    private var whenEmpty: EventLoopPromise<Void>?
    private var dateSecond = Int.min
    private var dateText = ""

    init(eventLoop: any EventLoop, settings: ServerSettings) {
        self.eventLoop = eventLoop
        self.settings = settings
    }

    func add(_ connection: any ServerConnection) {
        connection.serverRow = Int32(connections.count)
        connections.append(connection)
        if whenEmpty != nil { connection.serverIsClosing() }
    }

    func remove(_ connection: any ServerConnection) {
        let row = Int(connection.serverRow)
        guard row >= 0 else { return }
        connection.serverRow = -1
        let last = connections.removeLast()
        if row < connections.count {
            connections[row] = last
            last.serverRow = Int32(row)
        }
        if connections.isEmpty { whenEmpty?.succeed() }
    }

    /// Ends every connection; succeeds when the last is gone.
    func close() -> EventLoopFuture<Void> {
        isStopping = true
        if let whenEmpty { return whenEmpty.futureResult }
        let promise = eventLoop.makePromise(of: Void.self)
        whenEmpty = promise
        if connections.isEmpty { promise.succeed() }
        for connection in connections { connection.serverIsClosing() }
        return promise.futureResult
    }

    /// Now, as the `Date` header wants it; made once a second.
    func date() -> String {
        let second = HTTPDate.now()
        if second != dateSecond {
            dateSecond = second
            dateText = HTTPDate.format(second)
        }
        return dateText
    }
}
