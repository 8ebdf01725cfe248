/// What a token gives whoever shows it, for its time. Sessions have a reference to it and nothing more; without tokens there
/// is none. Times are milliseconds since 1970, none so far away that their differences overflow.
package final class Grant: Sendable {
    /// `nil`: the token says nothing of rooms, and namespaces decide alone.
    package let capabilities: Capabilities?
    /// The token's own name (`jti`), by which it can be revoked.
    package let tokenID: String?
    /// `nil`: the token does not say when it was made.
    package let issuedAt: Int64?
    /// ``issuedAt`` of an issuer whose clock is as far ahead as clocks may be: no such token was there before.
    package var earliestIssue: Int64? { issuedAt.map { $0 - leeway } }
    /// What the token says; `nil`: it does not expire.
    package let expiresAt: Int64?
    private let leeway: Int64
    private let noticeAt: Int64

    /// The longest time between the notice and the end of a token.
    package static let longestNotice: Int64 = 60_000

    /// - Parameters:
    ///   - leeway: by how much clocks may differ, in milliseconds: for so long a token is taken after its end.
    ///   - now: when it was shown; its life begins then, unless it says when it was made.
    package init(
        capabilities: Capabilities? = nil, tokenID: String? = nil, issuedAt: Int64? = nil, expiresAt: Int64? = nil,
        leeway: Int64, now: Int64
    ) {
        self.capabilities = capabilities
        self.tokenID = tokenID
        self.issuedAt = issuedAt
        self.expiresAt = expiresAt
        self.leeway = leeway
        let end = expiresAt ?? now
        noticeAt = end - min(Self.longestNotice, max(0, (end - min(issuedAt ?? now, now)) / 5))
    }

    /// When the connection is to be told to renew it (a fifth of the token's life before its end, at most a minute), or,
    /// once it was told, to be closed; `nil`: never.
    package func due(wasTold: Bool) -> Int64? {
        guard let expiresAt else { return nil }
        return wasTold ? expiresAt + leeway : noticeAt
    }

    /// Whether the other was made later, or, where they do not differ in that, ends later: then this one renews nothing.
    package func isOlder(than other: Grant) -> Bool {
        if let issuedAt, let others = other.issuedAt, issuedAt != others { return issuedAt < others }
        return expiresAt ?? .max < other.expiresAt ?? .max
    }
}

/// Whose token is soon due. Elements that are looked at once in a `horizon` at least are found in time, and only those few
/// whose time is near are kept. Times are milliseconds since 1970.
package struct TokenWatch<Element: Hashable> {
    private let horizon: Int64
    private var soon: [Element: Int64] = [:]

    package init(horizon: Int64) { self.horizon = horizon }

    /// - Parameter due: when something is to be done about it; `nil`: never.
    package mutating func look(at element: Element, due: Int64?, now: Int64) {
        if let due, due - horizon <= now {
            soon[element] = due
        } else if !soon.isEmpty {
            soon[element] = nil
        }
    }

    package mutating func remove(_ element: Element) {
        if !soon.isEmpty { soon[element] = nil }
    }

    package mutating func takeDue(now: Int64) -> [Element] {
        guard !soon.isEmpty else { return [] }
        let due = soon.filter { $0.value <= now }.map(\.key)
        for element in due { soon[element] = nil }
        return due
    }
}
