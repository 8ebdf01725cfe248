import MartletClient
import TestSupport
import Testing

/// The Swift SDK loses its connections on a real cluster.
@Suite("The Swift SDK comes back to its session")
struct ClientResumeTests {
    @Test("G2 G4: a client whose node is killed goes on in its session on another, and nobody sees it go")
    func killedNode() async throws {
        let environment = ["MARTLET_RESUME_GRACE_SECONDS": "30", "MARTLET_LEASE_SECONDS": "3"]
        let options = Cluster.Options(nodes: 3, routers: 1, environment: environment)
        try await Machine.with(options, weight: 2) { cluster in
            let room = newRoom()
            let url = "ws://127.0.0.1:\(cluster.routers[0].port)/ws"
            let alice = try ConformancePlayer(url: url, credential: .user("alice"))
            let states = alice.client.states()
            alice.client.connect()
            alice.join([room])
            try await see(alice, "alice to be in the room") { !$0.joined.isEmpty }
            let home = try #require(alice.record.current.node)
            let node = try #require(cluster.nodes.first { $0.name == home })
            let elsewhere = try #require(cluster.nodes.first { $0.name != home })
            // Whose place moves when the node is swept.
            let other = newRoom("other")
            try await cluster.connect("bystander", to: node).join(other)
            let watcher = try await cluster.connect("watcher", to: elsewhere)
            try await watcher.join(room)

            await node.kill()
            alice.send(["typed while away"], to: .room(room))
            try await watcher.say("missed", in: room)
            try await see(alice, "alice to have what was said") { record in
                Set(record.messages.compactMap(\.text)) == ["missed", "typed while away"]
                    && record.fates.map(\.fate) == ["acked"] && record.node != home
            }
            _ = try await watcher.hears("typed while away", in: room)
            let record = alice.record.current
            #expect(record.joined.last?.recovered == true)
            #expect(record.sessions.count >= 2 && Set(record.sessions).count == 1, "\(record.sessions)")
            #expect(record.gaps == [])

            try await poll(within: .seconds(20), "the sweep of \(home)") {
                try await !cluster.sessionsInRedis(of: other).values.contains { $0.hasPrefix("\(home).") } ? () : nil
            }
            #expect(try await watcher.users(of: room) == ["alice", "watcher"])
            #expect(watcher.presenceCounts("left", of: room).isEmpty)
            #expect(alice.client.bufferedAmount == 0)
            #expect(alice.client.roundTrip != nil)

            // Who closes is gone long before the grace is over.
            alice.client.close()
            try await watcher.sees("left", "alice", in: room, within: .seconds(10))
            var last: ConnectionState?
            for await state in states { last = state }
            #expect(last == .closed(code: 1000, reason: ""))
        }
    }

    @Test("G4: a client whose line is cut again and again stays in its session, and others do not see it flap")
    func cuts() async throws {
        let options = Cluster.Options(nodes: 2, environment: ["MARTLET_RESUME_GRACE_SECONDS": "30"])
        try await Machine.with(options) { cluster in
            let room = newRoom()
            let line = try await FaultProxy.start(to: cluster.nodes[0].port)
            let alice = try ConformancePlayer(url: "ws://127.0.0.1:\(line.port)/ws", credential: .user("alice"))
            let watcher = try await cluster.connect("watcher", to: 1)
            try await watcher.join(room)
            alice.client.connect()
            alice.join([room])
            for round in 1...3 {
                try await see(alice, "alice to be in the room") { $0.joined.count >= round }
                await line.cut()
            }
            try await see(alice, "alice to be back") { $0.joined.count >= 4 && $0.states.last == "online" }
            try await watcher.say("all there?", in: room)
            try await see(alice, "alice to hear") { $0.messages.map(\.text) == ["all there?"] }
            #expect(Set(alice.record.current.sessions).count == 1)
            #expect(watcher.presenceCounts("left", of: room).isEmpty)
            #expect(watcher.presenceCounts("joined", of: room) == ["alice": 1])

            // A status set without a connection comes along.
            await line.refuse(true)
            await line.cut()
            try await see(alice, "the loss") { $0.states.last == "waiting" }
            alice.client.setPresence(.away)
            await line.refuse(false)
            try await watcher.sees("updated", "alice", in: room, within: .seconds(40))
            #expect(watcher.presenceCounts("left", of: room).isEmpty)
            alice.client.close()
            try await watcher.sees("left", "alice", in: room, within: .seconds(10))
            await line.stop()
        }
    }
}
