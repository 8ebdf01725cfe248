import ArgumentParser

// Flags are texts; `Settings` checks them and the environment by one table, so both get the same sentence.

/// For every command that talks to Redis: `@OptionGroup var redis: RedisOptions`, then
/// `Settings.read(flags: redis.flags.merging(listen.flags) { $1 })`.
struct RedisOptions: ParsableArguments {
    @Option(help: ArgumentHelp("A configuration file.", valueName: "file"))
    var config: String?

    @Option(name: .customLong("redis"), help: ArgumentHelp("Where Redis is.", valueName: "url"))
    var redisURL: String?

    @Option(name: .customLong("prefix"), help: "What every key and channel in Redis begins with.")
    var redisPrefix: String?

    var flags: [String: String?] {
        ["MARTLET_CONFIG": config, "MARTLET_REDIS_URL": redisURL, "MARTLET_REDIS_PREFIX": redisPrefix]
    }
}

/// For the long-running processes (node, router).
struct ServerOptions: ParsableArguments {
    @Option(help: "The address to listen on.")
    var host: String?

    @Option(help: "The port to listen on; 0 takes a free one.")
    var port: String?

    @Option(
        name: .customLong("redis-timeout"),
        help: ArgumentHelp("How long to wait for Redis at the start.", valueName: "seconds"))
    var redisTimeout: String?

    @Option(help: ArgumentHelp("How long SIGTERM leaves clients to move.", valueName: "seconds"))
    var drain: String?

    @Option(name: .customLong("log-level"), help: "The least severe log lines that are written.")
    var logLevel: String?

    /// The read end of a pipe whose write end the parent holds; see `ParentWatch`.
    @Option(name: .customLong("exit-with-fd"), help: .hidden)
    var exitWithDescriptor: Int32?

    var flags: [String: String?] {
        [
            "MARTLET_HOST": host, "MARTLET_PORT": port, "MARTLET_REDIS_TIMEOUT_SECONDS": redisTimeout,
            "MARTLET_DRAIN_SECONDS": drain, "MARTLET_LOG_LEVEL": logLevel,
        ]
    }
}
