/// Reads the history of one room and says whether G1–G4 held. A pure value: no socket, clock or randomness.
///
/// 1. Follows each client: every `seq` after its position comes next, once, as a message or as its own ack, or a `gap`
///    says that it will not.
/// 2. Compares the clients: at one `seq` of one epoch all have one message, and a message stands at one `seq`.
/// 3. At the end: nobody is behind, and each one's members are who is there.
struct Checker {
    private struct Place: Hashable {
        let epoch: String
        let seq: Int64
    }

    private struct Client {
        var epoch: String?
        var last: Int64 = 0
        var placed: [Place: String] = [:]
        /// Where it began, and what a `gap` covered: owed to nobody.
        var excused: [String: [ClosedRange<Int64>]] = [:]
        /// A join was answered with `recovered: false`: a gap must come before anything else.
        var owesGap = false
        /// Epochs it left by a gap, with the last seq it had there.
        var formerEpochs: [String: Int64] = [:]
        var isIn = false
        var inSince: Int64 = 0
        /// Times in the room, each up to the last byte from the server.
        var stays: [ClosedRange<Int64>] = []
        var lastTraffic: Int64?
        var members: Set<String>?
        var waiting: [String: Int64] = [:]
        /// Ids sent once and never refused: their number among all that were sent on this connection.
        var inOrder: [String: Int] = [:]
        var sends = 0
        /// The highest of these numbers with an ack.
        var acknowledgedUpTo = 0

        func isExcused(_ place: Place) -> Bool { excused[place.epoch]?.contains { $0.contains(place.seq) } == true }
    }

    private struct Publication {
        let client: String
        let text: String
        let at: Int64
        var sent = 0
        var place: Place?
    }

    private struct Leave: Hashable {
        let user: String
        let pv: Int64
    }

    private let circumstances: Circumstances
    private var clients: [String: Client] = [:]
    private var publications: [String: Publication] = [:]
    /// What stands where, and who said so first.
    private var truth: [Place: (text: String, by: String)] = [:]
    private var places: [String: [String: Int64]] = [:]
    private var leaves: [Leave: Int64] = [:]
    private var verdict = Verdict()

    /// - Parameter history: of one room.
    static func check(_ history: [Observation], _ circumstances: Circumstances = Circumstances()) -> Verdict {
        var checker = Checker(circumstances: circumstances)
        for observation in history { checker.take(observation) }
        checker.finish(at: history.last?.at ?? 0)
        return checker.verdict
    }

    private init(circumstances: Circumstances) {
        self.circumstances = circumstances
    }

    private mutating func take(_ observation: Observation) {
        let (name, now) = (observation.client, observation.at)
        var client = clients.removeValue(forKey: name) ?? Client()
        switch observation.event {
        case .published(let id, let text):
            verdict.published += 1
            publications["\(name)/\(id)"] = Publication(client: name, text: text, at: now)
        case .sent(let id): sent(id, by: name, &client, now)
        case .acknowledged(let id, let seq, let isDuplicate):
            acknowledged(id, seq, isDuplicate, by: name, &client, now)
        case .refused(let id):
            answered(id, by: &client, now)
            client.inOrder[id] = nil
            if publications["\(name)/\(id)"]?.place != nil {
                verdict.note(.answer, "\(name): \(id) was acknowledged, and then refused")
            }
        case .rejected(let id, let code):
            answered(id, by: &client, now)
            verdict.note(.answer, "\(name): the error \(code) for \(id)")
        case .gaveUp(let id):
            client.waiting[id] = nil
            verdict.unknown += 1
        case .delivered(let seq, let text):
            verdict.delivered += 1
            place(text, seq, at: name, &client, now, isOwnAgain: false)
        case .gap(let epoch, let from, let to): gap(epoch, from, to, &client)
        case .joined(let epoch, let seq, let recovered): joined(epoch, seq, recovered, name, &client, now)
        case .resumed: verdict.resumed += 1
        case .disconnected(let lastHeard):
            if client.isIn { client.stays.append(client.inSince...max(client.inSince, lastHeard)) }
            client.isIn = false
            client.waiting = [:]
            client.inOrder = [:]
            client.acknowledgedUpTo = 0
            verdict.reconnects += 1
        case .presence(let pv, let left):
            guard !circumstances.slow.contains(name) else { break }
            for user in left {
                let leave = Leave(user: user, pv: pv)
                leaves[leave] = min(leaves[leave] ?? now, now)
            }
        case .members(let users): client.members = users
        }
        clients[name] = client
    }

    // MARK: Positions

    private mutating func joined(
        _ epoch: String, _ seq: Int64, _ recovered: Bool?, _ name: String, _ client: inout Client, _ now: Int64
    ) {
        enter(&client, now)
        if let known = client.epoch {
            switch recovered {
            case false?: client.owesGap = true
            case true? where epoch != known:
                verdict.note(.unsaid, "\(name) recovered in \(epoch), but was in \(known)")
            case true? where seq < client.last:
                verdict.note(.unsaid, "\(name) recovered at \(seq), but had \(client.last)")
            case true?, nil: break
            }
        } else {
            client.epoch = epoch
            client.last = seq
            client.excused[epoch] = seq > 0 ? [1...seq] : []
        }
    }

    private func enter(_ client: inout Client, _ now: Int64) {
        guard !client.isIn else { return }
        client.isIn = true
        client.inSince = now
    }

    private mutating func gap(_ epoch: String, _ from: Int64, _ to: Int64, _ client: inout Client) {
        verdict.gaps += 1
        if let known = client.epoch, known != epoch { client.formerEpochs[known] = client.last }
        client.epoch = epoch
        client.last = to
        client.owesGap = false
        if from <= to { client.excused[epoch, default: []].append(from...to) }
    }

    private mutating func place(
        _ text: String, _ seq: Int64, at name: String, _ client: inout Client, _ now: Int64, isOwnAgain: Bool
    ) {
        let load = circumstances.load
        if load.contains(now), !circumstances.slow.contains(name) {
            let before = max(client.lastTraffic ?? client.inSince, load.lowerBound)
            verdict.longestSilence = max(verdict.longestSilence, now - before)
            client.lastTraffic = now
        }
        guard let epoch = client.epoch else { return verdict.note(.answer, "\(name) got \(seq) before it had joined") }
        let place = Place(epoch: epoch, seq: seq)
        if client.owesGap {
            client.owesGap = false
            verdict.note(.unsaid, "\(name) was not recovered and not told what is missing before \(seq)")
            client.last = seq - 1
        }
        defer { confirm(text, place, by: name) }
        if seq <= client.last {
            switch client.placed[place] {
            case text?: if !isOwnAgain { verdict.note(.doubled, "\(name) got \(seq) (\(text)) twice") }
            case let other?: verdict.note(.reordered, "\(name) got \(text) as \(seq), which was \(other)")
            case nil where isOwnAgain && client.isExcused(place): client.placed[place] = text
            case nil: verdict.note(.reordered, "\(name) got \(seq) (\(text)) after \(client.last)")
            }
            return
        }
        if seq > client.last + 1 {
            verdict.note(
                .missing, "\(name) got \(seq) (\(text)) after \(client.last)", count: Int(seq - client.last - 1))
        }
        client.last = seq
        client.placed[place] = text
    }

    /// One order for all, and one place for each message.
    private mutating func confirm(_ text: String, _ place: Place, by name: String) {
        if let known = truth[place] {
            if known.text != text {
                verdict.note(
                    .reordered, "\(place.seq) is \(text) for \(name) and \(known.text) for \(known.by)")
            }
            return
        }
        truth[place] = (text, name)
        if let other = places[text]?[place.epoch], other != place.seq {
            verdict.note(.doubled, "\(text) is stored as \(other) and as \(place.seq)")
        }
        places[text, default: [:]][place.epoch] = place.seq
    }

    // MARK: Publishes

    private mutating func sent(_ id: String, by name: String, _ client: inout Client, _ now: Int64) {
        publications["\(name)/\(id)"]?.sent += 1
        client.waiting[id] = now
        client.sends += 1
        client.inOrder[id] = publications["\(name)/\(id)"]?.sent == 1 ? client.sends : nil
    }

    private mutating func answered(_ id: String, by client: inout Client, _ now: Int64) {
        if let since = client.waiting.removeValue(forKey: id) {
            verdict.longestAnswer = max(verdict.longestAnswer, now - since)
        }
    }

    private mutating func acknowledged(
        _ id: String, _ seq: Int64, _ isDuplicate: Bool, by name: String, _ client: inout Client, _ now: Int64
    ) {
        answered(id, by: &client, now)
        guard var publication = publications["\(name)/\(id)"], publication.sent > 0 else {
            return verdict.note(.answer, "\(name): an ack for \(id), which was never sent")
        }
        if let number = client.inOrder.removeValue(forKey: id) {
            if number < client.acknowledgedUpTo {
                verdict.note(.reordered, "\(name): \(id) got the seq \(seq), behind what was sent after it")
            }
            client.acknowledgedUpTo = max(client.acknowledgedUpTo, number)
        }
        let place = Place(epoch: client.epoch ?? "", seq: seq)
        if let before = publication.place {
            if before.epoch == place.epoch, before.seq != seq {
                verdict.note(.doubled, "\(name): \(id) was acknowledged as \(before.seq) and as \(seq)")
            }
        } else {
            verdict.acknowledged += 1
        }
        verdict.delivered += 1
        publication.place = publication.place ?? place
        publications["\(name)/\(id)"] = publication
        // What was sent again, and came with the recovery or before a gap, is in its place already.
        self.place(
            publication.text, seq, at: name, &client, now, isOwnAgain: isDuplicate || publication.sent > 1)
    }

    // MARK: The end

    private mutating func finish(at end: Int64) {
        checkTails()
        checkAnswers(at: end)
        checkForgotten()
        checkPresence(at: end)
        for publication in publications.values
        where !circumstances.outages.contains(where: { $0.contains(publication.at) }) {
            verdict.due += 1
            if publication.place != nil { verdict.dueAcknowledged += 1 }
        }
        guard circumstances.load.upperBound < .max else { return }
        for (name, client) in clients where client.isIn && !circumstances.slow.contains(name) {
            let before = max(client.lastTraffic ?? client.inSince, circumstances.load.lowerBound)
            verdict.longestSilence = max(verdict.longestSilence, circumstances.load.upperBound - before)
        }
    }

    /// Everybody who is in the room has all up to the last message that anybody has.
    private mutating func checkTails() {
        var ends: [String: Int64] = [:]
        for place in truth.keys { ends[place.epoch] = max(ends[place.epoch] ?? 0, place.seq) }
        let present = clients.filter(\.value.isIn)
        for (name, client) in present {
            guard let epoch = client.epoch else { continue }
            if client.owesGap { verdict.note(.unsaid, "\(name) was not recovered and never told what is missing") }
            let end = ends[epoch] ?? 0
            if client.last < end {
                verdict.note(.missing, "\(name) ended at \(client.last) of \(end)", count: Int(end - client.last))
            }
        }
        // Numbers count for those who share an epoch: whoever is in an older one was told nothing.
        let epochs = Set(present.values.compactMap(\.epoch))
        if epochs.count > 1 {
            verdict.note(.unsaid, "at the end clients are in different epochs: \(epochs.sorted())")
        }
    }

    /// G5: an ack or an error within 5 s, on a connection that lives; never silence.
    private mutating func checkAnswers(at end: Int64) {
        for (name, client) in clients where client.isIn {
            for (id, since) in client.waiting where end - since > 6000 {
                verdict.note(
                    .answer, "\(name): \(id) was sent at \(since) ms and never answered, \(end - since) ms long")
            }
        }
    }

    private mutating func checkForgotten() {
        var acknowledged: [String: [Int64]] = [:]
        for place in publications.values.compactMap(\.place) {
            acknowledged[place.epoch, default: []].append(place.seq)
        }
        for client in clients.values {
            for (epoch, last) in client.formerEpochs {
                verdict.forgotten += (acknowledged[epoch] ?? []).count { $0 > last }
            }
        }
    }

    private mutating func checkPresence(at end: Int64) {
        for name in clients.keys {
            guard let client = clients[name], client.isIn else { continue }
            clients[name]?.stays.append(client.inSince...max(client.inSince, end))
        }
        let (delay, grace) = (circumstances.presenceDelay, circumstances.grace)
        for (leave, at) in leaves {
            let stays = clients[leave.user]?.stays ?? []
            if stays.contains(where: { $0.lowerBound + delay <= at && at < $0.upperBound + grace }) {
                verdict.falseLeaves += 1
            }
        }
        let truth = Set(clients.filter(\.value.isIn).keys)
        for (name, client) in clients where client.isIn {
            guard let members = client.members, members != truth else { continue }
            let (ghosts, lost) = (members.subtracting(truth).sorted(), truth.subtracting(members).sorted())
            verdict.note(.presence, "\(name) sees \(ghosts), who are not there, and not \(lost), who are")
        }
    }
}
