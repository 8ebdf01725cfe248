import Glibc
import TestSupport
import Testing

/// How a node and a connection end.
@Suite("Drain, heartbeat and slow clients")
struct LifeTests {
    @Test(
        "SIGTERM: clients are told before they are closed, presence is gone, the exit status is 0",
        .patience
    )
    func drain() async throws {
        let options = Cluster.Options(nodes: 2, environment: ["MARTLET_DRAIN_SECONDS": "6"])
        try await Machine.with(options) { cluster in
            let room = newRoom("drain")
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            var sessions: [Session] = []
            for number in 0..<12 {
                let session = try await cluster.connect("user-\(number)", to: 0)
                try await session.join(room)
                sessions.append(session)
            }
            // One that never answers a Close frame keeps the node from ending at once.
            var deaf = TestClient.Options()
            deaf.answersClose = false
            let stubborn = try await cluster.connect("stubborn", to: 0, options: deaf)
            try await stubborn.join(room)
            let users = sessions.map(\.user) + ["stubborn"]
            for user in users { try await watcher.sees("joined", user, in: room) }

            let node = cluster.nodes[0]
            let start = ContinuousClock.now
            node.terminate()
            try await node.waitForReadiness(503, within: .seconds(3))
            var delays: [Int64] = []
            for session in sessions {
                let reconnect = try await session.client.next("reconnect", within: .seconds(6))
                delays.append(try #require(reconnect["delay_ms"]?.int))
                let closed = try await session.client.closed(within: .seconds(8))
                #expect((4000...4099).contains(closed.code), "\(closed)")
                #expect(!closed.reason.isEmpty)
            }
            #expect(delays.allSatisfy { (1...1000).contains($0) }, "\(delays)")
            #expect(try await node.process?.waitForExit(within: .seconds(10)) == .status(0))
            #expect(start.duration(to: .now) < .seconds(8), "within the drain deadline of 6 s")
            for user in users { try await watcher.sees("left", user, in: room, within: .seconds(3)) }
            #expect(try await watcher.users(of: room) == ["watcher"])
            #expect(Set(try await cluster.sessionsInRedis(of: room).keys) == [watcher.id])
            #expect(watcher.presenceCounts("left", of: room).values.allSatisfy { $0 == 1 })
            // Nothing of it is left that another would have to sweep.
            let keys = try await cluster.redis.command("KEYS", "*node-a*").strings
            #expect(!keys.contains { $0.contains("{i:") }, "\(keys)")

            // It starts again under its name, and its clients find their room.
            try await node.start()
            try await node.waitUntilReady()
            let back = try await cluster.connect("user-0", to: 0)
            try await back.join(room)
            try await watcher.say("welcome back", in: room)
            _ = try await back.hears("welcome back", in: room)
        }
    }

    @Test("a client that no longer answers pings is gone after interval and timeout", .patience)
    func heartbeat() async throws {
        let options = Cluster.Options(
            nodes: 1,
            environment: ["MARTLET_HEARTBEAT_SECONDS": "2", "MARTLET_HEARTBEAT_TIMEOUT_SECONDS": "2"]
        )
        try await Machine.with(options) { cluster in
            let room = newRoom("heartbeat")
            let alive = try await cluster.connect("alive", to: 0)
            try await alive.join(room)
            var dead = TestClient.Options()
            dead.answersPings = false
            let silent = try await cluster.connect("silent", to: 0, options: dead)
            try await silent.join(room)
            let start = ContinuousClock.now
            try await alive.sees("joined", "silent", in: room)

            let closed = try await silent.client.closed(within: .seconds(8))
            #expect(closed.code == 4002, "\(closed)")
            #expect(start.duration(to: .now) > .seconds(2), "not before the timeout")
            try await alive.sees("left", "silent", in: room, within: .seconds(3))
            // The other was asked as often, answered, and stays.
            try await alive.client.heard.wait(within: .seconds(10), "pings") { $0.pings >= 2 ? () : nil }
            #expect(alive.client.isOpen)
            try await alive.client.roundTrip()
        }
    }

    @Test("G6, T22: a client that does not read is closed; the others get everything", .patience)
    func slowClient() async throws {
        let options = Cluster.Options(
            nodes: 2,
            environment: [
                "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0", "MARTLET_LIMIT_OUTBOUND_BYTES": "262144",
                // A client that reads nothing answers no ping either; here that must not come first.
                "MARTLET_HEARTBEAT_TIMEOUT_SECONDS": "600",
            ]
        )
        try await Machine.with(options) { cluster in
            let room = newRoom("slow")
            let talker = try await cluster.connect("talker", to: 1)
            let healthy = try await cluster.connect("healthy", to: 0)
            let slow = try await cluster.connect("slow", to: 0)
            for session in [talker, healthy, slow] { try await session.join(room) }
            slow.client.setReads(false)
            // More than the kernel's buffers and the outbound limit hold together.
            let text = String(repeating: "z", count: 30_000)
            var sent = 0
            let isGone = Watched(false)
            async let gone: Void = {
                try await healthy.sees("left", "slow", in: room, within: .seconds(60))
                isGone.update { $0 = true }
            }()
            while !isGone.current, sent < 2000 {
                sent += 1
                try await talker.say("\(sent) \(text)", in: room)
            }
            try await gone
            try await talker.say("last", in: room)
            _ = try await healthy.hears("last", in: room)
            #expect(healthy.messages(in: room).count == sent + 1, "the healthy one has all")
            #expect(healthy.messages(in: room).compactMap { $0["seq"]?.int } == Array(1...Int64(sent + 1)))
            let line = try await cluster.nodes[0].logged("the end of slow") {
                $0["session"]?.string == slow.id && $0["code"] != nil
            }
            #expect(line["code"]?.int ?? line["code"]?.string.flatMap { Int64($0) } == 4001, "\(line.text)")
        }
    }
}
