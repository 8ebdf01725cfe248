import CZlib
import TestSupport
import Testing

/// As a client without context takeover sends it.
private func deflated(_ message: [UInt8]) throws -> [UInt8] {
    var stream = z_stream()
    try #require(
        deflateInit2_(
            &stream, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size)) == Z_OK
    )
    defer { deflateEnd(&stream) }
    var message = message
    var output = [UInt8](repeating: 0, count: message.count)
    let count = message.withUnsafeMutableBufferPointer { input in
        output.withUnsafeMutableBufferPointer { output in
            (stream.next_in, stream.avail_in) = (input.baseAddress, CUnsignedInt(input.count))
            (stream.next_out, stream.avail_out) = (output.baseAddress, CUnsignedInt(output.count))
            #expect(deflate(&stream, Z_SYNC_FLUSH) == Z_OK)
            return output.count - Int(stream.avail_out) - 4
        }
    }
    return Array(output.prefix(count))
}

@Suite("permessage-deflate", .patience)
struct CompressionTests {
    private static let offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")

    private func connect(_ cluster: Cluster, _ user: String, to node: Int, offers: Bool) async throws -> Session {
        var options = TestClient.Options()
        if offers { options.headers = [Self.offer] }
        return try await cluster.connect(user, to: node, options: options)
    }

    /// The numbers of all that it got, own ones by their acks.
    private func places(_ session: Session, _ room: String) -> [Int64] {
        session.client.heard.current.all.filter {
            $0["room"]?.string == room && ["ack", "message"].contains($0["type"]?.string)
        }.compactMap { $0["seq"]?.int }
    }

    @Test("G1 G3: who takes compressed messages and who does not get the same ones, in one order, also in private")
    func mixedRoom() async throws {
        let options = Cluster.Options(
            nodes: 2, environment: ["MARTLET_COMPRESSION": "on", "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"])
        try await Machine.with(options) { cluster in
            let room = newRoom()
            var (sessions, epoch): ([Session], JSON) = ([], .null)
            for index in 0..<8 {
                let session = try await connect(cluster, "user-\(index)", to: index % 2, offers: index < 4)
                #expect((session.client.heard.current.extensions != nil) == (index < 4))
                epoch = try #require(try await session.join(room)["epoch"])
                sessions.append(session)
            }
            let long = String(repeating: "who is there? ", count: 60)
            for number in 1...40 {
                let session = sessions[number % sessions.count]
                try await session.say(number % 3 == 0 ? "short \(number)" : "\(number) \(long)", in: room)
            }
            for session in sessions {
                try await poll(within: .seconds(10), "\(session.user) to have all") {
                    places(session, room).count == 40 ? () : nil
                }
                #expect(places(session, room) == Array(1...40))
                #expect((session.client.heard.current.compressedMessages > 20) == (session.user < "user-4"))
            }
            sessions[7].client.send(["type": "direct", "to": "user-0", "text": .string(long), "id": "d"])
            _ = try await sessions[0].client.next("message") { $0["text"]?.string == long && $0["to"] != nil }
            // Who comes back gets what was missed, compressed one by one.
            let back = try await connect(cluster, "back", to: 0, offers: true)
            let joined = try await back.join(room, ["since": ["epoch": epoch, "seq": 0]])
            #expect(joined["recovered"]?.bool == true)
            try await poll(within: .seconds(10), "what was missed") { places(back, room).count == 40 ? () : nil }
            #expect(back.client.heard.current.compressedMessages >= 20)
        }
    }

    @Test("Off by default: an offer is not taken up")
    func off() async throws {
        try await SharedCluster.use { cluster in
            let session = try await connect(cluster, newUser(), to: 0, offers: true)
            #expect(session.client.heard.current.extensions == nil)
            try await session.join(newRoom())
        }
    }

    @Test("G7, T18: a bomb ends its own connection with 1009, and nobody else notices")
    func bomb() async throws {
        let options = Cluster.Options(nodes: 1, environment: ["MARTLET_COMPRESSION": "on"])
        try await Machine.with(options) { cluster in
            let room = newRoom()
            let other = try await cluster.connect("other", to: 0)
            try await other.join(room)
            let bomber = try await connect(cluster, "bomber", to: 0, offers: true)
            var frame = ClientFrame(ClientFrame.Opcode.text, try deflated([UInt8](repeating: 0x20, count: 8 << 20)))
            frame.reservedBits = 4
            bomber.client.send(frame)
            #expect(try await bomber.client.closed(within: .seconds(10)).code == 1009)
            try await other.say("still here", in: room)
        }
    }
}
