package import Logging
package import NIOCore

/// What a subscriber tells its owner, always on its event loop.
package protocol RedisSubscriberDelegate: AnyObject {
    /// A message of a channel that was subscribed. One of a channel just unsubscribed may still come. The pointers end
    /// with the call.
    func subscriber(
        _ subscriber: RedisSubscriber,
        received payload: UnsafeRawBufferPointer,
        on channel: UnsafeRawBufferPointer
    )
    /// Once at the end of each burst of reads that brought a message.
    func subscriberFinishedReading(_ subscriber: RedisSubscriber)
    /// The connection was lost, or its probe did not come back: messages are missing from here on. Never twice in a
    /// row.
    func subscriberBecameDeaf(_ subscriber: RedisSubscriber)
    /// Every channel is confirmed again and a probe came back: what was missed can be repaired now. Also the first
    /// time.
    func subscriberHearsAgain(_ subscriber: RedisSubscriber)
}

/// A subscription connection (RESP2, classic pub/sub) beside a client's command connection.
///
/// 1. Delivers messages without making a value of them.
/// 2. Subscribes by itself again after each reconnect.
/// 3. Publishes probes to itself through the client, and says when they do not come back.
///
/// Confined to the client's event loop. Its delegate is held weakly; between `start` and `stop` it holds itself.
package final class RedisSubscriber: RedisLinkDelegate {
    private let client: RedisClient
    private let eventLoop: any EventLoop
    private let probeChannel: String
    private let probeChannelBytes: [UInt8]
    private let probe: String
    private let logger: Logger
    private let link: RedisLink
    private weak var delegate: (any RedisSubscriberDelegate)?

    private var machine: SubscriptionStateMachine<EventLoopPromise<Void>>
    private let tickInterval: TimeAmount
    private var ticks: Scheduled<Void>?
    private var isStarted = false
    /// The delegate, held from the first message of a burst to the end of the burst, since a weak reference costs at
    /// each use.
    private var burstDelegate: (any RedisSubscriberDelegate)?

    /// - Parameter probeChannel: one that nobody else subscribes or publishes to.
    package init(
        client: RedisClient,
        probeChannel: String,
        delegate: any RedisSubscriberDelegate,
        logger: Logger
    ) {
        self.client = client
        self.eventLoop = client.eventLoop
        self.probeChannel = probeChannel
        probeChannelBytes = Array(probeChannel.utf8)
        self.probe = String(UInt64.random(in: 0 ... .max), radix: 36)
        self.logger = logger
        self.delegate = delegate
        let configuration = client.configuration
        link = RedisLink(
            configuration: configuration,
            clientName: configuration.clientName + "-subscriber",
            scripts: [],
            eventLoop: client.eventLoop,
            logger: logger,
            dial: client.dial,
            random: client.random
        )
        machine = SubscriptionStateMachine(
            probeChannel: probeChannel,
            timing: .init(
                probeInterval: configuration.probeInterval.nanoseconds,
                deafAfter: configuration.deafAfter.nanoseconds,
                silenceTimeout: configuration.silenceTimeout.nanoseconds
            )
        )
        tickInterval = .nanoseconds(max(1_000_000, configuration.probeInterval.nanoseconds / 2))
    }

    /// Every channel is confirmed and the probes come back.
    package var hears: Bool { machine.hears }

    /// Why the last connection or attempt ended; nil while connected.
    package var lastCause: String? { link.isReady ? nil : link.lastCause }

    /// When the last probe that came back was sent: all that was published before was heard, or said to be missed.
    package private(set) var heardUntil = NIODeadline.now()

    /// Confirmed or not; the probe channel counts once there was a connection.
    package var wantedChannels: Int { machine.wantedChannels }

    package func start() {
        eventLoop.preconditionInEventLoop()
        guard !isStarted else { return }
        isStarted = true
        link.start(delegate: self)
        scheduleTick()
        client.observeReadiness { [weak self] in
            self?.clientBecameReady()
        }
    }

    /// For ever. Unconfirmed subscribes fail with `closed`. Succeeds when the socket is closed; the delegate hears
    /// nothing more.
    package func stop() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        delegate = nil
        burstDelegate = nil
        ticks?.cancel()
        ticks = nil
        let closed = link.close()
        for waiter in machine.stop() {
            waiter.fail(Self.stopped)
        }
        return closed
    }

    /// Succeeds when Redis confirmed the channel; at once when it has. Kept over reconnects, however long they take.
    /// Fails only when the channel is unsubscribed, or the subscriber stopped, before that. Not counted: one
    /// `unsubscribe` undoes any number of these.
    package func subscribe(_ channel: String) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let promise = eventLoop.makePromise(of: Void.self)
        switch machine.subscribe(channel, waiter: promise) {
        case .succeed(let promise): promise.succeed()
        case .fail(let promise): promise.fail(Self.stopped)
        case .wait: break
        case .send: link.write { $0.write(["SUBSCRIBE", .string(channel)]) }
        }
        return promise.futureResult
    }

    /// Messages of the channel may come until Redis confirmed. Nothing happens when it is not subscribed.
    package func unsubscribe(_ channel: String) {
        eventLoop.preconditionInEventLoop()
        let action = machine.unsubscribe(channel)
        if action.send {
            link.write { $0.write(["UNSUBSCRIBE", .string(channel)]) }
        }
        for waiter in action.failed {
            waiter.fail(RedisError(code: .closed, message: "the channel was unsubscribed before Redis confirmed it"))
        }
        if action.hearsAgain {
            tellHearsAgain()
        }
    }

    private static let stopped = RedisError(code: .closed, message: "the subscriber was stopped")

    // MARK: - Probes

    private func scheduleTick() {
        let due = eventLoop.now + tickInterval
        ticks = eventLoop.assumeIsolated().scheduleTask(deadline: due) {
            let now = self.eventLoop.now
            if now - due >= .milliseconds(500) {
                self.machine.extend(by: (now - due).nanoseconds)
            }
            self.scheduleTick()
            self.tick(now: now.nanoseconds)
        }
    }

    private func tick(now: Int64) {
        let action = machine.tick(now: now)
        if action.publishProbe {
            publishProbe()
        }
        if action.disconnect {
            link.disconnect(cause: "the subscription is deaf: its probe did not come back")
        }
        if action.becameDeaf {
            tellDeaf(cause: "the probe did not come back")
        }
    }

    private func publishProbe() {
        let sentAt = eventLoop.now.nanoseconds
        machine.probeIsSent(now: sentAt)
        client.command(["PUBLISH", .string(probeChannel), .string("\(probe) \(sentAt)")]).assumeIsolated().whenSuccess {
            _ in
            self.machine.probeWasPublished(sentAt: sentAt, now: self.eventLoop.now.nanoseconds)
        }
    }

    /// Probes that could not be published before need not wait for the next tick.
    private func clientBecameReady() {
        if link.isReady, !machine.hears {
            publishProbe()
        }
    }

    private func tellDeaf(cause: String) {
        logger.warning(
            "the Redis subscription is deaf",
            metadata: ["cause": .string(cause), "channels": "\(machine.wantedChannels)"]
        )
        delegate?.subscriberBecameDeaf(self)
    }

    private func tellHearsAgain() {
        logger.info("the Redis subscription hears", metadata: ["channels": "\(machine.wantedChannels)"])
        delegate?.subscriberHearsAgain(self)
    }

    // MARK: - RedisLinkDelegate

    func linkBecameReady(digests: [String]) {
        write(machine.linkUp(now: eventLoop.now.nanoseconds))
    }

    func linkHeard() {
        machine.heardBytes(now: eventLoop.now.nanoseconds)
    }

    func linkReceivedReply(_ reader: RedisReplyReader) {
        guard let push = reader.push() else { return receivedOther(reader) }
        if push.isWord("message") {
            if isSame(push.channel, probeChannelBytes) {
                return receivedProbe(push.payload)
            }
            if burstDelegate == nil {
                burstDelegate = delegate
            }
            burstDelegate?.subscriber(self, received: push.payload, on: push.channel)
        } else if push.isWord("subscribe") {
            confirmed(.subscribe, push.channel)
        } else if push.isWord("unsubscribe") {
            confirmed(.unsubscribe, push.channel)
        }
    }

    func linkFinishedReading() {
        guard let burstDelegate else { return }
        self.burstDelegate = nil
        burstDelegate.subscriberFinishedReading(self)
    }

    func linkWasLost(cause: String) {
        linkFinishedReading()
        if machine.linkDown() {
            tellDeaf(cause: cause)
        }
    }

    func linkAttemptFailed(cause: String) {}

    private func confirmed(
        _ word: SubscriptionStateMachine<EventLoopPromise<Void>>.Word,
        _ channel: UnsafeRawBufferPointer
    ) {
        let action = machine.confirmed(word, String(decoding: channel, as: UTF8.self))
        write(action.send)
        if action.disconnect {
            link.disconnect(cause: "Redis unsubscribed a channel by itself")
        }
        if action.publishProbe {
            publishProbe()
        }
        for waiter in action.succeeded {
            waiter.succeed()
        }
        if action.hearsAgain {
            tellHearsAgain()
        }
    }

    private func receivedProbe(_ payload: UnsafeRawBufferPointer) {
        // Of another process with the same probe channel: it proves all the same that messages come through, but not
        // ours.
        let words = String(decoding: payload, as: UTF8.self).split(separator: " ")
        guard words.count == 2, words[0] == probe, let sentAt = Int64(words[1]) else { return }
        heardUntil = .uptimeNanoseconds(UInt64(sentAt))
        if machine.heardProbe(now: eventLoop.now.nanoseconds) {
            tellHearsAgain()
        }
    }

    private func receivedOther(_ reader: RedisReplyReader) {
        switch reader.value() {
        case .error(let text):
            link.disconnect(cause: "Redis refused a subscription: \(text)")
        case .null, .integer, .status, .bulk, .array, nil:
            link.disconnect(cause: "Redis sent to the subscription what was not asked")
        }
    }

    private func write(_ chunks: [[String]]) {
        for chunk in chunks {
            link.write { $0.write(["SUBSCRIBE"] + chunk.map { .string($0) }) }
        }
    }
}
