package import Logging
package import NIOCore

/// One connection to Redis, pipelined: commands are answered in the order they were given.
///
/// 1. Stays connected by itself from `start` to `close`.
/// 2. Runs commands, each with a deadline.
/// 3. Runs scripts by their digest, and loads them again when Redis forgot them.
///
/// Callable from any thread; futures succeed on `eventLoop`. What is given on the event loop itself needs no hop, and
/// all of one tick leaves in one write.
package final class RedisClient: Sendable {
    package let eventLoop: any EventLoop
    package let configuration: RedisConfiguration
    let dial: RedisDial
    let random: @Sendable () -> Double
    /// Touched on `eventLoop` alone, which the box checks.
    private let core: NIOLoopBoundBox<RedisClientCore>

    /// - Parameter scripts: loaded on each connect. A script that is not among them is sent whole with each call.
    package convenience init(
        configuration: RedisConfiguration,
        scripts: [RedisScript],
        eventLoop: any EventLoop,
        logger: Logger
    ) {
        self.init(
            configuration: configuration,
            scripts: scripts,
            eventLoop: eventLoop,
            logger: logger,
            dial: dialRedis,
            random: { Double.random(in: 0..<1) }
        )
    }

    init(
        configuration: RedisConfiguration,
        scripts: [RedisScript],
        eventLoop: any EventLoop,
        logger: Logger,
        dial: @escaping RedisDial,
        random: @escaping @Sendable () -> Double
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.dial = dial
        self.random = random
        core = .makeBoxSendingValue(
            RedisClientCore(
                configuration: configuration,
                scripts: scripts,
                eventLoop: eventLoop,
                logger: logger,
                dial: dial,
                random: random
            ),
            eventLoop: eventLoop
        )
    }

    /// Connects, and connects again whenever the connection is lost, until `close`. Without effect the second time.
    package func start() {
        onLoop { $0.start() }
    }

    /// Fails at once with `notConnected` while there is no connection; nothing is queued for later.
    ///
    /// - Parameter timeout: from the call to the reply; the configuration's `commandTimeout` unless given. Kept to
    ///   within 50 ms.
    /// - Returns: the reply; an error reply of Redis fails the future with a `RedisError` of the code `server`.
    package func command(_ arguments: [RedisArgument], timeout: TimeAmount? = nil) -> EventLoopFuture<RESPValue> {
        submit(.command(arguments), timeout: timeout)
    }

    /// Runs the script by its digest.
    ///
    /// When Redis answers that it does not know the script, all scripts are loaded and the call is sent again; commands
    /// given from then on stay behind it. Commands that were in flight at the same time may have run before it.
    package func evaluate(
        _ script: RedisScript,
        keys: [RedisArgument],
        arguments: [RedisArgument],
        timeout: TimeAmount? = nil
    ) -> EventLoopFuture<RESPValue> {
        submit(.evaluation(script, keys: keys, arguments: arguments), timeout: timeout)
    }

    /// Succeeds with the first connection that is ready (at once if there is one); fails after `within` with
    /// `notConnected` and a sentence that says why the last attempt failed.
    package func whenConnected(within: TimeAmount) -> EventLoopFuture<Void> {
        if eventLoop.inEventLoop {
            return core.value.whenConnected(within: within)
        }
        return eventLoop.flatSubmit { self.core.value.whenConnected(within: within) }
    }

    /// Called on `eventLoop` with true when a connection became ready and with false when it was lost; with true at
    /// once when one is ready already. A second handler replaces the first.
    package func setStateHandler(_ handler: @escaping @Sendable (Bool) -> Void) {
        onLoop { $0.setStateHandler(handler) }
    }

    /// Only on `eventLoop`.
    package var isConnected: Bool { core.value.isConnected }

    /// Why the last connection or attempt ended; nil while connected. Only on `eventLoop`.
    package var lastCause: String? { core.value.lastCause }

    /// Ends the connection for ever. What was not answered fails with `closed`. Succeeds when the socket is closed.
    package func close() -> EventLoopFuture<Void> {
        if eventLoop.inEventLoop {
            return core.value.close()
        }
        return eventLoop.flatSubmit { self.core.value.close() }
    }

    /// Told after the state handler; for subscribers of this client. Only on `eventLoop`.
    func observeReadiness(_ observer: @escaping () -> Void) {
        core.value.observeReadiness(observer)
    }

    private func submit(_ operation: RedisOperation, timeout: TimeAmount?) -> EventLoopFuture<RESPValue> {
        if eventLoop.inEventLoop {
            return core.value.submit(operation, timeout: timeout)
        }
        return eventLoop.flatSubmit { self.core.value.submit(operation, timeout: timeout) }
    }

    private func onLoop(_ body: @escaping @Sendable (RedisClientCore) -> Void) {
        if eventLoop.inEventLoop {
            body(core.value)
        } else {
            eventLoop.execute { body(self.core.value) }
        }
    }
}
