import NIOCore
import Testing
import WebSocketTransport

@testable import RouterServer

@Suite("What passes on of a request and an answer")
struct ProxiedRequestTests {
    private func request(
        _ text: String,
        peer: String = "192.0.2.7",
        trusted: [String] = [],
        subject: (String) -> String? = { _ in nil }
    ) throws -> ProxiedRequest {
        var buffer = ByteBuffer(string: text.replacing("\n", with: "\r\n") + "\r\n")
        var scanner = HeadScanner(limit: 65536)
        let head = try HTTPSyntax.request(try #require(try scanner.scan(&buffer)))
        return try ProxiedRequest(
            head,
            peer: try #require(IPAddress(peer)),
            trusted: TrustedProxies(trusted.compactMap { AddressBlock($0) }),
            newID: "new-id",
            subject: subject
        )
    }

    private func passed(_ request: ProxiedRequest, peer: String = "192.0.2.7") throws -> [String] {
        let head = String(buffer: request.headForNode(address: "10.0.0.1:8081", peer: try #require(IPAddress(peer))))
        #expect(head.hasSuffix("\r\n\r\n"))
        return head.split(separator: "\r\n").map(String.init)
    }

    @Test("fields of one hop end here, also those that Connection names")
    func hopByHop() throws {
        let lines = try passed(
            request(
                """
                GET /a?b HTTP/1.1
                Host: chat.example
                Connection: keep-alive, X-Secret
                Keep-Alive: timeout=5
                X-Secret: 1
                TE: trailers
                Upgrade: h2c
                HTTP2-Settings: AAMAAABk
                Accept: */*

                """
            )
        )
        #expect(
            lines == [
                "GET /a?b HTTP/1.1", "Host: chat.example", "HTTP2-Settings: AAMAAABk", "Accept: */*",
                "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: chat.example",
                "X-Request-ID: new-id", "Via: 1.1 martlet", "Connection: close",
            ]
        )
    }

    @Test("who is not a trusted proxy cannot say where a request comes from, nor name it")
    func forged() throws {
        let text = """
            GET / HTTP/1.1
            Host: a
            X-Forwarded-For: 203.0.113.9
            X-Forwarded-Proto: https
            X-Forwarded-Host: bank.example
            X-Forwarded-SSL: on (203.0.113.9)
            x-forwarded-prefix: /bank
            Forwarded: for=203.0.113.9
            X-Real-IP: 203.0.113.9
            X-Request-ID: theirs

            """
        let forged = try request(text)
        #expect(forged.client.description == "192.0.2.7")
        let lines = try passed(forged)
        #expect(!lines.contains { $0.contains("203.0.113.9") || $0.contains("bank") || $0.contains("theirs") })
        #expect(lines.contains("X-Forwarded-For: 192.0.2.7"))
        #expect(lines.contains("X-Forwarded-Proto: http"))

        let told = try request(text, trusted: ["192.0.2.0/24"])
        #expect(told.client.description == "203.0.113.9")
        #expect(told.id == "theirs")
        let kept = try passed(told)
        #expect(kept.contains("X-Forwarded-For: 203.0.113.9, 192.0.2.7"))
        #expect(kept.contains("X-Forwarded-Proto: https"))
        #expect(kept.contains("X-Forwarded-Host: bank.example"))
        #expect(kept.filter { $0.hasPrefix("X-Request-ID") } == ["X-Request-ID: theirs"])
    }

    @Test("Connection cannot take away what this hop writes")
    func namedByConnection() throws {
        let lines = try passed(
            request("GET / HTTP/1.1\nHost: a\nConnection: X-Forwarded-For, Host, X-Request-ID\n")
        )
        for name in ["X-Forwarded-For: 192.0.2.7", "Host: a", "X-Request-ID: new-id"] { #expect(lines.contains(name)) }

        let text = """
            GET / HTTP/1.1
            Host: a
            Connection: X-Forwarded-Proto, X-Forwarded-Host
            X-Forwarded-Proto: https
            X-Forwarded-Host: b

            """
        let kept = try passed(request(text, trusted: ["192.0.2.0/24"]))
        #expect(kept.filter { $0.hasPrefix("X-Forwarded-Proto") } == ["X-Forwarded-Proto: http"])
        #expect(kept.filter { $0.hasPrefix("X-Forwarded-Host") } == ["X-Forwarded-Host: a"])
    }

    @Test("a trusted proxy's request id must be one word")
    func requestID() throws {
        for bad in ["a b", "a\"b", String(repeating: "x", count: 129), "\u{e9}"] {
            #expect(
                try request("GET / HTTP/1.1\nHost: a\nX-Request-ID: \(bad)\n", trusted: ["::/0", "0.0.0.0/0"]).id
                    == "new-id"
            )
        }
    }

    @Test("only a GET in HTTP/1.1 that asks for WebSocket is an upgrade, and it has no body")
    func upgrades() throws {
        let fields = "Host: a\nConnection: keep-alive, Upgrade\nUpgrade: WebSocket\n"
        let upgrade = try request("GET /ws HTTP/1.1\n\(fields)Sec-WebSocket-Key: k\n")
        #expect(upgrade.isUpgrade)
        let lines = try passed(upgrade)
        #expect(lines.suffix(2) == ["Connection: Upgrade", "Upgrade: websocket"])
        #expect(lines.contains("Sec-WebSocket-Key: k"))
        #expect(try request("POST /ws HTTP/1.1\n\(fields)").isUpgrade == false)
        #expect(try request("GET /ws HTTP/1.0\n\(fields)").isUpgrade == false)
        #expect(try request("GET /ws HTTP/1.1\nHost: a\nUpgrade: websocket\n").isUpgrade == false)
        #expect(try request("GET /ws HTTP/1.1\nHost: a\nConnection: upgrade\nUpgrade: h2c\n").isUpgrade == false)
        #expect(throws: HTTPFault.self) { _ = try request("GET /ws HTTP/1.1\n\(fields)Content-Length: 3\n") }
        #expect(throws: HTTPFault.self) { _ = try request("GET /ws HTTP/1.1\n\(fields)Transfer-Encoding: chunked\n") }
    }

    @Test("a request has one plain Host, or is HTTP/1.0, or names it in its target")
    func hosts() throws {
        for text in [
            "GET / HTTP/1.1\n", "GET / HTTP/1.1\nHost: a\nHost: a\n", "GET / HTTP/1.1\nHost: a@b\n",
            "GET / HTTP/1.1\nHost: a/b\n", "GET / HTTP/1.1\nHost: a b\n",
        ] {
            #expect(throws: HTTPFault.self) { _ = try request(text) }
        }
        #expect(try passed(request("GET / HTTP/1.0\n")).contains("Host: 10.0.0.1:8081"))
        let absolute = try request("GET http://chat.example:8080/x?y HTTP/1.1\nHost: other\n")
        #expect(try passed(absolute).prefix(2) == ["GET /x?y HTTP/1.1", "Host: chat.example:8080"])
        #expect(try request("GET http://chat.example?y HTTP/1.1\nHost: a\n").target == "/?y")
        for target in ["example.com:443", "ftp://a/", "http://", "http:///x", "*"] {
            #expect(throws: HTTPFault.self) { _ = try request("GET \(target) HTTP/1.1\nHost: a\n") }
        }
        #expect(try request("OPTIONS * HTTP/1.1\nHost: a\n").target == "*")
    }

    @Test("a body is framed once")
    func framing() throws {
        let counted = try passed(request("POST / HTTP/1.1\nHost: a\ncontent-length: 007\n"))
        #expect(counted.filter { $0.lowercased().hasPrefix("content-length") } == ["Content-Length: 7"])
        let chunked = try passed(request("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: CHUNKED\n"))
        #expect(chunked.filter { $0.lowercased().hasPrefix("transfer-encoding") } == ["Transfer-Encoding: chunked"])
    }

    @Test("an answer keeps its fields but those of its hop, and may get the cookie")
    func answer() throws {
        let head = try HTTPSyntax.response(
            ByteBuffer(
                string:
                    "HTTP/1.1 200 Fine\r\nSet-Cookie: a=b\r\nConnection: close, X\r\nX: 1\r\nETag: \"e\"\r\nContent-Length: 3\r\n"
            )
        )
        let text = String(
            buffer: head.headForClient(framing: .bytes(3), keepsLength: false, closes: false, cookie: "c=d")
        )
        #expect(
            text
                == "HTTP/1.1 200 Fine\r\nSet-Cookie: a=b\r\nETag: \"e\"\r\nSet-Cookie: c=d\r\nContent-Length: 3\r\n\r\n"
        )
        let upgradeRequired = try HTTPSyntax.response(
            ByteBuffer(string: "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
        )
        let refusal = String(
            buffer: upgradeRequired.headForClient(framing: .bytes(0), keepsLength: false, closes: true, cookie: nil)
        )
        #expect(refusal.contains("\r\nUpgrade: websocket\r\nConnection: close, Upgrade\r\n"))
    }

    @Test("only a real switch to WebSocket opens a tunnel")
    func switching() throws {
        for (fields, accepted) in [
            ("Upgrade: websocket\r\nConnection: Upgrade\r\n", true), ("Upgrade: h2c\r\nConnection: Upgrade\r\n", false),
            ("Upgrade: websocket\r\n", false), ("", false),
        ] {
            let head = try HTTPSyntax.response(ByteBuffer(string: "HTTP/1.1 101 Switching Protocols\r\n" + fields))
            #expect(head.acceptsWebSocket == accepted)
        }
    }
}
