import TestSupport
import Testing

/// Private messages to a node that cannot hear them. Nothing of these conversations was heard there before.
@Suite("Private messages through deafness")
struct DirectTests {
    private func direct(_ text: String, to user: String, from session: Session) async throws {
        let id = String(text.prefix(20))
        session.client.send(["type": "direct", "to": .string(user), "text": .string(text), "id": .string(id)])
        let answer = try await session.client.next("the answer to \(id)") {
            $0["id"]?.string == id && ["ack", "error"].contains($0["type"]?.string)
        }
        #expect(answer["type"]?.string == "ack", "\(answer.text)")
    }

    private func seqs(_ session: Session) -> [Int64] {
        session.client.heard.current.all.filter { $0["type"]?.string == "message" }.compactMap { $0["seq"]?.int }
    }

    /// Node b stands still while `body` runs, and its subscription is cut.
    private func whileDeaf(_ cluster: Cluster, _ body: () async throws -> Void) async throws {
        cluster.nodes[1].pause()
        try await cluster.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        try await cluster.nodes[0].waitUntilReady()
        try await body()
        cluster.nodes[1].resume()
    }

    private let options = Cluster.Options(nodes: 2, environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"])

    @Test(
        "G1 G2: many, and heavy ones, all come in order when the node hears again",
        arguments: [(250, 20), (12, 40_000)])
    func many(count: Int, bytes: Int) async throws {
        try await Machine.with(options) { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            let filling = String(repeating: "x", count: bytes)
            try await whileDeaf(cluster) {
                for number in 1...count { try await direct("\(number) \(filling)", to: "bob", from: alice) }
            }
            _ = try await bob.client.next("the last", within: .seconds(20)) { $0["seq"]?.int == Int64(count) }
            #expect(seqs(bob) == Array(1...Int64(count)))
            try await direct("and live", to: "bob", from: alice)
            _ = try await bob.client.next("the live one") { $0["text"]?.string == "and live" }
        }
    }

    @Test("G2: also when the node stood still for longer than anything is remembered", .patience)
    func long() async throws {
        try await Machine.with(options) { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            try await whileDeaf(cluster) {
                for number in 1...3 { try await direct("\(number)", to: "bob", from: alice) }
                try await Task.sleep(for: .seconds(25))
            }
            _ = try await bob.client.next("the last", within: .seconds(20)) { $0["seq"]?.int == 3 }
            #expect(seqs(bob) == [1, 2, 3])
        }
    }

    @Test("G1 G2: a live message does not overtake what was missed, whoever goes on talking")
    func overtaking() async throws {
        try await Machine.with(options) { cluster in
            let bob = try await cluster.connect("bob", to: 1)
            var talkers: [Session] = []
            for number in 0..<10 { talkers.append(try await cluster.connect("talker-\(number)", to: 0)) }
            func say(_ text: String) async throws {
                for talker in talkers { try await direct(text, to: "bob", from: talker) }
            }
            try await whileDeaf(cluster) { for number in 1...10 { try await say("missed \(number)") } }
            for number in 1...60 { try await say("live \(number)") }
            for talker in talkers {
                _ = try await bob.client.next("the last of \(talker.user)", within: .seconds(20)) {
                    $0["from"]?.string == talker.user && $0["seq"]?.int == 70
                }
                let heard = bob.client.heard.current.all.filter { $0["from"]?.string == talker.user }
                #expect(heard.compactMap { $0["seq"]?.int } == Array(1...70), "\(talker.user)")
            }
        }
    }

    @Test("G2: a Redis that is found again is told anew of the rooms in which somebody talks")
    func noted() async throws {
        try await Machine.with(options) { cluster in
            let alice = try await cluster.connect("alice", to: 0)
            let rooms = cluster.key("{u:bob}:directs")
            try await direct("one", to: "bob", from: alice)
            // As another would have it, that took over and was a little behind.
            try await cluster.redis.command("DEL", rooms)
            try await cluster.redis.command("CLIENT", "KILL", "TYPE", "normal")
            try await direct("two", to: "bob", from: alice)
            #expect(try await cluster.redis.command("ZRANGE", rooms, "0", "-1").strings == ["dm:alice:bob"])
            // Redis forgets everything, and no connection breaks.
            try await cluster.redis.command("FLUSHALL")
            try await direct("three", to: "bob", from: alice)
            try await poll(within: .seconds(5), "the note to be there again") {
                try await cluster.redis.command("EXISTS", rooms).int == 1 ? () : nil
            }
        }
    }

    @Test("G1: the sender whose own node is deaf gets each ack once, in its place")
    func acks() async throws {
        try await Machine.with(options) { cluster in
            _ = try await cluster.connect("bob", to: 1)
            let alice = try await cluster.connect("alice", to: 0)
            for number in 1...30 {
                alice.client.send(["type": "direct", "to": "bob", "text": "x", "id": .string("\(number)")])
                try await cluster.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            }
            let acks = try await poll(within: .seconds(30), "30 acks") {
                let acks = alice.client.heard.current.all.filter { $0["type"]?.string == "ack" }
                return acks.count >= 30 ? acks : nil
            }
            try await direct("last", to: "bob", from: alice)
            #expect(acks.compactMap { $0["seq"]?.int } == Array(1...30))
            #expect(acks.allSatisfy { $0["tag"] != nil })
            #expect(alice.client.heard.current.all.filter { $0["type"]?.string == "ack" }.count == 31)
        }
    }
}
