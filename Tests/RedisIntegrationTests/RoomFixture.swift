import Logging
import NIOCore
import NIOPosix
import RedisClient
import Synchronization
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

/// The stores over one connection, under a prefix of their own.
struct ClusterFixture: Sendable {
    let redis: RedisClient
    let keys: ClusterKeys
    let rooms: RoomStore
    let nodes: NodeStore

    init(redis: RedisClient, prefix: String, sweepClaim: TimeAmount = .seconds(5)) {
        self.redis = redis
        self.keys = ClusterKeys(prefix: prefix)
        self.rooms = RoomStore(redis: redis, keys: keys)
        self.nodes = NodeStore(redis: redis, keys: keys, sweepClaim: sweepClaim)
    }

    /// On the server that all tests share, unless it is given one.
    static func run(
        on server: RedisServerProcess? = nil, sweepClaim: TimeAmount = .seconds(5),
        _ body: (ClusterFixture) async throws -> Void
    ) async throws {
        let client = try await connect(to: server ?? RedisServerProcess.shared())
        do {
            try await body(
                ClusterFixture(
                    redis: client, prefix: "t\(UInt64.random(in: 0 ... .max))", sweepClaim: sweepClaim))
        } catch {
            try? await client.close().get()
            throw error
        }
        try await client.close().get()
    }

    static func connect(to server: RedisServerProcess) async throws -> RedisClient {
        var configuration = try RedisConfiguration(url: server.url)
        configuration.commandTimeout = .seconds(20)
        let client = RedisClient(
            configuration: configuration, scripts: ClusterScripts.all,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        client.start()
        try await client.whenConnected(within: .seconds(10)).get()
        return client
    }

    /// A second client of the same keys, as another process would be.
    func second(on server: RedisServerProcess? = nil) async throws -> ClusterFixture {
        try await ClusterFixture(
            redis: Self.connect(to: server ?? RedisServerProcess.shared()), prefix: keys.prefix,
            sweepClaim: nodes.sweepClaim)
    }

    // MARK: asking Redis

    @discardableResult
    func command(_ words: String...) async throws -> RESPValue {
        try await redis.command(words.map { .string($0) }).get()
    }

    func strings(_ words: String...) async throws -> [String] {
        (try await redis.command(words.map { .string($0) }).get().array ?? []).compactMap(\.string)
    }

    /// Everything under this fixture's prefix. Only a test may ask like that.
    func everyKey() async throws -> Set<String> {
        Set(try await strings("KEYS", "\(keys.prefix):*").map { String($0.dropFirst(keys.prefix.count + 1)) })
    }

    // MARK: hearing

    /// What `channel` carries while `body` runs: all of it, for a marker follows it on the same channel.
    func heard(on channel: String, while body: () async throws -> Void) async throws -> [String] {
        let ear = try await Ear.listening(to: channel, client: redis)
        try await body()
        let marker = "marker \(UInt64.random(in: 0 ... .max))"
        try await command("PUBLISH", channel, marker)
        var heard: [String] = []
        for await payload in ear.payloads {
            if payload == marker { break }
            heard.append(payload)
        }
        try await ear.stop()
        return heard
    }
}

private struct Ear: Sendable {
    let payloads: AsyncStream<String>
    private let subscriber: NIOLoopBound<(RedisSubscriber, Delegate)>

    private final class Delegate: RedisSubscriberDelegate {
        let channel: String
        let continuation: AsyncStream<String>.Continuation

        init(channel: String, continuation: AsyncStream<String>.Continuation) {
            self.channel = channel
            self.continuation = continuation
        }

        func subscriber(
            _ s: RedisSubscriber, received payload: UnsafeRawBufferPointer, on channel: UnsafeRawBufferPointer
        ) {
            guard String(decoding: channel, as: UTF8.self) == self.channel else { return }
            continuation.yield(String(decoding: payload, as: UTF8.self))
        }
        func subscriberFinishedReading(_ s: RedisSubscriber) {}
        func subscriberBecameDeaf(_ s: RedisSubscriber) {}
        func subscriberHearsAgain(_ s: RedisSubscriber) {}
    }

    static func listening(to channel: String, client: RedisClient) async throws -> Ear {
        let (stream, continuation) = AsyncStream.makeStream(of: String.self)
        let bound = try await client.eventLoop.submit {
            let delegate = Delegate(channel: channel, continuation: continuation)
            let subscriber = RedisSubscriber(
                client: client, probeChannel: "probe:\(UInt64.random(in: 0 ... .max))", delegate: delegate,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            subscriber.start()
            return NIOLoopBound((subscriber, delegate), eventLoop: client.eventLoop)
        }.get()
        try await client.eventLoop.flatSubmit { bound.value.0.subscribe(channel) }.get()
        return Ear(payloads: stream, subscriber: bound)
    }

    func stop() async throws {
        try await subscriber.eventLoop.flatSubmit { subscriber.value.0.stop() }.get()
    }
}

/// Many calls, so many of them under way at once: all of them would be a load test of this machine.
@discardableResult
func inPortions<Element, Value: Sendable>(
    of size: Int, _ elements: [Element], _ call: (Element) -> EventLoopFuture<Value>
) async throws -> [Value] {
    var values: [Value] = []
    for start in stride(from: 0, to: elements.count, by: size) {
        let calls = elements[start..<min(start + size, elements.count)].map(call)
        for future in calls { values.append(try await future.get()) }
    }
    return values
}

// MARK: names

func room(_ name: String = "general") throws -> RoomName { try RoomName(validating: name) }
func user(_ name: String) throws -> UserName { try UserName(validating: name) }
/// `s1` and so on, filled up to a session id.
func session(_ name: String) throws -> SessionID {
    try #require(SessionID(name + String(repeating: "-", count: SessionID.length - name.utf8.count)))
}
func incarnation(_ text: String) throws -> Incarnation { try #require(Incarnation(text)) }

func membership(
    _ sessionName: String, _ userName: String, on node: String = "node-a.1", generation: Int64 = 1,
    status: PresenceStatus = .online, info: String? = nil, room roomName: String = "general"
) throws -> Membership {
    try Membership(
        room: room(roomName), session: session(sessionName), user: user(userName), incarnation: incarnation(node),
        generation: generation, status: status, info: info)
}

func record(
    _ sessionName: String, _ userName: String, on node: Incarnation, generation: Int64 = 1
) throws -> SessionRecord {
    try SessionRecord(session: session(sessionName), user: user(userName), owner: node, generation: generation)
}

func publication(
    _ id: String, _ text: String = "hi", from name: String = "bob", tag: String? = nil, origin: String? = nil
) throws -> Publication {
    let body = ByteBuffer(string: #""from":"\#(name)","text":"\#(text)""#)
    return try Publication(
        dedupeKey: "\(name)\nclient\n\(id)",
        tag: tag ?? String((id + "____").prefix(4)), origin: origin.map { try session($0) }, clientID: id,
        from: user(name),
        body: body)
}

/// The parts of a presence payload, without the epoch.
func presence(_ payload: String) -> String {
    var payload = payload
    return payload.withUTF8 { bytes in
        guard case .presence(let presence) = RelayMessage.parse(UnsafeRawBufferPointer(bytes)) else { return "none" }
        let changes = presence.changes.map { change in
            switch change {
            case .joined(let json): "+\(json)"
            case .left(let json): "-\(json)"
            case .status(let json): "~\(json)"
            }
        }
        return "pv \(presence.pv) count \(presence.count) \(changes.joined(separator: " "))"
    }
}
