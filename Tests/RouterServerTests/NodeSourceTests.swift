import Logging
import NIOCore
import NIOPosix
import Synchronization
import Testing
import WebSocketTransport

@testable import RouterServer

@Suite("The addresses that nodes are dialled from", .timeLimit(.minutes(5)))
struct NodeSourceTests {
    private static let upgrade =
        "GET /ws?key=k HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

    @Test("each connection takes the next of them, whatever the loop")
    func inTurn() async throws {
        let node = try await FakeNode.start("a")
        let sources = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        try await withRouter(over: [node.node], sources: sources) { _, port, _ in
            var seen: [String: Int] = [:]
            for _ in 0..<6 {
                let client = try await Wire.connect(port: port)
                try await client.send(Self.upgrade)
                let wire = try await node.connection()
                seen[wire.channel?.remoteAddress?.ipAddress ?? "-", default: 0] += 1
                client.close()
            }
            #expect(seen == ["127.0.0.2": 2, "127.0.0.3": 2, "127.0.0.4": 2])
        }
        try await node.stop()
    }

    @Test("a node of another family, or found by name, is dialled from one of its family, or as the kernel chooses")
    func families() async throws {
        let node = try await FakeNode.start("a")
        let byName = RoutedNode(name: "a", incarnation: 1, host: "localhost", port: node.port)
        for (source, seen) in [("127.0.0.5", "127.0.0.5"), ("::1", "127.0.0.1")] {
            for node in [(node, node.node), (node, byName)] {
                try await withRouter(over: [node.1], sources: [source]) { _, port, _ in
                    let client = try await Wire.connect(port: port)
                    try await client.send(Self.upgrade)
                    #expect(try await node.0.connection().channel?.remoteAddress?.ipAddress == seen)
                    client.close()
                }
            }
        }
        try await node.stop()
    }

    @Test("an address that this machine does not have is refused at once")
    func foreign() throws {
        let addresses = try ["127.0.0.2", "192.0.2.77"].map { try #require(IPAddress($0)) }
        #expect(throws: NodeSources.NotOfThisMachine.self) { try NodeSources(addresses) }
    }

    @Test(
        "where the ports of one are used up the next carries on, and with none left clients are told 503",
        .enabled(if: NetworkNamespace.isAllowed, "a network of its own takes CAP_SYS_ADMIN"))
    func exhausted() async throws {
        let log = LogRecorder()
        try await NetworkNamespace.run(ports: 40_000...40_003) {
            let node = try PlainSocket.listen("127.0.0.1", 39_000)
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            var configuration = RouterConfiguration(host: "127.0.0.1", port: 39_001, affinityKey: (1, 2))
            configuration.limits = .patient
            configuration.checks = nil
            configuration.nodeSources = try NodeSources(["127.0.0.2", "127.0.0.3"].compactMap { IPAddress($0) })
            let routed = RoutedNode(name: "a", incarnation: 1, host: "127.0.0.1", port: 39_000)
            let router = try Router.start(
                configuration, directory: FixedDirectory([routed]), group: group,
                logger: Logger(label: "test", factory: { _ in log }))
            // All four of the first source.
            var taken = try (0..<4).map { _ in
                try PlainSocket.connect(from: ("127.0.0.2", 0), to: ("127.0.0.1", 39_000))
            }
            var held = try taken.map { _ in try node.accept().0 }
            var clients: [PlainSocket] = []
            func client() throws -> PlainSocket {
                let from = ("127.0.0.1", 50_000 + clients.count)
                let client = try PlainSocket.connect(from: from, to: ("127.0.0.1", 39_001))
                try client.send(Self.upgrade)
                clients.append(client)
                return client
            }
            for _ in 0..<4 {
                _ = try client()
                let (connection, source) = try node.accept()
                #expect(source == "127.0.0.3")
                #expect(try connection.receive().hasPrefix("GET /ws?key=k HTTP/1.1\r\n"))
                held.append(connection)
            }
            #expect(log.lines.withLock { $0.isEmpty }, "nobody needs to know")

            let answer = try client().receive()
            #expect(answer.hasPrefix("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: "))
            let lines = log.lines.withLock { $0.filter { $0.message.hasPrefix("no source port is left") } }
            #expect(lines.count == 1 && lines[0].metadata["address"] == "127.0.0.1:39000")
            #expect(router.core.nodes.ejected(routed, now: .now()) == nil, "it is not the node's fault")

            taken.removeLast().reset()
            held.remove(at: 3).reset()
            _ = try client()
            #expect(try node.accept().1 == "127.0.0.2", "a port that is free again is used")
            try router.drain(within: .zero).wait()
            try group.syncShutdownGracefully()
        }
    }

    @Test(
        "an address that the machine has lost is named, the next carries on, and it is used again once it is back",
        .enabled(if: NetworkNamespace.isAllowed, "a network of its own takes CAP_SYS_ADMIN"))
    func lost() async throws {
        let log = LogRecorder()
        try await NetworkNamespace.run(ports: 40_000...40_999) {
            let node = try PlainSocket.listen("127.0.0.1", 39_000)
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            try NetworkNamespace.addAddress([10, 9, 0, 1])
            var configuration = RouterConfiguration(host: "127.0.0.1", port: 39_001, affinityKey: (1, 2))
            configuration.limits = .patient
            configuration.checks = nil
            configuration.nodeSources = try NodeSources(["10.9.0.1", "127.0.0.3"].compactMap { IPAddress($0) })
            let routed = RoutedNode(name: "a", incarnation: 1, host: "127.0.0.1", port: 39_000)
            let router = try Router.start(
                configuration, directory: FixedDirectory([routed]), group: group,
                logger: Logger(label: "test", factory: { _ in log }))
            var held: [PlainSocket] = []
            func source() throws -> String {
                let client = try PlainSocket.connect(
                    from: ("127.0.0.1", 50_000 + held.count), to: ("127.0.0.1", 39_001))
                try client.send(Self.upgrade)
                let (connection, source) = try node.accept()
                #expect(try connection.receive().hasPrefix("GET /ws?key=k HTTP/1.1\r\n"))
                held += [client, connection]
                return source
            }
            #expect(try (0..<2).map { _ in try source() } == ["10.9.0.1", "127.0.0.3"])
            try NetworkNamespace.removeAddress()
            #expect(try (0..<4).map { _ in try source() } == Array(repeating: "127.0.0.3", count: 4))
            let lines = log.lines.withLock(\.self)
            #expect(lines.count == 1 && lines[0].message.contains("is not this machine's any more"), "\(lines)")
            #expect(lines.first?.metadata.mapValues { "\($0)" } == ["source": "10.9.0.1", "unsaid": "0"])
            #expect(router.core.nodes.ejected(routed, now: .now()) == nil, "it is not the node's fault")
            try NetworkNamespace.addAddress([10, 9, 0, 1])
            #expect(try (0..<2).map { _ in try source() } == ["10.9.0.1", "127.0.0.3"])
            try router.drain(within: .zero).wait()
            try group.syncShutdownGracefully()
        }
    }

    @Test(
        "where the only address is lost a check fails with it, and says nothing of the node",
        .enabled(if: NetworkNamespace.isAllowed, "a network of its own takes CAP_SYS_ADMIN"))
    func allLost() async throws {
        let log = LogRecorder()
        try await NetworkNamespace.run(ports: 40_000...40_999) {
            let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            try NetworkNamespace.addAddress([10, 9, 0, 1])
            let sources = try NodeSources(["10.9.0.1"].compactMap { IPAddress($0) })
            try NetworkNamespace.removeAddress()
            let trouble = OwnTrouble(logger: Logger(label: "test", factory: { _ in log }))
            let dialer = NodeDialer(headLimit: 1024, sources: sources, trouble: trouble)
            for host in ["127.0.0.1", "localhost"] {
                let routed = RoutedNode(name: "a", incarnation: 1, host: host, port: 39_000)
                let asked = loop.any().flatSubmit {
                    HealthCheck.ask(routed, on: loop.any(), by: dialer, within: .minutes(1))
                }
                let error = #expect(throws: (any Error).self) { _ = try asked.wait() }
                let address = try ConnectFailure.lostSource(#require(error))
                #expect(address?.description == "10.9.0.1", "\(String(describing: error))")
                #expect(try !ConnectFailure.isOutOfPorts(#require(error)))
            }
            try loop.syncShutdownGracefully()
        }
    }
}
