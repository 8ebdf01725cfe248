import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import RedisClient

@Suite("The client in virtual time")
struct RedisClientTests {
    private let redis = FakeRedis()

    private func connected(
        scripts: [RedisScript] = [],
        configure: (inout RedisConfiguration) -> Void = { _ in }
    ) throws -> RedisClient {
        let client = try redis.client(scripts: scripts, configure: configure)
        client.start()
        try redis.greet()
        #expect(client.isConnected)
        return client
    }

    @Test("the whole greeting goes in one write, in order, before anything else")
    func greeting() throws {
        var configuration = try RedisConfiguration(url: "redis://bob:secret@fake/3")
        configuration.clientName = "node-a"
        let client = RedisClient(
            configuration: configuration,
            scripts: [RedisScript(name: "s", source: "return 1")],
            eventLoop: redis.loop,
            logger: .init(label: "test"),
            dial: { [redis] in redis.dial($0, $1) },
            random: { 1 }
        )
        client.start()
        #expect(Outcome(client.command(["PING"])).text == "notConnected")
        redis.loop.run()
        let written = try #require(try redis.channel.readOutbound(as: ByteBuffer.self))
        #expect(
            String(buffer: written).split(separator: "\r\n").filter { !"*$".contains($0.prefix(1)) }.joined(
                separator: " "
            )
                == "AUTH bob secret CLIENT SETNAME node-a SELECT 3 SCRIPT LOAD return 1 PING"
        )
        #expect(try redis.channel.readOutbound(as: ByteBuffer.self) == nil)
    }

    @Test("commands of one tick leave in one write")
    func coalescing() throws {
        let client = try connected()
        for _ in 0..<100 {
            _ = client.command(["PING"])
        }
        #expect(try redis.channel.readOutbound(as: ByteBuffer.self) == nil)
        redis.loop.run()
        let written = try #require(try redis.channel.readOutbound(as: ByteBuffer.self))
        #expect(written.readableBytes == 100 * "*1\r\n$4\r\nPING\r\n".utf8.count)
        #expect(try redis.channel.readOutbound(as: ByteBuffer.self) == nil)
    }

    @Test("commands given by the replies of one burst leave in one write at its end")
    func coalescingInABurst() throws {
        let client = try connected()
        for _ in 0..<10 {
            client.command(["PING"]).whenSuccess { _ in _ = client.command(["TIME"]) }
        }
        _ = try redis.commands()
        try redis.channel.writeInbound(ByteBuffer(string: String(repeating: "+PONG\r\n", count: 10)))
        let written = try #require(try redis.channel.readOutbound(as: ByteBuffer.self))
        #expect(written.readableBytes == 10 * "*1\r\n$4\r\nTIME\r\n".utf8.count)
    }

    @Test("a deadline passes within 50 ms of its time; the late reply goes nowhere")
    func deadline() throws {
        let client = try connected()
        let late = Outcome(client.command(["A"], timeout: .milliseconds(200)))
        let patient = Outcome(client.command(["B"]))
        redis.advance(199)
        #expect(late.text == "pending")
        redis.advance(51)
        #expect(late.text == "timeout")
        #expect(late.error?.outcomeIsUnknown == true)
        try redis.send("+late\r\n+patient\r\n")
        #expect(late.text == "timeout")
        #expect(patient.text == "patient")
    }

    @Test("while nothing is in flight no timer runs")
    func noIdleTimer() throws {
        let client = try connected()
        let outcome = Outcome(client.command(["PING"]))
        try redis.send("+PONG\r\n")
        #expect(outcome.text == "PONG")
        redis.advance(60_000)
        #expect(client.isConnected)
        #expect(try redis.commands() == [["PING"]])
    }

    @Test("commands pending and nothing heard for ten seconds: the connection is closed and dialled again")
    func silence() throws {
        let client = try connected()
        let patient = Outcome(client.command(["A"], timeout: .seconds(60)))
        redis.advance(9000)
        try redis.send("$100\r\nthe first byte")
        redis.advance(9900)
        #expect(client.isConnected)
        redis.advance(200)
        #expect(!client.isConnected)
        #expect(patient.text == "closed")
        redis.advance(100)
        #expect(redis.dials == 2)
    }

    @Test("redials wait up to 100 ms, 200 ms … 5 s; the sentence says what is wrong")
    func redialling() throws {
        redis.isDown = true
        let client = try redis.client(random: 1)
        client.start()
        let waiting = Outcome(client.whenConnected(within: .seconds(30)))
        var delays: [Int64] = []
        for _ in 0..<9 {
            let dials = redis.dials
            var waited: Int64 = 0
            while redis.dials == dials {
                redis.advance(10)
                waited += 10
            }
            delays.append(waited)
        }
        #expect(delays == [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000])
        #expect(waiting.text == "pending")
        redis.advance(30_000)
        #expect(waiting.error?.code == .notConnected)
        #expect(waiting.error?.message == "cannot reach Redis at fake:6379: no answer in time")
        let second = Outcome(client.whenConnected(within: .seconds(30)))
        redis.isDown = false
        redis.advance(5000)
        try redis.greet()
        #expect(second.text == "done")
    }

    @Test("a greeting that is not answered ends the attempt")
    func muteGreeting() throws {
        let client = try redis.client()
        client.start()
        redis.advance(1999)
        #expect(redis.dials == 1)
        redis.advance(101)
        #expect(redis.dials == 2)
        #expect(client.lastCause == "Redis took the connection but did not answer in time")
        try redis.greet()
        #expect(client.isConnected)
        redis.advance(10_000)
        #expect(client.isConnected)
    }

    @Test(
        "what is not a reply ends the connection, fails what was in flight, and is healed by the next one",
        arguments: ["hello\r\n", "$x\r\n", "*1\r\n?\r\n", "+unasked\r\n+unasked\r\n", "\0"]
    )
    func malformed(_ text: String) throws {
        let client = try connected()
        let outcome = Outcome(client.command(["A"]))
        if text == "\0" {
            try redis.send(text + "\r\n")
        } else {
            try redis.send(text)
        }
        #expect(!client.isConnected)
        #expect(["closed", "unasked"].contains(outcome.text))
        redis.advance(5000)
        try redis.greet()
        let next = Outcome(client.command(["B"]))
        try redis.send("+fine\r\n")
        #expect(next.text == "fine")
    }

    @Test("the state handler hears of each change; a handler set later is told the present state")
    func states() throws {
        let client = try redis.client()
        let states = States()
        client.setStateHandler { states.append("\($0)") }
        client.start()
        client.start()
        #expect(redis.dials == 1)
        try redis.greet()
        try redis.channel.close().wait()
        redis.advance(100)
        try redis.greet()
        #expect(states.all == ["true", "false", "true"])
        client.setStateHandler { states.append("late \($0)") }
        #expect(states.all.last == "late true")
        let closed = Outcome(client.close())
        redis.advance(60_000)
        #expect(closed.text == "done")
        #expect(states.all.count == 4)
        #expect(redis.dials == 2)
    }

    @Test("what was in flight when the connection ended has an unknown outcome; what comes after was not written")
    func lost() throws {
        let client = try connected()
        let inFlight = Outcome(client.command(["A"]))
        try redis.channel.close().wait()
        redis.loop.run()
        #expect(inFlight.text == "closed")
        #expect(inFlight.error?.outcomeIsUnknown == true)
        let after = Outcome(client.command(["A"]))
        #expect(after.text == "notConnected")
        #expect(after.error?.outcomeIsUnknown == false)
    }

    @Test("a socket that takes no more bytes refuses commands until it does")
    func unwritable() throws {
        let client = try connected()
        try redis.channel.isWritable = false
        let refused = Outcome(client.command(["A"]))
        #expect(refused.text == "notConnected")
        #expect(refused.error?.message == "Redis at fake:6379 takes no more bytes")
        try redis.channel.isWritable = true
        #expect(Outcome(client.command(["B"])).text == "pending")
        #expect(try redis.commands() == [["B"]])
    }

    @Test("NOSCRIPT: the scripts are loaded, then the refused calls, then what was asked meanwhile, in order")
    func noScript() throws {
        let client = try connected(scripts: [RedisScript(name: "a", source: "a"), RedisScript(name: "b", source: "b")])
        let script = RedisScript(name: "a", source: "a")
        func call(_ number: Int64) -> Outcome {
            Outcome(client.evaluate(script, keys: ["k"], arguments: [.integer(number)]))
        }
        let first = call(1)
        let second = call(2)
        #expect(try redis.commands() == [["EVALSHA", "sha-a", "1", "k", "1"], ["EVALSHA", "sha-a", "1", "k", "2"]])
        try redis.send("-NOSCRIPT No matching script.\r\n")
        let third = call(3)
        let plain = Outcome(client.command(["PING"]))
        #expect(try redis.commands().isEmpty)
        try redis.send("-NOSCRIPT No matching script.\r\n")
        #expect(
            try redis.commands() == [
                ["SCRIPT", "LOAD", "a"], ["SCRIPT", "LOAD", "b"], ["EVALSHA", "sha-a", "1", "k", "1"],
                ["EVALSHA", "sha-a", "1", "k", "2"], ["EVALSHA", "sha-a", "1", "k", "3"], ["PING"],
            ]
        )
        try redis.send("$5\r\nsha-a\r\n$5\r\nsha-b\r\n+1\r\n+2\r\n+3\r\n+PONG\r\n")
        #expect([first, second, third, plain].map(\.text) == ["1", "2", "3", "PONG"])
    }

    @Test("a script that is forgotten again and again fails its call in the end")
    func noScriptForEver() throws {
        let script = RedisScript(name: "a", source: "a")
        let client = try connected(scripts: [script])
        let outcome = Outcome(client.evaluate(script, keys: [], arguments: []))
        try redis.send("-NOSCRIPT No\r\n")
        for _ in 0..<3 {
            #expect(outcome.text == "pending")
            try redis.send("$5\r\nsha-a\r\n-NOSCRIPT No\r\n")
        }
        #expect(outcome.text == "server")
        #expect(outcome.error?.message == "NOSCRIPT No")
    }

    @Test("closing before the dial ended drops the socket that comes")
    func closeWhileDialling() throws {
        redis.isDown = true
        let client = try redis.client()
        client.start()
        #expect(Outcome(client.close()).text == "done")
        redis.isDown = false
        redis.advance(60_000)
        #expect(redis.dials == 1)
        #expect(Outcome(client.whenConnected(within: .seconds(1))).text == "notConnected")
    }
}

/// On the test's thread.
private final class States: @unchecked Sendable {
    private(set) var all: [String] = []
    func append(_ state: String) { all.append(state) }
}
