import ClusterState
import Logging
import NIOCore
import NIOPosix
import RedisClient
import TestSupport
import Testing
import WireProtocol

/// A private Redis in which nodes, sessions and rooms are written as nodes write them, though no node runs.
struct AdminFixture: Sendable {
    let redis: ClusterRedis
    let client: RedisClient
    let keys: ClusterKeys
    let nodes: NodeStore
    let rooms: RoomStore
    let sessions: SessionStore

    static func with(_ body: (AdminFixture) async throws -> Void) async throws {
        let redis = try await ClusterRedis.start()
        do {
            let client = RedisClient(
                configuration: try RedisConfiguration(url: redis.url, keyPrefix: "t"), scripts: ClusterScripts.all,
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            client.start()
            try await client.whenConnected(within: .seconds(10)).get()
            let keys = ClusterKeys(prefix: "t")
            try await body(
                AdminFixture(
                    redis: redis, client: client, keys: keys, nodes: NodeStore(redis: client, keys: keys),
                    rooms: RoomStore(redis: client, keys: keys), sessions: SessionStore(redis: client, keys: keys)))
            try await client.close().get()
        } catch {
            await redis.stop()
            throw error
        }
        await redis.stop()
    }

    func node(_ name: String, lease: TimeAmount = .seconds(60)) async throws -> Incarnation {
        try await nodes.register(
            name: name,
            figures: NodeFigures(
                address: "127.0.0.1:1", version: "test", sessions: 0, rooms: 0, draining: false, startedAt: 1000),
            lease: lease
        ).get()
    }

    /// A session as a node writes it.
    @discardableResult
    func session(
        _ user: String, on node: Incarnation, in rooms: [String], status: PresenceStatus = .online
    ) async throws -> SessionID {
        let session = SessionID()
        let user = try UserName(validating: user)
        _ = try await sessions.open(SessionRecord(session: session, user: user, owner: node), secret: nil).get()
        for room in rooms {
            let name = try RoomName(validating: room)
            _ = try await nodes.addRoom(node, name).get()
            _ = try await self.rooms.join(membership(session, user, node, name, status)).get()
        }
        return session
    }

    func leave(_ session: SessionID, _ user: String, on node: Incarnation, in rooms: [String]) async throws {
        let user = try UserName(validating: user)
        for room in rooms {
            _ = try await self.rooms.leave(membership(session, user, node, RoomName(validating: room), .online)).get()
        }
        _ = try await sessions.end(SessionRecord(session: session, user: user, owner: node)).get()
    }

    private func membership(
        _ session: SessionID, _ user: UserName, _ node: Incarnation, _ room: RoomName, _ status: PresenceStatus
    ) -> Membership {
        Membership(
            room: room, session: session, user: user, incarnation: node, generation: 1, joinedAt: 1_790_000_000_000,
            status: status)
    }

    // MARK: the command

    /// Exit code 1, and that sentence alone.
    static func expectNotFound(
        _ arguments: [String], _ sentence: String, sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        try await with { fixture in
            let output = try await MartletProgram.run(["admin"] + arguments, environment: fixture.environment)
            #expect(output.exit == .status(1), sourceLocation: sourceLocation)
            #expect(output.errorText == "martlet: " + sentence, sourceLocation: sourceLocation)
            #expect(output.text.isEmpty, sourceLocation: sourceLocation)
        }
    }

    /// Exit code 2 and one sentence, though no Redis answers.
    static func expectUsage(
        _ arguments: [String], sourceLocation: SourceLocation = #_sourceLocation
    ) async throws {
        let output = try await MartletProgram.run(
            ["admin"] + arguments, environment: ["MARTLET_REDIS_URL": "redis://127.0.0.1:1"])
        #expect(output.exit == .status(2), "\(arguments): \(output.errorText)", sourceLocation: sourceLocation)
        #expect(output.standardErrorLines.count == 1, sourceLocation: sourceLocation)
        #expect(output.errorText.hasPrefix("martlet: "), sourceLocation: sourceLocation)
    }

    var environment: [String: String] { ["MARTLET_REDIS_URL": redis.url, "MARTLET_REDIS_PREFIX": "t"] }

    func run(_ arguments: String...) async throws -> ChildProcess.Output {
        try await MartletProgram.run(["admin"] + arguments, environment: environment)
    }

    /// The parsed `--json` of a command that must exit with 0.
    func json(_ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation) async throws -> JSON {
        let output = try await MartletProgram.run(["admin"] + arguments + ["--json"], environment: environment)
        try #require(
            output.exit == .status(0), "\(arguments): \(output.errorText)", sourceLocation: sourceLocation)
        return try JSON(parsing: output.text)
    }
}

/// Hears the first kick on a user's channel; confined to the client's loop.
final class KickEar: RedisSubscriberDelegate {
    private let heard: Watched<String?>
    private var subscriber: RedisSubscriber?
    /// The subscriber holds its delegate weakly.
    private var itself: KickEar?

    private init(_ heard: Watched<String?>) { self.heard = heard }

    /// Completes once the channel is subscribed. The room (or *) that the order names arrives in the result.
    static func listen(_ fixture: AdminFixture, user: UserName) async throws -> Watched<String?> {
        let heard = Watched<String?>(nil)
        let client = fixture.client
        let channel = fixture.keys.userChannel(user)
        try await client.eventLoop.flatSubmit {
            let ear = KickEar(heard)
            let subscriber = RedisSubscriber(
                client: client, probeChannel: "t:kick-ear", delegate: ear,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            ear.subscriber = subscriber
            ear.itself = ear
            subscriber.start()
            return subscriber.subscribe(channel)
        }.get()
        return heard
    }

    func subscriber(
        _ subscriber: RedisSubscriber, received payload: UnsafeRawBufferPointer, on channel: UnsafeRawBufferPointer
    ) {
        guard case .kick(let room, _) = RelayMessage.parse(payload) else { return }
        heard.update { $0 = room?.string ?? "*" }
        itself = nil
        _ = subscriber.stop()
    }

    func subscriberFinishedReading(_ subscriber: RedisSubscriber) {}
    func subscriberBecameDeaf(_ subscriber: RedisSubscriber) {}
    func subscriberHearsAgain(_ subscriber: RedisSubscriber) {}
}
