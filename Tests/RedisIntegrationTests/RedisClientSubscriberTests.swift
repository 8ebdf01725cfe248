import NIOCore
import RedisClient
import TestSupport
import Testing

@Suite("RedisSubscriber", .timeLimit(.minutes(10)))
struct RedisClientSubscriberTests {
    let prefix = "t\(UInt64.random(in: 0 ... .max))"

    @Test("hears, then delivers what is published on its channels, and nothing else")
    func delivers() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        #expect(try await subscriber.onLoop { $0.hears })

        try await subscriber.subscribe("\(prefix):a")
        try await subscriber.subscribe("\(prefix):b")
        try await client.run("PUBLISH", .string("\(prefix):other"), "no")
        try await client.run("PUBLISH", .string("\(prefix):a"), "one")
        try await client.run("PUBLISH", .string("\(prefix):b"), "")
        let long = String(repeating: "é", count: 300_000)
        try await client.run("PUBLISH", .string("\(prefix):a"), .string(long))
        #expect(await events.next() == .message("one", on: "\(prefix):a"))
        #expect(await events.next() == .message("", on: "\(prefix):b"))
        #expect(await events.next() == .message(long, on: "\(prefix):a"))

        try await subscriber.unsubscribe("\(prefix):a")
        // Confirmed after the UNSUBSCRIBE that was written before it.
        try await subscriber.subscribe("\(prefix):c")
        #expect(try await client.run("PUBLISH", .string("\(prefix):a"), "no").int == 0)
        try await client.run("PUBLISH", .string("\(prefix):c"), "last")
        #expect(await events.next() == .message("last", on: "\(prefix):c"))
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("works over a Unix socket, as an ACL user")
    func unixSocket() async throws {
        let server = try RedisServerProcess(configuration: ["user bob on >secret ~* &* +@all", "user default off"])
        let client = try await RedisClient.connected("unix://bob:secret@\(server.socketPath)")
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("twenty thousand messages arrive once and in order")
    func burst() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        let channel = "\(prefix):burst"
        try await subscriber.subscribe(channel)
        let payload = String(repeating: "x", count: 150)
        try await client.eventLoop.submit {
            for number in 0..<20_000 {
                _ = client.command(
                    ["PUBLISH", .string(channel), .string("\(number) \(payload)")],
                    timeout: .seconds(30)
                )
            }
        }.get()
        for number in 0..<20_000 {
            let event = await events.next()
            guard event == .message("\(number) \(payload)", on: channel) else {
                Issue.record("expected \(number), got \(String(describing: event))")
                break
            }
        }
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("a thousand quick changes of mind end in what was wanted last")
    func flipping() async throws {
        let client = try await RedisClient.connected(RedisServerProcess.shared().url)
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        let channel = "\(prefix):flip"
        for round in 0..<50 {
            let last = try await subscriber.flip(channel, times: 20)
            if round % 2 == 0 {
                try await last.get()
                #expect(try await client.run("PUBLISH", .string(channel), "heard").int == 1)
                #expect(await events.next() == .message("heard", on: channel))
            }
            try await subscriber.unsubscribe(channel)
        }
        try await subscriber.subscribe("\(prefix):after")
        #expect(try await client.run("PUBLISH", .string(channel), "no").int == 0)
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("Redis killed and restarted: deaf, then hears again with every channel subscribed")
    func restart() async throws {
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url)
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        let channels = (0..<5000).map { "\(prefix):\($0)" }
        try await subscriber.subscribe(channels)
        server.kill()
        #expect(await events.next() == .deaf)
        #expect(try await subscriber.onLoop { !$0.hears })
        // Asked while there is no connection; confirmed by the next one.
        let asked = try await subscriber.asked("\(prefix):meanwhile")
        try server.restart()
        #expect(await events.next() == .hears)
        try await asked.get()
        try await client.whenConnected(within: .seconds(50)).get()
        let count = try await client.run("PUBSUB", "CHANNELS", .string("\(prefix):*")).array?.count
        #expect(count == 5001)
        try await client.run("PUBLISH", .string(channels[4999]), "back")
        #expect(await events.next() == .message("back", on: channels[4999]))
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("Redis stopped and continued: deaf, then hears again, also when both connections were given up")
    func standstill() async throws {
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url) {
            $0.commandTimeout = .milliseconds(500)
            $0.connectTimeout = .milliseconds(500)
            $0.silenceTimeout = .milliseconds(2600)
            $0.probeInterval = .milliseconds(200)
            $0.deafAfter = .milliseconds(1200)
        }
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        try await subscriber.subscribe("\(prefix):a")
        for isLong in [false, true] {
            var states = client.states().makeAsyncIterator()
            #expect(await states.next() == true)
            server.pause()
            #expect(await events.next() == .deaf)
            if isLong {
                // Until the silence ended the command connection too.
                #expect(await states.next() == false)
            }
            server.resume()
            #expect(await events.next() == .hears)
            try await client.whenConnected(within: .seconds(50)).get()
            try await client.run("PUBLISH", .string("\(prefix):a"), "back", timeout: .seconds(30))
            #expect(await events.next() == .message("back", on: "\(prefix):a"))
        }
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("only the subscription killed: deaf, then healed, and the command connection is not touched")
    func subscriptionKilled() async throws {
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url)
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        try await subscriber.subscribe("\(prefix):a")
        for round in 0..<3 {
            #expect(try await client.run("CLIENT", "KILL", "TYPE", "pubsub").int == 1)
            #expect(await events.next() == .deaf)
            #expect(await events.next() == .hears)
            try await client.run("PUBLISH", .string("\(prefix):a"), .integer(Int64(round)))
            #expect(await events.next() == .message("\(round)", on: "\(prefix):a"))
        }
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("a channel that the ACL forbids leaves the subscriber deaf with Redis' words, until it is allowed")
    func forbiddenChannel() async throws {
        let server = try RedisServerProcess(configuration: ["user bob on >secret ~* resetchannels &probe* +@all"])
        let client = try await RedisClient.connected("redis://bob:secret@127.0.0.1:\(server.port)")
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        let confirmed = try await subscriber.asked("forbidden")
        #expect(await events.next() == .deaf)
        try await client.run("ACL", "SETUSER", "bob", "&forbidden")
        #expect(await events.next() == .hears)
        try await confirmed.get()
        try await subscriber.stop()
        try await client.close().get()
    }

    @Test("unsubscribing and stopping fail what was not confirmed")
    func unconfirmed() async throws {
        let server = try RedisServerProcess()
        let client = try await RedisClient.connected(server.url)
        let subscriber = try await SubscriberUnderTest.started(client: client)
        server.pause()
        let first = try await subscriber.asked("a")
        let second = try await subscriber.asked("b")
        try await subscriber.unsubscribe("a")
        #expect(try await failure(of: first).code == .closed)
        try await subscriber.stop()
        #expect(try await failure(of: second).code == .closed)
        await #expect(throws: RedisError.self) { try await subscriber.subscribe("c") }
        try await client.close().get()
        server.resume()
    }
}
