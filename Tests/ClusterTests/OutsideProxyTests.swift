import Foundation
import TestSupport
import Testing

/// The files of docker/ that stand in for the router, each with the program that they are for.
@Suite("HAProxy and NGINX before nodes", .patience)
struct OutsideProxyTests {
    typealias Kind = OutsideProxy.Kind

    private func run(
        _ kind: Kind, _ environment: [String: String] = [:],
        _ body: @escaping @Sendable (Cluster, OutsideProxy) async throws -> Void
    ) async throws {
        let environment = ["MARTLET_RESUME_GRACE_SECONDS": "30"].merging(environment) { $1 }
        try await Machine.with(Cluster.Options(nodes: 3, environment: environment), weight: 2) { cluster in
            try await OutsideProxy.with(kind, before: cluster) { try await body(cluster, $0) }
        }
    }

    private func node(of session: Session, in cluster: Cluster) throws -> ClusterProcess {
        try #require(cluster.nodes.first { session.node.hasPrefix($0.name) })
    }

    /// Closes it, and waits until the proxy no longer counts it.
    private func end(_ session: Session, _ cluster: Cluster, _ proxy: OutsideProxy) async throws {
        session.client.close()
        _ = try await session.client.closed()
        let line = try await node(of: session, in: cluster).logged("the session") {
            $0["session"]?.string == session.id && $0["request_id"]?.string != nil
        }
        _ = try await proxy.logged(try #require(line["request_id"]?.string))
    }

    /// Sessions of two users whom the proxy keeps to different nodes.
    private func two(_ cluster: Cluster, _ proxy: OutsideProxy) async throws -> (Session, Session) {
        let first = try await cluster.connect(newUser(), port: proxy.port)
        for _ in 0..<50 {
            let second = try await cluster.connect(newUser(), port: proxy.port)
            if second.node != first.node { return (first, second) }
            second.client.close()
        }
        throw TimedOut("50 users came to \(first.node)")
    }

    @Test(
        "users on different nodes meet: messages both ways up to the largest, history, the page",
        arguments: Kind.allCases)
    func chat(kind: Kind) async throws {
        try await run(kind) { cluster, proxy in
            let (alice, bob) = try await two(cluster, proxy)
            let room = newRoom()
            try await alice.join(room)
            try await bob.join(room)
            let long = String(repeating: "ü", count: 30_000)
            for (from, to) in [(alice, bob), (bob, alice)] {
                for text in ["hi from \(from.user)", "\(from.user) \(long)"] {
                    try await from.say(text, in: room)
                    _ = try await to.hears(text, in: room)
                }
            }
            bob.client.send(["type": "history", "room": .string(room), "id": "h"])
            let history = try await bob.client.next("history", id: "h")["messages"]?.array ?? []
            #expect(history.compactMap { $0["seq"]?.int } == [1, 2, 3, 4])
            bob.client.close(code: 1000, reason: "done")
            #expect(try await bob.client.closed().code == 1000, "the Close frame passes both ways")
            let page = try await HTTPAnswer.of("GET", "/", port: proxy.port)
            #expect(page.status == 200 && page["content-type"]?.hasPrefix("text/html") == true)
        }
    }

    @Test("a user comes to the same node again; so does who has a key, a token or a cookie", arguments: Kind.allCases)
    func sticky(kind: Kind) async throws {
        try await run(kind) { cluster, proxy in
            for _ in 0..<5 {
                let user = newUser()
                let first = try await cluster.connect(user, port: proxy.port)
                try await end(first, cluster, proxy)
                #expect(try await node(of: first, in: cluster).name == proxy.server("?user=\(user)"))
                let second = try await cluster.connect(user, port: proxy.port)
                #expect(second.node == first.node)
                try await end(second, cluster, proxy)
            }

            let keys = (0..<40).map { "key-\($0)" }
            let homes = try await keys.asyncMap { try await proxy.server("?key=\($0)") }
            let spread = Dictionary(grouping: homes) { $0 }.mapValues(\.count)
            #expect(spread.count == 3 && spread.values.allSatisfy { $0 > 2 }, "\(spread)")
            for (key, home) in zip(keys, homes).prefix(4) {
                #expect(try await proxy.server("?user=other&key=\(key)") == home, "the key goes before the user")
                #expect(try await proxy.server("?user=\(key)") == home)
                let cookie = [("Cookie", "a=b; martlet_affinity=\(key)")]
                #expect(try await proxy.server(headers: cookie) == home)
                // HAProxy looks into a token, to NGINX another of the same user is another.
                let token = Self.token(of: key, number: 1)
                let first = try await proxy.server("?token=\(token)")
                let another = kind == .haproxy ? Self.token(of: key, number: 2) : token
                #expect(try await proxy.server("?token=\(another)") == first)
                if kind == .haproxy { #expect(first == home) }
                let bearer = try await proxy.server(headers: [("Authorization", "Bearer \(token)")])
                #expect(try await proxy.server(headers: [("Authorization", "Bearer \(token)")]) == bearer)
                if kind == .haproxy { #expect(bearer == home) }
            }
            let nameless = try await (0..<4).asyncMap { _ in try await proxy.server("?token=no.token") }
            #expect(Set(nameless).count == 1)
        }
    }

    /// A JSON Web Token with nobody's signature.
    private static func token(of user: String, number: Int) -> String {
        [#"{"alg":"HS256","typ":"JWT"}"#, #"{"sub":"\#(user)","jti":"\#(number)"}"#, "signature"]
            .map { Data($0.utf8).base64EncodedString() }
            .map { $0.replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "") }
            .joined(separator: ".")
    }

    @Test("who says nothing of themselves gets the router's cookie, and is kept by it", arguments: Kind.allCases)
    func cookie(kind: Kind) async throws {
        try await run(kind) { cluster, proxy in
            let first = try await cluster.open("/ws", port: proxy.port)
            let cookie = try #require(first.header("set-cookie"))
            #expect(cookie.contains(/^martlet_affinity=[0-9a-f]{32}; Path=\/; HttpOnly; SameSite=Lax$/))
            var options = TestClient.Options()
            options.headers = [("Cookie", String(cookie.prefix { $0 != ";" }))]
            let served = try await (0..<3).asyncMap { _ in
                let client = try await cluster.open("/ws", port: proxy.port, options: options)
                #expect(client.header("set-cookie") == nil)
                client.send(["type": "auth", "user": .string(newUser())])
                let session = Session(user: "", client: client, welcome: try await client.next("welcome"))
                try await end(session, cluster, proxy)
                return session.node
            }
            #expect(Set(served).count == 1)
            #expect(try await cluster.open("/ws?user=\(newUser())", port: proxy.port).header("set-cookie") == nil)
        }
    }

    @Test(
        "a node that is killed is left out, its client comes back and resumes; no token is in a log",
        arguments: Kind.allCases)
    func death(kind: Kind) async throws {
        try await run(kind) { cluster, proxy in
            let (alice, bob) = try await two(cluster, proxy)
            let room = newRoom()
            try await bob.join(room)
            let joined = try await alice.join(room)
            let home = try node(of: alice, in: cluster)
            await home.kill()
            _ = try await alice.client.closed()
            try await bob.say("missed", in: room)
            // Each is tried at once at the node that its hash says, dead or not, and none notices.
            for number in 0..<20 {
                let path = "/ws?user=\(newUser())&token=secret-of-\(number)"
                let welcome = try await cluster.open(path, port: proxy.port).next("welcome")
                #expect(welcome["node"]?.string?.hasPrefix(home.name) == false)
            }
            let back = try await cluster.resume(alice, port: proxy.port, rooms: [(room, joined)])
            #expect(back.welcome["resumed"]?.bool == true && back.id == alice.id)
            _ = try await back.hears("missed", in: room)
            try await back.say("here again", in: room)
            _ = try await bob.hears("here again", in: room)

            for node in cluster.nodes where node !== home { await node.kill() }
            let none = try await HTTPAnswer.of("GET", "/?token=secret-of-none", port: proxy.port)
            #expect([502, 503].contains(none.status))
            for node in cluster.nodes { try await node.start() }
            for node in cluster.nodes { try await node.waitUntilReady() }
            try await poll(within: .seconds(30), "all nodes to be given requests again") {
                let served = try await (0..<20).asyncMap { try await proxy.server("?key=\($0)&token=secret-of-\($0)") }
                return Set(served).count == 3 ? () : nil
            }
            #expect(!proxy.written.contains("secret-of") && !proxy.written.contains("token="))
        }
    }

    @Test("a node that drains gets nobody new, and its clients go on elsewhere", arguments: Kind.allCases)
    func drain(kind: Kind) async throws {
        try await run(kind, ["MARTLET_DRAIN_SECONDS": "6"]) { cluster, proxy in
            let (alice, bob) = try await two(cluster, proxy)
            let room = newRoom()
            try await bob.join(room)
            let joined = try await alice.join(room)
            let home = try node(of: alice, in: cluster)
            home.terminate()
            _ = try await alice.client.next("reconnect")
            for _ in 0..<20 {
                // HAProxy answers 503 while it has not noticed and the others have their share: clients come again.
                let session = try await poll(within: .seconds(5), "a node to take a session") {
                    try? await cluster.connect(newUser(), port: proxy.port)
                }
                #expect(!session.node.hasPrefix(home.name))
            }
            #expect(try await alice.client.closed().code == 4000)
            let back = try await poll(within: .seconds(5), "a node to take the session up") {
                try? await cluster.resume(alice, port: proxy.port, rooms: [(room, joined)])
            }
            #expect(back.welcome["resumed"]?.bool == true)
            try await bob.say("on", in: room)
            _ = try await back.hears("on", in: room)
        }
    }

    @Test(
        "nodes log the client's address and the proxy's request id, whatever the client claims",
        arguments: Kind.allCases)
    func address(kind: Kind) async throws {
        try await run(kind, ["MARTLET_TRUSTED_PROXIES": "127.0.0.1"]) { cluster, proxy in
            var options = TestClient.Options()
            options.source = 9
            options.headers = [
                ("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=203.0.113.7"), ("X-Real-IP", "203.0.113.7"),
                ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example"), ("X-Request-ID", "forged"),
                ("Origin", "http://127.0.0.1:\(proxy.port)"),
            ]
            let user = newUser()
            let session = try await cluster.connect(user, port: proxy.port, options: options)
            let home = try node(of: session, in: cluster)
            let line = try await home.logged("the connection") {
                $0["msg"]?.string == "connect" && $0["user"]?.string == user
            }
            #expect(line["address"]?.string == "127.0.0.9")
            let id = try #require(line["request_id"]?.string)
            #expect(id != "forged")
            session.client.close()
            #expect(try await proxy.logged(id).contains("127.0.0.9"))

            options.headers = [("Origin", "http://evil.example"), ("X-Forwarded-Host", "evil.example")]
            let refused = try await refusal {
                _ = try await cluster.open("/ws?user=\(newUser())", port: proxy.port, options: options)
            }
            #expect(refused.status == 403, "pages of others may not connect")
        }
    }

    @Test("HAProxy: a node that hangs loses the handshake to another")
    func hung() async throws {
        try await run(.haproxy) { cluster, proxy in
            let user = newUser()
            let first = try await cluster.connect(user, port: proxy.port)
            let home = try node(of: first, in: cluster)
            first.client.close()
            _ = try await first.client.closed()
            home.pause()
            defer { home.resume() }
            let second = try await cluster.connect(user, port: proxy.port)
            #expect(second.node != first.node)
        }
    }

    @Test("an idle WebSocket outlives the pings of a node: the timeouts of both files are over theirs")
    func timeouts() throws {
        func seconds(_ name: String, in text: String, _ mark: String = " +") throws -> Int {
            let pattern = try Regex("(?m)^ *#?\(name)\(mark)([0-9]+)s?;?$", as: (Substring, Substring).self)
            return try #require(text.firstMatch(of: pattern).flatMap { Int($0.1) }, "\(name)")
        }
        let settings = Kind.read(".env.example")
        let ping = try seconds("MARTLET_HEARTBEAT_SECONDS", in: settings, "=")
        let answer = try seconds("MARTLET_HEARTBEAT_TIMEOUT_SECONDS", in: settings, "=")
        let haproxy = Kind.haproxy.file
        let nginx = Kind.nginx.file
        for timeout in [
            try seconds("timeout tunnel", in: haproxy), try seconds("proxy_read_timeout", in: nginx),
            try seconds("proxy_send_timeout", in: nginx),
        ] {
            #expect(timeout >= 2 * (ping + answer), "a ping that is late or lost ends nothing")
        }
        // What the comments of both say of the defaults.
        for text in [haproxy, nginx] {
            #expect(text.contains("MARTLET_HEARTBEAT_SECONDS (\(ping))"))
            #expect(text.contains("MARTLET_HEARTBEAT_TIMEOUT_SECONDS (\(answer))"))
            let nodes = Kind.read("docker/compose.yaml").matches(of: /MARTLET_ADVERTISE: (\S+)/).map { String($0.1) }
            #expect(nodes.count == 3 && nodes.allSatisfy { text.contains($0) }, "the nodes are those of Compose")
        }
    }
}
