import TestSupport
import Testing

/// `MARTLET_ACK_REPLICAS=1`: a Redis with one replica, and a line between the two that can stand still.
@Suite("An ack says that the replicas have the message", .patience)
struct AckReplicasTests {
    private struct Replicated: Sendable {
        let cluster: Cluster
        let replica: ClusterRedis
        let line: FaultProxy

        /// What the master writes reaches nobody any more.
        func holdLine() async {
            var lag = Fault()
            lag.held = [.toClient]
            await line.set(lag)
        }

        func figure(_ name: String, of node: Int) async throws -> Double {
            let text = try await cluster.nodes[node].internals("/metrics").text
            let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
            return line?.split(separator: " ").last.flatMap { Double($0) } ?? -1
        }
    }

    private func with(
        _ environment: [String: String] = [:], proxies: Set<Cluster.ProxyPlace> = [],
        _ body: @Sendable (Replicated) async throws -> Void
    ) async throws {
        let environment = ["MARTLET_ACK_REPLICAS": "1"].merging(environment) { $1 }
        var options = Cluster.Options(nodes: 3, environment: environment, proxies: proxies)
        options.redisMark = "-publish"
        try await Machine.with(options) { cluster in
            let replica = try await ClusterRedis.start()
            let line = try await FaultProxy.start(to: cluster.redis.port)
            do {
                try await replica.follow(line.port)
                try await body(Replicated(cluster: cluster, replica: replica, line: line))
            } catch {
                await line.stop()
                await replica.stop()
                throw error
            }
            await line.stop()
            await replica.stop()
        }
    }

    private func send(_ text: String, id: String, to room: String, by session: Session) {
        session.client.send(["type": "message", "room": .string(room), "text": .string(text), "id": .string(id)])
    }

    private func direct(_ text: String, id: String, to user: String, by session: Session) {
        session.client.send(["type": "direct", "to": .string(user), "text": .string(text), "id": .string(id)])
    }

    private func answer(_ id: String, to session: Session, within limit: Duration = .seconds(5)) async throws -> JSON {
        try await session.client.next("the answer to \(id)", within: limit) {
            $0["id"]?.string == id && ["ack", "error"].contains($0["type"]?.string)
        }
    }

    private func expectRefused(_ id: String, to session: Session) async throws {
        let answer = try await answer(id, to: session)
        #expect(answer["reason"]?.string == "unavailable" && answer["retry_ms"]?.int != nil, "\(answer.text)")
    }

    /// All of a room that a session got, messages and acks, as they came.
    private func seqs(_ room: String, of session: Session) -> [Int64] {
        session.client.heard.current.all.filter {
            $0["room"]?.string == room && ["ack", "message"].contains($0["type"]?.string)
        }.compactMap { $0["seq"]?.int }
    }

    @Test("G1 G2: with a replica in step all are acknowledged, each in its place")
    func inStep() async throws {
        try await with(["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"]) { replicated in
            let (cluster, room) = (replicated.cluster, newRoom("step"))
            let talkers = [
                try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 0),
                try await cluster.connect("carol", to: 1),
            ]
            for talker in talkers { try await talker.join(room) }
            for number in 1...100 {
                for talker in talkers { send("\(number)", id: "\(number)", to: room, by: talker) }
                direct("\(number)", id: "d\(number)", to: "carol", by: talkers[0])
                if number % 10 == 0 { try await Task.sleep(for: .milliseconds(5)) }
            }
            for talker in talkers {
                for number in 1...100 {
                    let answer = try await answer("\(number)", to: talker)
                    #expect(answer["type"]?.string == "ack", "\(answer.text)")
                }
                _ = try await poll(within: .seconds(5), "\(talker.user) to get all") {
                    seqs(room, of: talker).count >= 300 ? true : nil
                }
                #expect(seqs(room, of: talker) == Array(1...300), "\(talker.user)")
            }
            for number in 1...100 { _ = try await answer("d\(number)", to: talkers[0]) }
            #expect(seqs("dm:alice:carol", of: talkers[0]) == Array(1...100))
            let (waits, batches) = (
                try await replicated.figure("martlet_replica_waits_total", of: 0),
                try await replicated.figure("martlet_publish_batches_total", of: 0)
            )
            #expect(waits > 0 && waits <= batches + 2, "\(waits) waits for \(batches) batches")
        }
    }

    @Test("G2 G5: what the replica lacks is refused within 5 s, and acknowledged when it has it, with its first seq")
    func lag() async throws {
        try await with { replicated in
            let (cluster, room) = (replicated.cluster, newRoom("lag"))
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1))
            let (carol, dora) = (try await cluster.connect("carol", to: 0), try await cluster.connect("dora", to: 2))
            for session in [alice, bob, carol] { try await session.join(room) }
            for session in [alice, bob] { try await session.say("hello", in: room, id: "0-\(session.user)") }
            direct("hello", id: "d0", to: "bob", by: dora)
            _ = try await answer("d0", to: dora)

            await replicated.holdLine()
            for session in [alice, bob] { send("lost?", id: "1-\(session.user)", to: room, by: session) }
            direct("lost?", id: "d1", to: "bob", by: dora)
            for session in [alice, bob] { try await expectRefused("1-\(session.user)", to: session) }
            try await expectRefused("d1", to: dora)
            // While it is known that no replica follows, nothing more is stored.
            send("not now", id: "2", to: room, by: alice)
            try await expectRefused("2", to: alice)
            // A duplicate waits for the replicas, too: none has the first try.
            send("lost?", id: "1-alice", to: room, by: alice)
            try await expectRefused("1-alice", to: alice)
            #expect(try await replicated.figure("martlet_replica_waits_short_total", of: 0) > 0)
            for session in [alice, bob, carol] {
                #expect(session.messages(in: room).count { $0["text"]?.string == "not now" } == 0)
            }

            await replicated.line.heal()
            send("lost?", id: "1-alice", to: room, by: alice)
            send("lost?", id: "1-bob", to: room, by: bob)
            direct("lost?", id: "d1", to: "bob", by: dora)
            for (session, id) in [(alice, "1-alice"), (bob, "1-bob"), (dora, "d1")] {
                let text = session.client.heard.current.all.first {
                    $0["text"]?.string == "lost?" && $0["from"]?.string == session.user
                }
                let ack = try await answer(id, to: session)
                #expect(ack["type"]?.string == "ack" && ack["duplicate"]?.bool == true, "\(ack.text)")
                #expect(ack["seq"] == text?["seq"] && text?["id"] == nil, "\(ack.text) of \(text?.text ?? "nothing")")
            }
            try await alice.say("again", in: room)
            for session in [bob, carol] { _ = try await session.hears("again", in: room) }
            #expect(carol.messages(in: room).compactMap { $0["seq"]?.int } == Array(1...5))
            for session in [alice, bob] {
                // The late ack alone comes twice: its message had its place before.
                let own = session.client.heard.current.all.first {
                    $0["id"]?.string == "1-\(session.user)" && $0["duplicate"]?.bool == true
                }
                var seqs = seqs(room, of: session)
                if let seq = own?["seq"]?.int, let late = seqs.lastIndex(of: seq) { seqs.remove(at: late) }
                #expect(seqs == Array(1...5), "\(session.user)")
            }
        }
    }

    @Test("G2: a lag that ends in time costs an ack nothing but the time")
    func shortLag() async throws {
        try await with { replicated in
            let (cluster, room) = (replicated.cluster, newRoom("short"))
            let (alice, bob) = (try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 0))
            for session in [alice, bob] { try await session.join(room) }
            try await alice.say("before", in: room)
            await replicated.holdLine()
            send("held", id: "1", to: room, by: alice)
            try await Task.sleep(for: .milliseconds(2000))
            #expect(!alice.client.heard.current.all.contains { $0["id"]?.string == "1" })
            await replicated.line.heal()
            let ack = try await answer("1", to: alice, within: .seconds(3))
            #expect(ack["type"]?.string == "ack" && ack["seq"]?.int == 2 && ack["duplicate"] == nil, "\(ack.text)")
            _ = try await bob.hears("held", in: room)
            #expect(seqs(room, of: alice) == [1, 2])
        }
    }

    @Test("G2: when the first private message is acknowledged, the replica knows of the room, whatever else got lost")
    func notes() async throws {
        try await with(proxies: [.redis]) { replicated in
            let alice = try await replicated.cluster.connect("alice", to: 0)
            var lost = Fault()
            lost.held = [.toServer]
            await replicated.cluster.proxies.redis[0].set(lost, for: .unmarked)
            direct("hello", id: "1", to: "bob", by: alice)
            let ack = try await answer("1", to: alice)
            #expect(ack["type"]?.string == "ack", "\(ack.text)")
            for user in ["alice", "bob"] {
                let rooms = try await replicated.replica.command(
                    "ZRANGE", replicated.cluster.key("{u:\(user)}:directs"), "0", "-1")
                #expect(rooms.strings == ["dm:alice:bob"], "\(user)")
            }
        }
    }

    @Test("G2 G5: under load it opens again after an outage, also with a replica that is always 200 ms behind")
    func opensAgain() async throws {
        try await with(["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"]) { replicated in
            var talkers: [(session: Session, room: String)] = []
            for number in 1...5 {
                let room = newRoom("load")
                talkers.append((try await replicated.cluster.connect("talker-\(number)", to: 0), room))
                try await talkers.last?.session.join(room)
            }
            var behind = Fault()
            behind.latency = .milliseconds(200)
            var gone = behind
            gone.held = [.toClient]
            await replicated.line.set(behind)
            // The load goes on, about every 20 ms, until each room has an ack for what was said behind the outage.
            func isOpen(_ session: Session) -> Bool {
                session.client.heard.current.all.contains { message in
                    message["type"]?.string == "ack" && message["id"]?.string.flatMap { Int($0) } ?? 0 > 275
                }
            }
            var (number, isOpenAgain) = (0, false)
            while number < 1500, !isOpenAgain {
                number += 1
                if number == 25 { await replicated.line.set(gone) }
                if number == 275 { await replicated.line.set(behind) }
                for (session, room) in talkers { send("\(number)", id: "\(number)", to: room, by: session) }
                try await Task.sleep(for: .milliseconds(20))
                if number > 275, number % 10 == 0 { isOpenAgain = talkers.allSatisfy { isOpen($0.session) } }
            }
            #expect(isOpenAgain)
        }
    }

    @Test("G2: a node that starts without a replica stores nothing, and begins when one follows")
    func noReplica() async throws {
        let options = Cluster.Options(nodes: 1, environment: ["MARTLET_ACK_REPLICAS": "1"])
        try await Machine.with(options) { cluster in
            let room = newRoom("none")
            let alice = try await cluster.connect("alice", to: 0)
            try await alice.join(room)
            send("nobody follows", id: "1", to: room, by: alice)
            try await expectRefused("1", to: alice)
            #expect(try await cluster.redis.command("EXISTS", cluster.key("{r:\(room)}:log")).int == 0)
            _ = try await cluster.nodes[0].logged("that replicas are missing") {
                $0["level"]?.string == "warning" && $0["following"]?.string == "0"
            }
            let replica = try await ClusterRedis.start()
            try await replica.follow(cluster.redis.port)
            send("nobody follows", id: "1", to: room, by: alice)
            let ack = try await answer("1", to: alice)
            #expect(ack["type"]?.string == "ack" && ack["seq"]?.int == 1, "\(ack.text)")
            await replica.stop()
        }
    }

    @Test("G1 G2 G3: connections to Redis cut all the while: each is acknowledged, all come once and in order")
    func cuts() async throws {
        try await with(["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"]) { replicated in
            let (cluster, room, count) = (replicated.cluster, newRoom("cuts"), 200)
            let talkers = [try await cluster.connect("alice", to: 0), try await cluster.connect("bob", to: 1)]
            let listener = try await cluster.connect("carol", to: 0)
            for session in talkers + [listener] { try await session.join(room) }
            for number in 1...count {
                for talker in talkers { send("\(talker.user) \(number)", id: "\(number)", to: room, by: talker) }
                direct("\(number)", id: "d\(number)", to: "bob", by: talkers[0])
                if number % 50 == 25 { try await cluster.redis.command("CLIENT", "KILL", "TYPE", "pubsub") }
                if number % 50 == 0 { try await cluster.redis.command("CLIENT", "KILL", "TYPE", "normal") }
                try await Task.sleep(for: .milliseconds(5))
            }
            for talker in talkers {
                for number in 1...count {
                    let answer = try await answer("\(number)", to: talker, within: .seconds(15))
                    #expect(answer["type"]?.string == "ack", "\(answer.text)")
                }
            }
            for number in 1...count {
                let answer = try await answer("d\(number)", to: talkers[0], within: .seconds(15))
                #expect(answer["type"]?.string == "ack", "\(answer.text)")
            }
            let all = Array(1...Int64(2 * count))
            for session in talkers + [listener] {
                _ = try await poll(within: .seconds(20), "\(session.user) to get all") {
                    seqs(room, of: session).count >= all.count ? true : nil
                }
                #expect(seqs(room, of: session) == all, "\(session.user)")
            }
            for talker in talkers {
                #expect(seqs("dm:alice:bob", of: talker) == Array(1...Int64(count)), "\(talker.user)")
            }
        }
    }

    @Test("G2: who comes back gets own messages without id while the replicas may lack them")
    func comesBack() async throws {
        try await with { replicated in
            let (cluster, room) = (replicated.cluster, newRoom("back"))
            let (alice, bob) = (
                try await cluster.connect("alice", to: 0, client: "one"), try await cluster.connect("bob", to: 1)
            )
            let epoch = try await alice.join(room)["epoch"]?.string ?? ""
            try await bob.join(room)
            try await alice.say("safe", in: room, id: "safe")
            await replicated.holdLine()
            send("unsafe", id: "unsafe", to: room, by: alice)
            _ = try await bob.hears("unsafe", in: room)
            try await expectRefused("unsafe", to: alice)
            let again = try await cluster.connect("alice", to: 0, client: "one")
            try await again.join(room, ["since": ["epoch": .string(epoch), "seq": 0]])
            #expect(try await again.hears("safe", in: room)["id"]?.string == "safe")
            #expect(try await again.hears("unsafe", in: room)["id"] == nil)
        }
    }
}
