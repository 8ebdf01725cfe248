import MartletClient
import Synchronization
import TestSupport
import Testing

/// The Swift SDK on a real cluster, through the scenarios that every SDK has to pass.
@Suite("Conformance of the Swift SDK")
struct ConformanceTests {
    /// As the server has it by default; other tests want sessions that end with their connection.
    private static let grace = ["MARTLET_RESUME_GRACE_SECONDS": "30"]
    private static let shared = Task {
        try await Cluster.start(Cluster.Options(nodes: 3, routers: 1, environment: grace))
    }

    @Test("There are scenarios to pass")
    func scenarios() {
        #expect(ConformanceScenario.all.count >= 18)
    }

    @Test("G2 G3: the Swift SDK does what every SDK must do on a real cluster", arguments: ConformanceScenario.all)
    func conforms(_ scenario: ConformanceScenario) async throws {
        if !scenario.node.isEmpty {
            let environment = Self.grace.merging(scenario.node) { $1 }
            try await Machine.with(Cluster.Options(nodes: 1, environment: environment)) { cluster in
                try await ConformancePlay.run(scenario, on: cluster, at: cluster.nodes[0])
            }
        } else if scenario.killsNodes {
            let options = Cluster.Options(nodes: 3, routers: 1, environment: Self.grace)
            try await Machine.with(options, weight: 2) { cluster in
                try await ConformancePlay.run(scenario, on: cluster, at: cluster.routers[0])
            }
        } else {
            try await Machine.with {
                let cluster = try await Self.shared.value
                try await ConformancePlay.run(scenario, on: cluster, at: cluster.routers[0])
            }
        }
    }
}

/// One scenario on its way, with users and rooms that no other has.
private struct ConformancePlay {
    static let patience: Duration = .seconds(60)

    let cluster: Cluster
    let door: ClusterProcess
    let suffix: String
    let players: [String: ConformancePlayer]
    let lines: [String: FaultProxy]

    static func run(_ scenario: ConformanceScenario, on cluster: Cluster, at door: ClusterProcess) async throws {
        let suffix = "-\(UInt32.random(in: 0...UInt32.max))"
        var players: [String: ConformancePlayer] = [:]
        var lines: [String: FaultProxy] = [:]
        for (name, person) in scenario.people {
            let line = try await FaultProxy.start(to: door.port)
            lines[name] = line
            players[name] = try ConformancePlayer(
                url: "ws://127.0.0.1:\(line.port)/ws", credential: credential(of: person, in: scenario, suffix))
        }
        let play = ConformancePlay(cluster: cluster, door: door, suffix: suffix, players: players, lines: lines)
        do {
            for step in scenario.steps { try await play.take(step) }
            play.checkOrder()
        } catch {
            await play.end()
            throw error
        }
        await play.end()
    }

    private struct NoToken: Error {}

    private static func credential(
        of person: ConformanceScenario.Person, in scenario: ConformanceScenario, _ suffix: String
    ) -> MartletClient.Credential {
        let user = person.user + suffix
        let secret = ["MARTLET_TOKEN_SECRET": scenario.node["MARTLET_TOKEN_SECRET"] ?? ""]
        guard person.token != "bad" else { return .token("eyJ.x.y") }
        guard let tokens = person.tokens ?? (person.token == nil ? nil : [[:]]) else { return .user(user) }
        let asked = Mutex(0)
        return .tokenProvider {
            let number = asked.withLock { asked in
                defer { asked += 1 }
                return min(asked, tokens.count - 1)
            }
            guard tokens[number].object != nil else { throw NoToken() }
            var arguments = ["token", "mint", user]
            if let seconds = tokens[number]["seconds"]?.int { arguments += ["--hours", "\(Double(seconds) / 3600)"] }
            if let rooms = tokens[number]["rooms"]?.object {
                let named = JSON.object(Dictionary(uniqueKeysWithValues: rooms.map { ($0.key + suffix, $0.value) }))
                arguments += ["--rooms", named.text]
            }
            let minted = try await MartletProgram.run(arguments, environment: secret)
            return minted.text.filter { !$0.isWhitespace }
        }
    }

    private func end() async {
        for player in players.values { player.client.close() }
        for line in lines.values { await line.stop() }
    }

    private func take(_ step: ConformanceScenario.Step) async throws {
        let name = try #require(step.client)
        let player = try #require(players[name])
        let line = try #require(lines[name])
        if step.expectation != nil {
            _ = try await player.record.wait(
                within: Self.patience, "\(name) to see \(step), but it saw \(player.record.current)"
            ) { try? matches(step, $0) ? true : nil }
            return
        }
        let room = step.room + suffix
        switch step.action {
        case "connect": player.client.connect()
        case "join" where step.json["refused"]?.bool == true:
            for room in step.rooms { #expect(await player.refusesToJoin(unique(room)), "\(step)") }
        case "join": player.join(step.rooms.map(unique))
        case "leave": player.client.leave(room)
        case "send":
            player.send(step.texts, to: step.json["to"]?.string.map { .user($0 + suffix) } ?? .room(room))
            if step.json["close"]?.bool == true { player.client.close() }
        case "status":
            player.client.setPresence(try #require(step.json["status"]?.string.flatMap(Presence.init(rawValue:))))
        case "typing": player.client.setTyping(true, in: room)
        case "close": player.client.close()
        case "cut": await line.cut()
        case "block":
            await line.refuse(true)
            await line.cut()
        case "unblock": await line.refuse(false)
        case "kill the node":
            let node = player.record.current.node
            await (try #require(cluster.nodes.first { $0.name == node })).kill()
        case "direct":
            let sender = try await cluster.connect((step.json["from"]?.string ?? "") + suffix, to: door)
            for text in step.texts {
                sender.client.send([
                    "type": "direct", "to": .string(name + suffix), "text": .string(text), "id": .string(text),
                ])
                _ = try await sender.client.next("ack", id: text)
            }
            sender.client.close()
        default: Issue.record("no step is called \(step)")
        }
    }

    private func unique(_ room: String) -> String { room.isEmpty ? room : room + suffix }

    private func matches(_ step: ConformanceScenario.Step, _ record: ConformancePlayer.Record) throws -> Bool {
        let room = step.room + suffix
        func isHere(_ name: String) -> Bool { step.room == "dm" ? name.hasPrefix("dm:") : name == room }
        switch step.expectation {
        case "state": return record.states.last == step.json["state"]?.string
        case "messages":
            return record.messages.filter { isHere($0.room) }.map(\.text) == step.texts
        case "joined":
            let joined = record.joined.filter { $0.room == room }
            guard let last = joined.last, joined.count >= step.number("times") ?? 1 else { return false }
            return step.json["recovered"].map { $0.bool == last.recovered } ?? true
        case "gap":
            return record.gaps.contains {
                isHere($0.room) && $0.from == step.json["from"]?.int && $0.to == step.json["to"]?.int
            }
        case "fates":
            let fates = record.fates.filter { isHere($0.room) }.map(\.fate)
            return ["acked", "failed", "unknown"].allSatisfy { fate in
                fates.count { $0 == fate } == step.number(fate) ?? 0
            }
        case "members":
            let expected = step.json["members"]?.object?.map { ($0.key + suffix, $0.value.string ?? "") } ?? []
            return record.members[room] == Dictionary(uniqueKeysWithValues: expected)
        case "expiring": return record.expiring >= step.number("times") ?? 1
        case "one connection": return record.states.count { $0 == "online" } == 1
        case "left": return record.left.contains(room)
        case "nobody left": return !record.departures.contains { $0.room == room }
        case "typing": return record.typing[room] ?? [] == step.strings("users").map { $0 + suffix }
        default:
            Issue.record("no expectation is called \(step)")
            return true
        }
    }

    /// No client may be told a message twice, or one before its predecessor.
    private func checkOrder() {
        for (name, player) in players {
            var last: [String: Int64] = [:]
            for message in player.record.current.messages {
                #expect(message.seq > last[message.room] ?? 0, "\(name) got \(message) after \(last)")
                last[message.room] = message.seq
            }
        }
    }
}
