import NIOCore
import RedisClient
import TestSupport
import Testing

@Suite("RedisClient: connecting", .timeLimit(.minutes(10)))
struct RedisClientConnectionTests {
    @Test("connects over a Unix socket")
    func unixSocket() async throws {
        let server = try RedisServerProcess.shared()
        let client = try await RedisClient.connected(server.unixURL)
        #expect(try await client.run("PING") == .status("PONG"))
        try await client.close().get()
    }

    @Test("uses the database of the URL, over TCP and over a Unix socket")
    func database() async throws {
        let server = try RedisServerProcess.shared()
        for url in ["\(server.url)/3", "\(server.unixURL)?db=3"] {
            let client = try await RedisClient.connected(url)
            let info = try await client.run("CLIENT", "INFO").string ?? ""
            #expect(info.contains(" db=3 "))
            #expect(info.contains(" name=martlet "))
            try await client.close().get()
        }
    }

    @Test("logs in as an ACL user, whose password may hold any character")
    func accessControl() async throws {
        let server = try RedisServerProcess(configuration: ["user bob on >s:e@c/r?t ~* &* +@all"])
        let client = try await RedisClient.connected("redis://bob:s%3Ae%40c%2Fr%3Ft@127.0.0.1:\(server.port)")
        #expect(try await client.run("ACL", "WHOAMI").string == "bob")
        try await client.close().get()
    }

    @Test("serves an ACL user who may neither PING nor name the connection")
    func narrowUser() async throws {
        let server = try RedisServerProcess(configuration: ["user bob on >secret ~* &* +get"])
        let client = try await RedisClient.connected("redis://bob:secret@127.0.0.1:\(server.port)")
        #expect(try await client.run("GET", "nothing") == .null)
        try await client.close().get()
    }

    @Test("T28: a wrong password is said in a sentence that does not hold it")
    func wrongPassword() async throws {
        let server = try RedisServerProcess(configuration: ["requirepass right"])
        let client = try RedisClient.started("redis://:wr0ng@127.0.0.1:\(server.port)")
        let error = try await client.whyNotConnected()
        #expect(error.code == .notConnected)
        #expect(error.message.contains("Redis refused the user or password: WRONGPASS"))
        #expect(!error.message.contains("wr0ng"))
        try await client.close().get()
    }

    @Test("a missing password is said")
    func missingPassword() async throws {
        let server = try RedisServerProcess(configuration: ["requirepass right"])
        let client = try RedisClient.started(server.url)
        let error = try await client.whyNotConnected()
        #expect(error.message.contains("Redis asks for a password and the URL has none"))
        try await client.close().get()
    }

    @Test("a database that does not exist is said")
    func missingDatabase() async throws {
        let server = try RedisServerProcess.shared()
        let client = try RedisClient.started("\(server.url)/999")
        let error = try await client.whyNotConnected()
        #expect(error.message.contains("Redis refused database 999"))
        try await client.close().get()
    }

    @Test("an address where nobody listens is said, and a command fails at once")
    func nobodyListens() async throws {
        for url in ["redis://127.0.0.1:1", "unix:///nowhere/redis.sock", "redis://no-such-host.invalid"] {
            let client = try RedisClient.started(url)
            let error = try await client.whyNotConnected()
            #expect(error.message.hasPrefix("cannot reach Redis at \(client.configuration.addressDescription): "))
            let command = try await failure(of: client.command(["PING"]))
            #expect(command.code == .notConnected)
            #expect(!command.outcomeIsUnknown)
            try await client.close().get()
        }
    }

    @Test("a script that does not compile keeps the connection from being ready, with Redis' words")
    func brokenScript() async throws {
        let server = try RedisServerProcess.shared()
        let client = try RedisClient.started(server.url, scripts: [RedisScript(name: "broken", source: "return (")])
        let error = try await client.whyNotConnected()
        #expect(error.message.contains("Redis refused the script broken: ERR Error compiling script"))
        try await client.close().get()
    }

    @Test("finds Redis again after it was killed and restarted, with what was in flight failed")
    func restart() async throws {
        let server = try RedisServerProcess(configuration: ["appendonly yes", "appendfsync always"])
        let client = try await RedisClient.connected(server.url, scripts: [echo])
        var states = client.states().makeAsyncIterator()
        #expect(await states.next() == true)
        try await client.run("SET", "kept", "yes")
        let inFlight = client.command(["BLPOP", "never", "0"], timeout: .seconds(30))

        server.kill()
        #expect(await states.next() == false)
        let lost = try await failure(of: inFlight)
        #expect(lost.code == .closed)
        #expect(lost.outcomeIsUnknown)
        #expect(try await failure(of: client.command(["PING"])).code == .notConnected)

        try server.restart()
        #expect(await states.next() == true)
        #expect(try await client.run("GET", "kept").string == "yes")
        #expect(try await client.evaluate(echo, keys: ["k"], arguments: ["v"]).get().string == "v")
        try await client.close().get()
    }

    @Test("a Redis that stands still is given up after the silence, and found again when it goes on")
    func standstill() async throws {
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url) {
            $0.commandTimeout = .milliseconds(300)
            $0.connectTimeout = .milliseconds(300)
            $0.silenceTimeout = .milliseconds(900)
        }
        var states = client.states().makeAsyncIterator()
        #expect(await states.next() == true)
        server.pause()
        let late = try await failure(of: client.command(["PING"]))
        #expect(late.code == .timeout)
        #expect(late.outcomeIsUnknown)
        #expect(await states.next() == false)
        let error = try await failure(of: client.whenConnected(within: .milliseconds(400)))
        #expect(error.message.hasPrefix("cannot reach Redis"))
        server.resume()
        #expect(await states.next() == true)
        #expect(try await client.run("PING", timeout: .seconds(30)) == .status("PONG"))
        try await client.close().get()
    }

    @Test("closing fails what is in flight and ends the connection")
    func close() async throws {
        let server = try RedisServerProcess.shared()
        let client = try await RedisClient.connected(server.url)
        let key = RedisArgument.string("never:\(UInt64.random(in: 0 ... .max))")
        let inFlight = client.command(["BLPOP", key, "0"], timeout: .seconds(30))
        try await client.close().get()
        #expect(try await failure(of: inFlight).code == .closed)
        #expect(try await failure(of: client.command(["PING"])).code == .notConnected)
        #expect(try await failure(of: client.whenConnected(within: .seconds(5))).message.hasSuffix("is closed"))
        try await client.close().get()
    }
}

let echo = RedisScript(name: "echo", source: "return ARGV[1]")
