import ClusterState
import Testing
import WireProtocol

@testable import Admin

@Suite("The JSON of admin reports is stable")
struct ReportTests {
    private func json(_ report: some Report) -> String {
        var writer = JSONWriter()
        report.write(to: &writer)
        return writer.string
    }

    private func incarnation(_ text: String) throws -> Incarnation { try #require(Incarnation(text)) }
    private func session(_ letter: Character) throws -> SessionID {
        try #require(SessionID(String(repeating: letter, count: 22)))
    }

    @Test("nodes")
    func nodes() throws {
        let node = NodeReport(
            incarnation: try incarnation("node-a.7"), address: "h:1", state: .draining, sessions: 2, rooms: 1,
            leaseMilliseconds: -5, version: "1", startedAt: 9)
        #expect(
            json([node])
                == #"[{"node":"node-a","incarnation":"node-a.7","address":"h:1","state":"draining","sessions":2,"rooms":1,"#
                + #""lease_ms":-5,"version":"1","started_at":9}]"#)
        #expect(json([NodeReport]()) == "[]")
    }

    @Test("presence: users with their sessions, the most present status first")
    func presence() throws {
        let room = try RoomName(validating: "general")
        let alice = try UserName(validating: "al\"ice")
        let place = try incarnation("node-a.7")
        let sessions = [
            Membership(
                room: room, session: try session("A"), user: alice, incarnation: place, generation: 1, joinedAt: 5,
                status: .busy),
            Membership(
                room: room, session: try session("B"), user: alice, incarnation: place, generation: 1, joinedAt: 6,
                status: .away),
        ]
        let report = PresenceReport(room: room, count: 1, users: [.init(user: alice, sessions: sessions)])
        #expect(
            json(report)
                == #"{"room":"general","count":1,"users":[{"user":"al\"ice","status":"away","sessions":["#
                + #"{"session":"AAAAAAAAAAAAAAAAAAAAAA","node":"node-a","incarnation":"node-a.7","status":"busy","joined_at":5},"#
                + #"{"session":"BBBBBBBBBBBBBBBBBBBBBB","node":"node-a","incarnation":"node-a.7","status":"away","joined_at":6}]}]}"#
        )
    }

    @Test("a room that nobody wrote in has no last message")
    func room() throws {
        let report = RoomReport(
            room: try RoomName(validating: "r"), users: 0, sessions: 0, stored: 0, seq: 0, epoch: "e",
            lastMessageAt: nil)
        #expect(
            json(report)
                == #"{"room":"r","users":0,"sessions":0,"seq":0,"stored":0,"epoch":"e","last_message_at":null}"#)
    }

    @Test("a kick says whom it met and who is still there")
    func kick() throws {
        let report = KickReport(
            user: try UserName(validating: "bob"), room: nil, sessions: [try session("A"), try session("B")],
            remaining: [try session("B")])
        #expect(
            json(report)
                == #"{"user":"bob","room":null,"sessions":["AAAAAAAAAAAAAAAAAAAAAA","BBBBBBBBBBBBBBBBBBBBBB"],"#
                + #""remaining":["BBBBBBBBBBBBBBBBBBBBBB"]}"#)
    }

    @Test("figures of Redis are read from INFO; what is missing is 0 or empty")
    func info() {
        let figures = RedisFigures(
            info: "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:61\r\nmaxmemory_policy:noeviction\r\n"
                + "used_memory:1048576\r\naof_enabled:1\r\nbroken\r\n")
        #expect(figures.version == "7.0.15")
        #expect(figures.uptimeSeconds == 61)
        #expect(figures.memoryBytes == 1_048_576)
        #expect(figures.memoryLimitBytes == 0)
        #expect(figures.hasAppendOnlyFile)
        #expect(RedisFigures(info: "").version == "")
    }
}
