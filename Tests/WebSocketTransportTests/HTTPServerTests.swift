import NIOCore
import NIOHTTP1
import NIOPosix
import Testing

@testable import WebSocketTransport

@Suite("HTTP server")
struct HTTPServerTests {
    @Test("keeps connections alive, answers pipelined requests in order, and HEAD without a body")
    func keepAlive() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        for _ in 0..<3 {
            socket.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            let (head, body) = socket.receiveResponse()
            #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(!head.lowercased().contains("connection: close"))
            #expect(body == "hello")
        }
        socket.send("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(socket.receiveHead().contains("Content-Length: 5\r\n"))
        socket.send(
            "GET /later HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
                + "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        #expect(socket.receiveResponse().body == "later")
        #expect(socket.receiveResponse().body == "abc")
        let (head, body) = socket.receiveResponse()
        #expect(head.hasPrefix("HTTP/1.1 404 Not Found\r\n"))
        #expect(body == "{\"error\":{\"code\":404,\"reason\":\"not_found\",\"message\":\"Nothing is here.\"}}\n")
        let last = socket.receiveResponse()
        #expect(last.head.contains("Connection: close\r\n"))
        #expect(last.body == "hello")
        #expect(socket.receiveAll() == [])
        try server.stop()
    }

    @Test("answers a request that comes byte by byte, and one in chunks")
    func dribbled() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        for byte in "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".utf8 { socket.send([byte]) }
        #expect(socket.receiveResponse().body == "abc")
        socket.send(
            "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
        )
        #expect(socket.receiveResponse().body == "abcde")
        socket.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        #expect(socket.receiveHead() == "HTTP/1.1 100 Continue\r\n\r\n")
        socket.send("ok")
        #expect(socket.receiveResponse().body == "ok")
        try server.stop()
    }

    private static let upgrade = [
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]

    private static func request(_ line: String, _ headers: [String]) -> String {
        ([line, "Host: x"] + headers).joined(separator: "\r\n") + "\r\n\r\n"
    }

    private static func without(_ index: Int, _ replacement: String? = nil) -> String {
        var headers = upgrade
        headers.remove(at: index)
        return request("GET /ws HTTP/1.1", headers + (replacement.map { [$0] } ?? []))
    }

    @Test(
        "refuses what can't be an opening handshake with a status and a reason, and closes",
        arguments: [
            (request("POST /ws HTTP/1.1", upgrade), 405, "method_not_allowed", "Allow: GET"),
            (without(2), 400, "bad_websocket_key", ""),
            (without(2, "Sec-WebSocket-Key: short"), 400, "bad_websocket_key", ""),
            (without(2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="), 400, "bad_websocket_key", ""),
            (without(2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ$="), 400, "bad_websocket_key", ""),
            (without(3), 426, "bad_websocket_version", "Sec-WebSocket-Version: 13"),
            (without(3, "Sec-WebSocket-Version: 8"), 426, "bad_websocket_version", "Sec-WebSocket-Version: 13"),
            (without(1), 400, "bad_connection_header", ""),
            (
                request("GET /ws HTTP/1.0", upgrade), 400, "bad_http_version", ""
            ),
        ]
    )
    func refusals(request: String, status: Int, reason: String, header: String) throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        socket.send(request)
        let (head, body) = socket.receiveResponse()
        #expect(head.hasPrefix("HTTP/1.1 \(status) "))
        #expect(head.contains(header))
        #expect(body.hasPrefix("{\"error\":{\"code\":\(status),\"reason\":\"\(reason)\",\"message\":\""))
        try server.stop()
    }

    @Test("a plain request on the WebSocket path is told to upgrade, and the connection goes on")
    func upgradeRequired() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        socket.send("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        let (head, body) = socket.receiveResponse()
        #expect(head.hasPrefix("HTTP/1.1 426 Upgrade Required\r\n"))
        #expect(head.contains("Upgrade: websocket\r\n"))
        #expect(body.contains("\"upgrade_required\""))
        socket.send("POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        #expect(socket.receiveResponse().head.hasPrefix("HTTP/1.1 405 "))
        socket.openWebSocket()
        socket.send(clientText("hi"))
        #expect(socket.receiveFrame()?.payload == Array("hi".utf8))
        try server.stop()
    }

    @Test("the owner's refusal reaches the client, headers and all")
    func ownersRefusal() throws {
        let server = try TestServer { request, _ in
            .refuse(
                .error(
                    .notFound,
                    reason: "not_found",
                    message: "no \(request.path)",
                    headers: ["Retry-After": "3", "X-Evil": "a\r\nSet-Cookie: b"]
                )
            )
        }
        let socket = try RawSocket(port: server.port)
        socket.send(Self.request("GET /other?a=1 HTTP/1.1", Self.upgrade))
        let (head, body) = socket.receiveResponse()
        #expect(head.hasPrefix("HTTP/1.1 404 "))
        #expect(head.contains("Retry-After: 3\r\n"))
        #expect(!head.contains("Evil") && !head.contains("Set-Cookie"))
        #expect(body.contains("no /other"))
        #expect(socket.receiveAll() == [])
        try server.stop()
    }

    private func expectRefusal(_ request: String, _ status: Int, _ server: TestServer) throws {
        let socket = try RawSocket(port: server.port)
        socket.send(request)
        let (head, body) = socket.receiveResponse()
        #expect(head.hasPrefix("HTTP/1.1 \(status) "), "\(request.prefix(60)): \(head)")
        #expect(body.hasPrefix("{\"error\":{\"code\":\(status),"))
        #expect(socket.receiveAll() == [])
    }

    @Test("bounds head and body: 431, 413; broken HTTP is 400")
    func limits() throws {
        let server = try TestServer()
        let endless = String(repeating: "a", count: 70000)
        let chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        let cases = [
            ("GET /hello HTTP/1.1\r\nHost: x\r\nX-Big: \(endless)\r\n\r\n", 431),
            ("GET /\(endless) HTTP/1.1\r\nHost: x\r\n\r\n", 431),
            ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n\(endless)", 413),
            (chunked + "11170\r\n\(endless)\r\n0\r\n\r\n", 413),
            ("nonsense\r\n\r\n", 400),
            ("GET /hello HTTP/1.1\r\n\r\n", 400),
            ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET /hello HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        ]
        for (request, status) in cases { try expectRefusal(request, status, server) }
        try server.stop()
    }

    @Test("T20: a request that does not come to its end is answered 408, an idle connection is closed")
    func slowRequests() throws {
        var limits = TestServer.limits
        limits.requestTimeout = .milliseconds(200)
        limits.keepAliveTimeout = .milliseconds(200)
        let server = try TestServer(limits: limits)
        try expectRefusal("", 408, server)
        try expectRefusal("GET /hello HTTP/1.1\r\nHo", 408, server)
        try expectRefusal("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na", 408, server)
        let idle = try RawSocket(port: server.port)
        idle.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(idle.receiveResponse().body == "hello")
        #expect(idle.receiveAll() == [])
        try server.stop()
    }

    @Test("a broken request behind a good one: the good one is answered, then the connection ends")
    func brokenBehindGood() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        socket.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n\u{1}\u{2}\r\n\r\n")
        let (head, body) = socket.receiveResponse()
        #expect(body == "later")
        #expect(head.contains("Connection: close\r\n"))
        #expect(socket.receiveAll() == [])
        try server.stop()
    }

    @Test("frames that come right behind the upgrade request are not lost")
    func bytesBehindTheUpgrade() throws {
        let server = try TestServer()
        let whole = Array(RawSocket.handshake.utf8) + clientText("first") + clientText("second")
        for cut in [whole.count, 1, 16, 17, whole.count - 20, whole.count - 12, whole.count - 1] {
            let socket = try RawSocket(port: server.port)
            socket.send(Array(whole[..<cut]))
            socket.send(Array(whole[cut...]))
            let head = socket.receiveHead()
            #expect(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"))
            #expect(socket.receiveFrame()?.payload == Array("first".utf8))
            #expect(socket.receiveFrame()?.payload == Array("second".utf8))
        }
        try server.stop()
    }

    @Test("subprotocol and extra headers stand in the 101; the owner sees the whole request")
    func acceptance() throws {
        let server = try TestServer { request, _ in
            #expect(request.path == "/a b/ws")
            #expect(request.query("user") == "grü ße")
            #expect(request.query("empty") == "")
            #expect(request.query("none") == nil)
            #expect(request.clientAddress == IPAddress("127.0.0.1"))
            #expect(request.requestID == "abc-1")
            return .accept(
                subprotocol: request.offeredSubprotocols.last,
                extraHeaders: ["X-Node": "a"],
                delegate: { _ in Echo() }
            )
        }
        let recorder = Recorder()
        let connection = try server.connect(
            recorder,
            path: "/a%20b/ws?user=gr%C3%BC+%C3%9Fe&empty=",
            headers: ["X-Request-Id": "abc-1"],
            subprotocols: ["one", "two"]
        )
        #expect(connection.subprotocol == "two")
        try server.stop()
        #expect(recorder.waitUntilClosed() == .closed(1001, "going away"))
    }

    @Test("a port in use is a typed error in one sentence, and so is an address that is not ours")
    func startErrors() throws {
        let server = try TestServer()
        func start(_ host: String, _ port: Int) throws {
            _ = try HTTPServer.start(
                host: host,
                port: port,
                group: TestServer.group,
                onRequest: { _, loop in loop.makeSucceededFuture(HTTPResponse(status: .ok)) },
                onUpgrade: { _, _ in .refuse(HTTPResponse(status: .notFound)) }
            ).wait()
        }
        let inUse = #expect(throws: HTTPServerError.self) { try start("127.0.0.1", server.port) }
        #expect(inUse?.code == .addressInUse)
        #expect(inUse?.description == "port \(server.port) on 127.0.0.1 is in use")
        let foreign = #expect(throws: HTTPServerError.self) { try start("192.0.2.1", 0) }
        #expect(foreign?.code == .addressNotAvailable)
        try server.stop()
    }

    @Test("a server that is being closed takes no upgrade that was still arriving")
    func upgradeWhileClosing() throws {
        let server = try TestServer()
        let socket = try RawSocket(port: server.port)
        socket.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(socket.receiveResponse().body == "hello")
        // The body keeps it from being over.
        socket.send(Self.request("GET /ws HTTP/1.1", Self.upgrade + ["Content-Length: 1", "Expect: 100-continue"]))
        #expect(socket.receiveHead() == "HTTP/1.1 100 Continue\r\n\r\n")
        let closed = server.server.close()
        // Every loop has heard of it.
        for loop in TestServer.group.makeIterator() { try loop.submit {}.wait() }
        socket.send("x")
        let (head, body) = socket.receiveResponse()
        #expect(head.hasPrefix("HTTP/1.1 503 "))
        #expect(body.contains("\"stopping\""))
        #expect(socket.receiveAll() == [])
        try closed.wait()
    }

    @Test("stopAccepting frees the port and leaves open connections alone; close ends them")
    func stopping() throws {
        let server = try TestServer()
        let recorder = Recorder()
        let connection = try server.connect(recorder)
        let idle = try RawSocket(port: server.port)
        idle.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(idle.receiveResponse().body == "hello")
        try server.server.stopAccepting().wait()
        try server.server.stopAccepting().wait()
        let error = #expect(throws: WebSocketClientError.self) { try server.connect(Recorder()) }
        #expect(error?.code == .connectFailed)
        idle.send("GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        #expect(idle.receiveResponse().head.contains("Connection: close\r\n"))
        #expect(idle.receiveAll() == [])
        try connection.onLoop { $0.send(text: ByteBuffer(string: "still here")) }
        recorder.wait { $0.contains(.text("still here")) }
        try server.server.close().wait()
        #expect(recorder.waitUntilClosed() == .closed(1001, "going away"))
        try server.server.close().wait()
    }
}

@Suite("Request targets and dates")
struct RequestTargetTests {
    @Test("paths and queries are taken apart and decoded")
    func targets() {
        #expect(RequestTarget("/a/b?x=1&y=%2B+z&&flag&=v#frag")?.path == "/a/b")
        let items = RequestTarget("/a/b?x=1&y=%2B+z&&flag&=v#frag")?.queryItems.map { "\($0.name)=\($0.value)" }
        #expect(items == ["x=1", "y=+ z", "flag=", "=v"])
        #expect(RequestTarget("http://host:80/p%20q?r")?.path == "/p q")
        #expect(RequestTarget("http://host")?.path == "/")
        #expect(RequestTarget("*")?.path == "*")
        #expect(RequestTarget("/a+b")?.path == "/a+b")
        #expect(RequestTarget("/%e2%82")?.path == nil)
        #expect(RequestTarget("/%2")?.path == nil)
        #expect(RequestTarget("/?a=%g0")?.path == nil)
        #expect(RequestTarget("/?a=%41%")?.path == nil)
        #expect(RequestTarget("/?%ff")?.path == nil)
    }

    @Test("a query that a server refuses is decoded all the same for who only looks at it, and says that it is broken")
    func brokenQuery() {
        let query = QueryItems(target: "/?user=%zz%4&%75=%%41+&room=%ff&key=&key=a")
        #expect(query["user"] == "%zz%4" && query["u"] == "%A " && query["room"] == "\u{FFFD}" && query["key"] == nil)
        #expect(!query.isValid && QueryItems(target: "/ws?a=%41+b").isValid)
        #expect(QueryItems(target: "/ws").items.isEmpty)
    }

    @Test("the example date of RFC 9110")
    func date() {
        #expect(HTTPDate.format(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
    }

    @Test("base64 as RFC 4648 has it, and keys of exactly 16 bytes")
    func base64() {
        #expect(
            ["", "f", "fo", "foo", "foob"].map { WebSocketHandshake.base64(Array($0.utf8)) }
                == ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        )
        #expect(WebSocketHandshake.isValidKey("dGhlIHNhbXBsZSBub25jZQ=="))
        #expect(!WebSocketHandshake.isValidKey("dGhlIHNhbXBsZSBub25jZQ="))
    }
}
