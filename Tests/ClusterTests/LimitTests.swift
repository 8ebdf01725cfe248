import TestSupport
import Testing

/// What one client may ask for and how far it may fall behind, with real sockets.
@Suite("Limits of one session")
struct LimitTests {
    @Test("G1: join, leave and join in one burst are answered in order and end inside the room")
    func joinLeaveJoin() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            for _ in 0..<10 {
                let room = newRoom("burst")
                let frames = [("join", "1"), ("leave", "2"), ("join", "3")].map { type, id in
                    ClientFrame(ClientFrame.Opcode.text, text: #"{"type":"\#(type)","room":"\#(room)","id":"\#(id)"}"#)
                }
                session.client.send(raw: frames.flatMap(\.bytes))
                var answers: [String] = []
                for _ in 0..<3 {
                    let answer = try await session.client.next("an answer for \(room)") {
                        $0["room"]?.string == room && $0["id"]?.string != nil
                    }
                    answers.append("\(answer["type"]?.string ?? "") \(answer["id"]?.string ?? "")")
                }
                #expect(answers == ["joined 1", "left 2", "joined 3"])
                try await session.say("inside", in: room)
                try await session.leave(room)
            }
        }
    }

    @Test("G7: a frame with more rooms than a session may be in joins none; a room named twice is joined once")
    func joinsOfOneFrame() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            func join(_ rooms: [String], id: String) {
                let rooms = rooms.map { room -> JSON in ["room": .string(room)] }
                session.client.send(["type": "join", "id": .string(id), "rooms": .array(rooms)])
            }
            let rooms = (0..<101).map { _ in newRoom("frame") }
            join(rooms, id: "all")
            expectError(try await session.client.next("error", id: "all"), 110, "too_many_rooms")
            join([rooms[0], rooms[1], rooms[0]], id: "two")
            for room in rooms.prefix(2) { _ = try await session.client.next("joined", room: room, id: "two") }
            try await session.say("here", in: rooms[0])
            let joined = session.client.heard.current.all.filter { $0["type"]?.string == "joined" }
            #expect(joined.count == 2)
        }
    }

    @Test("G7, T21: a client that joins and leaves all its rooms again and again is told to wait")
    func joinFlood() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            let rooms = (0..<100).map { _ in newRoom("again") }
            let list = rooms.map { room -> JSON in ["room": .string(room)] }
            session.client.send(["type": "join", "id": "first", "rooms": .array(list)])
            for room in rooms { _ = try await session.client.next("joined", room: room, id: "first") }
            session.client.send(["type": "join", "id": "again", "rooms": .array(list)])
            let error = try await session.client.next("error", id: "again")
            expectError(error, 103, "rate_limited")
            #expect((1000...3400).contains(error["retry_ms"]?.int ?? 0), "\(error.text)")
        }
    }

    @Test("G7, T21: a client that floods is answered a while, then closed with 4101; the others notice nothing")
    func flood() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom("flood")
            let (session, other) = (
                try await cluster.connect(newUser(), to: 0), try await cluster.connect(newUser(), to: 0)
            )
            for session in [session, other] { try await session.join(room) }
            let frame = ClientFrame(ClientFrame.Opcode.binary, Array("what is this".utf8)).bytes
            session.client.send(raw: Array(repeatElement(frame, count: 1000).joined()))
            let closed = try await session.client.closed()
            #expect(closed.code == 4101 && closed.reason.contains("limit"), "\(closed)")
            let errors = session.client.heard.current.all.filter { $0["type"]?.string == "error" }
            #expect(errors.filter { $0["code"]?.int == 105 }.count >= 59)
            #expect((1...20).contains(errors.filter { $0["code"]?.int == 103 }.count), "few are answered")
            try await other.sees("left", session.user, in: room)
            try await other.say("still here", in: room)
        }
    }

    @Test(
        "T21: pings and pongs count too: pings are answered a while, then their flood is closed with 4101",
        arguments: [ClientFrame.Opcode.ping, ClientFrame.Opcode.pong])
    func controlFlood(opcode: UInt8) async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            session.client.send(raw: Array(repeatElement(ClientFrame(opcode, [1]).bytes, count: 1000).joined()))
            #expect(try await session.client.closed().code == 4101)
            let pongs = session.client.heard.current.pongs.count
            #expect(opcode == ClientFrame.Opcode.ping ? (300...400).contains(pongs) : pongs == 0, "\(pongs)")
        }
    }

    @Test("G6: over half of its budget a client gets messages alone, and later the member list it missed")
    func ephemeralFirst() async throws {
        let options = Cluster.Options(
            nodes: 2,
            environment: [
                "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0", "MARTLET_LIMIT_OUTBOUND_BYTES": "16777216",
                "MARTLET_HEARTBEAT_TIMEOUT_SECONDS": "600",
            ]
        )
        try await Machine.with(options) { cluster in
            let room = newRoom("behind")
            let talker = try await cluster.connect("talker", to: 1)
            let healthy = try await cluster.connect("healthy", to: 0)
            let slow = try await cluster.connect("slow", to: 0)
            for session in [talker, healthy, slow] { try await session.join(room) }
            try await slow.client.roundTrip()
            slow.client.setReads(false)
            // More than the kernel takes (under 6 MiB) and half of the budget (8 MiB), less than all of it.
            let text = String(repeating: "z", count: 60_000)
            let count = 250
            for _ in 0..<count { try await talker.say(text, in: room) }

            talker.client.send(["type": "typing", "room": .string(room)])
            _ = try await healthy.client.next("typing", room: room)
            let newcomer = try await cluster.connect("newcomer", to: 1)
            try await newcomer.join(room)
            try await healthy.sees("joined", "newcomer", in: room)
            try await talker.say("last", in: room)
            _ = try await healthy.hears("last", in: room)

            slow.client.setReads(true)
            _ = try await slow.hears("last", in: room, within: .seconds(60))
            #expect(slow.messages(in: room).compactMap { $0["seq"]?.int } == Array(1...Int64(count + 1)))
            let list = try await slow.client.next("the list of \(room)") {
                $0["type"]?.string == "presence" && $0["members"] != nil
            }
            #expect(list["id"] == nil && list["count"]?.int == 4, "\(list.text)")
            let users = (list["members"]?.array ?? []).compactMap { $0["user"]?.string }
            #expect(Set(users) == ["talker", "healthy", "slow", "newcomer"])
            #expect(!slow.client.heard.current.all.contains { $0["type"]?.string == "typing" })
            #expect(slow.presenceCounts("joined", of: room)["newcomer"] == nil)
            // From here on it gets everything again.
            try await newcomer.leave(room)
            try await slow.sees("left", "newcomer", in: room)
        }
    }
}
