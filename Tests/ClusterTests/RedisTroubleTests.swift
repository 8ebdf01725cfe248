import TestSupport
import Testing

/// Redis pauses, fills up, dies. The tests wait most of the time, each beside its own cluster.
@Suite("A broken backplane is visible and harms nobody")
struct RedisTroubleTests {
    @Test(
        "G4 G5: Redis paused for 30 s: nobody leaves, each publish is answered within 5 s, readiness says so",
        .patience
    )
    func paused() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom("paused")
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            let sessions = [alice, bob]
            for session in sessions { try await session.join(room) }
            try await alice.say("before", in: room)
            _ = try await bob.hears("before", in: room)

            cluster.redis.pause()
            let pause = ContinuousClock.now
            for node in cluster.nodes {
                try await node.waitForReadiness(503, within: .seconds(10) - pause.duration(to: .now))
                let answer = try await node.get("/readyz")
                #expect(!answer.text.isEmpty, "says why")
                #expect(try await node.get("/healthz").status == 200, "the process lives all the same")
            }
            var unanswered: [(session: Session, id: String, text: String)] = []
            var number = 0
            while pause.duration(to: .now) < .seconds(28) {
                number += 1
                for session in sessions {
                    let (id, text) = ("p\(number)", "\(session.user) in the pause \(number)")
                    do {
                        try await session.say(text, in: room, id: id, within: .seconds(5))
                    } catch let refusal as Refusal {
                        expectRetryable(refusal)
                        unanswered.append((session, id, text))
                    }
                }
                // The pace of a person who tries again, for as long as the outage lasts.
                try await Task.sleep(for: .seconds(2))
            }
            try await Task.sleep(until: pause + .seconds(30), clock: .continuous)
            cluster.redis.resume()

            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(20)) }
            // Sent again under their ids, all are stored, each once.
            for (session, id, text) in unanswered {
                try await sayUntilStored(text, id: id, in: room, by: session, within: .seconds(15))
            }
            try await alice.say("after", in: room)
            _ = try await bob.hears("after", in: room)
            let carol = try await cluster.connect("carol", to: 0)
            try await carol.join(room)
            for session in sessions {
                try await session.sees("joined", "carol", in: room)
                #expect(session.presenceCounts("left", of: room).isEmpty)
                #expect(try await session.users(of: room) == ["alice", "bob", "carol"])
                #expect(session.client.isOpen)
                let others = session.messages(in: room).compactMap { $0["text"]?.string }
                #expect(Set(others).count == others.count, "each message once: \(others)")
            }
            let stored = try await history(of: room, asSeenBy: carol)
            let texts = stored.compactMap { $0["text"]?.string }
            #expect(Set(texts).count == texts.count, "stored once: \(texts)")
            #expect(Set(texts).isSuperset(of: unanswered.map(\.text)))
        }
    }

    @Test(
        "G4 G5: Redis full for 60 s: no node is fenced, nobody leaves, the sender gets a retryable error",
        .patience
    )
    func outOfMemory() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom("full")
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            let dave = try await cluster.connect("dave", to: 1)
            for session in [alice, bob, dave] { try await session.join(room) }
            try await alice.say("before", in: room)
            _ = try await bob.hears("before", in: room)
            let before = try await incarnations(cluster)
            #expect(before.count == 2)

            try await cluster.redis.command("CONFIG", "SET", "maxmemory", "1")
            let start = ContinuousClock.now
            var number = 0
            while start.duration(to: .now) < .seconds(55) {
                number += 1
                do {
                    try await alice.say("full \(number)", in: room, id: "f\(number)", within: .seconds(5))
                    Issue.record("stored without memory")
                } catch let refusal as Refusal {
                    expectRetryable(refusal)
                    #expect(refusal.reason == "storage_full", "\(refusal)")
                }
                if number == 2 {
                    // To leave needs no memory.
                    dave.client.close()
                    try await bob.sees("left", "dave", in: room)
                }
                try await Task.sleep(for: .seconds(4))
            }
            try await Task.sleep(until: start + .seconds(60), clock: .continuous)
            #expect(try await incarnations(cluster) == before, "no node was fenced or replaced")
            for node in cluster.nodes { #expect(node.process?.isRunning == true) }
            try await cluster.redis.command("CONFIG", "SET", "maxmemory", "0")

            try await sayUntilStored("after", id: "after", in: room, by: alice, within: .seconds(10))
            _ = try await bob.hears("after", in: room)
            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(10)) }
            let carol = try await cluster.connect("carol", to: 1)
            try await carol.join(room)
            for session in [alice, bob] {
                try await session.sees("joined", "carol", in: room)
                #expect(session.presenceCounts("left", of: room) == ["dave": 1])
                #expect(session.client.isOpen)
                #expect(try await session.users(of: room) == ["alice", "bob", "carol"])
            }
        }
    }

    @Test(
        "G2 G4 G5: redis-server killed and started again: the cluster heals by itself, no client is disconnected",
        .patience
    )
    func restarted() async throws {
        try await Machine.with(Cluster.Options(nodes: 3, isDurable: true)) { cluster in
            let room = newRoom("restarted")
            var sessions: [Session] = []
            for node in 0..<3 {
                let session = try await cluster.connect("user-\(node)", to: node)
                try await session.join(room)
                sessions.append(session)
            }
            let first = try await sessions[0].say("before", in: room)
            for session in sessions.dropFirst() { _ = try await session.hears("before", in: room) }

            await cluster.redis.kill()
            for node in cluster.nodes { try await node.waitForReadiness(503, within: .seconds(10)) }
            do {
                try await sessions[1].say("without Redis", in: room, id: "w1", within: .seconds(5))
                Issue.record("stored without Redis")
            } catch let refusal as Refusal {
                expectRetryable(refusal)
            }
            // One goes while nobody can write it down.
            let goes = try #require(sessions.last)
            goes.client.close()
            try await goes.client.closed()
            try await cluster.redis.startAgain()

            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(30)) }
            let living = Array(sessions.dropLast())
            for watcher in living {
                _ = try await poll(within: .seconds(30), every: .milliseconds(200), "the members") {
                    try await watcher.users(of: room) == ["user-0", "user-1"] ? true : nil
                }
            }
            try await sayUntilStored("without Redis", id: "w1", in: room, by: sessions[1], within: .seconds(10))
            _ = try await sessions[0].hears("without Redis", in: room)
            let late = try await cluster.connect("late", to: 2)
            let joined = try await late.join(room)
            #expect(joined["seq"]?.int == 2)
            let ack = try await sessions[0].say("after", in: room)
            #expect(ack["seq"]?.int == 3)
            for session in [sessions[1], late] { _ = try await session.hears("after", in: room) }
            let stored = try await history(of: room, asSeenBy: late)
            #expect(stored.compactMap { $0["text"]?.string } == ["before", "without Redis", "after"])
            #expect(stored.first?["ts"] == first["ts"])
            for session in living {
                #expect(session.client.isOpen)
                #expect(session.presenceCounts("left", of: room)["user-0"] == nil)
                #expect(session.presenceCounts("left", of: room)["user-1"] == nil)
            }
        }
    }

    @Test(
        "G2: Redis comes back without its data: clients are told of the gap, and the cluster goes on",
        .patience
    )
    func forgotten() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            let room = newRoom("forgotten")
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            for session in [alice, bob] { try await session.join(room) }
            for number in 1...3 {
                try await alice.say("lost \(number)", in: room)
                _ = try await bob.hears("lost \(number)", in: room)
            }
            await cluster.redis.kill()
            try await cluster.redis.startAgain()
            for node in cluster.nodes { try await node.waitUntilReady(within: .seconds(30)) }
            for session in [alice, bob] {
                _ = try await poll(within: .seconds(30), every: .milliseconds(200), "both present again") {
                    try await session.users(of: room) == ["alice", "bob"] ? true : nil
                }
            }
            try await sayUntilStored("new", id: "new", in: room, by: alice, within: .seconds(10))
            _ = try await bob.client.next("gap", room: room, within: .seconds(15))
            _ = try await bob.hears("new", in: room)
            try await bob.say("hello", in: room)
            _ = try await alice.hears("hello", in: room)
            _ = try await alice.client.next("gap", room: room, within: .seconds(15))
            #expect(alice.client.isOpen && bob.client.isOpen)
        }
    }

    /// A numbered error that says when to try again.
    func expectRetryable(_ refusal: Refusal) {
        #expect(refusal.code != nil, "\(refusal)")
        #expect((refusal.error["retry_ms"]?.int ?? 0) > 0, "\(refusal)")
        #expect(refusal.error["message"]?.string?.isEmpty == false, "\(refusal)")
    }

    /// Says it again under the same id as long as the answer is a retryable error.
    func sayUntilStored(
        _ text: String,
        id: String,
        in room: String,
        by session: Session,
        within limit: Duration
    ) async throws {
        _ = try await poll(within: limit, every: .milliseconds(200), "\(text) to be stored") {
            do {
                return try await session.say(text, in: room, id: id, within: .seconds(5))
            } catch let refusal as Refusal where refusal.error["retry_ms"]?.int != nil {
                return nil
            }
        }
    }

    func history(of room: String, asSeenBy session: Session) async throws -> [JSON] {
        let id = Session.newID()
        session.client.send([
            "type": "history", "room": .string(room), "after": 0, "limit": 100, "id": .string(id),
        ])
        return try await session.client.next("history", id: id)["messages"]?.array ?? []
    }

    /// Incarnations in Redis, each with its state.
    private func incarnations(_ cluster: Cluster) async throws -> [String: String] {
        var states: [String: String] = [:]
        for incarnation in try await cluster.redis.command("HKEYS", cluster.key("nodes")).strings {
            states[incarnation] = try await cluster.redis.command("HGET", cluster.key("{i:\(incarnation)}"), "state")
                .string
        }
        #expect(states.values.allSatisfy { $0 == "live" }, "\(states)")
        return states
    }
}
