import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import RouterServer

@Suite("Connections to nodes that are kept", .timeLimit(.minutes(5)))
struct KeptConnectionTests {
    private let empty = "HTTP/1.1 204 No Content\r\n\r\n"

    private func request(_ path: String, method: String = "GET", _ rest: String = "\r\n") -> String {
        "\(method) \(path)?key=k HTTP/1.1\r\nHost: a\r\n\(rest)"
    }

    /// Before one node, with one loop, so that all requests could share a connection.
    private func run(
        _ limits: RouterLimits = .patient, _ body: (Router, Int, FakeNode) async throws -> Void
    ) async throws {
        let node = try await FakeNode.start("a")
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        try await withRouter(over: [node.node], limits: limits, keepsNodes: true, group: group) { router, port, _ in
            try await body(router, port, node)
        }
        try await node.stop()
        try await group.shutdownGracefully()
    }

    @Test("requests of several clients follow each other on one connection, and bodies do not run into each other")
    func reuse() async throws {
        try await run { router, port, node in
            let clients = [try await Wire.connect(port: port), try await Wire.connect(port: port)]
            try await clients[0].send(request("/0"))
            let wire = try await node.connection()
            #expect(try await !wire.receiveHead().contains("Connection:"))
            try await wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            _ = try await clients[0].receiveHead()
            #expect(try await clients[0].receiveText(13) == "3\r\nabc\r\n0\r\n\r\n")
            for (index, client) in clients.enumerated() {
                try await client.send(request("/\(index + 1)"))
                #expect(try await wire.receiveHead().hasPrefix("GET /\(index + 1)?key=k HTTP/1.1\r\n"))
                try await wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\(index)")
                #expect(try await client.receiveMessage().body == "\(index)")
            }
            try await clients[1].send(request("/3", method: "HEAD") + request("/4"))
            #expect(try await wire.receiveHead().hasPrefix("HEAD /3"))
            try await wire.send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
            #expect(try await wire.receiveHead().hasPrefix("GET /4"))
            try await wire.send(empty)
            _ = try await clients[1].receiveHead()
            #expect(try await clients[1].receiveHead() == empty)
            #expect(node.connectionsWaiting == 0)
            #expect(router.core.reuses.load(ordering: .relaxed) == 4)
        }
    }

    @Test(
        "an answer that ends the connection, or after which nobody knows what comes, is the last on it",
        arguments: [
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx",
        ])
    func last(answer: String) async throws {
        try await run { _, port, node in
            let client = try await Wire.connect(port: port)
            for _ in 0..<2 {
                try await client.send(request("/"))
                let wire = try await node.connection()
                _ = try await wire.receiveHead()
                try await wire.send(answer)
                #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 200 OK\r\n"))
                if answer.contains("chunked") { _ = try await client.receiveText(5) }
                await wire.end()
            }
        }
    }

    @Test("bytes that no request asked for end a kept connection, and are nobody's answer")
    func unasked() async throws {
        try await run { _, port, node in
            let client = try await Wire.connect(port: port)
            try await client.send(request("/"))
            let first = try await node.connection()
            _ = try await first.receiveHead()
            try await first.send(empty)
            _ = try await client.receiveHead()
            try await first.send("HTTP/1.1 200 OK\r\nX-Stray: 1\r\nContent-Length: 0\r\n\r\n")
            await first.end()
            try await client.send(request("/"))
            let second = try await node.connection()
            _ = try await second.receiveHead()
            try await second.send(empty)
            #expect(try await client.receiveHead() == empty)
        }
    }

    /// - Returns: the node's end, which is kept for the next request.
    private func exchange(_ request: String, of client: Wire, with node: FakeNode) async throws -> Wire {
        try await client.send(request)
        let server = try await node.connection()
        _ = try await server.receiveHead()
        try await server.send(empty)
        _ = try await client.receiveHead()
        return server
    }

    @Test("one that its node closes under a request is no failure of the node: the request goes over a new one")
    func stale() async throws {
        try await run { router, port, node in
            let client = try await Wire.connect(port: port)
            let first = try await exchange(request("/1"), of: client, with: node)

            try await client.send(request("/2"))
            #expect(try await first.receiveHead().hasPrefix("GET /2"))
            first.close()
            let second = try await node.connection()
            #expect(try await second.receiveHead().hasPrefix("GET /2"))
            try await second.send(empty)
            #expect(try await client.receiveHead() == empty)
            let route = router.core.nodes.nodes[0]
            #expect(router.core.nodes.ejected(route, now: .now()) == nil)

            // With a byte of an answer it is one of the node's failures.
            try await client.send(request("/3"))
            _ = try await second.receiveHead()
            try await second.send("HTTP/1.1 2")
            second.close()
            #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 502 "))
        }
    }

    @Test("one over which nothing comes back is no failure of the node: the request goes over a new one")
    func silent() async throws {
        var limits = RouterLimits.patient
        limits.answerTime = .milliseconds(300)
        try await run(limits) { _, port, node in
            let client = try await Wire.connect(port: port)
            // What may not be sent again is waited for longer than this test lasts.
            let first = try await exchange(
                request("/1", method: "POST", "Content-Length: 0\r\n\r\n"), of: client, with: node)

            try await client.send(request("/2"))
            #expect(try await first.receiveHead().hasPrefix("GET /2"))
            // The only node would not get it again if it were one that let its time pass.
            let second = try await node.connection()
            #expect(try await second.receiveHead().hasPrefix("GET /2"))
        }
    }

    @Test("one that is closed while nobody uses it is not used again")
    func closedIdle() async throws {
        try await run { router, port, node in
            let client = try await Wire.connect(port: port)
            for _ in 0..<2 {
                try await client.send(request("/"))
                let wire = try await node.connection()
                _ = try await wire.receiveHead()
                try await wire.send(empty)
                _ = try await client.receiveHead()
                // The router ends its side when it has seen the end of the other.
                try await wire.closeOutput()
                await wire.end()
            }
            #expect(router.core.reuses.load(ordering: .relaxed) == 0)
        }
    }

    @Test("what must not be repeated has a connection of its own, which is kept when all of it was read")
    func post() async throws {
        try await run { _, port, node in
            let client = try await Wire.connect(port: port)
            var wires: [Wire] = []
            for path in ["/1", "/2"] {
                try await client.send(request(path, method: "POST", "Content-Length: 2\r\n\r\nab"))
                let wire = try await node.connection()
                #expect(try await wire.receiveHead().hasPrefix("POST \(path)"))
                #expect(try await wire.receiveText(2) == "ab")
                try await wire.send(empty)
                _ = try await client.receiveHead()
                wires.append(wire)
            }
            try await client.send(request("/3"))
            #expect(try await wires[1].receiveHead().hasPrefix("GET /3"))
            try await wires[1].send(empty)
            _ = try await client.receiveHead()
            #expect(node.connectionsWaiting == 0)

            // Answered before the body was there: what follows of it must not be read as a request.
            try await client.send(request("/4", method: "POST", "Content-Length: 9\r\n\r\nab"))
            let early = try await node.connection()
            _ = try await early.receiveHead()
            try await early.send(empty)
            #expect(try await client.receiveAll().hasPrefix("HTTP/1.1 204 "))
            await early.end()
        }
    }

    @Test("they are kept for a time, so many of a node, and not by a router that drains")
    func bounds() async throws {
        var limits = RouterLimits.patient
        limits.nodeKeptConnections = 1
        try await run(limits) { router, port, node in
            let clients = [try await Wire.connect(port: port), try await Wire.connect(port: port)]
            var wires: [Wire] = []
            for client in clients {
                try await client.send(request("/"))
                wires.append(try await node.connection())
                _ = try await wires[wires.count - 1].receiveHead()
            }
            for (client, wire) in zip(clients, wires) {
                try await wire.send(empty)
                _ = try await client.receiveHead()
            }
            await wires[0].end()
            #expect(!wires[1].hasEnded)
            try await router.drain(within: .zero).get()
            await wires[1].end()
        }
        limits.nodeKeepAliveTime = .milliseconds(1)
        try await run(limits) { _, port, node in
            let client = try await Wire.connect(port: port)
            try await client.send(request("/"))
            let wire = try await node.connection()
            _ = try await wire.receiveHead()
            try await wire.send(empty)
            _ = try await client.receiveHead()
            await wire.end()
        }
    }

    private final class Line {}

    @Test("a list gives the last one first, and takes the oldest out, by number and by time")
    func list() {
        let lines = (0..<4).map { _ in Line() }
        var list = KeptList<Line>(most: 2, total: 9, time: .seconds(30))
        func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }
        #expect(list.take("a") == nil && list.nextEnd == nil)
        #expect(list.keep(lines[0], of: "a", now: at(0)) == nil)
        #expect(list.keep(lines[1], of: "a", now: at(1)) == nil)
        #expect(list.keep(lines[2], of: "b", now: at(2)) == nil)
        #expect(list.keep(lines[3], of: "a", now: at(3)) === lines[0])
        #expect(list.nextEnd == at(31))
        #expect(list.expire(now: at(30)).isEmpty)
        #expect(list.expire(now: at(31)).map(ObjectIdentifier.init) == [ObjectIdentifier(lines[1])])
        #expect(list.take("a") === lines[3] && list.take("a") == nil)
        list.remove(lines[2], of: "b")
        #expect(list.take("b") == nil && list.nextEnd == nil)
        var none = KeptList<Line>(most: 0, total: 9, time: .seconds(30))
        #expect(none.keep(lines[0], of: "a", now: at(0)) === lines[0])
    }

    @Test(
        "a list that is full gives up what it has kept longest, whatever the node, and has room again for each that goes"
    )
    func total() {
        let lines = (0..<5).map { _ in Line() }
        var list = KeptList<Line>(most: 2, total: 3, time: .seconds(30))
        func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }
        /// Fills it with the first three, whatever became of those before.
        func fill() {
            for (index, address) in ["a", "b", "b"].enumerated() {
                #expect(
                    list.keep(lines[index], of: address, now: at(Int64(index))) == nil, "there is room for \(index)")
            }
        }
        fill()
        #expect(list.keep(lines[3], of: "c", now: at(3)) === lines[0])
        #expect(list.take("a") == nil)
        // Its own list is full, too.
        #expect(list.keep(lines[4], of: "b", now: at(4)) === lines[1])
        #expect(list.take("b") === lines[4] && list.take("b") === lines[2] && list.take("c") === lines[3])
        fill()
        #expect(list.expire(now: at(32)).count == 3)
        fill()
        for (line, address) in [(lines[0], "a"), (lines[1], "b"), (lines[2], "b"), (lines[2], "b"), (lines[3], "x")] {
            list.remove(line, of: address)
        }
        fill()
        var none = KeptList<Line>(most: 2, total: 0, time: .seconds(30))
        #expect(none.keep(lines[0], of: "a", now: at(0)) === lines[0])
    }
}
