import NIOCore
import Testing

@testable import RouterServer

private let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Own: 1\r\n\r\nhello"

private func answerName(_ name: String) -> @Sendable (String) -> String {
    { _ in "HTTP/1.1 200 OK\r\nContent-Length: \(name.utf8.count)\r\n\r\n\(name)" }
}

@Suite("Proxying HTTP", .timeLimit(.minutes(5)))
struct RouterProxyTests {
    private func get(_ port: Int, _ target: String, _ fields: [String] = []) async throws -> (
        head: String, body: String
    ) {
        let wire = try await Wire.connect(port: port)
        try await wire.send(
            (["GET \(target) HTTP/1.1", "Host: chat.example"] + fields).joined(separator: "\r\n") + "\r\n\r\n"
        )
        let message = try await wire.receiveMessage()
        wire.close()
        return message
    }

    @Test("a request reaches a node with its forwarding fields, and the answer the client")
    func passes() async throws {
        let node = try await FakeNode.start("a") { _ in hello }
        try await withRouter(over: [node.node]) { _, port, _ in
            let (head, body) = try await get(port, "/x?key=k", ["Accept: */*"])
            #expect(head == "HTTP/1.1 200 OK\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\n")
            #expect(body == "hello")
            let lines = try #require(node.heads.first).split(separator: "\r\n")
            #expect(lines.prefix(3) == ["GET /x?key=k HTTP/1.1", "Host: chat.example", "Accept: */*"])
            #expect(lines.contains("X-Forwarded-For: 127.0.0.1"))
            #expect(lines.contains { $0.hasPrefix("X-Request-ID: ") && $0.utf8.count == 14 + 32 })
        }
        try await node.stop()
    }

    @Test("1,000 keys stay on their nodes, in two routers, and one node's end moves only its own")
    func sticky() async throws {
        var nodes: [FakeNode] = []
        for name in ["a", "b", "c", "d", "e"] { nodes.append(try await FakeNode.start(name, answer: answerName(name))) }
        let routed = nodes.map(\.node)
        try await withRouter(over: routed) { _, first, directory in
            try await withRouter(over: routed.reversed()) { _, second, _ in
                let one = try await Wire.connect(port: first)
                func home(_ key: Int, _ wire: Wire) async throws -> String {
                    try await wire.send("GET /?key=k\(key) HTTP/1.1\r\nHost: a\r\n\r\n")
                    return try await wire.receiveMessage().body
                }
                var homes: [String] = []
                for key in 0..<1000 { homes.append(try await home(key, one)) }
                let two = try await Wire.connect(port: second)
                for key in 0..<200 { #expect(try await home(key, two) == homes[key]) }
                for name in ["a", "b", "c", "d", "e"] {
                    #expect((160...240).contains(homes.count { $0 == name }))
                }
                directory.set(routed.filter { $0.name != "c" })
                for key in 0..<300 {
                    let now = try await home(key, one)
                    #expect(homes[key] == "c" ? now != "c" : now == homes[key])
                }
                one.close()
                two.close()
            }
        }
        for node in nodes { try await node.stop() }
    }

    @Test("who says nothing gets a cookie that leads back to the same node")
    func cookie() async throws {
        var nodes: [FakeNode] = []
        for name in ["a", "b", "c"] { nodes.append(try await FakeNode.start(name, answer: answerName(name))) }
        try await withRouter(over: nodes.map(\.node)) { _, port, _ in
            var cookies: Set<String> = []
            for _ in 0..<5 {
                let (head, served) = try await get(port, "/")
                let line = try #require(head.split(separator: "\r\n").first { $0.hasPrefix("Set-Cookie: ") })
                #expect(line.hasSuffix("; Path=/; HttpOnly; SameSite=Lax"))
                let pair = String(line.dropFirst(12).prefix { $0 != ";" })
                let (again, name) = try await get(port, "/", ["Cookie: \(pair)"])
                #expect(name == served)
                #expect(!again.contains("Set-Cookie"))
                cookies.insert(pair)
            }
            #expect(cookies.count == 5)
            #expect(try await get(port, "/?user=bob").head.contains("Set-Cookie") == false)
        }
        for node in nodes { try await node.stop() }
    }

    @Test("bodies stream both ways, counted and chunked, and the connection serves the next request")
    func bodies() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("POST /?key=k HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
            let first = try await node.connection()
            #expect(try await first.receiveHead().contains("\r\nContent-Length: 6\r\n"))
            #expect(try await first.receiveText(3) == "abc")
            // The rest, and a whole next request behind it.
            try await client.send("defGET /2?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            #expect(try await first.receiveText(3) == "def")
            try await first.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel")
            #expect(try await client.receiveHead().contains("\r\nTransfer-Encoding: chunked\r\n"))
            #expect(try await client.receiveText(8) == "3\r\nhel\r\n")
            try await first.send("lo\r\n0\r\nT: t\r\n\r\n")
            #expect(try await client.receiveText(12) == "2\r\nlo\r\n0\r\n\r\n")
            let second = try await node.connection()
            #expect(try await second.receiveHead().hasPrefix("GET /2?key=k HTTP/1.1\r\n"))
            try await second.send("HTTP/1.1 204 No Content\r\n\r\n")
            #expect(try await client.receiveHead() == "HTTP/1.1 204 No Content\r\n\r\n")

            try await client.send(
                "POST /3?key=k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
            )
            let third = try await node.connection()
            #expect(try await third.receiveHead().contains("\r\nTransfer-Encoding: chunked\r\n"))
            #expect(try await third.receiveText(13) == "3\r\nxyz\r\n0\r\n\r\n")
            // No length: the answer ends with the node's connection.
            try await third.send("HTTP/1.1 200 OK\r\n\r\nall")
            try await third.closeOutput()
            #expect(try await client.receiveHead().contains("\r\nTransfer-Encoding: chunked\r\n"))
            #expect(try await client.receiveText(13) == "3\r\nall\r\n0\r\n\r\n")
            client.close()
        }
        try await node.stop()
    }

    @Test("HEAD, 304 and 100 Continue have no body, and an old client gets no chunks")
    func bodyless() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send("HEAD /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            var wire = try await node.connection()
            _ = try await wire.receiveHead()
            try await wire.send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
            #expect(try await client.receiveHead() == "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
            try await client.send(
                "POST /?key=k HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
            )
            wire = try await node.connection()
            _ = try await wire.receiveHead()
            try await wire.send("HTTP/1.1 100 Continue\r\n\r\n")
            #expect(try await client.receiveHead() == "HTTP/1.1 100 Continue\r\n\r\n")
            try await client.send("ok")
            #expect(try await wire.receiveText(2) == "ok")
            try await wire.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n")
            #expect(try await client.receiveHead() == "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n")
            client.close()

            let old = try await Wire.connect(port: port)
            try await old.send("GET /?key=k HTTP/1.0\r\n\r\n")
            wire = try await node.connection()
            _ = try await wire.receiveHead()
            try await wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            #expect(try await old.receiveAll() == "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        }
        try await node.stop()
    }

    @Test("an answer that is cut short is not passed off as whole")
    func cutShort() async throws {
        let node = try await FakeNode.start("a")
        try await withRouter(over: [node.node]) { _, port, _ in
            for answer in [
                "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            ] {
                let client = try await Wire.connect(port: port)
                try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
                let wire = try await node.connection()
                _ = try await wire.receiveHead()
                try await wire.send(answer)
                wire.close()
                let text = try await client.receiveAll()
                #expect(text.contains("abc"))
                #expect(!text.hasSuffix("0\r\n\r\n"))
            }
        }
        try await node.stop()
    }

    @Test("a large answer to a client that does not read waits at the node, and arrives whole")
    func backPressure() async throws {
        let node = try await FakeNode.start("a")
        let size = 24 * 1024 * 1024
        try await withRouter(over: [node.node]) { _, port, _ in
            let client = try await Wire.connect(port: port, receiveBuffer: 65536)
            try await client.send("GET /?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
            let wire = try await node.connection()
            _ = try await wire.receiveHead()
            client.pause()
            client.discard()
            wire.post(Array("HTTP/1.1 200 OK\r\nContent-Length: \(size)\r\n\r\n".utf8))
            let sent = Written()
            for _ in 0..<(size / 65536) { sent.follow(wire, [UInt8](repeating: 7, count: 65536)) }
            await sent.stalls()
            // What the sockets and the router hold is far less than what is to be sent.
            #expect(sent.bytes < size / 2)
            client.resume()
            #expect(await client.total(reaches: size))
            client.close()
        }
        try await node.stop()
    }
}
