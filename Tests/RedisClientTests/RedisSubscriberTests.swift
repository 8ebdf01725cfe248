import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import RedisClient

@Suite("The subscriber in virtual time")
struct RedisSubscriberTests {
    private let redis = FakeRedis()

    private final class Owner: RedisSubscriberDelegate {
        var events: [String] = []
        var onMessage: (RedisSubscriber) -> Void = { _ in }

        func subscriber(
            _ s: RedisSubscriber,
            received payload: UnsafeRawBufferPointer,
            on channel: UnsafeRawBufferPointer
        ) {
            events.append("\(String(decoding: channel, as: UTF8.self))=\(String(decoding: payload, as: UTF8.self))")
            onMessage(s)
        }
        func subscriberFinishedReading(_ s: RedisSubscriber) { events.append("end") }
        func subscriberBecameDeaf(_ s: RedisSubscriber) { events.append("deaf") }
        func subscriberHearsAgain(_ s: RedisSubscriber) { events.append("hears") }
    }

    private let owner = Owner()

    private func message(_ channel: String, _ payload: String) -> String {
        "*3\r\n$7\r\nmessage\r\n$\(channel.utf8.count)\r\n\(channel)\r\n$\(payload.utf8.count)\r\n\(payload)\r\n"
    }

    private func confirmation(_ word: String, _ channel: String) -> String {
        "*3\r\n$\(word.utf8.count)\r\n\(word)\r\n$\(channel.utf8.count)\r\n\(channel)\r\n:1\r\n"
    }

    /// The connection on which the client commands, the one that is subscribed, and a subscriber that hears.
    private func hearing() throws -> (RedisSubscriber, command: EmbeddedChannel, subscribed: EmbeddedChannel) {
        let client = try redis.client()
        client.start()
        try redis.greet()
        let command = try redis.channel
        let subscriber = RedisSubscriber(
            client: client,
            probeChannel: "probe",
            delegate: owner,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
        subscriber.start()
        try redis.greet()
        let subscribed = try redis.channel
        #expect(try redis.commands(of: subscribed) == [["SUBSCRIBE", "probe"]])
        try redis.send(confirmation("subscribe", "probe"), to: subscribed)
        try probe(on: subscribed, of: command)
        #expect(owner.events == ["hears"])
        #expect(subscriber.hears)
        owner.events = []
        return (subscriber, command, subscribed)
    }

    /// Answers the probes that were published, and, with a subscribed connection, brings them.
    private func probe(on subscribed: EmbeddedChannel?, of command: EmbeddedChannel) throws {
        for publish in try redis.commands(of: command) {
            #expect(publish[0] == "PUBLISH" && publish[1] == "probe")
            if let subscribed {
                try redis.send(message("probe", publish[2]), to: subscribed)
            }
            try redis.send(":1\r\n", to: command)
        }
    }

    @Test("messages are delivered in order, and the end of each burst once; probes are not")
    func bursts() throws {
        let (_, _, subscribed) = try hearing()
        try redis.send(message("a", "1") + message("b", "") + message("probe", "another's"), to: subscribed)
        try redis.send(confirmation("subscribe", "c"), to: subscribed)
        #expect(owner.events == ["a=1", "b=", "end"])
    }

    @Test("a burst that ends in junk is delivered up to the junk, and ended, before the subscriber is deaf")
    func burstWithJunk() throws {
        let (_, _, subscribed) = try hearing()
        try redis.send(message("a", "1") + "junk\r\n" + message("a", "2"), to: subscribed)
        #expect(owner.events == ["a=1", "end", "deaf"])
    }

    @Test("a message split at every byte is delivered once")
    func split() throws {
        let (_, _, subscribed) = try hearing()
        let text = message("channel", "payload")
        for length in 0...text.count {
            try redis.send(String(text.prefix(length)), to: subscribed)
            try redis.send(String(text.dropFirst(length)), to: subscribed)
            #expect(owner.events == ["channel=payload", "end"], "split at \(length)")
            owner.events = []
        }
    }

    @Test("Redis takes the probes and they do not come back: deaf within 6 s, then dialled again, then healed")
    func deaf() throws {
        let (subscriber, command, subscribed) = try hearing()
        for second in 1...6 {
            redis.advance(1000)
            try probe(on: nil, of: command)
            if second < 5 {
                #expect(owner.events.isEmpty)
            }
        }
        #expect(owner.events == ["deaf"])
        #expect(!subscribed.isActive)
        redis.advance(100)
        try redis.greet()
        let next = try redis.channel
        #expect(next !== subscribed)
        try redis.send(confirmation("subscribe", "probe"), to: next)
        try probe(on: next, of: command)
        #expect(owner.events == ["deaf", "hears"])
        #expect(subscriber.hears)
    }

    @Test("while probes come back it hears, for ever")
    func probing() throws {
        let (subscriber, command, subscribed) = try hearing()
        for _ in 0..<60 {
            redis.advance(1000)
            try probe(on: subscribed, of: command)
        }
        #expect(subscriber.hears)
        #expect(owner.events.isEmpty)
        #expect(redis.dials == 2)
    }

    @Test("a refused subscription ends the connection; so does what no subscription is sent")
    func refused() throws {
        for reply in ["-NOPERM no access to channel\r\n", "+OK\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n", "junk\r\n"] {
            owner.events = []
            let (_, _, subscribed) = try hearing()
            try redis.send(reply, to: subscribed)
            #expect(!subscribed.isActive)
            #expect(owner.events == ["deaf"])
        }
    }

    @Test("stopped from inside a delivery, it delivers nothing more and does not dial again")
    func stopInside() throws {
        let (_, _, subscribed) = try hearing()
        owner.onMessage = { _ = $0.stop() }
        try redis.send(message("a", "1") + message("a", "2"), to: subscribed)
        #expect(owner.events.first == "a=1")
        #expect(!owner.events.contains("a=2"))
        #expect(!subscribed.isActive)
        redis.advance(60_000)
        #expect(redis.dials == 2)
    }

    @Test("channels asked for from inside a delivery are written once at the end of the burst")
    func subscribeInside() throws {
        let (_, _, subscribed) = try hearing()
        owner.onMessage = { _ = $0.subscribe("b") }
        try redis.send(message("a", "1") + message("a", "2"), to: subscribed)
        #expect(try redis.commands(of: subscribed) == [["SUBSCRIBE", "b"]])
    }
}
