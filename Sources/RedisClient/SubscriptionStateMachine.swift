/// What a subscriber wants to hear, what Redis confirmed, and whether it hears at all.
///
/// 1. Keeps the wanted channels over reconnects, and asks for them again in chunks.
/// 2. Pairs confirmations with what was asked: Redis confirms each channel of each SUBSCRIBE and UNSUBSCRIBE once, in
///    order, so the last word on a channel counts only when nothing on it is unconfirmed.
/// 3. Tells from the probes when the subscriber is deaf.
///
/// Times are nanoseconds of one monotonic clock.
struct SubscriptionStateMachine<Waiter> {
    private struct Channel {
        var isWanted = true
        /// Wanted and confirmed on this connection.
        var isConfirmed = false
        /// Wanted when this connection came up, and not confirmed since.
        var isRecovering = false
        /// SUBSCRIBE and UNSUBSCRIBE of it that were written on this connection and not confirmed.
        var unconfirmed: Int32 = 0
        var waiters: [Waiter] = []
    }

    private enum Link {
        /// No connection. Goes to `up` or `stopped`.
        case down
        /// Connected; channels may still be unconfirmed. Goes to `down` or `stopped`.
        case up
        /// Ended by its owner, for ever.
        case stopped
    }

    struct Timing {
        var probeInterval: Int64
        var deafAfter: Int64
        /// A connection on which nothing at all was read for this long is given up, even when no probe could be
        /// published.
        var silenceTimeout: Int64
        /// How many channels one SUBSCRIBE names at most when the connection is new.
        var chunk = 256
        /// How many channels may be unconfirmed at a time then: what Redis answers must fit in its output buffer for
        /// us.
        var window = 2048
    }

    private let probeChannel: String
    private let timing: Timing
    private var link = Link.down
    private var channels: [String: Channel] = [:]
    private var toRecover: [String] = []
    private var recovering = 0
    /// Confirmed on this connection, so that a published probe must come back.
    private var isProbeConfirmed = false
    /// A probe came back on this connection.
    private var heardProbe = false
    private var lastProbeHeard: Int64 = 0
    private var lastProbeSent: Int64 = .min
    /// When Redis first took a probe that came after the last one heard.
    private var unheardSince: Int64?
    private var lastByte: Int64 = 0

    /// Every wanted channel of this connection's start is confirmed, and a probe came back not long ago.
    private(set) var hears = false

    init(probeChannel: String, timing: Timing) {
        self.probeChannel = probeChannel
        self.timing = timing
    }

    var wantedChannels: Int { channels.values.count { $0.isWanted } }

    // MARK: - Asking

    enum SubscribeAction {
        /// Confirmed already: the waiter is answered now.
        case succeed(Waiter)
        /// Write SUBSCRIBE; the waiter is kept.
        case send
        /// The waiter is kept until Redis confirms.
        case wait
        case fail(Waiter)
    }

    mutating func subscribe(_ name: String, waiter: Waiter) -> SubscribeAction {
        switch link {
        case .stopped:
            return .fail(waiter)
        case .down:
            channels[name, default: Channel()].waiters.append(waiter)
            channels[name]?.isWanted = true
            return .wait
        case .up:
            guard var channel = channels[name] else {
                channels[name] = Channel(unconfirmed: 1, waiters: [waiter])
                return .send
            }
            if channel.isConfirmed {
                return .succeed(waiter)
            }
            channel.waiters.append(waiter)
            let isOnItsWay = channel.isWanted
            if !isOnItsWay {
                channel.isWanted = true
                channel.unconfirmed += 1
            }
            channels[name] = channel
            return isOnItsWay ? .wait : .send
        }
    }

    struct UnsubscribeAction {
        /// These subscribes were not confirmed and never will be.
        var failed: [Waiter] = []
        /// Write UNSUBSCRIBE.
        var send = false
        var hearsAgain = false
    }

    mutating func unsubscribe(_ name: String) -> UnsubscribeAction {
        guard name != probeChannel, var channel = channels[name], channel.isWanted else { return UnsubscribeAction() }
        var action = UnsubscribeAction(failed: channel.waiters)
        channel.waiters = []
        channel.isWanted = false
        if channel.isRecovering {
            channel.isRecovering = false
            recovering -= 1
            action.hearsAgain = updateHearing()
        }
        // Nothing of it was written on this connection when it still waits for its turn after a reconnect.
        if case .up = link, channel.isConfirmed || channel.unconfirmed > 0 {
            channel.isConfirmed = false
            channel.unconfirmed += 1
            channels[name] = channel
            action.send = true
        } else {
            channels[name] = nil
        }
        return action
    }

    // MARK: - Connection

    /// A connection is ready.
    ///
    /// - Returns: the channels of each SUBSCRIBE to write now; the probe channel comes first.
    mutating func linkUp(now: Int64) -> [[String]] {
        switch link {
        case .stopped, .up:
            return []
        case .down:
            link = .up
        }
        lastProbeHeard = now
        lastByte = now
        channels[probeChannel, default: Channel()].isWanted = true
        toRecover = channels.keys.filter { $0 != probeChannel } + [probeChannel]
        for name in channels.keys {
            channels[name]?.isRecovering = true
        }
        recovering = toRecover.count
        return chunksToRecover()
    }

    /// The connection ended.
    ///
    /// - Returns: whether the subscriber heard until now.
    mutating func linkDown() -> Bool {
        switch link {
        case .stopped, .down:
            return false
        case .up:
            link = .down
        }
        channels = channels.compactMapValues { channel in
            channel.isWanted ? Channel(waiters: channel.waiters) : nil
        }
        toRecover = []
        recovering = 0
        isProbeConfirmed = false
        heardProbe = false
        unheardSince = nil
        let heard = hears
        hears = false
        return heard
    }

    enum Word {
        case subscribe
        case unsubscribe
    }

    struct ConfirmationAction {
        var succeeded: [Waiter] = []
        /// The channels of each SUBSCRIBE to write now.
        var send: [[String]] = []
        /// The probe channel is confirmed: publish the first probe.
        var publishProbe = false
        var hearsAgain = false
        /// Redis unsubscribed a wanted channel on its own: dial again.
        var disconnect = false
    }

    mutating func confirmed(_ word: Word, _ name: String) -> ConfirmationAction {
        var action = ConfirmationAction()
        guard case .up = link, var channel = channels[name] else { return action }
        guard channel.unconfirmed > 0 else {
            action.disconnect = channel.isWanted && word == .unsubscribe
            return action
        }
        channel.unconfirmed -= 1
        guard channel.unconfirmed == 0 else {
            channels[name] = channel
            return action
        }
        guard channel.isWanted else {
            channels[name] = nil
            return action
        }
        action.succeeded = channel.waiters
        channel.waiters = []
        channel.isConfirmed = true
        if channel.isRecovering {
            channel.isRecovering = false
            recovering -= 1
        }
        channels[name] = channel
        if name == probeChannel {
            isProbeConfirmed = true
            action.publishProbe = true
        }
        action.send = chunksToRecover()
        action.hearsAgain = updateHearing()
        return action
    }

    /// Bytes of any kind came.
    mutating func heardBytes(now: Int64) {
        lastByte = now
    }

    // MARK: - Probes

    /// - Returns: whether it hears again with this probe.
    mutating func heardProbe(now: Int64) -> Bool {
        guard case .up = link else { return false }
        lastProbeHeard = now
        unheardSince = nil
        heardProbe = true
        return updateHearing()
    }

    /// Redis took a probe.
    mutating func probeWasPublished(sentAt: Int64, now: Int64) {
        guard case .up = link, isProbeConfirmed, sentAt > lastProbeHeard, unheardSince == nil else { return }
        unheardSince = now
    }

    struct TickAction: Equatable {
        var publishProbe = false
        var becameDeaf = false
        /// Give this connection up, and dial again.
        var disconnect = false
    }

    /// To be called at least each half of the probe interval.
    mutating func tick(now: Int64) -> TickAction {
        var action = TickAction()
        guard case .up = link else { return action }
        action.publishProbe = isProbeConfirmed && (lastProbeSent == .min || now - lastProbeSent >= timing.probeInterval)
        if action.publishProbe {
            lastProbeSent = now
        }
        guard now - lastProbeHeard >= timing.deafAfter else { return action }
        heardProbe = false
        action.becameDeaf = hears
        hears = false
        // When Redis took no probe either, it may be Redis that stands still, and when bytes still come, the probe may
        // stand behind them: this connection is then as good as a new one, for a while.
        let silence = now - lastByte
        let unheard = unheardSince.map { now - $0 } ?? 0
        action.disconnect =
            silence >= timing.silenceTimeout || unheard >= timing.silenceTimeout
            || silence >= timing.deafAfter && unheard >= timing.deafAfter / 2
        return action
    }

    /// The first probe after the confirmation is published at once, not at a tick.
    mutating func probeIsSent(now: Int64) {
        lastProbeSent = now
    }

    /// The whole process stood still for this long: what came meanwhile is read first.
    mutating func extend(by stall: Int64) {
        lastProbeHeard += stall
        lastByte += stall
        unheardSince = unheardSince.map { $0 + stall }
    }

    /// - Returns: the subscribes that will never be confirmed.
    mutating func stop() -> [Waiter] {
        link = .stopped
        hears = false
        let waiters = channels.values.flatMap(\.waiters)
        channels = [:]
        toRecover = []
        return waiters
    }

    // MARK: -

    private mutating func updateHearing() -> Bool {
        guard !hears, heardProbe, recovering == 0, case .up = link else { return false }
        hears = true
        return true
    }

    /// Takes from `toRecover` what may be written now.
    private mutating func chunksToRecover() -> [[String]] {
        guard !toRecover.isEmpty else { return [] }
        var chunks: [[String]] = []
        // `recovering` counts what was written and not confirmed, and what was not written yet.
        var room = timing.window - (recovering - toRecover.count)
        while room >= min(timing.chunk, toRecover.count), !toRecover.isEmpty {
            var chunk: [String] = []
            while chunk.count < timing.chunk, let name = toRecover.popLast() {
                // Unsubscribed meanwhile, or unsubscribed and subscribed again.
                guard var channel = channels[name], channel.isWanted, channel.isRecovering, channel.unconfirmed == 0
                else {
                    continue
                }
                channel.unconfirmed = 1
                channels[name] = channel
                chunk.append(name)
            }
            if !chunk.isEmpty {
                chunks.append(chunk)
                room -= chunk.count
            }
        }
        return chunks
    }
}
