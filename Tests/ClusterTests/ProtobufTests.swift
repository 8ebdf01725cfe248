import TestSupport
import Testing

/// A test of this target that says everything in JSON.
private struct Conversation: CustomTestStringConvertible {
    let name: String
    let body: @Sendable () async throws -> Void
    var testDescription: String { name }

    init(_ name: String, _ body: @escaping @Sendable () async throws -> Void) {
        (self.name, self.body) = (name, body)
    }
}

@Suite("martlet.v1.protobuf", .patience)
struct ProtobufTests {
    private static let conversations: [Conversation] = [
        .init("welcome") { try await ConversationTests().welcome() },
        .init("messages") { try await ConversationTests().message() },
        .init("all at once") { try await ConversationTests().allAtOnce() },
        .init("own messages") { try await ConversationTests().ownMessages() },
        .init("presence") { try await ConversationTests().presence() },
        .init("status") { try await ConversationTests().status() },
        .init("info") { try await ConversationTests().info() },
        .init("typing") { try await ConversationTests().typing() },
        .init("private messages") { try await ConversationTests().direct() },
        .init("history") { try await ConversationTests().history() },
        .init("many rooms") { try await ConversationTests().manyRooms() },
        .init("ping") { try await ConversationTests().ping() },
        .init("recovery") { try await RecoveryTests().since() },
        .init("heavy recovery") { try await RecoveryTests().heavy() },
        .init("no recovery") { try await RecoveryTests().notRecovered() },
        .init("once") { try await RecoveryTests().once() },
        .init("awkward ids") { try await RecoveryTests().awkwardIDs() },
        .init("resume elsewhere") { try await ResumeTests().elsewhere() },
        .init("resume attached") { try await ResumeTests().attached() },
        .init("resume at once") { try await ResumeTests().atOnce() },
        .init("lost answer") { try await ResumeTests().lostAnswer() },
        .init("kicked") { try await ResumeTests().kicked() },
        .init("drain") { try await ResumeTests().drain() },
        .init("missed private messages") { try await DirectReplayTests().newSession() },
        .init("gaps in private rooms") { try await DirectReplayTests().gaps() },
        .init("joins of one frame") { try await LimitTests().joinsOfOneFrame() },
        .init("slow reader") { try await LimitTests().ephemeralFirst() },
        .init("compression") { try await CompressionTests().mixedRoom() },
    ]

    @Test(
        "G1 G2 G3: what JSON clients do among themselves, protobuf clients do with JSON clients",
        arguments: conversations)
    fileprivate func mixed(_ conversation: Conversation) async throws {
        try await TestClient.$speech.withValue(.alternating) { try await conversation.body() }
    }

    @Test("… and among themselves", arguments: conversations)
    fileprivate func alone(_ conversation: Conversation) async throws {
        try await TestClient.$speech.withValue(.protobuf) { try await conversation.body() }
    }

    private func connect(
        _ cluster: Cluster, _ user: String, to node: Int = 0, protobuf: Bool = true
    ) async throws -> Session {
        try await TestClient.$speech.withValue(protobuf ? .protobuf : .json) {
            try await cluster.connect(user, to: node)
        }
    }

    @Test("bytes reach protobuf clients as bytes and JSON clients in base64, from either, live and in history")
    func binary() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let json = try await connect(cluster, newUser("json"), to: 1, protobuf: false)
            let protobuf = try await connect(cluster, newUser("protobuf"), to: 0)
            #expect(protobuf.client.header("sec-websocket-protocol") == "martlet.v1.protobuf")
            #expect(json.client.header("sec-websocket-protocol") == nil)
            for session in [json, protobuf] { try await session.join(room) }
            for (from, to) in [(json, protobuf), (protobuf, json)] {
                from.client.send([
                    "type": "message", "room": .string(room), "binary": "AAEC/w==", "text": "four bytes",
                    "data": ["name": "é.bin"], "id": "b",
                ])
                _ = try await from.client.next("ack", room: room, id: "b")
                let message = try await to.hears("four bytes", in: room)
                #expect(message["binary"]?.string == "AAEC/w==")
                #expect(message["data"] == ["name": "é.bin"])
            }
            for session in [json, protobuf] {
                session.client.send(["type": "history", "room": .string(room), "id": "h"])
                let messages = try await session.client.next("history", id: "h")["messages"]?.array
                #expect(messages?.map { $0["binary"]?.string } == ["AAEC/w==", "AAEC/w=="])
            }
        }
    }

    @Test("G7: frames of the other kind, and what is no frame, are numbered errors and harm nobody")
    func wrongFrames() async throws {
        try await SharedCluster.use { cluster in
            let json = try await connect(cluster, newUser("json"), protobuf: false)
            let protobuf = try await connect(cluster, newUser("protobuf"))
            func says(_ session: Session, _ frame: ClientFrame) async throws -> Int64? {
                session.client.send(frame)
                return try await session.client.next("error")["code"]?.int
            }
            let ping = try ProtobufBridge.encode(["type": "ping"])
            #expect(try await says(json, ClientFrame(ClientFrame.Opcode.binary, ping)) == 105)
            #expect(try await says(protobuf, ClientFrame(ClientFrame.Opcode.text, text: #"{"type":"ping"}"#)) == 117)
            #expect(try await says(protobuf, ClientFrame(ClientFrame.Opcode.binary, [0xFF])) == 118)
            #expect(try await says(protobuf, ClientFrame(ClientFrame.Opcode.binary)) == 101)
            // 60 KB in a frame of 64 KiB, and 80 in base64.
            let large = JSON.string(String(repeating: "AAAA", count: 20_000))
            protobuf.client.send(["type": "direct", "to": "nobody", "id": "l", "binary": large])
            #expect(try await protobuf.client.next("error", id: "l")["code"]?.int == 104)
            for session in [json, protobuf] {
                session.client.send(["type": "ping", "id": "still"])
                _ = try await session.client.next("pong", id: "still")
            }
        }
    }

    @Test("a message is put into protobuf once for all who take that, and not at all where nobody does")
    func once() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            func transcoded(by node: Int) async throws -> Int {
                let metrics = try await cluster.nodes[node].internals("/metrics").text
                let line = metrics.split(separator: "\n").first { $0.hasPrefix("martlet_transcoded_total ") }
                return try #require(line.flatMap { Int($0.split(separator: " ")[1]) })
            }
            let room = newRoom()
            let talker = try await connect(cluster, "talker", to: 1, protobuf: false)
            let listener = try await connect(cluster, "listener", to: 1, protobuf: false)
            var many: [Session] = []
            for number in 0..<12 { many.append(try await connect(cluster, "many-\(number)", to: 0)) }
            for session in many + [listener, talker] { try await session.join(room) }
            for session in many { try await session.sees("joined", "talker", in: room) }
            let before = try await transcoded(by: 0)
            for number in 0..<20 { try await talker.say("m\(number)", in: room) }
            for session in many + [listener] { _ = try await session.hears("m19", in: room) }
            #expect(try await transcoded(by: 0) == before + 20)
            #expect(try await transcoded(by: 1) == 0)
        }
    }
}
