import WireProtocol

// Who this client is, and how it comes back to its session (`docs/protocol.md`, "Coming back").
extension ClientStateMachine {
    /// What the user's provider gave for this attempt.
    mutating func connect(withToken token: String, now: Int64) -> [Effect] {
        guard case .connecting = phase else { return [] }
        phase = .connecting(since: now)
        self.token = token
        return [.connect(resuming: comesBack)]
    }

    /// What the first frame of this attempt shows.
    var firstToken: String? {
        switch identity {
        case .user: nil
        case .token(let token): token
        case .provider: token
        }
    }

    /// The socket is open. Behind the `auth` of who comes back nothing more is said before `welcome`: the server takes any
    /// further word as proof that the new secret came here.
    mutating func opened() -> [Effect] {
        saidPresence = presence
        guard comesBack else { return newcomer() }
        let id = nextID("join-")
        var named: [(name: String, since: ClientFrame.Position?)] = []
        for name in rooms.keys.sorted() where leaving[name] == nil && !isRoomless {
            guard let position = rooms[name]?.sequence.position else { continue }
            rooms[name]?.joinID = id
            named.append((name, position))
        }
        introduction = Introduction(id: id, rooms: Set(named.map(\.name)))
        let proof =
            switch identity {
            case .user(let name): (kind: "user", value: name)
            case .token(let token): (kind: "token", value: token)
            case .provider: (kind: "token", value: token ?? "")
            }
        return [
            .send(
                ClientFrame.comeBack(
                    place, as: proof, client: client, status: presence.rawValue, rooms: named,
                    directs: beganAt.map { ($0, namedDirects) }, id: id))
        ]
    }

    /// A server that wants to know who this is, and was not told, says so to the second frame at once.
    private func newcomer() -> [Effect] {
        let auth: [Effect] =
            firstToken.map { [.send(ClientFrame.auth(token: $0, client: client, id: Self.authID))] } ?? []
        return auth + [.send(ClientFrame.status(presence.rawValue))]
    }

    /// The rooms that the first frame named are joined by the server, in the session of before or in a new one.
    mutating func welcome(_ frame: ServerFrame.Welcome, now: Int64) -> [Effect] {
        guard case .connecting = phase else { return [] }
        phase = .online(since: now)
        user = frame.user
        limits = frame.limits
        outbox.begin(Pace(perSecond: limits.messagesPerSecond, now: now))
        // The server counts what introduced this client too.
        for _ in 0..<(introduction == nil && !identity.isUser ? 2 : 1) { outbox.pace.count() }
        place = frame.secret.map { Place(session: frame.session, secret: $0) }
        beganAt = beganAt ?? frame.beganAt
        isRoomless = false
        if !frame.isResumed {
            leaving = leaving.filter { introduction?.rooms.contains($0.key) == true }
            for name in rooms.keys { rooms[name]?.isOfSession = false }
        }
        var effects: [Effect] = [.emit(.state(.online(node: frame.node, session: frame.session)))]
        effects += refuseTooLarge()
        if presence != saidPresence { effects.append(say(ClientFrame.status(presence.rawValue))) }
        for (name, leave) in leaving.sorted(by: { $0.key < $1.key }) {
            effects.append(sendLeave(name, id: leave.id, now: now))
        }
        var others: [String] = []
        for name in rooms.keys.sorted() {
            if let introduction, rooms[name]?.joinID == introduction.id {
                rooms[name]?.isOfSession = true
                rooms[name]?.joinAgainAt = now + Self.resumePatience
            } else {
                others.append(name)
            }
        }
        return effects + sendJoin(others) + flush(now: now)
    }

    /// The server can't do it in one frame: it goes on as a new session, and with one join after the other.
    mutating func resumeRefused(_ message: String, now: Int64) -> [Effect] {
        place = nil
        if isRoomless { beganAt = nil }
        isRoomless = true
        phase = .waiting
        return disconnect() + [.abandon] + retry(now: now)
    }
}
