import TestSupport
import Testing

@Suite("Histories by namespace")
struct HistoryNamespaceTests {
    @Test("a room keeps what its namespace says, also of what an operator publishes; others keep the standard")
    func byNamespace() async throws {
        let options = Cluster.Options(
            nodes: 1,
            environment: ["MARTLET_HISTORY_MESSAGES": "5", "MARTLET_HISTORY_NAMESPACES": "short=2/1h,none=0,dm=3"])
        try await Machine.with(options) { cluster in
            let session = try await cluster.connect("alice", to: 0)
            @Sendable func kept(_ room: String) async throws -> Int? {
                session.client.send(["type": "history", "room": .string(room), "id": .string("of \(room)")])
                return try await session.client.next("history", id: "of \(room)")["messages"]?.array?.count
            }
            for (room, count) in [("short:1", 2), ("none:1", 0), ("other:1", 5), ("short", 5)] {
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
}
