/// Something of this node's that the cluster's store should hold, or should hold no longer: a session in a room, a session
/// in the directory. Decides which command is due; the driver sends it and says what became of it.
///
/// 1. At most one command is under way, so a leave never overtakes the join before it, and the last wish wins.
/// 2. What may or may not have been written is written again or removed; it is never forgotten while the store may hold it.
/// 3. A request is answered once: by the command that carried it, or when it expires. A request that fails ends the wish
///    only if nothing stands on it yet: who is in stays in.
package struct Registration<Content: Equatable & Sendable, Request: Sendable>: Sendable {
    private enum Written: Equatable {
        /// The store holds nothing of it.
        case nothing
        /// A command was lost on the way: the store may hold it, or not, or something older.
        case unknown
        case content(Content)
    }

    /// As ``Written``, without a second copy of what is wanted: most are settled.
    private enum Store {
        case nothing
        case unknown
        case wanted
        indirect case other(Content)
    }

    private enum Flight {
        case none
        /// `carried`: how many of the requests, from the first, this command answers.
        indirect case write(Content, carried: Int)
        indirect case update(Content)
        case remove
    }

    package enum Action: Equatable, Sendable {
        /// All is as it should be, or a command is under way.
        case none
        /// Answer with ``wrote(_:)``, ``writeFailed(_:outcomeIsUnknown:)`` or ``refused(_:)``.
        case write(Content, attempt: Int)
        /// The store is known to hold it, with other content. Answer as for `write`.
        case update(Content, attempt: Int)
        /// Answer with ``removed(_:)`` or ``removeFailed(_:)``.
        case remove(attempt: Int)
        /// Nothing is wanted and nothing is held: drop this value.
        case forget
    }

    package private(set) var wanted: Content? {
        willSet {
            if case .wanted = store, let wanted, newValue != wanted { store = .other(wanted) }
        }
    }
    /// Whether somebody relies on it: a first write was answered.
    package private(set) var isEstablished = false
    /// What the command under way finds may be old.
    private var isDoubted = false
    package private(set) var requests: [Request] = []
    private var store: Store
    private var flight: Flight = .none
    private var attempt = 0

    private var written: Written {
        get {
            switch store {
            case .nothing: .nothing
            case .unknown: .unknown
            case .wanted: wanted.map { .content($0) } ?? .unknown
            case .other(let content): .content(content)
            }
        }
        set {
            switch newValue {
            case .nothing: store = .nothing
            case .unknown: store = .unknown
            case .content(let content): store = content == wanted ? .wanted : .other(content)
            }
        }
    }

    /// Nothing is held yet.
    package init(wanting content: Content) {
        self.wanted = content
        self.store = .nothing
    }

    /// The store holds it, and somebody relies on it.
    package init(standing content: Content) {
        self.wanted = content
        self.store = .wanted
        self.isEstablished = true
    }

    /// Found in the store though nobody here wants it.
    package init(stray: Void) {
        self.wanted = nil
        self.store = .unknown
    }

    package var isUnderWay: Bool {
        if case .none = flight { false } else { true }
    }

    /// Nothing is due and nobody waits.
    package var isSettled: Bool {
        guard !isUnderWay, requests.isEmpty else { return false }
        return switch written {
        case .nothing, .unknown: false
        case .content(let content): content == wanted
        }
    }

    /// Nothing is wanted and nothing is held: ``next()`` would say `forget`.
    package var isVoid: Bool { wanted == nil && written == .nothing && !isUnderWay }

    // MARK: Wishes

    package mutating func want(_ content: Content) {
        wanted = content
    }

    /// Wanted, and whoever asks is answered once it is written (again).
    package mutating func want(_ content: Content, _ request: Request) {
        wanted = content
        requests.append(request)
    }

    /// - Returns: the requests that no command answers any more.
    package mutating func wantNothing() -> [Request] {
        wanted = nil
        isEstablished = false
        let dropped = requests
        requests = []
        if case .write(let content, _) = flight { flight = .write(content, carried: 0) }
        return dropped
    }

    /// Takes out the requests that no command carries and that match. Without any left, a wish on which nothing stands ends.
    package mutating func expire(where matches: (Request) -> Bool) -> [Request] {
        var carried = 0
        if case .write(_, let count) = flight { carried = count }
        let waiting = requests[carried...]
        guard waiting.contains(where: matches) else { return [] }
        let expired = waiting.filter(matches)
        requests = Array(requests[..<carried]) + waiting.filter { !matches($0) }
        endWishIfUnmet()
        return expired
    }

    // MARK: Commands

    package mutating func next() -> Action {
        guard !isUnderWay else { return .none }
        guard let wanted else {
            if written == .nothing { return .forget }
            attempt += 1
            flight = .remove
            return .remove(attempt: attempt)
        }
        if requests.isEmpty, case .content(let content) = written {
            guard content != wanted else { return .none }
            attempt += 1
            flight = .update(wanted)
            return .update(wanted, attempt: attempt)
        }
        attempt += 1
        flight = .write(wanted, carried: requests.count)
        return .write(wanted, attempt: attempt)
    }

    /// The write or update stands. Returns the requests that it answers; `nil` when it is a former owner's command.
    package mutating func wrote(_ attempt: Int) -> [Request]? {
        guard attempt == self.attempt else { return nil }
        switch flight {
        case .write(let content, let carried):
            stands(content)
            let answered = takeRequests(carried)
            if wanted != nil { isEstablished = true }
            return answered
        case .update(let content):
            stands(content)
            return []
        case .none, .remove:
            return nil
        }
    }

    private mutating func stands(_ content: Content) {
        written = isDoubted ? .unknown : .content(content)
        land()
    }

    /// No command is under way any more.
    private mutating func land() {
        flight = .none
        isDoubted = false
    }

    /// Returns the requests that failed with it.
    package mutating func writeFailed(_ attempt: Int, outcomeIsUnknown: Bool) -> [Request] {
        guard attempt == self.attempt else { return [] }
        if outcomeIsUnknown { written = .unknown }
        guard case .write(_, let carried) = flight else {
            land()
            return []
        }
        land()
        let failed = takeRequests(carried)
        if !failed.isEmpty { endWishIfUnmet() }
        return failed
    }

    /// The store takes nothing of this owner any more: it waits for ``beginAnew()``, and the requests with it.
    package mutating func refused(_ attempt: Int) {
        guard attempt == self.attempt else { return }
        land()
        written = .nothing
    }

    package mutating func removed(_ attempt: Int) {
        guard attempt == self.attempt else { return }
        land()
        written = .nothing
    }

    package mutating func removeFailed(_ attempt: Int) {
        guard attempt == self.attempt else { return }
        land()
        written = .unknown
    }

    // MARK: What was found

    /// A new owner, of whom the store holds nothing; what a command under way still does is the former owner's.
    package mutating func beginAnew() {
        attempt += 1
        land()
        written = .nothing
    }

    /// The store was read: it holds this, or does not. Without effect while a command is under way.
    package mutating func found(_ isThere: Bool) {
        guard !isUnderWay else { return }
        switch (written, isThere) {
        case (.nothing, true): written = .unknown
        case (.content, false), (.unknown, false): written = .nothing
        case (.nothing, false), (.unknown, true), (.content, true): break
        }
    }

    /// Another may have it since the last command went out: what is wanted is written again, and the answer tells.
    package mutating func doubt() {
        guard wanted != nil else { return }
        if isUnderWay {
            isDoubted = true
        } else if case .content = written {
            written = .unknown
        }
    }

    /// The first ones; leaves no memory behind when those were all.
    private mutating func takeRequests(_ count: Int) -> [Request] {
        let taken = Array(requests[..<count])
        requests = Array(requests[count...])
        return taken
    }

    private mutating func endWishIfUnmet() {
        if requests.isEmpty, !isEstablished { wanted = nil }
    }
}
