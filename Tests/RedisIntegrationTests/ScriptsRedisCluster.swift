import ClusterState
import Logging
import NIOCore
import NIOPosix
import RedisClient
import Synchronization
import TestSupport
import Testing

/// Three masters of one Redis Cluster, each with a third of the slots.
struct RedisClusterProcess: Sendable {
    let masters: [RedisServerProcess]
    let clients: [RedisClient]

    static func start() async throws -> RedisClusterProcess {
        let masters = try (0..<3).map { _ in
            try RedisServerProcess(configuration: [
                "cluster-enabled yes", "cluster-node-timeout 15000", "cluster-config-file nodes.conf",
            ])
        }
        var clients: [RedisClient] = []
        for master in masters { clients.append(try await ClusterFixture.connect(to: master)) }
        let bounds = [0, 5461, 10923, 16384]
        for (index, client) in clients.enumerated() {
            _ = try await client.command([
                "CLUSTER", "ADDSLOTSRANGE", .integer(Int64(bounds[index])), .integer(Int64(bounds[index + 1] - 1)),
            ]).get()
            _ = try await client.command(["CLUSTER", "SET-CONFIG-EPOCH", .integer(Int64(index + 1))]).get()
        }
        for master in masters.dropFirst() {
            _ = try await clients[0].command(["CLUSTER", "MEET", "127.0.0.1", .integer(Int64(master.port))]).get()
        }
        let cluster = RedisClusterProcess(masters: masters, clients: clients)
        try await cluster.waitUntilWhole()
        return cluster
    }

    private func waitUntilWhole() async throws {
        let deadline = ContinuousClock.now + .seconds(30)
        for client in clients {
            while true {
                let info = try await client.command(["CLUSTER", "INFO"]).get().string ?? ""
                if info.contains("cluster_state:ok"), info.contains("cluster_known_nodes:3") { break }
                guard ContinuousClock.now < deadline else { throw NotWhole() }
                try await client.eventLoop.scheduleTask(in: .milliseconds(20)) {}.futureResult.get()
            }
        }
    }

    struct NotWhole: Error {}

    /// The index of the master that holds a key's slot.
    func owner(of key: String) async throws -> Int {
        let slot = try await clients[0].command(["CLUSTER", "KEYSLOT", .string(key)]).get().int ?? 0
        return slot < 5461 ? 0 : slot < 10923 ? 1 : 2
    }

    /// The first of `prefix0`, `prefix1` … whose key is on a master.
    func name(_ prefix: String, on master: Int, key: (String) throws -> String) async throws -> String {
        for index in 0..<200 where try await owner(of: key("\(prefix)\(index)")) == master {
            return "\(prefix)\(index)"
        }
        throw NotWhole()
    }

    func stop() async {
        for client in clients { try? await client.close().get() }
        for master in masters { master.stop() }
    }
}

/// What MONITOR shows: every command of a server, those of scripts too.
struct RedisMonitor: Sendable {
    struct Command: Sendable {
        /// Called by a script, not by a client.
        let isInner: Bool
        let words: [String]
    }

    private let channel: any Channel
    private let lines: AsyncStream<String>

    static func watching(port: Int) async throws -> RedisMonitor {
        let (stream, continuation) = AsyncStream.makeStream(of: String.self)
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(LineReader(continuation: continuation))
                }
            }
            .connect(host: "127.0.0.1", port: port).get()
        var hello = channel.allocator.buffer(capacity: 16)
        hello.writeString("MONITOR\r\n")
        try await channel.writeAndFlush(hello)
        let monitor = RedisMonitor(channel: channel, lines: stream)
        for await line in stream where line == "+OK" { break }
        return monitor
    }

    /// Everything up to the marker that `client`, of the same server, sends now.
    func commands(upToMarkerOf client: RedisClient) async throws -> [Command] {
        let marker = "marker\(UInt64.random(in: 0 ... .max))"
        _ = try await client.command(["ECHO", .string(marker)]).get()
        var commands: [Command] = []
        for await line in lines {
            guard let command = Self.parse(line) else { continue }
            if command.words.last == marker { break }
            commands.append(command)
        }
        try await channel.close()
        return commands
    }

    /// `+1700000000.123456 [0 lua] "HGET" "key" "a\nb"`
    private static func parse(_ line: String) -> Command? {
        guard line.hasPrefix("+"), let open = line.firstIndex(of: "["), let close = line.firstIndex(of: "]")
        else { return nil }
        var words: [String] = []
        var word: String?
        var isEscaped = false
        for character in line[close...] {
            switch (character, word) {
            case (_, let current?) where isEscaped:
                isEscaped = false
                word = current + (character == "n" ? "\n" : String(character))
            case ("\\", _?): isEscaped = true
            case ("\"", let current?):
                words.append(current)
                word = nil
            case ("\"", nil): word = ""
            case (let other, let current?): word = current + String(other)
            case (_, nil): break
            }
        }
        return Command(isInner: line[open..<close].hasSuffix(" lua"), words: words)
    }

    private final class LineReader: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        private let continuation: AsyncStream<String>.Continuation
        private var rest: [UInt8] = []

        init(continuation: AsyncStream<String>.Continuation) {
            self.continuation = continuation
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            rest += Array(buffer: unwrapInboundIn(data))
            var start = rest.startIndex
            while let end = rest[start...].firstIndex(of: UInt8(ascii: "\n")) {
                continuation.yield(String(decoding: rest[start..<max(start, end - 1)], as: UTF8.self))
                start = end + 1
            }
            rest.removeSubrange(..<start)
        }

        func channelInactive(context: ChannelHandlerContext) {
            continuation.finish()
        }
    }
}

extension Array where Element == UInt8 {
    fileprivate init(buffer: ByteBuffer) {
        self = Array(buffer.readableBytesView)
    }
}
