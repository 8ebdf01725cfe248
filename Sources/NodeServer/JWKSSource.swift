package import Logging
package import NIOCore
import Synchronization
package import TLSClient
import Telemetry
package import TokenAuth

/// Keeps the fetched keys of a ring at what a JWKS address publishes (``JWKSSchedule`` says when). While the address does not
/// answer with a JWK Set, the keys that are known go on; before its first answer, tokens that need it are told to come again. A
/// set without one key that can be used is an answer: an issuer takes its last key away so.
package final class JWKSSource: Sendable {
    private let address: JWKSAddress
    private let tls: TLSClient?
    private let ring: TokenKeyRing
    private let state: Mutex<State>

    private struct State {
        var schedule: JWKSSchedule
        var fetches = 0
        var failures = 0
        var fetchedAt: NIODeadline?
        /// Of the keys of the last answer; `nil` before there was one.
        var names: [String?]?
    }

    /// Blocks on the disk.
    ///
    /// - Parameter authorities: a PEM file of those that may vouch for the address; the system's when `nil`.
    package init(_ address: JWKSAddress, authorities: String?, for ring: TokenKeyRing) throws(TLSFailure) {
        self.address = address
        self.ring = ring
        tls = address.isSecure ? try TLSClientOptions(authorities: authorities).load() : nil
        state = Mutex(State(schedule: JWKSSchedule(now: .now())))
    }

    /// One fetch, for those who run no node. Fails with ``HTTPFetch/Failure``.
    package func fetchOnce(on loop: any EventLoop) -> EventLoopFuture<TokenKeys> {
        JWKSFetch.get(address, tls: tls, on: loop).map { [ring] answer in
            ring.replace(fetched: answer.keys.keys)
            return answer.keys
        }
    }

    /// Fetches from now on for as long as the loop runs.
    package func start(on loop: any EventLoop, logger: Logger) {
        ring.setMissing { [weak self] keyID in self?.missing(keyID, loop, logger) }
        loop.execute { self.tick(loop, logger) }
    }

    /// An answer has come: a token that has to wait for keys names one that was not in it.
    package var hasKeys: Bool { state.withLock { $0.schedule.hasKeys } }

    private func missing(_ keyID: String?, _ loop: any EventLoop, _ logger: Logger) -> Int64? {
        let (action, next) = state.withLock { ($0.schedule.missing(keyID, now: .now()), $0.schedule.nextFetch) }
        switch action {
        case .refuse: return nil
        case .comeAgain(let milliseconds, let wakesUp):
            if wakesUp { wake(at: next, loop, logger) }
            return milliseconds
        }
    }

    private func wake(at deadline: NIODeadline, _ loop: any EventLoop, _ logger: Logger) {
        loop.scheduleTask(deadline: deadline) { self.tick(loop, logger) }
    }

    private func tick(_ loop: any EventLoop, _ logger: Logger) {
        let begins = state.withLock { state in
            let begins = state.schedule.begin(now: .now())
            if begins { state.fetches += 1 }
            return begins
        }
        guard begins else { return }
        JWKSFetch.get(address, tls: tls, on: loop).whenComplete { result in
            switch result {
            case .success(let answer): self.took(answer, logger)
            case .failure(let error): self.failed(error, logger)
            }
            self.wake(at: self.state.withLock { $0.schedule.nextFetch }, loop, logger)
        }
    }

    func took(_ answer: JWKSFetch.Answer, _ logger: Logger) {
        let keys = answer.keys.keys
        // Before who waits hears of it.
        ring.replace(fetched: keys)
        let isNew = state.withLock { state in
            let isNew = state.names != keys.map(\.id) || state.schedule.failures > 0
            state.names = keys.map(\.id)
            state.fetchedAt = .now()
            state.schedule.succeeded(maximumAge: answer.maximumAge, now: .now())
            return isNew
        }
        guard isNew else { return }
        var metadata: Logger.Metadata = ["url": "\(address)"]
        if !answer.keys.ignored.isEmpty { metadata["ignored"] = "\(answer.keys.ignored.joined(separator: "; "))" }
        guard !keys.isEmpty else {
            return logger.error(
                "the address of token keys publishes no key that can be used: tokens that need one are refused",
                metadata: metadata)
        }
        metadata["keys"] = "\(keys.map { $0.id ?? "-" }.joined(separator: " "))"
        logger.notice("token keys fetched", metadata: metadata)
    }

    func failed(_ error: any Error, _ logger: Logger) {
        let (failures, keys) = state.withLock { state in
            state.failures += 1
            state.schedule.failed(now: .now())
            return (state.schedule.failures, state.names?.count ?? 0)
        }
        // Told once an outage.
        logger.log(
            level: failures == 1 ? .warning : .debug,
            keys == 0
                ? "token keys cannot be fetched: tokens are refused until they are"
                : "token keys cannot be fetched: those known go on",
            metadata: ["url": "\(address)", "error": "\(error)"])
    }

    /// Prometheus text.
    package var metrics: [UInt8] {
        let (fetches, failures, keys, fetchedAt) = state.withLock {
            ($0.fetches, $0.failures, $0.names?.count ?? 0, $0.fetchedAt)
        }
        var text = MetricsText()
        text.counter("martlet_jwks_fetches_total", help: "Times that the token keys were asked for.", fetches)
        text.counter("martlet_jwks_failures_total", help: "Those that brought no JWK Set.", failures)
        text.gauge("martlet_jwks_keys", help: "Token keys of the last JWK Set that can be used.", Double(keys))
        if let fetchedAt {
            text.gauge(
                "martlet_jwks_age_seconds", help: "Since the last JWK Set came.",
                Double((NIODeadline.now() - fetchedAt).nanoseconds) / 1e9)
        }
        return text.bytes
    }
}
