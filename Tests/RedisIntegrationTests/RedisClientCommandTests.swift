import NIOCore
import RedisClient
import TestSupport
import Testing

@Suite("RedisClient: commands", .timeLimit(.minutes(10)))
struct RedisClientCommandTests {
    let prefix = "t\(UInt64.random(in: 0 ... .max))"

    @Test("ten thousand pipelined commands are answered in order")
    func pipelining() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        let key = RedisArgument.string("\(prefix):n")
        let futures = try await client.eventLoop.submit {
            (0..<10_000).map { _ in client.command(["INCR", key]) }
        }.get()
        for (index, future) in futures.enumerated() {
            #expect(try await future.get() == .integer(Int64(index + 1)))
        }
        try await client.close().get()
    }

    @Test("bytes of every length come back as they were")
    func binary() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        for length in [0, 1, 2, 1023, 1024, 16_383, 16_384, 16_385, 65_536, 5_000_000] {
            let bytes = ByteBuffer(bytes: (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ length) })
            let reply = try await client.run("ECHO", .bytes(bytes))
            #expect(reply == .bulk(bytes))
        }
        try await client.close().get()
    }

    @Test("every kind of reply arrives, nested too")
    func kinds() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        let script = RedisScript(
            name: "kinds",
            source: "return {1, 'two', {ok='THREE'}, {err='FOUR five'}, {{}, {-6}}, false, ''}"
        )
        let reply = try await client.evaluate(script, keys: [], arguments: []).get()
        #expect(
            reply
                == .array([
                    .integer(1), .bulk(ByteBuffer(string: "two")), .status("THREE"), .error("FOUR five"),
                    .array([.array([]), .array([.integer(-6)])]), .null, .bulk(ByteBuffer()),
                ])
        )
        #expect(try await client.run("ECHO", .integer(.min)).int == .min)
        #expect(try await client.run("ECHO", .integer(.max)).int == .max)
        #expect(try await client.run("ECHO", .integer(0)).int == 0)
        try await client.close().get()
    }

    @Test("an error of Redis fails its command alone")
    func serverError() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        let before = client.command(["PING"])
        let wrong = client.command(["NO-SUCH-COMMAND"])
        let after = client.command(["PING"])
        #expect(try await before.get() == .status("PONG"))
        let error = try await failure(of: wrong)
        #expect(error.code == .server)
        #expect(error.message.hasPrefix("ERR unknown command 'NO-SUCH-COMMAND'"))
        #expect(!error.outcomeIsUnknown)
        #expect(!error.isOutOfMemory)
        #expect(try await after.get() == .status("PONG"))
        try await client.close().get()
    }

    @Test("a Redis without memory is told apart, for a command and inside a script; allow-oom scripts run")
    func outOfMemory() async throws {
        let server = try RedisServerProcess(configuration: ["maxmemory 1", "maxmemory-policy noeviction"])
        let client = try await RedisClient.connected(server.url)
        #expect(try await failure(of: client.command(["SET", "k", "v"])).isOutOfMemory)
        let write = "redis.call('SET', KEYS[1], 'v') return 1"
        let refused = RedisScript(name: "refused", source: write)
        #expect(try await failure(of: client.evaluate(refused, keys: ["k"], arguments: [])).isOutOfMemory)
        let allowed = RedisScript(name: "allowed", source: "#!lua flags=allow-oom\n" + write)
        #expect(try await client.evaluate(allowed, keys: ["k"], arguments: []).get().int == 1)
        try await client.close().get()
    }

    @Test("a command keeps its place after its deadline, so that later replies find theirs")
    func deadline() async throws {
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url)
        server.pause()
        let late = client.command(["ECHO", "late"], timeout: .milliseconds(100))
        let patient = client.command(["ECHO", "patient"], timeout: .seconds(20))
        let error = try await failure(of: late)
        #expect(error.code == .timeout)
        #expect(error.outcomeIsUnknown)
        server.resume()
        #expect(try await patient.get().string == "patient")
        #expect(try await client.run("ECHO", "next").string == "next")
        try await client.close().get()
    }

    @Test("scripts that Redis forgot are loaded again, and calls keep their order")
    func forgottenScripts() async throws {
        let push = RedisScript(name: "push", source: "return redis.call('RPUSH', KEYS[1], ARGV[1])")
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url, scripts: [echo, push])
        let key = RedisArgument.string("\(prefix):list")
        for _ in 0..<5 {
            try await client.run("DEL", key)
            try await client.run("SCRIPT", "FLUSH")
            // Some go before the first NOSCRIPT is back, some while the scripts are loaded again.
            var futures: [EventLoopFuture<RESPValue>] = []
            for number in 0..<400 {
                futures.append(client.evaluate(push, keys: [key], arguments: [.integer(Int64(number))]))
                if number % 20 == 19 {
                    try await client.eventLoop.submit {}.get()
                }
            }
            for future in futures {
                _ = try await future.get()
            }
            let list = try await client.run("LRANGE", key, .integer(0), .integer(-1)).array?.compactMap(\.int)
            #expect(list == (0..<400).map { Int64($0) })
        }
        try await client.close().get()
    }

    @Test("a script that was not given at start is sent whole")
    func unregisteredScript() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        #expect(try await client.evaluate(echo, keys: [], arguments: ["whole"]).get().string == "whole")
        try await client.close().get()
    }
}
