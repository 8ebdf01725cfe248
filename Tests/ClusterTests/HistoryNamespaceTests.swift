import Synchronization
import TestSupport
import Testing

@Suite("Histories by namespace")
struct HistoryNamespaceTests {
    @Test("a room keeps what its namespace says, also of what an operator publishes; others keep the standard")
    func byNamespace() async throws {
        let options = Cluster.Options(
            nodes: 1,
            configuration: """
                {
                  "history_messages": 5,
                  "namespaces": {
                    "short": {"history": {"messages": 2, "age": "1h"}}, "none": {"history": {"messages": 0}},
                    "dm": {"history": {"messages": 3}}, "other": {}
                  }
                }
                """)
        try await Machine.with(options) { cluster in
            let session = try await cluster.connect("alice", to: 0)
            @Sendable func kept(_ room: String) async throws -> Int? {
                session.client.send(["type": "history", "room": .string(room), "id": .string("of \(room)")])
                return try await session.client.next("history", id: "of \(room)")["messages"]?.array?.count
            }
            for (room, count) in [("short:1", 2), ("none:1", 0), ("other", 5), ("short", 5)] {
                try await session.join(room)
                for number in 1...8 { try await session.say("\(number)", in: room) }
                if room == "none:1" {
                    let output = try await MartletProgram.run(
                        ["admin", "publish", room, "from outside"], environment: cluster.environment)
                    #expect(output.exit == .status(0), "\(output.errorText)")
                }
                #expect(try await kept(room) == count, "\(room)")
            }
            for number in 1...8 {
                session.client.send(["type": "direct", "to": "bob", "text": "hi", "id": .string("d\(number)")])
                _ = try await session.client.next("ack", id: "d\(number)")
            }
            #expect(try await kept("dm:alice:bob") == 3)
        }
    }

    @Test("G2: who comes back gets all that its room's namespace keeps, also more than others keep")
    func recovery() async throws {
        let options = Cluster.Options(
            nodes: 2, environment: ["MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"],
            configuration: #"{"namespaces": {"big": {"history": {"messages": 3000}}}}"#)
        try await Machine.with(options) { cluster in
            let (room, count) = ("big:\(newRoom())", 1300)
            let alice = try await cluster.connect("alice", to: 0)
            let epoch = try #require(try await alice.join(room)["epoch"])
            for number in 1...count {
                alice.client.send([
                    "type": "message", "room": .string(room), "text": "x", "id": .string("\(number)"),
                ])
            }
            _ = try await alice.client.next("ack", id: "\(count)")
            let bob = try await cluster.connect("bob", to: 1)
            let answer = try await bob.join(room, ["since": ["epoch": epoch, "seq": 0]])
            #expect(answer["recovered"]?.bool == true)
            for number in 1...count {
                #expect(try await bob.client.next("message")["seq"]?.int == Int64(number))
            }
        }
    }

    @Test("G3: an id is known for two minutes, also where the history is shorter")
    func shortHistory() async throws {
        let brief = #"{"history": {"messages": 100, "age": "1s"}}"#
        let options = Cluster.Options(
            nodes: 2, configuration: #"{"namespaces": {"brief": \#(brief), "dm": \#(brief)}}"#)
        try await Machine.with(options) { cluster in
            let room = "brief:\(newRoom())"
            func say(on node: Int) async throws -> JSON {
                let session = try await cluster.connect("alice", to: node, client: "laptop")
                try await session.join(room)
                session.client.send(["type": "message", "room": .string(room), "text": "once", "id": "only"])
                let ack = try await session.client.next("ack", id: "only")
                session.client.send(["type": "direct", "to": "bob", "text": "once", "id": "only-bob"])
                let direct = try await session.client.next("ack", id: "only-bob")
                session.client.close()
                return .array([ack, direct])
            }
            let first = try await say(on: 0)
            for log in ["{r:\(room)}:log", "{r:dm:alice:bob}:log"] {
                try await poll(within: .seconds(20), "\(log) to expire") {
                    try await cluster.redis.command("EXISTS", cluster.key(log)).int == 0 ? () : nil
                }
            }
            let again = try await say(on: 1)
            for index in 0..<2 {
                #expect(again.array?[index]["duplicate"]?.bool == true)
                #expect(again.array?[index]["seq"] == first.array?[index]["seq"])
            }
        }
    }

    @Test("what is too old is read by nobody and is not in Redis, also while a member stays and nobody says anything")
    func ageInQuietRoom() async throws {
        let options = Cluster.Options(
            nodes: 2, configuration: #"{"namespaces": {"brief": {"history": {"age": "1s"}}}}"#)
        try await Machine.with(options) { cluster in
            let room = "brief:\(newRoom())"
            let alice = try await cluster.connect("alice", to: 0)
            let epoch = try #require(try await alice.join(room)["epoch"])
            try await alice.say("one", in: room)
            @Sendable func seqs(_ id: Int) async throws -> [Int64] {
                alice.client.send(["type": "history", "room": .string(room), "id": .string("h\(id)")])
                let page = try await alice.client.next("history", id: "h\(id)")
                return page["messages"]?.array?.compactMap { $0["seq"]?.int } ?? []
            }
            let reads = Mutex(0)
            try await poll(within: .seconds(20), "the history to be empty") {
                try await seqs(
                    reads.withLock {
                        $0 += 1; return $0
                    }
                ).isEmpty ? () : nil
            }
            let output = try await MartletProgram.run(
                ["admin", "history", room, "--json"], environment: cluster.environment)
            #expect(try JSON(parsing: output.text)["messages"]?.array?.isEmpty == true)
            try await poll(within: .seconds(20), "the log to end") {
                try await cluster.redis.command("EXISTS", cluster.key("{r:\(room)}:log")).int == 0 ? () : nil
            }
            // Who missed it hears that, and numbers go on.
            let bob = try await cluster.connect("bob", to: 1)
            let answer = try await bob.join(room, ["since": ["epoch": epoch, "seq": 0]])
            #expect(answer["recovered"]?.bool != true)
            #expect(answer["seq"]?.int == 1)
            let gap = try await bob.client.next("gap")
            #expect((gap["from"]?.int, gap["to"]?.int) == (1, 1))
            try await alice.say("two", in: room)
            #expect(try await bob.client.next("message")["seq"]?.int == 2)
        }
    }
}
