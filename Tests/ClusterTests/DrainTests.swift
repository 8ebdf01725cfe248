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
                #expect((0...1000).contains(told["delay_ms"]?.int ?? -1), "\(told.text)")
                #expect(try await session.client.closed(within: .seconds(60)).code == 4000)
            }
            #expect(try await node.process?.waitForExit(within: .seconds(30)) == .status(0))
            let began = try #require(node.log.first { $0["msg"] == "draining" }).time()
            let left = try node.log.filter { $0["msg"] == "disconnect" }.map { try $0.time() }.sorted()
            #expect(left.count == 21)
            for (place, moment) in left.enumerated() {
                // Timers are never early; lines have milliseconds.
                let least = Double(place) / 10 - 0.002
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
                try await see(member, "a member to hear all") { $0.messages.count >= said.count }
                let record = member.record.current
                #expect(record.messages.map(\.text) == said)
                #expect(record.messages.map(\.seq) == (1...count).map { Int64($0) })
                #expect(record.gaps.isEmpty && record.node == "node-b")
                // Whom nobody refuses is told to wait by nobody.
                #expect(!record.states.contains("waiting"), "\(record.states)")
            }
            for member in drained {
                #expect(Set(member.record.current.sessions).count == 1, "they go on in their session")
            }
        }
    }
}

extension JSON {
    /// Of a log line.
    func time() throws -> Date {
        try Date(self["ts"]?.string ?? "", strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
}
