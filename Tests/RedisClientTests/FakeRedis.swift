import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import RedisClient

/// The other end of each connection that a client dials, in virtual time; confined to the test's thread.
final class FakeRedis: @unchecked Sendable {  // The embedded loop traps when another thread touches it.
    let loop = EmbeddedEventLoop()
    /// Each connection that was dialled, the last one being the present one.
    private(set) var channels: [EmbeddedChannel] = []
    /// Dials fail.
    var isDown = false
    /// The greeting is not answered.
    var isMute = false
    private(set) var dials = 0

    var channel: EmbeddedChannel {
        get throws { try #require(channels.last) }
    }

    func dial(_ configuration: RedisConfiguration, _ eventLoop: any EventLoop) -> EventLoopFuture<any Channel> {
        dials += 1
        if isDown {
            return loop.makeFailedFuture(ChannelError.connectTimeout(.seconds(2)))
        }
        let channel = EmbeddedChannel(loop: loop)
        channels.append(channel)
        return loop.makeCompletedFuture {
            try channel.connect(to: SocketAddress(unixDomainSocketPath: "/fake")).map { channel as any Channel }
        }.flatMap { $0 }
    }

    func client(
        scripts: [RedisScript] = [],
        random: Double = 1,
        configure: (inout RedisConfiguration) -> Void = { _ in }
    ) throws -> RedisClient {
        var configuration = try RedisConfiguration(url: "redis://fake")
        configure(&configuration)
        return RedisClient(
            configuration: configuration,
            scripts: scripts,
            eventLoop: loop,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            dial: { self.dial($0, $1) },
            random: { random }
        )
    }

    /// The commands written since the last call, each as its words; of the present connection unless given.
    func commands(of channel: EmbeddedChannel? = nil) throws -> [[String]] {
        loop.run()
        let channel = try channel ?? self.channel
        let reader = try #require(RedisReplyReader())
        var commands: [[String]] = []
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) {
            buffer.withUnsafeReadableBytes { reader.feed($0) }
            while reader.next() == .reply {
                commands.append(reader.value()?.array?.compactMap(\.string) ?? [])
            }
        }
        return commands
    }

    /// One read of these bytes.
    func send(_ text: String, to channel: EmbeddedChannel? = nil) throws {
        let channel = try channel ?? self.channel
        try channel.writeInbound(ByteBuffer(string: text))
        loop.run()
    }

    /// Answers the greeting: digests of the scripts are their first word, the rest is OK.
    func greet() throws {
        for command in try commands() {
            try send(command[0] == "SCRIPT" ? "$5\r\nsha-\(command[2].prefix(1))\r\n" : "+OK\r\n")
        }
    }

    func advance(_ milliseconds: Int64) {
        loop.advanceTime(by: .milliseconds(milliseconds))
    }
}

/// What a future came to, in words.
final class Outcome: @unchecked Sendable {  // Of a future of the embedded loop, on the test's thread.
    private(set) var text = "pending"
    private(set) var error: RedisError?

    init<Value: Sendable>(_ future: EventLoopFuture<Value>) {
        future.whenComplete { result in
            switch result {
            case .success(let value as RESPValue): self.text = value.string ?? value.int.map { String($0) } ?? "value"
            case .success: self.text = "done"
            case .failure(let error):
                self.error = error as? RedisError
                self.text = self.error.map { "\($0.code)" } ?? "\(error)"
            }
        }
    }
}
