import Foundation
import Glibc
import TestSupport
import Testing

/// Each fault between a bare client and a bare server.
@Suite("A proxy that harms what it passes on", .timeLimit(.minutes(10)))
struct FaultProxyTests {
    /// A client and a server with a proxy between them, connected.
    private struct Ends {
        let proxy: FaultProxy
        let listener: PlainListener
        let client: PlainSocket
        let server: PlainSocket

        static func connect(mark: String? = nil, _ fault: Fault = Fault()) async throws -> Ends {
            let listener = try PlainListener()
            let proxy = try await FaultProxy.start(to: listener.port, mark: mark)
            await proxy.set(fault)
            return try await more(proxy, listener)
        }

        static func more(_ proxy: FaultProxy, _ listener: PlainListener) async throws -> Ends {
            let port = proxy.port
            let client = try await offPool { try PlainSocket(port: port) }
            let server = try await offPool { try listener.accept() }
            return Ends(proxy: proxy, listener: listener, client: client, server: server)
        }
    }

    private static let text = "what the client says\n"

    @Test("Without a fault bytes and ends pass in both ways")
    func passes() async throws {
        let ends = try await Ends.connect()
        try await ends.client.send(Self.text)
        #expect(try await ends.server.receive(Self.text.utf8.count) == .bytes(Self.text))
        try await ends.server.send("the answer")
        #expect(try await ends.client.receive(10) == .bytes("the answer"))
        // Half an end: the other way goes on.
        ends.client.endOutput()
        #expect(try await ends.server.receive(1) == .end)
        try await ends.server.send("still here")
        #expect(try await ends.client.receive(10) == .bytes("still here"))
        ends.server.endOutput()
        #expect(try await ends.client.receive(1) == .end)
        try await ends.proxy.figures.wait(within: .seconds(5), "the connection to be over") { figures in
            figures.open == 0 ? () : nil
        }
        #expect(ends.proxy.figures.current.fromClients == Self.text.utf8.count)
        await ends.proxy.stop()
    }

    @Test("A megabyte passes whole and in order, also with jitter and a reader that waits")
    func passesMuch() async throws {
        var fault = Fault()
        fault.jitter = .milliseconds(5)
        let ends = try await Ends.connect(fault)
        let much = String((0..<100_000).flatMap { "\($0)          ".prefix(10) })
        async let sent: Void = ends.client.send(much)
        try await Task.sleep(for: .milliseconds(100))
        let received = try await ends.server.receive(much.utf8.count)
        try await sent
        #expect(received == .bytes(much))
        await ends.proxy.stop()
    }

    @Test("Latency holds bytes back in each way, and jitter up to its bound on top")
    func delays() async throws {
        var fault = Fault()
        fault.latency = .seconds(2)
        fault.jitter = .milliseconds(50)
        let ends = try await Ends.connect(fault)
        let start = ContinuousClock.now
        try await ends.client.send("ping")
        #expect(try await ends.server.receive(4) == .bytes("ping"))
        #expect(start.duration(to: .now) >= .milliseconds(1999))
        try await ends.server.send("pong")
        #expect(try await ends.client.receive(4) == .bytes("pong"))
        #expect(start.duration(to: .now) >= .milliseconds(3999))
        await ends.proxy.set(Fault())
        let second = ContinuousClock.now
        try await ends.client.send("ping")
        #expect(try await ends.server.receive(4) == .bytes("ping"))
        #expect(second.duration(to: .now) < .milliseconds(1999), "switched off at run time")
        await ends.proxy.stop()
    }

    @Test("A throttle lets so many bytes through a second")
    func throttles() async throws {
        var fault = Fault()
        fault.bytesPerSecond = 20_000
        let ends = try await Ends.connect(fault)
        let much = String(repeating: "0123456789", count: 1000)
        let start = ContinuousClock.now
        async let sent: Void = ends.client.send(much)
        #expect(try await ends.server.receive(much.utf8.count) == .bytes(much))
        try await sent
        let time = start.duration(to: .now)
        #expect(time > .milliseconds(400), "10 kB took \(time)")
        await ends.proxy.stop()
    }

    @Test("Bytes come one by one, and all")
    func splits() async throws {
        var fault = Fault()
        fault.isSplit = true
        // One each 25 ms, so that a reader which comes late finds not all of them.
        fault.bytesPerSecond = 40
        let ends = try await Ends.connect(fault)
        try await ends.client.send(Self.text)
        let first = try await ends.server.receiveSome()
        #expect(first.utf8.count < Self.text.utf8.count, "not all at once")
        #expect(try await ends.server.receive(Self.text.utf8.count - first.utf8.count) != .end)
        await ends.proxy.stop()
    }

    @Test("A cut ends both sides, and the next connection lives")
    func cuts() async throws {
        let ends = try await Ends.connect()
        try await ends.client.send(Self.text)
        #expect(try await ends.server.receive(Self.text.utf8.count) == .bytes(Self.text))
        await ends.proxy.cut()
        #expect(try await ends.client.receive(1) == .end)
        #expect(try await ends.server.receive(1) == .end)
        let next = try await Ends.more(ends.proxy, ends.listener)
        try await next.client.send("again")
        #expect(try await next.server.receive(5) == .bytes("again"))
        await ends.proxy.stop()
    }

    @Test("A reset is a reset on both sides; one of the peer's own is passed on")
    func resets() async throws {
        let ends = try await Ends.connect()
        try await ends.client.send("a")
        #expect(try await ends.server.receive(1) == .bytes("a"))
        await ends.proxy.reset()
        #expect(try await ends.client.receive(1) == .reset)
        #expect(try await ends.server.receive(1) == .reset)
        let next = try await Ends.more(ends.proxy, ends.listener)
        try await next.client.send("a")
        #expect(try await next.server.receive(1) == .bytes("a"))
        next.server.reset()
        #expect(try await next.client.receive(1) == .reset)
        await ends.proxy.stop()
    }

    @Test("A black hole swallows both ways and closes nothing, and what was in it stays deaf")
    func swallows() async throws {
        let ends = try await Ends.connect(.blackHole)
        try await ends.client.send(Self.text)
        try await ends.server.send("the answer")
        try await ends.proxy.figures.wait(within: .seconds(5), "the bytes to be swallowed") { figures in
            figures.swallowed == Self.text.utf8.count + 10 ? () : nil
        }
        #expect(try await ends.server.receive(1, within: 1) == .nothing)
        #expect(try await ends.client.receive(1, within: 1) == .nothing)
        await ends.proxy.heal()
        try await ends.client.send("lost too")
        #expect(try await ends.server.receive(1, within: 1) == .nothing)
        // Nobody hears that the other is gone.
        ends.client.endOutput()
        #expect(try await ends.server.receive(1, within: 1) == .nothing)
        let next = try await Ends.more(ends.proxy, ends.listener)
        try await next.client.send("alive")
        #expect(try await next.server.receive(5) == .bytes("alive"))
        await ends.proxy.stop()
    }

    @Test("A black hole in one way lets the other way through", arguments: Fault.Way.allCases)
    func swallowsOneWay(way: Fault.Way) async throws {
        var fault = Fault()
        fault.swallowed = [way]
        let ends = try await Ends.connect(fault)
        let (deaf, hearing) = way == .toServer ? (ends.server, ends.client) : (ends.client, ends.server)
        try await hearing.send("lost")
        try await deaf.send("heard")
        #expect(try await hearing.receive(5) == .bytes("heard"))
        #expect(try await deaf.receive(1, within: 1) == .nothing)
        await ends.proxy.stop()
    }

    @Test("What is held comes when the fault is over")
    func holds() async throws {
        var fault = Fault()
        fault.held = [.toServer, .toClient]
        let ends = try await Ends.connect(fault)
        try await ends.client.send(Self.text)
        ends.client.endOutput()
        #expect(try await ends.server.receive(1, within: 1) == .nothing)
        await ends.proxy.heal()
        #expect(try await ends.server.receive(Self.text.utf8.count) == .bytes(Self.text))
        #expect(try await ends.server.receive(1) == .end)
        await ends.proxy.stop()
    }

    @Test("A fault for what said the mark spares the rest, and one that says it later falls in")
    func marks() async throws {
        let marked = try await Ends.connect(mark: "SUBSCRIBE")
        let plain = try await Ends.more(marked.proxy, marked.listener)
        // In two pieces: the mark may stand across them.
        try await marked.client.send("*2 SUBS")
        #expect(try await marked.server.receive(7) == .bytes("*2 SUBS"))
        await marked.proxy.set(.blackHole, for: .marked)
        try await marked.client.send("CRIBE")
        try await plain.client.send("GET")
        #expect(try await plain.server.receive(3) == .bytes("GET"))
        #expect(try await marked.server.receive(1, within: 1) == .nothing)
        #expect(marked.proxy.figures.current.marked == 1)
        await marked.proxy.reset(.marked)
        #expect(try await marked.client.receive(1) == .reset)
        try await plain.client.send("SET")
        #expect(try await plain.server.receive(3) == .bytes("SET"))
        await marked.proxy.stop()
    }

    @Test("New connections are refused with a reset, and go elsewhere when told")
    func refusesAndRedirects() async throws {
        let ends = try await Ends.connect()
        await ends.proxy.refuse(true)
        let port = ends.proxy.port
        let refused = try await offPool { try PlainSocket(port: port) }
        let end = try await refused.receive(1)
        #expect(end == .reset || end == .end)
        try await ends.client.send("a")
        #expect(try await ends.server.receive(1) == .bytes("a"), "who was there stays")
        await ends.proxy.refuse(false)
        let other = try PlainListener()
        await ends.proxy.redirect(to: other.port)
        let moved = try await Ends.more(ends.proxy, other)
        try await moved.client.send("b")
        #expect(try await moved.server.receive(1) == .bytes("b"))
        await ends.proxy.stop()
    }

    @Test("Words of the client are replaced, also one that comes in two pieces")
    func rewrites() async throws {
        let listener = try PlainListener()
        let proxy = try await FaultProxy.start(to: listener.port, words: ["protection": "----------"])
        let ends = try await Ends.more(proxy, listener)
        try await ends.client.send("with protection, prot")
        #expect(try await ends.server.receive(17) == .bytes("with ----------, "))
        try await ends.client.send("ection and proteins\n")
        #expect(try await ends.server.receive(24) == .bytes("---------- and proteins\n"))
        await proxy.stop()
    }
}
