import ArgumentParser
import ChatCore
import ClusterState
import Glibc
import Logging
import NIOCore
import NIOPosix
import NodeServer
import RedisClient
import TLSClient
import TokenAuth
import WebSocketTransport

/// `martlet node`: ends WebSocket connections; any number of them make a cluster.
struct NodeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "node", abstract: "Run one node: it serves WebSocket clients at /ws and the chat page at /.")

    @OptionGroup var redis: RedisOptions
    @OptionGroup var server: ServerOptions

    @Option(help: "The node's name in the cluster.")
    var name: String?

    @Option(help: ArgumentHelp("Where routers dial this node.", valueName: "host:port"))
    var advertise: String?

    @Option(help: "Who may connect: token, or none for development.")
    var auth: String?

    func run() async throws {
        if let descriptor = server.exitWithDescriptor { ParentWatch.start(fd: descriptor) }
        let settings = try Settings.read(
            flags: redis.flags.merging(server.flags) { $1 }.merging([
                "MARTLET_NODE_NAME": name, "MARTLET_ADVERTISE": advertise, "MARTLET_AUTH": auth,
            ]) { $1 })
        Logs.start(level: settings.logLevel)
        let logger = Logger(label: "martlet.node")
        settings.warn(logger)
        let tokens = settings.auth == .token ? try settings.tokenChecks() : nil
        var configuration = NodeConfiguration(settings, tokens)
        configuration.tls = try settings.serverTLS()
        if tokens == nil {
            logger.warning(
                "MARTLET_AUTH is none: every client is whoever it says. For development only, never on a network.")
        }
        Descriptors.raiseLimit()
        if settings.handover == .on, configuration.tls == nil {
            configuration.handoverLines = Descriptors.handoverLines
        }
        Descriptors.limit(
            &configuration.gate, settings.limits.connections, each: 1,
            besides: configuration.handoverLines * HandoverReceiver.descriptorsOfLine)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: System.coreCount)
        let client = try await RedisStart.connect(settings, scripts: ClusterScripts.all, on: group, logger: logger)
        let node: Node
        do {
            node = try await Node.start(configuration, redis: client, group: group, logger: logger)
        } catch {
            throw Listening.failure(error, internalPort: configuration.internalPort)
        }
        logger.notice(
            "listening",
            metadata: [
                "address": "\(settings.host):\(node.port)", "node": "\(configuration.name)",
                "internal": "\(settings.internalHost):\(node.internalPort)",
            ])
        let follower = FileFollower.start(
            [FollowedTLS(configuration.tls) { $0.certificates }, tokens?.files], logger: logger)
        Signals.handle([SIGTERM, SIGINT, SIGHUP]) { signal in
            if signal == SIGHUP { follower.reload() } else { node.stop() }
        }
        do {
            try await node.run()
        } catch {
            throw Failure(.failed, Printable.text("\(error)"))
        }
    }
}

extension NodeConfiguration {
    /// - Parameter tokens: nil believes everybody.
    init(_ settings: Settings, _ tokens: Settings.TokenChecks?) {
        let port = settings.port ?? 8081
        self.init(
            name: settings.nodeName ?? HostName.name(port: port) ?? "node-\(port)", version: Version.current,
            authentication: tokens.map { .token($0.verifier) } ?? .none)
        keySource = tokens?.source
        host = settings.host
        self.port = port
        internalHost = settings.internalHost
        internalPort = settings.internalPort(besides: port)
        advertise = settings.advertise
        weight = settings.balance.nodeWeight
        url = settings.balance.nodeURL
        limits.messagesPerSecond = settings.limitMessagesPerSecond
        limits.messageBurst = settings.limitMessagesBurst
        limits.messageBytes = settings.limitMessageBytes
        limits.roomsPerSession = settings.limitRoomsPerSession
        limits.outboundBytes = settings.limitOutboundBytes
        limits.upgradesPerSecond = settings.limitUpgradesPerSecond
        limits.bytesPerSecond = settings.limits.bytesPerSecond
        limits.byteBurst = settings.limits.bytesBurst
        limits.userMessagesPerSecond = settings.limits.userMessagesPerSecond
        limits.sessionsPerUser = settings.limits.sessionsPerUser
        limits.memoryBytes = settings.limits.memoryBytes
        gate.unauthenticated = settings.limits.unauthenticated
        gate.address = settings.limits.address
        origins = OriginPolicy(
            rules: settings.limits.origins, allowsMissing: settings.limits.originMissing == .allow)
        if let blocks = settings.trustedProxies { trustedProxies = TrustedProxies(blocks) }
        readsProxyProtocol = settings.nodeProxyProtocol == .on
        heartbeat = settings.heartbeat
        heartbeatTimeout = settings.heartbeatTimeout
        lease = settings.lease
        resumeGrace = settings.resumeGrace
        drainDeadline = settings.drain
        drainRate = settings.drainRate
        namespaces = settings.namespaces
        ackReplicas = settings.ackReplicas
        compression = settings.compression == .on
    }
}

enum HostName {
    /// Host name and port, with what a node name may not have replaced; nil where the host has no name.
    static func name(port: Int) -> String? {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return nil }
        let host = buffer.prefix { $0 != 0 }.map { byte -> Character in
            let character = Character(Unicode.Scalar(UInt8(bitPattern: byte)))
            return character.isASCII && (character.isLetter || character.isNumber || character == "-") ? character : "-"
        }
        return String(host.prefix(48)) + "-\(port)"
    }
}
