/// What one client of a room did or heard. A history is the list of all of them, each client's own in their order.
struct Observation: Sendable, Equatable {
    enum Event: Sendable, Equatable {
        /// The user said it; sent or not.
        case published(id: String, text: String)
        /// Written to a connection, for the first time or again.
        case sent(id: String)
        case acknowledged(id: String, seq: Int64, isDuplicate: Bool)
        /// An error that says when to try again.
        case refused(id: String)
        /// An error for good.
        case rejected(id: String, code: Int64)
        /// The time in which the server knows the id again is over: the outcome stays unknown.
        case gaveUp(id: String)
        case delivered(seq: Int64, text: String)
        case gap(epoch: String, from: Int64, to: Int64)
        /// `recovered` as the server answered a `since`; `nil` when there was none to answer.
        case joined(epoch: String, seq: Int64, recovered: Bool?)
        /// The server took the session up again.
        case resumed
        /// `lastHeard`: when the last byte came on the connection that ended.
        case disconnected(lastHeard: Int64)
        case presence(pv: Int64, left: [String])
        /// Who is in the room, as the client has it at the end.
        case members(Set<String>)
    }

    /// Milliseconds since the run began.
    let at: Int64
    let client: String
    let event: Event
}

/// What was to be expected of a run, beside its history.
struct Circumstances: Sendable {
    /// While messages were published: outside of it silence is no silence.
    var load: ClosedRange<Int64> = 0...Int64.max
    /// While Redis could not be reached, by all or by some: what is published then may be refused.
    var outages: [ClosedRange<Int64>] = []
    /// Clients on slow lines: their silence and what they say of others' leaves counts for nothing.
    var slow: Set<String> = []
    /// A leave that comes while the user is in the room for no longer than this was on its way before.
    var presenceDelay: Int64 = 1000
    /// Who comes back within it did not leave.
    var grace: Int64 = 0
}

/// What a run came to. Sums up over rooms and runs.
struct Verdict: Sendable, Equatable {
    enum Kind: String, Sendable, CaseIterable {
        /// An acknowledged or delivered message that a client did not get and was not told of.
        case missing
        /// One message twice.
        case doubled
        /// Two orders, or one that goes backwards.
        case reordered
        /// Numbers begin anew or positions are lost, and no `gap` says so.
        case unsaid
        /// An answer that answers nothing, or an error where there should be none.
        case answer
        /// Members at the end that are not who is there.
        case presence
    }

    struct Problem: Sendable, Equatable, CustomStringConvertible {
        let kind: Kind
        let text: String
        var description: String { "\(kind.rawValue): \(text)" }
    }

    var published = 0
    var acknowledged = 0
    /// Deliveries, own acks among them.
    var delivered = 0
    var missing = 0
    var doubled = 0
    var reordered = 0
    var gaps = 0
    /// Acknowledged, then forgotten by Redis with an epoch, once for each client that had not got it; all said by `gap`.
    var forgotten = 0
    var unknown = 0
    var falseLeaves = 0
    /// Milliseconds.
    var longestSilence: Int64 = 0
    var longestAnswer: Int64 = 0
    /// Published outside outages, and of these acknowledged.
    var due = 0
    var dueAcknowledged = 0
    var reconnects = 0
    var resumed = 0
    var problems: [Problem] = []

    /// 0...1.
    var acknowledgedShare: Double { due == 0 ? 1 : Double(dueAcknowledged) / Double(due) }

    mutating func note(_ kind: Kind, _ text: @autoclosure () -> String, count: Int = 1) {
        switch kind {
        case .missing: missing += count
        case .doubled: doubled += count
        case .reordered: reordered += count
        case .unsaid, .answer, .presence: break
        }
        // The first ones tell the cause; a broken run could have millions.
        if problems.count < 200 { problems.append(Problem(kind: kind, text: text())) }
    }

    static func + (a: Verdict, b: Verdict) -> Verdict {
        var sum = a
        sum.published += b.published
        sum.acknowledged += b.acknowledged
        sum.delivered += b.delivered
        sum.missing += b.missing
        sum.doubled += b.doubled
        sum.reordered += b.reordered
        sum.gaps += b.gaps
        sum.forgotten += b.forgotten
        sum.unknown += b.unknown
        sum.falseLeaves += b.falseLeaves
        sum.longestSilence = max(a.longestSilence, b.longestSilence)
        sum.longestAnswer = max(a.longestAnswer, b.longestAnswer)
        sum.due += b.due
        sum.dueAcknowledged += b.dueAcknowledged
        sum.reconnects += b.reconnects
        sum.resumed += b.resumed
        sum.problems += b.problems
        return sum
    }
}

extension Verdict {
    /// All figures in a line.
    var line: String {
        """
        published \(published), acknowledged \(acknowledged), delivered \(delivered), missing \(missing), \
        doubled \(doubled), reordered \(reordered), gaps \(gaps), forgotten \(forgotten), unknown \(unknown), \
        longest silence \(longestSilence) ms, slowest answer \(longestAnswer) ms, false leaves \(falseLeaves), \
        reconnects \(reconnects), resumed \(resumed), problems \(problems.count)
        """
    }
}
