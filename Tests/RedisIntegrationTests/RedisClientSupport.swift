import Logging
import NIOCore
import NIOPosix
import RedisClient
import TLSClient
import Testing

extension RedisClient {
    /// A started client on a loop of the shared group: redials quickly, and is patient otherwise, for a machine that
    /// does much else at the time.
    static func started(
        _ url: String,
        scripts: [RedisScript] = [],
        tls: TLSClientOptions = TLSClientOptions(),
        configure: (inout RedisConfiguration) -> Void = { _ in }
    ) throws -> RedisClient {
        var configuration = try RedisConfiguration(url: url, tls: tls)
        configuration.redialDelay = .milliseconds(10)...(.milliseconds(100))
        configuration.commandTimeout = .seconds(30)
        configuration.connectTimeout = .seconds(30)
        configuration.silenceTimeout = .seconds(40)
        configuration.deafAfter = .seconds(30)
        configure(&configuration)
        let client = RedisClient(
            configuration: configuration,
            scripts: scripts,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
        client.start()
        return client
    }

    static func connected(
        _ url: String,
        scripts: [RedisScript] = [],
        tls: TLSClientOptions = TLSClientOptions(),
        configure: (inout RedisConfiguration) -> Void = { _ in }
    ) async throws -> RedisClient {
        let client = try started(url, scripts: scripts, tls: tls, configure: configure)
        try await client.whenConnected(within: .seconds(50)).get()
        return client
    }

    @discardableResult
    func run(_ arguments: RedisArgument..., timeout: TimeAmount? = nil) async throws -> RESPValue {
        try await command(arguments, timeout: timeout).get()
    }

    /// Why there is no connection, once an attempt has failed.
    func whyNotConnected() async throws -> RedisError {
        while true {
            let error = try await failure(of: whenConnected(within: .milliseconds(100)))
            if !error.message.hasSuffix("yet") { return error }
        }
    }

    /// Each change of the connection from now on; the first is the present state when that is connected.
    func states() -> AsyncStream<Bool> {
        let (stream, continuation) = AsyncStream.makeStream(of: Bool.self)
        setStateHandler { continuation.yield($0) }
        return stream
    }
}

/// The error of a future that must fail.
func failure<Value: Sendable>(of future: EventLoopFuture<Value>) async throws -> RedisError {
    try await #require(throws: RedisError.self) { try await future.get() }
}

/// A subscriber and what it told its delegate, usable from a test's task.
struct SubscriberUnderTest: Sendable {
    enum Event: Hashable, Sendable {
        case message(String, on: String)
        case deaf
        case hears
    }

    let client: RedisClient
    let events: AsyncStream<Event>
    private let subscriber: NIOLoopBound<(RedisSubscriber, Recorder)>

    /// Holds the delegate too, which the subscriber does not.
    private final class Recorder: RedisSubscriberDelegate {
        let continuation: AsyncStream<Event>.Continuation
        init(_ continuation: AsyncStream<Event>.Continuation) {
            self.continuation = continuation
        }

        func subscriber(
            _ s: RedisSubscriber,
            received payload: UnsafeRawBufferPointer,
            on channel: UnsafeRawBufferPointer
        ) {
            let text = String(decoding: payload, as: UTF8.self)
            continuation.yield(.message(text, on: String(decoding: channel, as: UTF8.self)))
        }
        func subscriberFinishedReading(_ s: RedisSubscriber) {}
        func subscriberBecameDeaf(_ s: RedisSubscriber) { continuation.yield(.deaf) }
        func subscriberHearsAgain(_ s: RedisSubscriber) { continuation.yield(.hears) }
    }

    static func started(client: RedisClient, probeChannel: String = "probe:\(UInt64.random(in: 0 ... .max))")
        async throws -> Self
    {
        let (stream, continuation) = AsyncStream.makeStream(of: Event.self)
        let bound = try await client.eventLoop.submit {
            let recorder = Recorder(continuation)
            let subscriber = RedisSubscriber(
                client: client,
                probeChannel: probeChannel,
                delegate: recorder,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            )
            subscriber.start()
            return NIOLoopBound((subscriber, recorder), eventLoop: client.eventLoop)
        }.get()
        return Self(client: client, events: stream, subscriber: bound)
    }

    func subscribe(_ channel: String) async throws {
        try await asked(channel).get()
    }

    /// Asked, and not waited for.
    func asked(_ channel: String) async throws -> EventLoopFuture<Void> {
        try await client.eventLoop.submit { self.subscriber.value.0.subscribe(channel) }.get()
    }

    /// All in one tick.
    func subscribe(_ channels: [String]) async throws {
        try await client.eventLoop.flatSubmit {
            EventLoopFuture.andAllSucceed(
                channels.map { self.subscriber.value.0.subscribe($0) },
                on: self.client.eventLoop
            )
        }.get()
    }

    /// Subscribes and unsubscribes in one tick, ending with a subscribe, whose future it returns.
    func flip(_ channel: String, times: Int) async throws -> EventLoopFuture<Void> {
        try await client.eventLoop.submit {
            for _ in 0..<times {
                _ = self.subscriber.value.0.subscribe(channel)
                self.subscriber.value.0.unsubscribe(channel)
            }
            return self.subscriber.value.0.subscribe(channel)
        }.get()
    }

    func unsubscribe(_ channel: String) async throws {
        try await onLoop { $0.unsubscribe(channel) }
    }

    func stop() async throws {
        try await client.eventLoop.flatSubmit { self.subscriber.value.0.stop() }.get()
    }

    func onLoop<Value: Sendable>(_ body: @escaping @Sendable (RedisSubscriber) -> Value) async throws -> Value {
        try await client.eventLoop.submit { body(self.subscriber.value.0) }.get()
    }
}
