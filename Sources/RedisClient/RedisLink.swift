import Logging
import NIOCore

/// What a link tells its owner, on the event loop.
protocol RedisLinkDelegate: AnyObject {
    /// SCRIPT LOAD's answers are the digests, in the order of the scripts.
    func linkBecameReady(digests: [String])
    func linkHeard()
    /// One whole reply stands in the reader; only between ready and lost.
    func linkReceivedReply(_ reader: RedisReplyReader)
    func linkFinishedReading()
    /// A ready connection was lost.
    func linkWasLost(cause: String)
    /// An attempt failed before it was ready.
    func linkAttemptFailed(cause: String)
}

/// Keeps one connection to Redis up: dials, greets, dials again with full jitter, for ever.
///
/// Confined to its event loop. It holds its delegate until it is closed.
final class RedisLink: RedisChannelHandlerDelegate {
    private let configuration: RedisConfiguration
    private let clientName: String
    private let scripts: [RedisScript]
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let dial: RedisDial
    private let random: () -> Double

    private var delegate: (any RedisLinkDelegate)?
    private var machine = RedisConnectionStateMachine()
    private var handler: RedisChannelHandler?
    private var digests: [String] = []
    private var timer: Scheduled<Void>?
    private var isQuiet = false
    /// Should the server end this connection now, it may be because it speaks TLS.
    private var mayWantTLS = false

    /// Why the last attempt or connection ended.
    private(set) var lastCause: String?

    init(
        configuration: RedisConfiguration,
        clientName: String,
        scripts: [RedisScript],
        eventLoop: any EventLoop,
        logger: Logger,
        dial: @escaping RedisDial,
        random: @escaping () -> Double
    ) {
        self.configuration = configuration
        self.clientName = clientName
        self.scripts = scripts
        self.eventLoop = eventLoop
        self.logger = logger
        self.dial = dial
        self.random = random
    }

    var isReady: Bool { machine.isReady }

    /// Ready, and the socket still takes bytes.
    var isWritable: Bool { machine.isReady && handler?.isWritable == true }

    func start(delegate: any RedisLinkDelegate) {
        switch machine.start() {
        case .dial:
            self.delegate = delegate
            startDial()
        case .none:
            break
        }
    }

    /// Written at the end of the tick. Nothing happens unless the link is ready.
    func write(_ encode: (inout RESPEncoder) -> Void) {
        guard machine.isReady else { return }
        handler?.write(encode)
    }

    /// Gives this connection up and dials another.
    func disconnect(cause: String) {
        handler?.close(cause: cause)
    }

    /// For ever. The future succeeds when the socket is closed; the delegate hears nothing more.
    func close() -> EventLoopFuture<Void> {
        delegate = nil
        timer?.cancel()
        timer = nil
        let handler = self.handler
        self.handler = nil
        switch machine.close() {
        case .closeConnection:
            return handler?.detach() ?? eventLoop.makeSucceededVoidFuture()
        case .none:
            return eventLoop.makeSucceededVoidFuture()
        }
    }

    // MARK: - Dialling

    private func startDial() {
        dial(configuration, eventLoop).assumeIsolated().whenComplete { result in
            switch result {
            case .success(let channel): self.dialSucceeded(channel)
            case .failure(let error): self.attemptEnded(cause: describeConnectionFailure(error))
            }
        }
    }

    private func dialSucceeded(_ channel: any Channel) {
        let steps = greetingSteps()
        switch machine.dialSucceeded(greeting: steps) {
        case .drop:
            channel.close(promise: nil)
        case .greet:
            let handler = RedisChannelHandler(delegate: self)
            self.handler = handler
            mayWantTLS = configuration.isPlainTCP
            digests = []
            do {
                try channel.pipeline.syncOperations.addHandler(handler)
            } catch {
                return attemptEnded(cause: describeConnectionFailure(error))
            }
            // The channel may have closed before the handler came; then the attempt has ended by now.
            guard self.handler === handler else { return }
            handler.write { encoder in
                for step in steps {
                    encoder.write(greetingCommand(step))
                }
            }
            schedule(after: configuration.connectTimeout) {
                self.mayWantTLS = false
                handler.close(
                    cause: self.configuration.tls == nil
                        ? "Redis took the connection but did not answer in time"
                        : "the server took the connection but did not answer in time; perhaps it speaks no TLS on this port"
                )
            }
        }
    }

    private func greetingSteps() -> [RedisConnectionStateMachine.GreetingStep] {
        var steps: [RedisConnectionStateMachine.GreetingStep] = []
        if configuration.password != nil {
            steps.append(.authenticate)
        }
        steps.append(.name)
        if configuration.database != 0 {
            steps.append(.select(configuration.database))
        }
        steps += scripts.enumerated().map { .load(index: $0, name: $1.name) }
        steps.append(.ping)
        return steps
    }

    private func greetingCommand(_ step: RedisConnectionStateMachine.GreetingStep) -> [RedisArgument] {
        switch step {
        case .authenticate:
            ["AUTH"] + [configuration.user, configuration.password].compactMap { $0 }.map { .string($0) }
        case .name: ["CLIENT", "SETNAME", .string(clientName)]
        case .select(let database): ["SELECT", .integer(Int64(database))]
        case .load(let index, _): ["SCRIPT", "LOAD", .string(scripts[index].source)]
        case .ping: ["PING"]
        }
    }

    /// One timer at a time: the greeting's deadline, then the redial.
    private func schedule(after delay: TimeAmount, _ body: @escaping () -> Void) {
        timer?.cancel()
        timer = eventLoop.assumeIsolated().scheduleTask(in: delay, body)
    }

    private func attemptEnded(cause: String) {
        let cause = mayWantTLS ? "\(cause), before a word; where Redis speaks TLS, the URL is rediss://" : cause
        mayWantTLS = false
        timer?.cancel()
        timer = nil
        handler = nil
        switch machine.connectionLost(now: eventLoop.now.nanoseconds) {
        case .none:
            break
        case .wait(let attempt, let wasReady):
            lastCause = cause
            let bounds = configuration.redialDelay
            let delay = RedisConnectionStateMachine.redialDelay(
                attempt: attempt,
                bounds: bounds.lowerBound.nanoseconds...bounds.upperBound.nanoseconds,
                random: random()
            )
            log(cause, wasReady: wasReady)
            schedule(after: .nanoseconds(delay)) {
                switch self.machine.redialDue() {
                case .dial: self.startDial()
                case .none: break
                }
            }
            if wasReady {
                delegate?.linkWasLost(cause: cause)
            } else {
                delegate?.linkAttemptFailed(cause: cause)
            }
        }
    }

    /// One warning for each time that Redis goes away, however many attempts follow.
    private func log(_ cause: String, wasReady: Bool) {
        let metadata: Logger.Metadata = [
            "redis": .string(configuration.addressDescription), "connection": .string(clientName),
            "cause": .string(cause),
        ]
        if wasReady {
            logger.warning("the connection to Redis was lost", metadata: metadata)
        } else if isQuiet {
            logger.debug("Redis cannot be reached", metadata: metadata)
        } else {
            logger.warning("Redis cannot be reached", metadata: metadata)
        }
        isQuiet = true
    }

    private func greetingReply(_ reader: RedisReplyReader) {
        guard let value = reader.value() else {
            handler?.close(cause: "Redis sent what is not a reply")
            return
        }
        var error: String?
        if case .error(let text) = value {
            error = text
        } else if case .bulk = value, let digest = value.string {
            digests.append(digest)
        }
        switch machine.greetingReply(error: error, now: eventLoop.now.nanoseconds) {
        case .wait:
            break
        case .fail(let cause):
            handler?.close(cause: cause)
        case .becomeReady:
            timer?.cancel()
            timer = nil
            isQuiet = false
            lastCause = nil
            logger.info(
                "connected to Redis",
                metadata: [
                    "redis": .string(configuration.addressDescription), "connection": .string(clientName),
                ]
            )
            delegate?.linkBecameReady(digests: digests)
        }
    }

    // MARK: - RedisChannelHandlerDelegate

    func channelHeard() {
        mayWantTLS = false
        if machine.isReady {
            delegate?.linkHeard()
        }
    }

    func channelReceivedReply(_ reader: RedisReplyReader) {
        if machine.isReady {
            delegate?.linkReceivedReply(reader)
        } else if machine.isGreeting {
            greetingReply(reader)
        }
    }

    func channelFinishedReading() {
        if machine.isReady {
            delegate?.linkFinishedReading()
        }
    }

    func channelClosed(cause: String) {
        attemptEnded(cause: cause)
    }
}

extension NIODeadline {
    /// Of the monotonic clock, as the state machines count.
    var nanoseconds: Int64 { Int64(clamping: uptimeNanoseconds) }
}
