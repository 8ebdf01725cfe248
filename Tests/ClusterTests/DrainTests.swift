import Foundation
import MartletClient
import TestSupport
import Testing

/// How the clients of a node leave it.
@Suite("A node that drains", .patience)
struct DrainTests {
    @Test("sends its clients away at the rate that is set, one after the other, and tells each a second before")
    func paced() async throws {
        let options = Cluster.Options(
            nodes: 2, environment: ["MARTLET_DRAIN_SECONDS": "60", "MARTLET_DRAIN_RATE": "10"])
        try await Machine.with(options) { cluster in
            let node = cluster.nodes[0]
            var sessions: [Session] = []
            for _ in 0..<21 { sessions.append(try await cluster.connect(newUser(), to: node)) }
            node.terminate()
            for session in sessions {
                let told = try await session.client.next("reconnect", within: .seconds(60))
                // Less where a timer was late.
                #expect((1...1000).contains(told["delay_ms"]?.int ?? -1), "\(told.text)")
                #expect(try await session.client.closed(within: .seconds(60)).code == 4000)
            }
            #expect(try await node.process?.waitForExit(within: .seconds(30)) == .status(0))
            let began = try #require(node.log.first { $0["msg"] == "draining" }).time()
            let left = try node.log.filter { $0["msg"] == "disconnect" }.map { try $0.time() }.sorted()
            #expect(left.count == 21)
            for (place, moment) in left.enumerated() {
                // Timers are never early; lines have milliseconds.
                let least = 1 + Double(place) / 10 - 0.002
                #expect(moment.timeIntervalSince(began) >= least, "client \(place) of \(left)")
            }
        }
    }

    @Test("sends them away faster where the deadline asks for it: nobody is left to be cut off")
    func inTime() async throws {
        let options = Cluster.Options(
            nodes: 2, environment: ["MARTLET_DRAIN_SECONDS": "10", "MARTLET_DRAIN_RATE": "1"])
        try await Machine.with(options) { cluster in
            let node = cluster.nodes[0]
            var sessions: [Session] = []
            for _ in 0..<40 { sessions.append(try await cluster.connect(newUser(), to: node)) }
            node.terminate()
            for session in sessions {
                #expect(try await session.client.closed(within: .seconds(60)).code == 4000)
            }
            #expect(try await node.process?.waitForExit(within: .seconds(30)) == .status(0))
        }
    }

    @Test("G2 G3: loses nothing: members hear each message once and in order, and no node or router refuses them")
    func nothingLost() async throws {
        let options = Cluster.Options(
            nodes: 2, routers: 1,
            environment: [
                "MARTLET_DRAIN_SECONDS": "60", "MARTLET_DRAIN_RATE": "5", "MARTLET_RESUME_GRACE_SECONDS": "30",
                "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0",
            ])
        try await Machine.with(options, weight: 2) { cluster in
            let room = newRoom()
            let url = "ws://127.0.0.1:\(cluster.routers[0].port)/ws"
            let members = try (0..<16).map { _ in try ConformancePlayer(url: url, credential: .user(newUser())) }
            for member in members {
                member.client.connect()
                member.join([room])
            }
            for member in members { try await see(member, "a member to be in the room") { !$0.joined.isEmpty } }
            let drained = members.filter { $0.record.current.node == "node-a" }
            try #require(!drained.isEmpty)
            let publisher = try await cluster.connect("publisher", to: 1)
            try await publisher.join(room)

            let node = cluster.nodes[0]
            node.terminate()
            var count = 0
            // As fast as acks come.
            while node.process?.isRunning == true {
                count += 1
                try await publisher.say("message \(count)", in: room)
            }
            #expect(node.process?.output.current.exit == .status(0))
            let said = (1...count).map { "message \($0)" }
            for member in members {
                // Who left last may have heard all before, and be on the way.
                try await see(member, "a member to hear all, elsewhere") {
                    $0.messages.count >= said.count && $0.node == "node-b"
                }
                let record = member.record.current
                #expect(record.messages.map(\.text) == said)
                #expect(record.messages.map(\.seq) == (1...count).map { Int64($0) })
                #expect(record.gaps.isEmpty)
                // Whom nobody refuses is told to wait by nobody.
                #expect(!record.states.contains("waiting"), "\(record.states)")
            }
            for member in drained {
                #expect(Set(member.record.current.sessions).count == 1, "they go on in their session")
            }
        }
    }

    @Test("takes clients again when the order is taken back: who has not left stays, and it may be drained again")
    func undrain() async throws {
        let options = Cluster.Options(
            nodes: 2, routers: 1, environment: ["MARTLET_DRAIN_SECONDS": "120", "MARTLET_DRAIN_RATE": "1"])
        try await Machine.with(options) { cluster in
            let (node, room) = (cluster.nodes[0], newRoom())
            var sessions: [Session] = []
            for _ in 0..<40 { sessions.append(try await cluster.connect(newUser(), to: node)) }
            for session in sessions { try await session.join(room) }
            _ = try await cluster.admin("drain", "node-a", "--by", "ops", "--reason", "a new disk")
            try await node.waitForReadiness(503, within: .seconds(10))
            _ = try await poll(within: .seconds(30), "the first to leave") { [sessions] in
                sessions.first { !$0.client.isOpen }
            }
            let taken = try await cluster.admin("undrain", "node-a", "--by", "ops")
            #expect(taken["state"]?.string == "draining", "as it was: \(taken.text)")
            try await node.waitForReadiness(200, within: .seconds(10))
            let line = try await node.logged("that it stays") { $0["msg"] == "taking clients again" }
            let stayed = sessions.filter(\.client.isOpen)
            #expect(!stayed.isEmpty && line["sessions"]?.int ?? 0 >= stayed.count)
            _ = try await poll(within: .seconds(10), "the router to know") {
                try await cluster.routers[0].internals("/nodes").text.contains("draining") ? nil : true
            }
            #expect(try await cluster.admin("nodes").array?.allSatisfy { $0["state"] == "ready" } == true)
            let new = try await cluster.connect(newUser(), to: node)
            try await new.join(room)
            try await new.say("is anybody here?", in: room)
            for session in stayed { _ = try await session.hears("is anybody here?", in: room) }

            // Said again it changes nothing.
            let again = try await MartletProgram.run(
                ["admin", "undrain", "node-a"], environment: cluster.environment)
            #expect(again.exit == .status(0) && again.text.contains("was not asked to drain"), "\(again.text)")
            let audit = try await cluster.admin("audit").array ?? []
            #expect(audit.map { $0["action"]?.string } == ["drain", "undrain", "undrain"])
            #expect(audit.prefix(2).allSatisfy { $0["target"] == "node" && $0["by"] == "ops" })
            #expect(
                audit.first?["name"]?.string?.hasPrefix("node-a.") == true && audit.first?["reason"] == "a new disk")

            _ = try await cluster.admin("drain", "node-a")
            for session in stayed + [new] { session.client.close() }
            #expect(try await node.process?.waitForExit(within: .seconds(60)) == .status(0))
        }
    }

    @Test("ends all the same when a signal has it drain: undrain says so in one sentence")
    func undrainOfSignal() async throws {
        let options = Cluster.Options(
            nodes: 1, environment: ["MARTLET_DRAIN_SECONDS": "120", "MARTLET_DRAIN_RATE": "1"])
        try await Machine.with(options) { cluster in
            for _ in 0..<60 { _ = try await cluster.connect(newUser(), to: 0) }
            cluster.nodes[0].terminate()
            _ = try await poll(within: .seconds(10), "Redis to know") {
                try await cluster.admin("nodes").array?.first?["state"] == "draining" ? true : nil
            }
            let output = try await MartletProgram.run(
                ["admin", "undrain", "node-a"], environment: cluster.environment)
            #expect(output.exit == .status(1))
            #expect(output.standardErrorLines.count == 1)
            #expect(
                output.errorText.hasPrefix("martlet: node node-a.1 is ending, by a signal"), "\(output.errorText)")
            #expect(try await cluster.admin("audit").array?.isEmpty == true)
            #expect(await cluster.nodes[0].readiness() == 503)
        }
    }
}

extension JSON {
    /// Of a log line.
    func time() throws -> Date {
        try Date(self["ts"]?.string ?? "", strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
}
