import TestSupport
import Testing

/// G7: frames that RFC 6455 forbids end their own connection with its close code, and nothing else.
@Suite("G7: bad frames")
struct BadFrameTests {
    typealias Opcode = ClientFrame.Opcode

    struct Row: Sendable, CustomTestStringConvertible {
        let name: String
        let frames: [ClientFrame]
        let closeCode: UInt16
        var testDescription: String { name }

        init(
            _ name: String,
            _ closeCode: UInt16,
            _ frames: ClientFrame...,
            change: (inout ClientFrame) -> Void = { _ in }
        ) {
            var frames = frames
            if !frames.isEmpty { change(&frames[frames.count - 1]) }
            (self.name, self.frames, self.closeCode) = (name, frames, closeCode)
        }
    }

    static let ping = #"{"type":"ping","id":"p"}"#
    static let rows: [Row] = [
        Row("an unmasked frame", 1002, ClientFrame(Opcode.text, text: ping)) { $0.isMasked = false },
        Row("an unmasked empty frame", 1002, ClientFrame(Opcode.text)) { $0.isMasked = false },
        Row("an unmasked ping", 1002, ClientFrame(Opcode.ping)) { $0.isMasked = false },
        Row("an unmasked Close", 1002, ClientFrame.close(code: 1000)) { $0.isMasked = false },
        Row(
            "an unmasked continuation of a masked message",
            1002,
            ClientFrame(Opcode.text, text: "{", isFinal: false),
            ClientFrame(Opcode.continuation, text: "}")
        ) { $0.isMasked = false },
        Row("a continuation of nothing", 1002, ClientFrame(Opcode.continuation, text: ping)),
        Row(
            "a new message inside another",
            1002,
            ClientFrame(Opcode.text, text: "{", isFinal: false),
            ClientFrame(Opcode.text, text: ping)
        ),
        Row("a control frame of 126 bytes", 1002, ClientFrame(Opcode.ping, [UInt8](repeating: 1, count: 126))),
        Row("a fragmented control frame", 1002, ClientFrame(Opcode.ping, [1], isFinal: false)),
        Row("RSV1 without an extension", 1002, ClientFrame(Opcode.text, text: ping)) { $0.reservedBits = 4 },
        Row("RSV2", 1002, ClientFrame(Opcode.text, text: ping)) { $0.reservedBits = 2 },
        Row("RSV3", 1002, ClientFrame(Opcode.text, text: ping)) { $0.reservedBits = 1 },
        Row("the reserved opcode 3", 1002, ClientFrame(3, text: ping)),
        Row("the reserved opcode 11", 1002, ClientFrame(11)),
        Row("a length in more bytes than needed", 1002, ClientFrame(Opcode.text, text: ping)) {
            $0.lengthForm = .eightBytes
        },
        Row("a length with the top bit set", 1002, ClientFrame(Opcode.text, text: ping)) {
            $0.lengthForm = .eightBytes
            $0.declaredLength = 1 << 63
        },
        Row("a length beyond the limit", 1009, ClientFrame(Opcode.text, text: ping)) {
            $0.lengthForm = .eightBytes
            $0.declaredLength = 1 << 40
        },
        Row("invalid UTF-8", 1007, ClientFrame(Opcode.text, [0x7B, 0xC3, 0x28, 0x7D])),
        Row("an overlong slash", 1007, ClientFrame(Opcode.text, [0xC0, 0xAF])),
        Row("an encoded surrogate", 1007, ClientFrame(Opcode.text, [0xED, 0xA0, 0x80])),
        Row("beyond U+10FFFF", 1007, ClientFrame(Opcode.text, [0xF4, 0x90, 0x80, 0x80])),
        Row(
            "UTF-8 that breaks off with the message",
            1007,
            ClientFrame(Opcode.text, [0xC3], isFinal: false),
            ClientFrame(Opcode.continuation, [])
        ),
        Row("a Close of one byte", 1002, ClientFrame(Opcode.close, [3])),
        Row("a Close with a code that must not be sent", 1002, ClientFrame.close(code: 1005)),
        Row("a Close with a code nobody has", 1002, ClientFrame.close(code: 999)),
        Row("a Close whose reason is not UTF-8", 1007, ClientFrame(Opcode.close, [0x03, 0xE8, 0xFF])),
    ]

    @Test("G7: the connection ends with the close code of RFC 6455, the others go on", arguments: rows)
    func closes(row: Row) async throws {
        try await SharedCluster.use { cluster in
            try await harmless(cluster) { session, room in
                let victim = try await cluster.connect(newUser("victim"), to: 0)
                try await victim.join(room)
                for frame in row.frames { victim.client.send(frame) }
                let closed = try await victim.client.closed()
                #expect(closed.code == row.closeCode, "\(closed)")
                if row.closeCode != 1000 { #expect(!closed.reason.isEmpty, "\(closed)") }
                // Its presence goes with it, and the log says why.
                _ = try await poll(within: .seconds(5), "its presence to go") {
                    try await !cluster.usersInRedis(of: room).contains(victim.user) ? true : nil
                }
            }
        }
    }

    @Test("G7: binary where text is due is a numbered error or a Close with 1003")
    func binary() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            session.client.send(ClientFrame(Opcode.binary, Array(Self.ping.utf8)))
            try await expectErrorOrClose(session, 105, "binary_not_supported", close: 1003)
        }
    }

    @Test("fragments, also inside a character and with control frames between, are one message")
    func fragments() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let (alice, bob) = (
                try await cluster.connect(newUser(), to: 0), try await cluster.connect(newUser(), to: 1)
            )
            for session in [alice, bob] { try await session.join(room) }
            let text = "zwölf Boxkämpfer 🥊"
            let bytes = Array(#"{"type":"message","room":"\#(room)","id":"f","text":"\#(text)"}"#.utf8)
            for (index, byte) in bytes.enumerated() {
                alice.client.send(
                    ClientFrame(
                        index == 0 ? Opcode.text : Opcode.continuation,
                        [byte],
                        isFinal: index == bytes.count - 1
                    )
                )
                if index % 20 == 0, index < bytes.count - 1 { try await alice.client.roundTrip() }
            }
            _ = try await alice.client.next("ack", id: "f")
            _ = try await bob.hears(text, in: room)
        }
    }

    @Test("a ping is answered with its own bytes, a Close with its code, also many at once")
    func controlFrames() async throws {
        try await SharedCluster.use { cluster in
            let session = try await cluster.connect(newUser(), to: 0)
            let payload = (0..<125).map { UInt8($0) }
            session.client.send(ClientFrame(Opcode.ping, payload))
            session.client.send(ClientFrame(Opcode.pong, [9]))
            try await session.client.roundTrip()
            #expect(session.client.heard.current.pongs.contains(payload))
            session.client.close(code: 4321, reason: "mine")
            #expect(try await session.client.closed().code == 4321)
            let silent = try await cluster.connect(newUser(), to: 0)
            silent.client.send(ClientFrame(Opcode.close))
            #expect([1000, 1005].contains(try await silent.client.closed().code))
        }
    }

    @Test("nothing of what follows a Close is done")
    func afterClose() async throws {
        try await SharedCluster.use { cluster in
            let room = newRoom()
            let (alice, bob) = (
                try await cluster.connect(newUser(), to: 0), try await cluster.connect(newUser(), to: 0)
            )
            for session in [alice, bob] { try await session.join(room) }
            let late = ClientFrame(
                Opcode.text,
                text: #"{"type":"message","room":"\#(room)","text":"too late","id":"l"}"#
            )
            alice.client.send(raw: ClientFrame.close(code: 1000).bytes + late.bytes)
            try await alice.client.closed()
            try await bob.sees("left", alice.user, in: room)
            try await bob.say("the end", in: room)
            #expect(bob.messages(in: room).isEmpty)
        }
    }
}
