import Logging
import NIOCore

/// What can be asked of Redis.
enum RedisOperation: Sendable {
    case command([RedisArgument])
    case evaluation(RedisScript, keys: [RedisArgument], arguments: [RedisArgument])
}

/// The part of `RedisClient` that is confined to the event loop: the link, the pipeline on it, the deadlines.
final class RedisClientCore: RedisLinkDelegate {
    struct Request {
        let promise: EventLoopPromise<RESPValue>
        let operation: RedisOperation
        /// How often Redis answered NOSCRIPT.
        var refusals = 0
    }

    /// Deadlines are looked at this often while something is in flight.
    private static let sweepInterval = TimeAmount.milliseconds(50)
    /// A sweep that comes this much late says that the whole process stood still.
    private static let stall = TimeAmount.milliseconds(500)
    /// Somebody who flushes the scripts faster than they are loaded must not keep a call going for ever.
    private static let maximumRefusals = 3

    private let configuration: RedisConfiguration
    private let scripts: [RedisScript]
    private let scriptIndex: [String: Int]
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let link: RedisLink

    private var pipeline = RedisPipeline<Request>()
    private var digests: [String] = []
    private var sweep: Scheduled<Void>?
    private var isClosed = false
    private var stateHandler: (@Sendable (Bool) -> Void)?
    private var readinessObservers: [() -> Void] = []
    private var waiters: [Int: (promise: EventLoopPromise<Void>, timer: Scheduled<Void>)] = [:]
    private var lastWaiter = 0

    init(
        configuration: RedisConfiguration,
        scripts: [RedisScript],
        eventLoop: any EventLoop,
        logger: Logger,
        dial: @escaping RedisDial,
        random: @escaping @Sendable () -> Double
    ) {
        self.configuration = configuration
        self.scripts = scripts
        scriptIndex = Dictionary(scripts.enumerated().map { ($1.name, $0) }) { first, _ in first }
        self.eventLoop = eventLoop
        self.logger = logger
        link = RedisLink(
            configuration: configuration,
            clientName: configuration.clientName,
            scripts: scripts,
            eventLoop: eventLoop,
            logger: logger,
            dial: dial,
            random: random
        )
    }

    var isConnected: Bool { link.isReady }
    var lastCause: String? { link.isReady ? nil : link.lastCause }

    func start() {
        guard !isClosed else { return }
        link.start(delegate: self)
    }

    func setStateHandler(_ handler: @escaping @Sendable (Bool) -> Void) {
        stateHandler = handler
        if link.isReady {
            handler(true)
        }
    }

    func observeReadiness(_ observer: @escaping () -> Void) {
        readinessObservers.append(observer)
    }

    func whenConnected(within: TimeAmount) -> EventLoopFuture<Void> {
        if link.isReady {
            return eventLoop.makeSucceededVoidFuture()
        }
        if isClosed {
            return eventLoop.makeFailedFuture(notConnected)
        }
        let promise = eventLoop.makePromise(of: Void.self)
        lastWaiter += 1
        let waiter = lastWaiter
        let timer = eventLoop.assumeIsolated().scheduleTask(in: within) {
            guard let (promise, _) = self.waiters.removeValue(forKey: waiter) else { return }
            promise.fail(self.notConnected)
        }
        waiters[waiter] = (promise, timer)
        return promise.futureResult
    }

    func close() -> EventLoopFuture<Void> {
        guard !isClosed else { return link.close() }
        isClosed = true
        let closed = link.close()
        stopSweep()
        stateHandler = nil
        readinessObservers = []
        failPending(cause: "the client was closed")
        let waiters = self.waiters.values
        self.waiters = [:]
        for (promise, timer) in waiters {
            timer.cancel()
            promise.fail(notConnected)
        }
        return closed
    }

    // MARK: - Commands

    func submit(_ operation: RedisOperation, timeout: TimeAmount?) -> EventLoopFuture<RESPValue> {
        guard link.isWritable else { return eventLoop.makeFailedFuture(notConnected) }
        let promise = eventLoop.makePromise(of: RESPValue.self)
        let now = eventLoop.now
        let deadline = now + (timeout ?? configuration.commandTimeout)
        submit(
            Request(promise: promise, operation: operation),
            deadline: deadline.nanoseconds,
            now: now.nanoseconds
        )
        scheduleSweep(now: now)
        return promise.futureResult
    }

    private func submit(_ request: Request, deadline: Int64, now: Int64) {
        switch pipeline.submit(request, deadline: deadline, now: now) {
        case .write: write(request.operation)
        case .hold: break
        }
    }

    private func write(_ operation: RedisOperation) {
        link.write { encoder in
            switch operation {
            case .command(let arguments):
                encoder.write(arguments)
            case .evaluation(let script, let keys, let arguments):
                if let digest = digest(of: script) {
                    encoder.writeEvaluation(of: "EVALSHA", digest, keys: keys, arguments: arguments)
                } else {
                    encoder.writeEvaluation(of: "EVAL", script.source, keys: keys, arguments: arguments)
                }
            }
        }
    }

    private func digest(of script: RedisScript) -> String? {
        guard let index = scriptIndex[script.name], index < digests.count, scripts[index].source == script.source else {
            return nil
        }
        return digests[index]
    }

    /// After NOSCRIPT, once nothing is in flight: the scripts first, then what was refused, then what was held behind
    /// it.
    private func writeReleased() {
        guard let released = pipeline.release(), !released.isEmpty else { return }
        logger.notice("Redis had forgotten the scripts, loading them again", metadata: ["calls": "\(released.count)"])
        let now = eventLoop.now.nanoseconds
        for script in scripts {
            pipeline.submitUnobserved(now: now)
            link.write { $0.write(["SCRIPT", "LOAD", .string(script.source)]) }
        }
        for (request, deadline) in released {
            submit(request, deadline: deadline, now: now)
        }
    }

    private var notConnected: RedisError {
        let place = configuration.addressDescription
        let message =
            if isClosed {
                "the connection to Redis at \(place) is closed"
            } else if link.isReady {
                "Redis at \(place) takes no more bytes"
            } else if let cause = link.lastCause {
                "cannot reach Redis at \(place): \(cause)"
            } else {
                "not connected to Redis at \(place) yet"
            }
        return RedisError(code: .notConnected, message: message)
    }

    private func failPending(cause: String) {
        let place = configuration.addressDescription
        for (request, wasWritten) in pipeline.fail() {
            request.promise.fail(
                RedisError(
                    code: wasWritten ? .closed : .notConnected,
                    message: "the connection to Redis at \(place) ended before the reply: \(cause)"
                )
            )
        }
    }

    // MARK: - Deadlines

    private func scheduleSweep(now: NIODeadline) {
        guard sweep == nil else { return }
        let due = now + Self.sweepInterval
        sweep = eventLoop.assumeIsolated().scheduleTask(deadline: due) {
            self.sweep = nil
            self.sweepDeadlines(due: due)
        }
    }

    private func stopSweep() {
        sweep?.cancel()
        sweep = nil
    }

    private func sweepDeadlines(due: NIODeadline) {
        let now = eventLoop.now
        if now - due >= Self.stall {
            pipeline.extendDeadlines(by: (now - due).nanoseconds)
        }
        let sweep = pipeline.sweep(
            now: now.nanoseconds,
            silenceTimeout: configuration.silenceTimeout.nanoseconds
        )
        if !pipeline.isEmpty {
            scheduleSweep(now: now)
        }
        if sweep.isSilent {
            link.disconnect(
                cause: "Redis did not answer for \(configuration.silenceTimeout.nanoseconds / 1_000_000) ms"
            )
        }
        for (request, wasWritten) in sweep.expired {
            request.promise.fail(
                RedisError(
                    code: .timeout,
                    message: "Redis at \(configuration.addressDescription) did not answer in time",
                    wasWritten: wasWritten
                )
            )
        }
    }

    // MARK: - RedisLinkDelegate

    func linkBecameReady(digests: [String]) {
        self.digests = digests
        let waiters = self.waiters.values
        self.waiters = [:]
        for (promise, timer) in waiters {
            timer.cancel()
            promise.succeed()
        }
        stateHandler?(true)
        for observer in readinessObservers {
            observer()
        }
    }

    func linkHeard() {
        pipeline.heard(now: eventLoop.now.nanoseconds)
    }

    func linkReceivedReply(_ reader: RedisReplyReader) {
        guard let value = reader.value() else {
            return link.disconnect(cause: "Redis sent a reply that is nested too deeply")
        }
        var failure: RedisError?
        if case .error(let text) = value {
            failure = RedisError(code: .server, message: text)
        }
        let action = pipeline.received { request in
            guard failure?.isNoScript == true, case .evaluation = request.operation,
                request.refusals < Self.maximumRefusals
            else { return nil }
            var again = request
            again.refusals += 1
            return again
        }
        switch action {
        case .complete(let request):
            if let failure {
                request.promise.fail(failure)
            } else {
                request.promise.succeed(value)
            }
        case .discard:
            break
        case .violation:
            link.disconnect(cause: "Redis answered what was not asked")
        }
    }

    func linkFinishedReading() {
        writeReleased()
    }

    func linkWasLost(cause: String) {
        stopSweep()
        failPending(cause: cause)
        stateHandler?(false)
    }

    func linkAttemptFailed(cause: String) {}
}
