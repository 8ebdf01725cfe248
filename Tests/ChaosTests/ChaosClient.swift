import ChatCore
import Synchronization
import TestSupport

/// A user as one who cannot afford to lose a message: stays connected through a router with backoff, takes up its room
/// after the last message it has, sends again under the same id until the ack comes or the id is too old, resumes its
/// session where the server lets it, and takes everything down for the ``Checker``.
final class ChaosClient: Sendable {
    struct Settings: Sendable {
        var ports: [Int]
        /// Milliseconds between two messages of this client; `nil`: it listens.
        var interval: Int64?
        /// Its instance says so, and a proxy knows it by that.
        var isSlow = false
        /// Silent for so long, the connection is pinged; for ``patience``, it is given up.
        var pingAfter: Int64 = 1000
        var patience: Int64 = 4000
        /// No more than this is on its way: what a user would type into a dead line.
        var window = 40
        /// Bytes that each message carries beside its text.
        var padding = 0
    }

    private struct State {
        var position = ClientPosition()
        var random: FastRandom
        var connection: TestClient?
        /// Counts connections: frames of an earlier one are nobody's.
        var number = 0
        var isJoined = false
        /// As the last `welcome` named it.
        var node = ""
        var joinAgain: Int64?
        var isToldToMove = false
        var lastHeard: Int64 = 0
        var pinged: Int64 = 0
        var session: (id: String, secret: String)?
        var published = 0
        var nextPublish: Int64?
        var isStopped = false
        var isAway = false
        /// Goes to the next router after each connection that failed.
        var port: Int
        var violations: [String] = []
        var closedAsSlow = 0
    }

    let user: String
    let room: String
    let settings: Settings
    private let recorder: Recorder
    private let state: Mutex<State>

    init(user: String, room: String, settings: Settings, seed: UInt64, recorder: Recorder) {
        (self.user, self.room, self.settings, self.recorder) = (user, room, settings, recorder)
        var random = FastRandom(seed: seed)
        let port = Int.random(in: 0..<settings.ports.count, using: &random)
        state = Mutex(State(random: random, port: port))
    }

    // MARK: What a run asks

    var position: ClientPosition { state.withLock { $0.position } }
    var closedAsSlow: Int { state.withLock { $0.closedAsSlow } }
    var node: String { state.withLock { $0.node } }
    var isJoined: Bool { state.withLock { $0.isJoined } }
    var violations: [String] { state.withLock { $0.violations + ($0.connection?.violations ?? []) } }

    func publish(from start: Int64?) {
        state.withLock { state in
            // Spread over the interval, or all would speak at once.
            state.nextPublish = start.map {
                $0 + Int64.random(in: 0..<max(1, settings.interval ?? 1), using: &state.random)
            }
        }
    }

    func noteMembers() { note(.members(position.members)) }

    /// Goes without a word, or comes back.
    func stayAway(_ isAway: Bool) {
        let connection = state.withLock { state in
            state.isAway = isAway
            return state.connection
        }
        if isAway { connection?.abort() }
    }

    func stop() {
        let connection = state.withLock { state in
            state.isStopped = true
            return state.connection
        }
        connection?.abort()
    }

    // MARK: Connecting

    /// Stays connected until it is stopped.
    func run() async {
        var failures = 0
        while !state.withLock({ $0.isStopped }) {
            while state.withLock({ $0.isAway && !$0.isStopped }) { try? await Task.sleep(for: .milliseconds(50)) }
            let began = recorder.now
            let code = await live()
            if recorder.now - began > 10_000 { failures = 0 }
            // The server spreads those whom it tells to move.
            if code == 4000, state.withLock({ $0.isToldToMove }) { continue }
            let wait = state.withLock { state -> Int64 in
                // Full jitter (docs/protocol.md, close codes): 4100–4199 back off first.
                let bound = min(Int64(30_000), 1000 << min(failures, 10))
                let jitter = Int64.random(in: 0..<bound, using: &state.random)
                return jitter + (4100..<4200 ~= Int(code) ? 2000 : 0)
            }
            failures += 1
            try? await Task.sleep(for: .milliseconds(wait))
        }
    }

    /// One connection from its beginning to its end.
    ///
    /// - Returns: the close code.
    private func live() async -> UInt16 {
        let (number, port, resumes) = state.withLock { state in
            state.number += 1
            state.isToldToMove = false
            state.lastHeard = recorder.now
            return (state.number, settings.ports[state.port % settings.ports.count], state.session != nil)
        }
        var options = TestClient.Options()
        // A herd is served as fast as the machine can: who gives up early only asks again.
        options.timeout = .milliseconds(2 * settings.patience)
        options.tap = { [self] client, message in
            take(message, from: client, number)
            return true
        }
        let name = Session.percentEncoded(user)
        let path = "/ws?user=\(name)&client=\(instance)" + (resumes ? "&resume=1" : "")
        do {
            let client = try await TestClient.connect(port: port, path: path, options: options)
            let isWanted = state.withLock { state in
                guard !state.isStopped else { return false }
                state.connection = client
                state.lastHeard = recorder.now
                return true
            }
            if !isWanted { client.abort() }
            if isWanted, resumes { authenticate(client) }
            let end = try await client.closed(within: .seconds(3600))
            over(client)
            if end.code == 4001 { state.withLock { $0.closedAsSlow += 1 } }
            if end.code == 1006 { state.withLock { $0.port += 1 } }
            return end.code
        } catch {
            state.withLock { $0.port += 1 }
            return 0
        }
    }

    private var instance: String { (settings.isSlow ? "slow-" : "chaos-") + Session.percentEncoded(user) }

    private func authenticate(_ client: TestClient) {
        let message = state.withLock { state -> JSON in
            var message: [String: JSON] = [
                "type": "auth", "user": .string(user), "client": .string(instance),
                "rooms": [join(state.position)],
            ]
            if let session = state.session {
                message["resume"] = ["session": .string(session.id), "secret": .string(session.secret)]
            }
            return .object(message)
        }
        client.send(message)
    }

    private func join(_ position: ClientPosition) -> JSON {
        var join: [String: JSON] = ["room": .string(room)]
        if let since = position.since { join["since"] = since }
        return .object(join)
    }

    private func over(_ client: TestClient) {
        state.withLock { state in
            state.connection = nil
            state.violations += client.violations
            state.joinAgain = nil
            guard state.isJoined else { return }
            state.isJoined = false
            note(.disconnected(lastHeard: state.lastHeard))
        }
    }

    private func note(_ event: Observation.Event) { recorder.note(event, of: user, in: room) }

    // MARK: Time

    /// All that is due: pings, the end of a silent connection, sending again, publishing. Called about ten times a second.
    func tick(_ now: Int64) {
        let gone = state.withLock { state -> TestClient? in
            guard let client = state.connection else {
                publish(&state, now)
                return nil
            }
            let silence = now - state.lastHeard
            if silence > settings.patience * (settings.isSlow ? 2 : 1) { return client }
            if silence > settings.pingAfter, now - state.pinged > settings.pingAfter {
                state.pinged = now
                client.send(["type": "ping"])
            }
            if let due = state.joinAgain, due <= now {
                state.joinAgain = nil
                client.send(joinMessage(state.position))
            }
            publish(&state, now)
            guard state.isJoined else { return nil }
            if state.position.mustAskForMembers {
                state.position.askedForMembers()
                client.send(["type": "presence", "room": .string(room)])
            }
            sendDue(&state, client, now)
            return nil
        }
        gone?.abort()
    }

    private func joinMessage(_ position: ClientPosition) -> JSON {
        guard case .object(var message) = join(position) else { return .null }
        message["type"] = "join"
        message["id"] = "join"
        return .object(message)
    }

    private func publish(_ state: inout State, _ now: Int64) {
        guard let interval = settings.interval, let due = state.nextPublish, due <= now else { return }
        state.nextPublish = max(due + interval, now - interval)
        guard state.position.unacknowledged.count < settings.window else { return }
        state.published += 1
        let (id, text) = ("\(state.published)", "\(user)-\(state.published)")
        note(.published(id: id, text: text))
        state.position.unacknowledged.append(.init(id: id, text: text, again: now))
    }

    /// All that has not been sent on this connection or may be sent again, in the order of publishing. Under the lock, or
    /// two threads would send in another order than they took.
    private func sendDue(_ state: inout State, _ client: TestClient, _ now: Int64) {
        for old in state.position.outdated(at: now) { note(.gaveUp(id: old.id)) }
        for index in state.position.unacknowledged.indices {
            guard let again = state.position.unacknowledged[index].again, again <= now else { continue }
            let message = state.position.unacknowledged[index]
            state.position.unacknowledged[index].again = nil
            state.position.unacknowledged[index].firstSent = message.firstSent ?? now
            note(.sent(id: message.id))
            var frame: [String: JSON] = [
                "type": "message", "room": .string(room), "text": .string(message.text), "id": .string(message.id),
            ]
            if settings.padding > 0 { frame["data"] = .string(String(repeating: "x", count: settings.padding)) }
            client.send(.object(frame))
        }
    }

    // MARK: Frames

    private func take(_ message: JSON, from client: TestClient, _ number: Int) {
        state.withLock { state in
            guard state.number == number else { return }
            state.lastHeard = recorder.now
            digest(message, from: client, &state)
        }
    }

    private func digest(_ message: JSON, from client: TestClient, _ state: inout State) {
        switch message["type"]?.string {
        case "welcome":
            let resumed = state.session != nil
            if message["resumed"]?.bool == true { note(.resumed) }
            state.node = message["node"]?.string ?? ""
            if let id = message["session"]?.string, let secret = message["secret"]?.string {
                state.session = (id, secret)
            }
            // With a session to resume the rooms went along.
            if !resumed { client.send(joinMessage(state.position)) }
        case "joined":
            let recovered = message["recovered"]?.bool
            note(
                .joined(
                    epoch: message["epoch"]?.string ?? "", seq: message["seq"]?.int ?? -1, recovered: recovered))
            state.position.joined(message)
            state.isJoined = true
            let now = recorder.now
            for index in state.position.unacknowledged.indices { state.position.unacknowledged[index].again = now }
            sendDue(&state, client, now)
        case "message":
            let (seq, text) = (message["seq"]?.int ?? -1, message["text"]?.string ?? "")
            note(.delivered(seq: seq, text: text))
            state.position.advance(to: seq, tag: message["tag"]?.string)
        case "ack":
            guard let id = message["id"]?.string, let seq = message["seq"]?.int else { break }
            note(.acknowledged(id: id, seq: seq, isDuplicate: message["duplicate"]?.bool == true))
            state.position.unacknowledged.removeAll { $0.id == id }
            state.position.advance(to: seq, tag: message["tag"]?.string)
        case "gap":
            let (epoch, to) = (message["epoch"]?.string ?? "", message["to"]?.int ?? 0)
            note(.gap(epoch: epoch, from: message["from"]?.int ?? 0, to: to))
            state.position.gap(epoch: epoch, to: to)
        case "presence":
            let left = ClientPosition.users(message["left"])
            if !left.isEmpty { note(.presence(pv: message["pv"]?.int ?? 0, left: left)) }
            state.position.presence(message)
        case "error": refused(message, &state)
        case "reconnect": state.isToldToMove = true
        case "left": note(.rejected(id: "left", code: -1))
        default: break
        }
    }

    private func refused(_ error: JSON, _ state: inout State) {
        let id = error["id"]?.string ?? ""
        let delay = error["retry_ms"]?.int
        if let index = state.position.unacknowledged.firstIndex(where: { $0.id == id }) {
            if let delay {
                note(.refused(id: id))
                state.position.unacknowledged[index].again = recorder.now + delay
            } else {
                note(.rejected(id: id, code: error["code"]?.int ?? 0))
                state.position.unacknowledged.remove(at: index)
            }
        } else if let delay {
            if id == "join" || id.isEmpty { state.joinAgain = recorder.now + delay }
        } else {
            note(.rejected(id: id, code: error["code"]?.int ?? 0))
        }
    }
}
