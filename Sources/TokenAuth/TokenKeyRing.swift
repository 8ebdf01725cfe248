import Synchronization

/// The keys that a node knows now: its own, which files and settings give, and those that were fetched from a JWKS
/// address. May be asked and changed from any thread.
package final class TokenKeyRing: Sendable {
    /// Keys without a name of their own that one token may be tried with: what a stranger's token costs is bounded.
    static let maximumTries = 4

    /// Asked when no key verified a token: by the `kid` that none has, or `nil` for a token without one. Answers after how
    /// many milliseconds the same token may be good, because keys are being fetched; `nil` when waiting is useless.
    package typealias Missing = @Sendable (_ keyID: String?) -> Int64?

    private struct State {
        var own: [TokenKey]
        var fetched: [TokenKey] = []
        var missing: Missing = { _ in nil }
    }

    private let state: Mutex<State>

    package init(_ own: [TokenKey]) {
        state = Mutex(State(own: own))
    }

    package func replace(own keys: [TokenKey]) { state.withLock { $0.own = keys } }

    package func replace(fetched keys: [TokenKey]) { state.withLock { $0.fetched = keys } }

    package func setMissing(_ missing: @escaping Missing) { state.withLock { $0.missing = missing } }

    /// Which keys a token may be signed with. One that names a key is for that key alone; only a name that no key has lets
    /// those without a name be tried.
    func check(
        _ signature: [UInt8], of input: [UInt8], algorithm: TokenAlgorithm, keyID: String?
    ) throws(TokenError) {
        let (keys, missing) = state.withLock { ($0.own + $0.fetched, $0.missing) }
        let named = keyID.map { id in keys.filter { $0.id == id } } ?? []
        guard named.isEmpty else {
            let fitting = named.filter { $0.algorithm == algorithm }
            guard !fitting.isEmpty else { throw TokenError(.wrongAlgorithm) }
            guard fitting.prefix(Self.maximumTries).contains(where: { $0.verifies(signature, of: input) }) else {
                throw TokenError(.badSignature)
            }
            return
        }
        let possible = keys.filter { $0.algorithm == algorithm && (keyID == nil || $0.givenID == nil) }
        let isTried = !possible.isEmpty && possible.count <= Self.maximumTries
        if isTried, possible.contains(where: { $0.verifies(signature, of: input) }) { return }
        // An address publishes no secret, so that fetching brings no key of HS256.
        if algorithm != .hs256, let milliseconds = missing(keyID) {
            throw TokenError(.keysUnavailable, retryAfterMilliseconds: milliseconds)
        }
        if isTried { throw TokenError(.badSignature) }
        let isOfOthers = !keys.isEmpty && !keys.contains { $0.algorithm == algorithm }
        throw TokenError(isOfOthers ? .wrongAlgorithm : .unknownKey)
    }
}
