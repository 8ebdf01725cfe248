import Logging
import NIOCore
import NIOPosix
import RedisClient
import WebSocketTransport

/// How a long-running process comes to its Redis.
enum RedisStart {
    /// Waits for Redis, says so while it does, and gives up after `MARTLET_REDIS_TIMEOUT_SECONDS` with exit code 3.
    static func connect(
        _ settings: Settings, scripts: [RedisScript], on group: MultiThreadedEventLoopGroup, logger: Logger
    ) async throws -> RedisClient {
        let configuration = try settings.redisConfiguration()
        let client = RedisClient(
            configuration: configuration, scripts: scripts, eventLoop: group.next(), logger: logger)
        client.start()
        let patience = TimeAmount.milliseconds(500)
        if (try? await client.whenConnected(within: min(patience, settings.redisTimeout)).get()) != nil {
            await warnOfEviction(client, logger: logger)
            return client
        }
        logger.warning(
            "waiting for Redis",
            metadata: [
                "redis": "\(configuration)", "seconds": "\(settings.redisTimeout.nanoseconds / 1_000_000_000)",
            ])
        do {
            try await client.whenConnected(within: settings.redisTimeout).get()
        } catch let error as RedisError {
            throw Failure(.redisUnreachable, "Redis at \(configuration) cannot be reached: \(error.message)")
        }
        await warnOfEviction(client, logger: logger)
        return client
    }

    /// A Redis that evicts can take a lease or a member list away. One that lets nobody ask is taken at its word.
    private static func warnOfEviction(_ client: RedisClient, logger: Logger) async {
        let key = "maxmemory_policy:"
        guard let text = try? await client.command(["INFO", "memory"]).get().string,
            let line = text.split(whereSeparator: \.isNewline).first(where: { $0.hasPrefix(key) }),
            case let policy = line.dropFirst(key.count), policy != "noeviction"
        else { return }
        logger.warning(
            "Redis may evict keys, and leases and member lists with them: set its maxmemory-policy to noeviction",
            metadata: ["policy": "\(policy)"])
    }
}

/// What a failed start of a server means for the person who started it.
enum Listening {
    static func failure(_ error: any Error, internalPort: Int?) -> Failure {
        let isInternal = internalPort != nil && (error as? HTTPServerError)?.port == internalPort
        let names = isInternal ? "MARTLET_INTERNAL_HOST and MARTLET_INTERNAL_PORT" : "--host and --port"
        return Failure(.failed, "\(error); choose others with \(names)")
    }
}

enum Version {
    static let current = "0.1.0"
}
