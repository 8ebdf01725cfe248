import Foundation
import Glibc
import TestSupport
import Testing

/// Many publishers at once while a node dies. STORM_RUNS=10 runs the storm that often.
@Suite("Order and once, under load and the death of a node", .serialized)
struct StormTests {
    static let runs = Int(ProcessInfo.processInfo.environment["STORM_RUNS"] ?? "") ?? 1

    @Test(
        "G1 G2 G3: 20,000 messages and a killed node: each survivor sees each message once, all in one order",
        .patience,
        arguments: 1...runs
    )
    func killedNode(run: Int) async throws {
        let options = Cluster.Options(environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"])
        try await Machine.with(options, weight: Machine.capacity) { cluster in
            let progress = Watched(StormProgress())
            let rooms = (1...5).map { StormRoom(name: newRoom("storm\($0)"), messages: 4000) }
            // Six users a room, two on each node; the first, on node-a, only listens.
            var clients: [(node: Int, client: StormClient)] = []
            for room in rooms {
                for user in 0..<6 {
                    let client = StormClient(
                        user: "\(room.name)-u\(user)",
                        room: room,
                        isPublisher: user > 0,
                        progress: progress
                    )
                    clients.append((user % 3, client))
                }
            }
            for (node, client) in clients { try await client.connect(cluster, to: node) }
            for (_, client) in clients { client.start() }

            try await progress.wait(within: .seconds(120), "6,000 acks") { $0.acks >= 6000 ? () : nil }
            await cluster.nodes[2].kill()
            let survivors = clients.filter { $0.node != 2 }.map(\.client)
            for client in survivors where client.isPublisher {
                try await client.waitUntilAcknowledged(within: .seconds(180))
            }

            let sent = clients.map(\.client.current.sent).reduce(0, +)
            #expect(sent == 20_000)
            for room in rooms {
                let here = clients.map(\.client).filter { $0.room === room }
                let living = survivors.filter { $0.room === room }
                let end = try #require(living.flatMap { $0.current.acknowledged.map(\.seq) }.max())
                for client in living { try await client.waitUntilPlaced(end, within: .seconds(30)) }
                let reference = try #require(living.first).current.placed
                #expect(Set(reference.keys) == Set(1...Int64(reference.count)), "seq has no hole")
                #expect(Set(reference.values).count == reference.count, "no message has two seqs")
                for client in living {
                    // What a dead publisher has no ack for is with all of them or with none.
                    #expect(client.current.placed == reference, "\(client.user) sees what the others see")
                }
                for client in here {
                    for (seq, text) in client.current.acknowledged where reference[seq] != text {
                        Issue.record("acknowledged as \(seq), but lost: \(text); there is \(reference[seq] ?? "-")")
                    }
                }
                let unknown = here.filter { client in !living.contains { $0 === client } }
                    .flatMap { $0.current.unacknowledged.values }
                let known = here.flatMap { $0.current.acknowledged.map(\.text) }
                #expect(Set(reference.values).subtracting(known).isSubset(of: unknown))
            }
            let problems = progress.current.problems
            #expect(problems.isEmpty, "\(problems.count) problems, first \(problems.prefix(5))")
        }
    }

    @Test(
        "G1 G2 G3: clients of a killed node resume on another and send again: nothing lost, nothing doubled",
        .patience
    )
    func resume() async throws {
        let options = Cluster.Options(environment: [
            "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0", "MARTLET_HISTORY_MESSAGES": "10000",
        ])
        try await Machine.with(options, weight: Machine.capacity) { cluster in
            let progress = Watched(StormProgress())
            let rooms = (1...2).map { StormRoom(name: newRoom("resume\($0)"), messages: 2000) }
            var clients: [(node: Int, client: StormClient)] = []
            for room in rooms {
                for user in 0..<6 {
                    let client = StormClient(
                        user: "\(room.name)-u\(user)",
                        room: room,
                        isPublisher: true,
                        progress: progress
                    )
                    clients.append((user % 3, client))
                }
            }
            for (node, client) in clients { try await client.connect(cluster, to: node) }
            for (_, client) in clients { client.start() }
            try await progress.wait(within: .seconds(60), "1,000 acks") { $0.acks >= 1000 ? () : nil }
            await cluster.nodes[2].kill()
            var target = 0
            for (_, client) in clients.filter({ $0.node == 2 }) {
                try await client.current.client?.closed()
                try await client.connect(cluster, to: target)
                target = 1 - target
            }
            for (_, client) in clients { try await client.waitUntilAcknowledged(within: .seconds(120)) }

            for room in rooms {
                let here = clients.map(\.client).filter { $0.room === room }
                for client in here { try await client.waitUntilPlaced(2000, within: .seconds(30)) }
                let reference = try #require(here.first).current.placed
                #expect(reference.count == 2000)
                #expect(Set(reference.values).count == 2000)
                for client in here { #expect(client.current.placed == reference, "\(client.user)") }
            }
            let problems = progress.current.problems
            #expect(problems.isEmpty, "\(problems.count) problems, first \(problems.prefix(5))")
        }
    }

    @Test(
        "G1 G2 G3 G5: connections to Redis cut and scripts forgotten all the while: nothing lost, nothing doubled",
        .patience)
    func cutConnections() async throws {
        // Backoff grows with each cut, and a node that is deaf for a second misses more than 1,000 messages here.
        let options = Cluster.Options(environment: [
            "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0", "MARTLET_HISTORY_MESSAGES": "10000",
        ])
        try await Machine.with(options, weight: Machine.capacity) { cluster in
            let progress = Watched(StormProgress())
            let rooms = (1...2).map { StormRoom(name: newRoom("cut\($0)"), messages: 3000) }
            let clients = rooms.flatMap { room in
                (0..<6).map { user in
                    StormClient(
                        user: "\(room.name)-u\(user)", room: room, isPublisher: true, sendsAgain: true,
                        progress: progress)
                }
            }
            for (index, client) in clients.enumerated() { try await client.connect(cluster, to: index % 3) }
            let (members, pv) = (6, 6)
            for client in clients { client.start() }
            // Each cut comes when some more has gone through, so that there is always something to lose.
            let cuts = [
                ["CLIENT", "KILL", "TYPE", "pubsub"], ["SCRIPT", "FLUSH"], ["CLIENT", "KILL", "TYPE", "normal"],
            ]
            for round in 0..<12 {
                let goal = min(progress.current.acks + 300, 5500)
                try await progress.wait(within: .seconds(60), "\(goal) acks") { $0.acks >= goal ? () : nil }
                let words = cuts[round % cuts.count]
                try await cluster.redis.command(words)
            }
            for client in clients { try await client.waitUntilAcknowledged(within: .seconds(120)) }
            for room in rooms {
                let here = clients.filter { $0.room === room }
                for client in here { try await client.waitUntilPlaced(3000, within: .seconds(30)) }
                let reference = try #require(here.first).current.placed
                #expect(reference.count == 3000)
                #expect(Set(reference.values).count == 3000)
                for client in here { #expect(client.current.placed == reference, "\(client.user)") }
                let witness = try await cluster.connect("witness-of-\(room.name)", to: 0)
                let joined = try await witness.join(room.name)
                #expect(joined["count"]?.int == Int64(members + 1))
                #expect(joined["pv"]?.int == Int64(pv + 1), "nobody left or came meanwhile")
            }
            let problems = progress.current.problems
            #expect(problems.isEmpty, "\(problems.count) problems, first \(problems.prefix(5))")
        }
    }
}
