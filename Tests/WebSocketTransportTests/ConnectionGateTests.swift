import Glibc
import NIOCore
import NIOHTTP1
import Testing
import WebSocketTransport

@Suite("Which connections a server takes")
struct ConnectionGateTests {
    /// A server whose echo sessions count as strangers until they end.
    private func with(
        _ limits: GateLimits, trusted: [String] = [], _ transport: WebSocketLimits = TestServer.limits,
        _ body: (_ port: Int, _ gate: ConnectionGate) throws -> Void
    ) throws {
        let trusted = TrustedProxies(trusted.compactMap { AddressBlock($0) })
        let gate = ConnectionGate(limits: limits, trustedProxies: trusted)
        let server = try HTTPServer.start(
            host: "127.0.0.1", port: 0, group: TestServer.group, limits: transport, trustedProxies: trusted, gate: gate,
            onRequest: { request, loop in
                loop.makeSucceededFuture(
                    request.path == "/healthz"
                        ? HTTPResponse(status: .ok, contentType: "text/plain", body: "ok")
                        : request.refusal ?? HTTPResponse(status: .ok, contentType: "text/plain", body: "hello"))
            },
            onUpgrade: { request, _ in
                request.path == "/ws"
                    ? .accept { _ in Echo() } : .refuse(.error(.unauthorized, reason: "no", message: "No."))
            }
        ).wait()
        defer { try? server.close().wait() }
        try body(try #require(server.localAddress?.port), gate)
    }

    private func open(_ port: Int, header: String = "") throws -> RawSocket {
        let socket = try RawSocket(port: port)
        socket.send(RawSocket.handshake.replacing("Host: x\r\n", with: "Host: x\r\n\(header)"))
        #expect(socket.receiveHead().hasPrefix("HTTP/1.1 101 "))
        return socket
    }

    private func refusal(_ port: Int, header: String = "") throws -> String {
        let socket = try RawSocket(port: port)
        socket.send(RawSocket.handshake.replacing("Host: x\r\n", with: "Host: x\r\n\(header)"))
        let (head, body) = socket.receiveResponse()
        #expect(head.contains("Retry-After: "))
        return "\(head.dropFirst(9).prefix(3)) \(body.split(separator: "\"").dropFirst(7).first ?? "")"
    }

    private func expectEcho(_ socket: RawSocket) {
        socket.send(clientText("still here"))
        #expect(socket.receiveFrame()?.payload == Array("still here".utf8))
    }

    private func wait(until condition: () -> Bool) throws {
        for _ in 0..<1000 where !condition() { usleep(10_000) }
        #expect(condition())
    }

    @Test(
        "T19: over the limit new ones are told 503, still more are closed without a word, and those there are unharmed"
    )
    func connections() throws {
        var limits = GateLimits()
        limits.connections = 2
        limits.refusedAtOnce = 1
        try with(limits) { port, gate in
            let sockets = try (0..<2).map { _ in try open(port) }
            #expect(try refusal(port) == "503 too_many_connections")
            try wait { gate.openConnections == 2 }
            let healthy = try RawSocket(port: port)
            try wait { gate.openConnections == 3 }
            #expect(try RawSocket(port: port).receiveAll() == [])
            healthy.send("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(healthy.receiveResponse().body == "ok")
            for socket in sockets { expectEcho(socket) }
            sockets[0].send(clientFrame(0x88, closePayload(1000)))
            _ = sockets[0].receiveAll()
            try wait { gate.openConnections == 1 }
            expectEcho(try open(port))
            expectEcho(sockets[1])
            #expect(gate.droppedConnections == 1)
        }
    }

    @Test("T19: an address has so many connections and no more, also behind a trusted proxy, and a proxy has no limit")
    func addresses() throws {
        var limits = GateLimits()
        limits.address.connections = 1
        try with(limits) { port, gate in
            let first = try open(port)
            #expect(try refusal(port) == "429 too_many_connections_of_address")
            first.send(clientFrame(0x88, closePayload(1000)))
            _ = first.receiveAll()
            try wait { gate.openConnections == 0 }
            expectEcho(try open(port))
        }
        try with(limits, trusted: ["127.0.0.0/8"]) { port, gate in
            let proxied = try ["203.0.113.1", "203.0.113.2", "2001:db8::1"].map {
                try open(port, header: "X-Forwarded-For: \($0)\r\n")
            }
            let direct = try (0..<3).map { _ in try open(port) }
            for client in ["203.0.113.1", "2001:db8::ffff"] {
                let refusal = try refusal(port, header: "X-Forwarded-For: \(client)\r\n")
                #expect(refusal == "429 too_many_connections_of_address")
            }
            for socket in proxied + direct { expectEcho(socket) }
            proxied[0].send(clientFrame(0x88, closePayload(1000)))
            _ = proxied[0].receiveAll()
            try wait { gate.openConnections == 5 }
            expectEcho(try open(port, header: "X-Forwarded-For: 203.0.113.1\r\n"))
        }
    }

    @Test("T19: handshakes of an address come at a rate")
    func handshakes() throws {
        var limits = GateLimits()
        limits.address.handshakesPerSecond = 1
        try with(limits) { port, _ in
            for _ in 0..<4 { expectEcho(try open(port)) }
            #expect(try refusal(port) == "429 too_many_handshakes_of_address")
        }
    }

    @Test("T19: who sends rubbish is barred, whatever the rubbish; who is connected stays")
    func bars() throws {
        let rubbish: [(AnomalyCause, (RawSocket) -> Void)] = [
            (.badHandshake, { $0.send("RUBBISH\r\n\r\n") }),
            (.badHandshake, { $0.send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") }),
            (.badToken, { $0.send(RawSocket.handshake.replacing("/ws", with: "/token")) }),
            (.badFrame, { $0.send(RawSocket.handshake + "\u{1}\u{1}\u{1}\u{1}") }),
        ]
        for (cause, misbehave) in rubbish {
            var limits = GateLimits()
            limits.address.faults = 3
            try with(limits) { port, gate in
                let friend = try open(port)
                for _ in 0..<3 {
                    let socket = try RawSocket(port: port)
                    misbehave(socket)
                    _ = socket.receiveHead()
                    if cause == .badFrame { _ = socket.receiveAll() }
                }
                try wait { gate.addresses.barred == 1 }
                #expect(try refusal(port) == "429 address_barred")
                #expect(gate.addresses.anomalies == [cause: 3])
                expectEcho(friend)
            }
        }
    }

    @Test("T20: a message that comes in drips ends its connection, and one that comes in time does not")
    func slowMessage() throws {
        var limits = TestServer.limits
        limits.messageTimeout = .milliseconds(300)
        try with(GateLimits(), limits) { port, gate in
            let frame = clientText(String(repeating: "x", count: 100))
            let slow = try open(port)
            let patient = try open(port)
            // A ping between the fragments gives no more time.
            slow.send(clientFrame(0x01, Array("begun".utf8)))
            var received: [UInt8] = []
            for byte in frame.prefix(40) {
                slow.send(clientFrame(0x89, []))
                slow.send(clientFrame(0x00, [byte & 0x7F]))
                usleep(25_000)
                if gate.openConnections == 1 { break }
            }
            received = slow.receiveAll()
            #expect(received.suffix(32).starts(with: [0x88, 30, 0x03, 0xEA]), "\(received.suffix(40))")
            for _ in 0..<3 {
                patient.send(Array(frame.prefix(50)))
                usleep(150_000)
                patient.send(Array(frame.dropFirst(50)))
                #expect(patient.receiveFrame()?.payload.count == 100)
            }
        }
    }

    @Test("T20: a head that comes in drips is 408 in the end")
    func slowHead() throws {
        var limits = TestServer.limits
        limits.requestTimeout = .milliseconds(300)
        try with(GateLimits(), limits) { port, gate in
            let socket = try RawSocket(port: port)
            for byte in Array(RawSocket.handshake.utf8).dropLast(4).prefix(60) {
                socket.send([byte])
                usleep(25_000)
                if gate.addresses.anomalies[.badHandshake] != nil { break }
            }
            #expect(socket.receiveResponse().head.hasPrefix("HTTP/1.1 408 "))
            #expect(gate.addresses.anomalies == [.badHandshake: 1])
        }
    }

    @Test("T24: out of memory, nobody new is taken; strangers are so many and no more")
    func memoryAndStrangers() throws {
        var limits = GateLimits()
        limits.unauthenticated = 1
        try with(limits) { port, gate in
            gate.isOutOfMemory = true
            #expect(try refusal(port) == "503 out_of_memory")
            gate.isOutOfMemory = false
            expectEcho(try open(port))
            #expect(gate.strangerCame() == nil)
            #expect(gate.strangerCame()?.reason == .unauthenticated)
            gate.strangerLeft()
            #expect(gate.strangerCame() == nil)
        }
    }
}
