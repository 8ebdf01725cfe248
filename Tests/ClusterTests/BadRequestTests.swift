import TestSupport
import Testing

/// G7: HTTP requests that are refused, straight at a node and through the router.
@Suite("G7: bad requests")
struct BadRequestTests {
    enum Door: String, CaseIterable, Sendable {
        case node
        case router
    }

    private func process(_ door: Door, _ cluster: Cluster) -> ClusterProcess {
        door == .node ? cluster.nodes[0] : cluster.routers[0]
    }

    @Test(
        "G7, T14: a wrong path is 404 with a numbered error, wherever it would lead to",
        arguments: Door.allCases,
        [
            "/nothing", "/ws/x", "/..%2Fetc", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//elsewhere.example/",
            "/chat.js/../chat.css", "/chat.js%00", "/protocol/", "/.env", "/\\elsewhere.example", "/chat.js;x",
        ]
    )
    func wrongPath(door: Door, path: String) async throws {
        try await SharedCluster.use { cluster in
            let port = process(door, cluster).port
            expect(try await HTTPAnswer.of("GET", path, port: port), status: 404)
            let upgrade = try await refusal { _ = try await cluster.open(path, at: process(door, cluster)) }
            expect(upgrade, status: 404)
        }
    }

    @Test("G7: a wrong method is 405 and names the right ones", arguments: Door.allCases, ["POST", "DELETE", "PUT"])
    func wrongMethod(door: Door, method: String) async throws {
        try await SharedCluster.use { cluster in
            for path in ["/ws", "/healthz", "/"] {
                let answer = try await HTTPAnswer.of(method, path, port: process(door, cluster).port)
                expect(answer, status: 405)
                #expect(answer["allow"]?.contains("GET") == true)
            }
        }
    }

    @Test("G7: a wrong WebSocket version is 426 and names the right one", arguments: Door.allCases)
    func wrongVersion(door: Door) async throws {
        try await SharedCluster.use { cluster in
            let port = process(door, cluster).port
            let answer = try await HTTPAnswer.of("GET", "/ws?user=a", port: port, headers: upgrade(version: "8"))
            expect(answer, status: 426)
            #expect(answer["sec-websocket-version"] == "13")
        }
    }

    @Test("G7: no upgrade at all is 426", arguments: Door.allCases)
    func noUpgrade(door: Door) async throws {
        try await SharedCluster.use { cluster in
            let answer = try await HTTPAnswer.of("GET", "/ws?user=a", port: process(door, cluster).port)
            expect(answer, status: 426)
            #expect(answer["upgrade"]?.lowercased() == "websocket")
        }
    }

    @Test(
        "G7: a missing or malformed key is 400",
        arguments: Door.allCases,
        [nil, "short", "!!!!!!!!!!!!!!!!!!!!!!!!"]
    )
    func badKey(door: Door, key: String?) async throws {
        try await SharedCluster.use { cluster in
            let port = process(door, cluster).port
            let answer = try await HTTPAnswer.of("GET", "/ws?user=a", port: port, headers: upgrade(key: key))
            expect(answer, status: 400)
        }
    }

    @Test("G7: text that is no HTTP is 400 or the end of the connection", arguments: Door.allCases)
    func noHTTP(door: Door) async throws {
        try await SharedCluster.use { cluster in
            let port = process(door, cluster).port
            do {
                let answer = try await HTTPAnswer.of("\u{1}\u{2} / \r\n\r\n", "x", port: port)
                #expect(answer.status == 400)
            } catch is SystemCallFailed {
            } catch is HTTPAnswer.Malformed {
            }
            #expect(try await process(door, cluster).get("/healthz").status == 200)
        }
    }

    @Test("G7: a head of 100 KB is refused, the server goes on", arguments: Door.allCases)
    func hugeHead(door: Door) async throws {
        try await SharedCluster.use { cluster in
            let port = process(door, cluster).port
            let headers = [("X-Large", String(repeating: "x", count: 100_000))]
            do {
                let answer = try await HTTPAnswer.of("GET", "/", port: port, headers: headers)
                #expect([400, 413, 414, 431].contains(answer.status), "\(answer.status)")
            } catch is SystemCallFailed {
                // Closed while it was still being sent.
            } catch is HTTPAnswer.Malformed {
            }
            #expect(try await process(door, cluster).get("/healthz").status == 200)
        }
    }

    @Test("a client that asks for no subprotocol, or for another as well, is served", arguments: Door.allCases)
    func subprotocols(door: Door) async throws {
        try await SharedCluster.use { cluster in
            let plain = try await cluster.connect(newUser(), to: process(door, cluster))
            #expect(plain.client.header("sec-websocket-protocol") == nil)
            var options = TestClient.Options()
            options.subprotocols = ["other", "martlet.v1.json"]
            let chosen = try await cluster.connect(newUser(), to: process(door, cluster), options: options)
            #expect(chosen.client.header("sec-websocket-protocol") == "martlet.v1.json")
            options.subprotocols = ["other"]
            // RFC 6455 section 4.2.2: none of them agreed to; it is the client that may give up.
            if let odd = try? await cluster.connect(newUser(), to: process(door, cluster), options: options) {
                #expect(odd.client.header("sec-websocket-protocol") == nil)
            }
        }
    }

    private func upgrade(version: String = "13", key: String? = "dGhlIHNhbXBsZSBub25jZQ==") -> [(String, String)] {
        var headers = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", version)]
        if let key { headers.append(("Sec-WebSocket-Key", key)) }
        return headers
    }

    private func expect(
        _ answer: HTTPAnswer,
        status: Int,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(answer.status == status, "\(answer.text)", sourceLocation: sourceLocation)
        let error = (try? answer.json())?["error"]
        #expect(error?["code"]?.int == Int64(status), "\(answer.text)", sourceLocation: sourceLocation)
        #expect(error?["reason"]?.string?.isEmpty == false, "\(answer.text)", sourceLocation: sourceLocation)
        #expect(error?["message"]?.string?.isEmpty == false, "\(answer.text)", sourceLocation: sourceLocation)
    }
}
