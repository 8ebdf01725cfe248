import MartletClient
import TestSupport

/// A client of a conformance scenario, and what it was told.
final class ConformancePlayer: Sendable {
    struct Message: Sendable {
        let room: String
        let seq: Int64
        let text: String?
    }

    struct Gap: Sendable, Equatable {
        let room: String
        let from: Int64?
        let to: Int64
    }

    struct Record: Sendable {
        var states: [String] = []
        /// Of the last welcome.
        var node: String?
        /// Of each welcome.
        var sessions: [String] = []
        var messages: [Message] = []
        var gaps: [Gap] = []
        var joined: [JoinedRoom] = []
        /// Room (of private messages `dm:` and the other user) and what became of each own message: `acked`, `failed` or
        /// `unknown`.
        var fates: [(room: String, fate: String)] = []
        var members: [String: [String: String]] = [:]
        /// Room and user, whenever a list lacks who was in the one before.
        var departures: [(room: String, user: String)] = []
        var typing: [String: [String]] = [:]
        /// Rooms that the server took the client out of.
        var left: [String] = []
        /// How often it was told that its token ends.
        var expiring = 0

        mutating func add(_ event: MartletEvent) {
            switch event {
            case .state(.connecting): states.append("connecting")
            case .state(.online(let node, let session)):
                states.append("online")
                self.node = node
                sessions.append(session)
            case .state(.waiting): states.append("waiting")
            case .state(.closed): states.append("closed")
            case .joined(let joined): self.joined.append(joined)
            case .message(let message):
                messages.append(Message(room: message.room, seq: message.seq, text: message.text))
            case .gap(let room, let from, let to): gaps.append(Gap(room: room, from: from, to: to))
            case .presence(let presence):
                let room = presence.room
                let now = Dictionary(presence.members.map { ($0.user, $0.status) }, uniquingKeysWith: { $1 })
                departures += (members[room] ?? [:]).keys.filter { now[$0] == nil }.map { (room, $0) }
                members[room] = now
            case .typing(let room, let users): typing[room] = users
            case .left(let room, _): self.left.append(room)
            case .tokenExpiring: expiring += 1
            case .newest, .refused: return
            }
        }
    }

    let client: MartletClient
    let record = Watched(Record())

    init(
        url: String, credential: MartletClient.Credential, tls: MartletClient.TLSOptions = .init()
    ) throws {
        client = try MartletClient(url: url, credential: credential, tls: tls)
        let events = client.events()
        Task { [record] in
            for await event in events { record.update { $0.add(event) } }
        }
    }

    func join(_ rooms: [String]) {
        for room in rooms {
            Task { [client] in try await client.join(room) }
        }
    }

    /// Whether the client refuses the call without the server's word.
    func refusesToJoin(_ room: String) async -> Bool {
        do {
            try await client.join(room)
            return false
        } catch {
            return (error as? MartletError)?.kind == .invalidArgument
        }
    }

    enum Destination {
        case room(String)
        case user(String)
    }

    func send(_ texts: [String], to destination: Destination) {
        for text in texts {
            let (room, posted) =
                switch destination {
                case .room(let name): (name, client.post(text, to: name))
                case .user(let name): ("dm:\(name)", client.postDirect(text, to: name))
                }
            Task { [record] in
                let fate: String
                do {
                    try await posted.acknowledgement()
                    fate = "acked"
                } catch {
                    fate = (error as? MartletError)?.kind == .outcomeUnknown ? "unknown" : "failed"
                }
                record.update { $0.fates.append((room, fate)) }
            }
        }
    }
}

/// Waits until the client was told what makes it so.
func see(
    _ player: ConformancePlayer, _ what: String, _ isSo: @escaping @Sendable (ConformancePlayer.Record) -> Bool
) async throws {
    _ = try await player.record.wait(within: .seconds(40), "\(what), but \(player.record.current)") {
        isSo($0) ? true : nil
    }
}
