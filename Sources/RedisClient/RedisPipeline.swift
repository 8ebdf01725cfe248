/// What one connection was asked and has not answered: pairs replies with commands, in order.
///
/// 1. Finds the command that a reply answers.
/// 2. Keeps the deadlines. A command whose deadline passed keeps its place, so that later replies still find theirs.
/// 3. When Redis lost its scripts (NOSCRIPT), holds every further command until what is in flight was answered, so that
///    what is sent again is not overtaken by what was asked later.
///
/// Times are nanoseconds of one monotonic clock.
struct RedisPipeline<Request> {
    private struct InFlight {
        /// Nil once its deadline passed, or when nobody waits for the reply.
        var request: Request?
        var deadline: Int64
    }

    private struct Held {
        var request: Request
        var deadline: Int64
    }

    private var inFlight = FIFO<InFlight>()
    /// Answered with NOSCRIPT, in the order of the answers.
    private var refused: [Held] = []
    /// Asked since the first NOSCRIPT.
    private var held: [Held] = []
    private var isHolding = false
    /// When something was last heard, or, after quiet, last asked.
    private var lastSign: Int64 = 0

    var isEmpty: Bool { inFlight.isEmpty && refused.isEmpty && held.isEmpty }

    enum SubmitAction: Equatable {
        case write
        /// It will be among those that `release` returns.
        case hold
    }

    mutating func submit(_ request: Request, deadline: Int64, now: Int64) -> SubmitAction {
        if isHolding {
            held.append(Held(request: request, deadline: deadline))
            return .hold
        }
        wrote(request, deadline: deadline, now: now)
        return .write
    }

    /// A command of the client itself, whose reply nobody waits for.
    mutating func submitUnobserved(now: Int64) {
        wrote(nil, deadline: .max, now: now)
    }

    private mutating func wrote(_ request: Request?, deadline: Int64, now: Int64) {
        if inFlight.isEmpty {
            lastSign = now
        }
        inFlight.append(InFlight(request: request, deadline: deadline))
    }

    enum ReplyAction {
        case complete(Request)
        /// Nobody waits for it any more, or it will be asked again.
        case discard
        /// It answers nothing that was asked.
        case violation
    }

    /// - Parameter retry: what to send once more instead of completing the request: for the reply NOSCRIPT.
    mutating func received(retry: (Request) -> Request?) -> ReplyAction {
        guard let slot = inFlight.popFirst() else { return .violation }
        guard let request = slot.request else { return .discard }
        if let again = retry(request) {
            isHolding = true
            refused.append(Held(request: again, deadline: slot.deadline))
            return .discard
        }
        return .complete(request)
    }

    /// To be asked after each burst of replies: the requests to write now, in order, after the scripts were loaded
    /// again. Nil when nothing is held back or something is still in flight. The caller writes and `submit`s each of
    /// them.
    mutating func release() -> [(request: Request, deadline: Int64)]? {
        guard isHolding, inFlight.isEmpty else { return nil }
        isHolding = false
        let released = (refused + held).map { ($0.request, $0.deadline) }
        refused = []
        held = []
        return released
    }

    struct Sweep {
        /// The requests whose deadline passed, and whether each was written and not refused.
        var expired: [(request: Request, wasWritten: Bool)] = []
        /// Something is in flight and nothing was heard for the silence timeout: the connection is of no use.
        var isSilent = false
    }

    mutating func sweep(now: Int64, silenceTimeout: Int64) -> Sweep {
        var sweep = Sweep()
        inFlight.mutateEach { slot in
            if slot.deadline <= now, let request = slot.request {
                sweep.expired.append((request, true))
                slot.request = nil
            }
        }
        for list in [\RedisPipeline.refused, \RedisPipeline.held] {
            guard self[keyPath: list].contains(where: { $0.deadline <= now }) else { continue }
            sweep.expired += self[keyPath: list].filter { $0.deadline <= now }.map { ($0.request, false) }
            self[keyPath: list].removeAll { $0.deadline <= now }
        }
        sweep.isSilent = !inFlight.isEmpty && now - lastSign >= silenceTimeout
        return sweep
    }

    /// The whole process stood still for this long: nobody was late.
    mutating func extendDeadlines(by stall: Int64) {
        lastSign += stall
        inFlight.mutateEach { $0.deadline = Self.extended($0.deadline, by: stall) }
        for index in refused.indices {
            refused[index].deadline = Self.extended(refused[index].deadline, by: stall)
        }
        for index in held.indices {
            held[index].deadline = Self.extended(held[index].deadline, by: stall)
        }
    }

    private static func extended(_ deadline: Int64, by stall: Int64) -> Int64 {
        let (sum, overflow) = deadline.addingReportingOverflow(stall)
        return overflow ? .max : sum
    }

    /// Bytes came, whether or not they end a reply; to be told before the replies in them.
    mutating func heard(now: Int64) {
        lastSign = now
    }

    /// The connection ended: all that waits, and whether each was written and not refused.
    mutating func fail() -> [(request: Request, wasWritten: Bool)] {
        var failed: [(request: Request, wasWritten: Bool)] = []
        while let slot = inFlight.popFirst() {
            if let request = slot.request {
                failed.append((request, true))
            }
        }
        failed += (refused + held).map { ($0.request, false) }
        refused = []
        held = []
        isHolding = false
        return failed
    }
}

/// A queue in an array: removal from the front moves nothing until half of the array is free.
struct FIFO<Element> {
    private var storage: [Element?] = []
    private var head = 0

    var isEmpty: Bool { head == storage.count }
    var count: Int { storage.count - head }

    mutating func append(_ element: Element) {
        storage.append(element)
    }

    mutating func popFirst() -> Element? {
        guard head < storage.count else { return nil }
        let first = storage[head]
        storage[head] = nil
        head += 1
        if head == storage.count {
            storage.removeAll(keepingCapacity: head <= 4096)
            head = 0
        } else if head >= 64, head * 2 >= storage.count {
            storage.removeFirst(head)
            head = 0
        }
        return first
    }

    mutating func mutateEach(_ body: (inout Element) -> Void) {
        for index in head..<storage.count {
            if var element = storage[index] {
                storage[index] = nil
                body(&element)
                storage[index] = element
            }
        }
    }
}
