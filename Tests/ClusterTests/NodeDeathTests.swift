import TestSupport
import Testing

/// Nodes that die or stand still. Each test has a cluster of its own and mostly waits, so they run side by side.
@Suite("Presence heals when a node dies")
struct NodeDeathTests {
    @Test(
        "G4: after SIGKILL of a node its users leave on all others within 15 s, each once",
        .patience
    )
    func killedNode() async throws {
        try await Machine.with { cluster in
            let rooms = [newRoom("one"), newRoom("two")]
            var watchers: [Session] = []
            for node in 0..<2 {
                let watcher = try await cluster.connect("watcher-\(node)", to: node)
                for room in rooms { try await watcher.join(room) }
                watchers.append(watcher)
            }
            let users = (0..<12).map { "user-\($0)" }
            for (index, user) in users.enumerated() {
                let session = try await cluster.connect(user, to: 2)
                try await session.join(rooms[0])
                if index % 2 == 0 { try await session.join(rooms[1]) }
            }
            // Also on a living node: this one must not leave.
            let twin = try await cluster.connect(users[0], to: 0)
            try await twin.join(rooms[0])
            let gone = [
                rooms[0]: Set(users.dropFirst()),
                rooms[1]: Set(users.indices.filter { $0 % 2 == 0 }.map { users[$0] }),
            ]
            for watcher in watchers {
                for room in rooms { for user in gone[room] ?? [] { try await watcher.sees("joined", user, in: room) } }
            }

            await cluster.nodes[2].kill()
            let death = ContinuousClock.now
            for watcher in watchers {
                for room in rooms {
                    for user in gone[room] ?? [] {
                        let limit = Duration.seconds(15) - death.duration(to: .now)
                        try await watcher.sees("left", user, in: room, within: max(limit, .milliseconds(1)))
                    }
                }
            }
            // A change after all others is the last: what was emitted twice has been seen by then.
            let marker = try await cluster.connect("marker", to: 1)
            for room in rooms {
                try await marker.join(room)
                for watcher in watchers {
                    try await watcher.sees("joined", "marker", in: room)
                    let left = watcher.presenceCounts("left", of: room)
                    #expect(Set(left.keys) == gone[room], "\(watcher.user) in \(room)")
                    #expect(left.values.allSatisfy { $0 == 1 }, "\(watcher.user) in \(room): \(left)")
                    let living = Set(["watcher-0", "watcher-1", "marker"] + (room == rooms[0] ? [users[0]] : []))
                    #expect(try await Set(watcher.users(of: room)) == living)
                    #expect(try await cluster.usersInRedis(of: room) == living)
                }
                try expectUnbrokenVersions(of: room, at: watchers)
            }
        }
    }

    @Test(
        "G4: a node stopped for 20 s is swept and fenced, and its users come back without ghosts",
        .patience
    )
    func stoppedNode() async throws {
        try await Machine.with { cluster in
            let room = newRoom("stopped")
            let watchers = [
                try await cluster.connect("watcher-0", to: 0), try await cluster.connect("watcher-1", to: 1),
            ]
            for watcher in watchers { try await watcher.join(room) }
            let users = (0..<5).map { "sleeper-\($0)" }
            var sleepers: [Session] = []
            for user in users {
                let session = try await cluster.connect(user, to: 2)
                try await session.join(room)
                sleepers.append(session)
            }
            for watcher in watchers { for user in users { try await watcher.sees("joined", user, in: room) } }

            let stop = ContinuousClock.now
            cluster.nodes[2].pause()
            for watcher in watchers {
                for user in users {
                    let limit = Duration.seconds(15) - stop.duration(to: .now)
                    try await watcher.sees("left", user, in: room, within: max(limit, .milliseconds(1)))
                }
            }
            // Not a wait for something to happen: the outage itself has this length.
            try await Task.sleep(until: stop + .seconds(20), clock: .continuous)
            cluster.nodes[2].resume()

            // A client that is told to reconnect, or closed, does so; one that is left alone does nothing.
            var living: [Session] = []
            for sleeper in sleepers {
                living.append(try await comeBack(sleeper, to: room, cluster))
            }
            for watcher in watchers {
                _ = try await poll(within: .seconds(20), every: .milliseconds(200), "all users back") {
                    let here = Set(try await watcher.users(of: room))
                    return here == Set(users + ["watcher-0", "watcher-1"]) ? true : nil
                }
            }
            let ids = Set((living + watchers).map(\.id))
            _ = try await poll(within: .seconds(20), every: .milliseconds(200), "Redis to hold the live sessions alone")
            {
                Set(try await cluster.sessionsInRedis(of: room).keys) == ids ? true : nil
            }
            #expect(try await cluster.usersInRedis(of: room) == Set(users + ["watcher-0", "watcher-1"]))
            // Everyone hears everyone again.
            for session in living + watchers {
                try await session.say("hello from \(session.user)", in: room)
                for other in living + watchers where other.user != session.user {
                    _ = try await other.hears("hello from \(session.user)", in: room)
                }
            }
            // And a user who goes now is gone: no ghost holds a place.
            living[0].client.close()
            for watcher in watchers {
                _ = try await poll(within: .seconds(10), "\(users[0]) gone") {
                    try await !watcher.users(of: room).contains(users[0]) ? true : nil
                }
            }
            for watcher in watchers {
                let left = watcher.presenceCounts("left", of: room)
                let joined = watcher.presenceCounts("joined", of: room)
                #expect(left[users[1]] == 1, "left once: \(left)")
                #expect(joined[users[1]] == 2, "joined at first and when it came back: \(joined)")
            }
        }
    }

    @Test("G4: a user with sessions on two nodes leaves only with the second", .patience)
    func twoSessions() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let user = newUser("twice")
            let watcher = try await cluster.connect(newUser("watcher"), to: 2)
            try await watcher.join(room)
            let first = try await cluster.connect(user, to: 0)
            let second = try await cluster.connect(user, to: 1)
            try await first.join(room)
            try await second.join(room)
            try await watcher.sees("joined", user, in: room)

            first.client.close()
            try await first.client.closed()
            _ = try await poll(within: .seconds(5), "one session left in Redis") {
                try await cluster.sessionsInRedis(of: room).count == 2 ? true : nil
            }
            let marker = try await cluster.connect(newUser("marker"), to: 0)
            try await marker.join(room)
            try await watcher.sees("joined", marker.user, in: room)
            #expect(watcher.presenceCounts("left", of: room).isEmpty)
            #expect(try await watcher.users(of: room).contains(user))

            second.client.abort()
            try await watcher.sees("left", user, in: room)
            #expect(watcher.presenceCounts("joined", of: room)[user] == 1)
            #expect(watcher.presenceCounts("left", of: room) == [user: 1])
            #expect(try await watcher.users(of: room) == [watcher.user, marker.user].sorted())
            try expectUnbrokenVersions(of: room, at: [watcher])
        }
    }

    /// `pv` rises by one with each membership change: what the events carry has no hole.
    private func expectUnbrokenVersions(of room: String, at watchers: [Session]) throws {
        for watcher in watchers {
            var last: Int64?
            for event in watcher.presenceEvents(of: room) {
                let pv = try #require(event["pv"]?.int)
                let changes = ["joined", "left", "updated"].map { event[$0]?.array?.count ?? 0 }.reduce(0, +)
                if let last { #expect(pv == last + Int64(changes), "\(watcher.user): \(event.text) after \(last)") }
                last = pv
            }
        }
    }

    /// Waits until the session serves again, or was ended or asked to go; then it joins anew on another node.
    private func comeBack(_ sleeper: Session, to room: String, _ cluster: Cluster) async throws -> Session {
        let mark = Session.newID()
        sleeper.client.send(["type": "ping", "id": .string(mark)])
        let stays = try await sleeper.client.heard.wait(within: .seconds(20), "\(sleeper.user) to be served or told") {
            heard -> Bool? in
            if heard.closed != nil || heard.all.contains(where: { $0["type"]?.string == "reconnect" }) { return false }
            return heard.all.contains { $0["type"]?.string == "pong" && $0["id"]?.string == mark } ? true : nil
        }
        if stays { return sleeper }
        let closed = try await sleeper.client.closed(within: .seconds(20))
        #expect((4000...4099).contains(closed.code), "told to reconnect: \(closed)")
        let again = try await cluster.connect(sleeper.user, to: 0)
        try await again.join(room)
        return again
    }
}
