import Dispatch
import Synchronization
import TestSupport

/// The messages that the publishers of one room share out among themselves.
final class StormRoom: Sendable {
    let name: String
    private let left: Mutex<Int>

    init(name: String, messages: Int) {
        self.name = name
        left = Mutex(messages)
    }

    var isUsedUp: Bool { left.withLock { $0 == 0 } }

    fileprivate func take() -> Bool {
        left.withLock { left in
            guard left > 0 else { return false }
            left -= 1
            return true
        }
    }
}

struct StormProgress: Sendable {
    var acks = 0
    var retries = 0
    var problems: [String] = []
}

/// A user in the storm: publishes with a window of unacknowledged messages, and puts every message and every ack of its
/// own in its place by `seq`. What does not follow without a hole or comes twice is a problem.
final class StormClient: Sendable {
    struct State: Sendable {
        var lastSeq: Int64 = 0
        var lastTag: String?
        var epoch = ""
        /// Text by seq, own messages too.
        var placed: [Int64: String] = [:]
        /// What was sent and has no ack yet: id → text.
        var unacknowledged: [String: String] = [:]
        var acknowledged: [(seq: Int64, text: String)] = []
        var sent = 0
        var client: TestClient?
        /// While the history up to here is read after a `gap`, what comes live is held back.
        var fillingTo: Int64?
        var held: [JSON] = []
        /// The last seq that came as history; an ack may follow it late.
        var readTo: Int64 = 0
    }

    let user: String
    let room: StormRoom
    let isPublisher: Bool
    let window = 16
    private let progress: Watched<StormProgress>
    /// Whether retryable errors belong to the test.
    private let sendsAgain: Bool
    private let state = Watched(State())

    init(
        user: String, room: StormRoom, isPublisher: Bool, sendsAgain: Bool = false, progress: Watched<StormProgress>
    ) {
        (self.user, self.room, self.isPublisher, self.progress) = (user, room, isPublisher, progress)
        self.sendsAgain = sendsAgain
    }

    var current: State { state.current }

    /// Connects and joins; when it was there before, it takes up where it was and sends again what has no ack.
    func connect(_ cluster: Cluster, to node: Int) async throws {
        var options = TestClient.Options()
        options.tap = { [self] _, message in take(message) }
        let session = try await cluster.connect(user, to: node, client: "instance-of-\(user)", options: options)
        let position = state.update { state in
            state.client = session.client
            return (state.epoch, state.lastSeq, state.lastTag)
        }
        if position.0.isEmpty {
            let joined = try await session.join(room.name)
            state.update { state in
                state.epoch = joined["epoch"]?.string ?? ""
                state.lastSeq = joined["seq"]?.int ?? -1
            }
        } else {
            var since: [String: JSON] = ["epoch": .string(position.0), "seq": .int(position.1)]
            if let tag = position.2 { since["tag"] = .string(tag) }
            let joined = try await session.join(room.name, ["since": .object(since)])
            // More than 1,000 were missed: a gap says so, and the history has them.
            let missed = (joined["seq"]?.int ?? 0) - position.1
            if joined["recovered"]?.bool != true, missed <= 1000 { problem("not recovered: \(joined.text)") }
            let again = state.current.unacknowledged
            for (id, text) in again.sorted(by: { $0.value < $1.value }) { publish(text, id: id, to: session.client) }
            start()
        }
    }

    func start() {
        guard isPublisher else { return }
        let (client, batch) = state.update { state -> (TestClient?, [(String, String)]) in
            var batch: [(String, String)] = []
            while state.unacknowledged.count < window, room.take() {
                state.sent += 1
                let id = "\(state.sent)"
                let text = "\(user)/\(state.sent)"
                state.unacknowledged[id] = text
                batch.append((id, text))
            }
            return (state.client, batch)
        }
        guard let client else { return }
        for (id, text) in batch { publish(text, id: id, to: client) }
    }

    func waitUntilAcknowledged(within limit: Duration) async throws {
        let room = room
        try await state.wait(within: limit, "\(self.user): acks for \(self.current.unacknowledged.count)") { state in
            room.isUsedUp && state.unacknowledged.isEmpty ? () : nil
        }
    }

    func waitUntilPlaced(_ seq: Int64, within limit: Duration) async throws {
        try await state.wait(within: limit, self.standing(before: seq)) { state in
            state.lastSeq >= seq ? () : nil
        }
    }

    private func standing(before seq: Int64) -> String {
        let state = current
        let end = state.client?.heard.current.closed
        let known = progress.current.problems.prefix(5)
        return "\(user): \(seq), is at \(state.lastSeq), closed: \(String(describing: end)), problems: \(known)"
    }

    private func publish(_ text: String, id: String, to client: TestClient) {
        client.send(text: #"{"type":"message","room":"\#(room.name)","text":"\#(text)","id":"\#(id)"}"#)
    }

    private func take(_ message: JSON) -> Bool {
        let isHeld = state.update { state in
            guard state.fillingTo != nil, ["message", "ack"].contains(message["type"]?.string) else { return false }
            state.held.append(message)
            return true
        }
        if isHeld { return true }
        switch message["type"]?.string {
        case "gap": return fill(message)
        case "history": return filled(message)
        case "message":
            guard let seq = message["seq"]?.int, let text = message["text"]?.string else { break }
            let tag = message["tag"]?.string
            let found = state.update { Self.place(seq, text, tag, in: &$0) }
            if let found { problem("message: \(found)") }
            return true
        case "ack":
            guard let seq = message["seq"]?.int, let id = message["id"]?.string else { break }
            let tag = message["tag"]?.string
            let isDuplicate = message["duplicate"]?.bool == true
            let found = state.update { state -> String? in
                let wasRead = seq <= state.readTo
                guard let text = state.unacknowledged.removeValue(forKey: id) else { return "a second ack for \(id)" }
                state.acknowledged.append((seq, text))
                // Sent again after a reconnect, and placed by the recovery already.
                if isDuplicate || wasRead, state.placed[seq] == text { return nil }
                return Self.place(seq, text, tag, in: &state)
            }
            if let found { problem("ack: \(found)") }
            progress.update { $0.acks += 1 }
            start()
            return true
        case "presence", "typing": return true
        case "error": again(message)
        default: break
        }
        return false
    }

    /// A retryable error: sends the same again under its id, when the server says.
    private func again(_ error: JSON) {
        guard sendsAgain, let id = error["id"]?.string, let delay = error["retry_ms"]?.int,
            let text = current.unacknowledged[id]
        else { return problem(error.text) }
        progress.update { $0.retries += 1 }
        DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(Int(delay))) { [self] in
            if let client = current.client { publish(text, id: id, to: client) }
        }
    }

    /// Reads the history from where this client stands, as any client would that is told of a gap.
    private func fill(_ gap: JSON) -> Bool {
        let client = state.update { state -> TestClient? in
            guard let to = gap["to"]?.int, gap["from"]?.int == state.lastSeq + 1 else { return nil }
            state.fillingTo = to
            return state.client
        }
        guard let client else {
            problem(gap.text)
            return true
        }
        askForHistory(client)
        return true
    }

    private func filled(_ history: JSON) -> Bool {
        guard history["id"]?.string == "fill" else { return true }
        let (again, held, found) = state.update { state -> (TestClient?, [JSON], [String]) in
            var found: [String] = []
            let before = state.lastSeq
            for message in history["messages"]?.array ?? [] {
                let (seq, text) = (message["seq"]?.int ?? -1, message["text"]?.string ?? "-")
                if let wrong = Self.place(seq, text, message["tag"]?.string, in: &state) { found.append(wrong) }
                state.readTo = state.lastSeq
            }
            if let to = state.fillingTo, state.lastSeq < to, state.lastSeq > before { return (state.client, [], found) }
            defer { (state.fillingTo, state.held) = (nil, []) }
            return (nil, state.held, found)
        }
        for wrong in found { problem("history: \(wrong)") }
        if let again { askForHistory(again) }
        // What was read as history may also have come live meanwhile.
        let reached = state.current.lastSeq
        for message in held where message["type"]?.string == "ack" || (message["seq"]?.int ?? 0) > reached {
            _ = take(message)
        }
        return true
    }

    private func askForHistory(_ client: TestClient) {
        client.send([
            "type": "history", "room": .string(room.name), "after": .int(state.current.lastSeq), "limit": 100,
            "id": "fill",
        ])
    }

    private static func place(_ seq: Int64, _ text: String, _ tag: String?, in state: inout State) -> String? {
        guard seq == state.lastSeq + 1 else {
            return "\(seq) (\(text)) after \(state.lastSeq)\(state.placed[seq].map { ", had \($0) there" } ?? "")"
        }
        state.lastSeq = seq
        state.lastTag = tag
        state.placed[seq] = text
        return nil
    }

    private func problem(_ text: String) {
        let name = "\(user) in \(room.name)"
        progress.update { $0.problems.append("\(name): \(text)") }
    }
}
