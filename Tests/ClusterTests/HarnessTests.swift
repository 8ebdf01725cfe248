import Glibc
import TestSupport
import Testing

/// What the other suites stand on must itself be right.
@Suite("The tests' own tools")
struct HarnessTests {
    @Test(
        "JSON is read strictly",
        arguments: [
            "{\"a\":1,\"a\":2}", "{\"a\":01}", "[1,]", "{}{}", "\"\\ud800\"", "\"\u{1}\"", "nul", "", "[1.]", "+1",
        ]
    )
    func refusesBadJSON(text: String) {
        #expect(throws: JSON.Malformed.self) { try JSON(parsing: text) }
    }

    @Test("JSON survives a round trip")
    func roundTrip() throws {
        let text = #"{"a":[1,-2.5,true,null,"x\u00e9\n\"\ud83d\ude00"],"b":{}}"#
        let value = try JSON(parsing: text)
        #expect(value["a"]?.array?[4].string == "xé\n\"😀")
        #expect(value["a"]?.array?[1] == .double(-2.5))
        #expect(try JSON(parsing: value.text) == value)
    }

    @Test("the handshake's proof is that of RFC 6455 section 1.3")
    func accept() {
        #expect(WebSocketKey.accept(for: "dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    }

    @Test("a frame's header has the shortest length unless told otherwise", arguments: [0, 125, 126, 65535, 65536])
    func frameLength(count: Int) {
        var frame = ClientFrame(ClientFrame.Opcode.binary, [UInt8](repeating: 7, count: count))
        frame.isMasked = false
        let header = frame.bytes.count - count
        #expect(header == (count < 126 ? 2 : count < 65536 ? 4 : 10))
        #expect(Int(frame.bytes[1]) == (count < 126 ? count : count < 65536 ? 126 : 127))
    }

    @Test("a child's words and its end are told")
    func child() async throws {
        let output = try await ChildProcess.run("/bin/sh", ["-c", "echo out; echo one >&2; echo two >&2; exit 7"])
        #expect(output.exit == .status(7))
        #expect(output.text == "out\n")
        #expect(output.standardErrorLines == ["one", "two"])
        let sleeper = try await ChildProcess.spawn("/bin/sleep", ["60"], name: "sleeper")
        sleeper.send(SIGKILL)
        #expect(try await sleeper.waitForExit() == .signal(SIGKILL))
    }

    @Test("a wait ends with the change, and fails at its limit")
    func watched() async throws {
        let number = Watched(0)
        async let seen = number.wait(within: .seconds(5), "three") { $0 == 3 ? "three" : nil }
        for _ in 0..<3 { number.update { $0 += 1 } }
        #expect(try await seen == "three")
        await #expect(throws: TimedOut.self) {
            try await number.wait(within: .milliseconds(20), "four") { $0 == 4 ? true : nil }
        }
    }

    @Test("redis-server keeps its data over a kill when it is durable")
    func redis() async throws {
        let redis = try await ClusterRedis.start(isDurable: true)
        try await redis.command("HSET", "h", "a", "1")
        await redis.kill()
        try await redis.startAgain()
        #expect(try await redis.command("HGETALL", "h").dictionary == ["a": "1"])
        await #expect(throws: ClusterRedis.ServerError.self) { try await redis.command("GET", "h") }
        await redis.stop()
    }
}
