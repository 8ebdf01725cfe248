import TestSupport
import Testing

/// What keeps one client, address or user from harming the others, with real processes.
@Suite("Who may connect, and how much they may do")
struct ProtectionTests {
    private static let upgrade = [
        ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]

    private func upgrade(
        _ path: String = "/ws", at process: ClusterProcess, _ headers: [(String, String)] = []
    ) async throws -> HTTPAnswer {
        try await HTTPAnswer.of("GET", path, port: process.port, headers: Self.upgrade + headers)
    }

    private func reason(_ answer: HTTPAnswer) throws -> String {
        "\(answer.status) \(try answer.json()["error"]?["reason"]?.string ?? "")"
    }

    @Test(
        "T1: a page of another origin is refused with 403, at a node and through a router; programs come only where they may"
    )
    func origins() async throws {
        let options = Cluster.Options(
            nodes: 1, routers: 1,
            environment: [
                "MARTLET_ORIGIN_MISSING": "refuse", "MARTLET_ORIGINS": "self, https://*.example.org",
                "MARTLET_LIMIT_ADDRESS_FAILURES": "100",
            ])
        try await Machine.with(options) { cluster in
            for process in [cluster.nodes[0], cluster.routers[0]] {
                let own = "http://127.0.0.1:\(process.port)"
                for origin in [own, "https://app.example.org"] {
                    #expect(try await upgrade("/ws?user=a", at: process, [("Origin", origin)]).status == 101)
                }
                let foreign = ["https://evil.example", "null", "http://127.0.0.1:1", "http://app.example.org"]
                for origin in foreign {
                    let answer = try await upgrade("/ws?user=a", at: process, [("Origin", origin)])
                    #expect(try reason(answer) == "403 origin_not_allowed", "\(origin)")
                }
                let forged = [("Origin", "https://evil.example"), ("X-Forwarded-Host", "evil.example")]
                if process.role == .router {
                    #expect(
                        try reason(try await upgrade("/ws?user=a", at: process, forged)) == "403 origin_not_allowed")
                }
                #expect(try reason(try await upgrade("/ws?user=a", at: process)) == "403 origin_missing")
            }
        }
    }

    @Test("T19: a user has so many sessions over all nodes; the next is told so and closed with 4101")
    func sessionsOfUser() async throws {
        let options = Cluster.Options(nodes: 2, environment: ["MARTLET_LIMIT_SESSIONS_PER_USER": "3"])
        try await Machine.with(options) { cluster in
            let sessions = [
                try await cluster.connect("alice", to: 0), try await cluster.connect("alice", to: 0),
                try await cluster.connect("alice", to: 1),
            ]
            for node in cluster.nodes {
                let fourth = try await cluster.open("/ws?user=alice", at: node)
                let error = try await fourth.next("error")
                expectError(error, 103, "rate_limited")
                #expect((error["retry_ms"]?.int ?? 0) > 0)
                #expect(try await fourth.closed().code == 4101)
            }
            _ = try await cluster.connect("bob", to: 1)
            sessions[2].client.close()
            _ = try await sessions[2].client.closed()
            _ = try await poll(within: .seconds(20), "alice to have room for another") {
                try? await cluster.connect("alice", to: 0)
            }
            try await sessions[0].join("room")
            try await sessions[0].say("still here", in: "room")
        }
    }

    @Test("T21: a user's messages are limited over all nodes, whichever they come through")
    func messagesOfUser() async throws {
        let options = Cluster.Options(
            nodes: 2,
            environment: ["MARTLET_LIMIT_USER_MESSAGES_PER_SECOND": "40", "MARTLET_LIMIT_MESSAGES_PER_SECOND": "0"])
        try await Machine.with(options) { cluster in
            let sessions = [try await cluster.connect("alice", to: 0), try await cluster.connect("alice", to: 1)]
            let key = cluster.key("{u:alice}:rate")
            // Both ask for 100 a second, until each has heard of the other.
            let heard = Task {
                try await poll(within: .seconds(20), "the nodes to tell each other") {
                    try await cluster.redis.command("HLEN", key).int == 2 ? true : nil
                }
            }
            var number = 0
            func ask(rounds: Int) async throws {
                for _ in 0..<rounds {
                    number += 1
                    for session in sessions { session.client.send(["type": "ping", "id": .string("p\(number)")]) }
                    try await Task.sleep(for: .milliseconds(10))
                }
            }
            try await ask(rounds: 300)
            _ = try await heard.value
            func pongs() -> Int {
                sessions.map { $0.client.heard.current.all.count { $0["type"]?.string == "pong" } }.reduce(0, +)
            }
            let before = pongs()
            let start = ContinuousClock.now
            try await ask(rounds: 400)
            let seconds = (ContinuousClock.now - start) / .seconds(1)
            let rate = Double(pongs() - before) / seconds
            #expect(rate <= 40 * 1.5, "\(rate) a second")
            let errors = sessions[0].client.heard.current.all.filter { $0["code"]?.int == 103 }
            #expect(!errors.isEmpty)
            _ = try await poll(within: .seconds(20), "the figures to go") {
                try await cluster.redis.command("EXISTS", key).int == 0 ? true : nil
            }
        }
    }

    @Test("T19: so many connections may be of nobody; for one more the silent give way, and who says who it is stays")
    func strangers() async throws {
        let options = Cluster.Options(nodes: 1, environment: ["MARTLET_LIMIT_UNAUTHENTICATED": "3"])
        try await Machine.with(options) { cluster in
            let node = cluster.nodes[0]
            var strangers: [TestClient] = []
            for _ in 0..<3 { strangers.append(try await cluster.open("/ws", at: node)) }
            let known = try await cluster.connect("alice", to: 0)
            try await known.join("room")
            strangers[2].send(["type": "auth", "user": "bob"])
            _ = try await strangers[2].next("welcome")
            // As many more as it takes: each loop has the silent ones of its own.
            var more: [TestClient] = []
            for _ in 0..<8 {
                if let client = try? await cluster.open("/ws", at: node) { more.append(client) }
            }
            #expect(more.count > 1)
            for stranger in strangers[..<2] {
                _ = try await stranger.next("error") { $0["reason"]?.string == "not_authenticated" }
                #expect(try await stranger.closed().code == 4101)
            }
            strangers[2].send(["type": "join", "room": "room"])
            _ = try await strangers[2].next("joined", room: "room")
            try await known.sees("joined", "bob", in: "room")
            let text = try await node.internals("/metrics").text
            #expect(text.contains("martlet_connections_refused_total{reason=\"too_many_unauthenticated\"}"))
        }
    }

    @Test(
        "T19: who misbehaves is barred, at a node and at a router; it is in the log and the metrics, and who is connected stays"
    )
    func bars() async throws {
        let options = Cluster.Options(
            nodes: 1, routers: 1,
            environment: ["MARTLET_LIMIT_ADDRESS_FAILURES": "5", "MARTLET_TRUSTED_PROXIES": "127.0.0.2"])
        try await Machine.with(options) { cluster in
            for process in [cluster.nodes[0], cluster.routers[0]] {
                let friend = try await cluster.connect("friend-of-\(process.name)", to: process)
                try await friend.join("room")
                for _ in 0..<5 {
                    let answer = try await upgrade("/ws?user=a", at: process, [("Host", "a"), ("Host", "b")])
                    #expect(answer.status == 400)
                }
                let refused = try await upgrade("/ws?user=a", at: process)
                #expect(try reason(refused) == "429 address_barred")
                #expect((1...10).contains(refused["retry-after"].flatMap { Int($0) } ?? 0))
                let line = try await process.logged("whom it barred") {
                    $0["msg"]?.string == "an address is barred"
                }
                #expect(line["address"]?.string == "127.0.0.1" && line["cause"]?.string == "bad_handshake")
                try await friend.say("still here", in: "room")
                // The router's clients are at the node what the router is.
                guard process.role == .node else { continue }
                _ = try await poll(within: .seconds(20), "the bar to end") {
                    try await upgrade("/ws?user=a", at: process).status == 101 ? true : nil
                }
            }
            let text = try await cluster.nodes[0].internals("/metrics").text
            #expect(text.contains("martlet_anomaly_total{cause=\"bad_handshake\"} 5"))
            #expect(text.contains("martlet_barred_total{kind=\"address\"} 1"))
        }
    }

    @Test("T8, T19: who comes again and again though banned is barred, and the page of another origin is told nothing")
    func bannedAgain() async throws {
        let options = Cluster.Options(
            nodes: 1,
            environment: [
                "MARTLET_LIMIT_ADDRESS_FAILURES": "5", "MARTLET_ORIGINS": "self",
                "MARTLET_TRUSTED_PROXIES": "127.0.0.2",
            ])
        try await Machine.with(options) { cluster in
            let node = cluster.nodes[0]
            _ = try await cluster.admin("ban", "--address", "127.0.0.1")
            _ = try await node.logged("the order") { $0["msg"]?.string == "order" }
            let foreign = try await upgrade("/ws?user=a", at: node, [("Origin", "https://evil.example")])
            #expect(try reason(foreign) == "403 origin_not_allowed")
            #expect(try await cluster.turnsAway("a", at: node)?.code == 120)
            let text = try await node.internals("/metrics").text
            #expect(text.contains("martlet_anomaly_total{cause=\"banned\"} 1"))
            let barred = try await poll(within: .seconds(10), "the address to be barred") {
                let answer = try await upgrade("/ws?user=a", at: node)
                return answer.status == 101 ? nil : answer
            }
            #expect(try reason(barred) == "429 address_barred")
        }
    }

    @Test("T21: a user who is barred for flooding is barred at every node, told so, and others of that address are not")
    func barredUser() async throws {
        let options = Cluster.Options(nodes: 2, environment: ["MARTLET_LIMIT_ADDRESS_FAILURES": "25"])
        try await Machine.with(options) { cluster in
            let bob = try await cluster.connect("bob", to: 0)
            let frame = ClientFrame(ClientFrame.Opcode.binary, Array("what is this".utf8)).bytes
            bob.client.send(raw: Array(repeatElement(frame, count: 1000).joined()))
            #expect(try await bob.client.closed().code == 4101)
            for node in cluster.nodes {
                let answer = try await poll(within: .seconds(5), "\(node.name) to bar bob") {
                    () async throws -> HTTPAnswer? in
                    let answer = try await upgrade("/ws?user=bob", at: node)
                    return answer.status == 429 ? answer : nil
                }
                #expect(try reason(answer) == "429 user_barred")
                #expect((1...10).contains(answer["retry-after"].flatMap { Int($0) } ?? 0))
                let late = try await cluster.open("/ws", at: node)
                late.send(["type": "auth", "user": "bob", "id": "a"])
                #expect(try await late.next("error", id: "a")["code"]?.int == 103)
                _ = try await cluster.connect("alice", to: node)
            }
        }
    }

    @Test(
        "T23: out of descriptors new connections are refused cleanly, and those there notice nothing",
        arguments: ["node", "router"])
    func descriptors(role: String) async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let port = try FreePort.next()
            // A router keeps descriptors of what it proxies alone.
            let own = [
                "MARTLET_PORT": String(port), "MARTLET_NODE_NAME": "narrow", "MARTLET_HANDOVER": "off",
            ]
            let process = ClusterProcess(
                role == "node" ? .node : .router, name: "narrow", port: port,
                environment: cluster.environment.merging(own) { $1 },
                descriptors: 160)
            try await process.start()
            try await process.waitUntilReady()
            if role == "router" {
                _ = try await poll(within: .seconds(10), "the router to know the node") {
                    try await upgrade("/ws?user=a", at: process).status == 101 ? true : nil
                }
            }
            var sessions: [Session] = []
            var refused: HTTPAnswer?
            while refused == nil, sessions.count < 200 {
                do {
                    sessions.append(try await cluster.connect("user-\(sessions.count)", to: process))
                } catch let error as TestClient.Refused {
                    refused = error.answer
                }
            }
            #expect(sessions.count > 30 && sessions.count < 160, "\(sessions.count)")
            #expect(try reason(try #require(refused)) == "503 too_many_connections")
            // Many more at once: an answer, or the end.
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<100 {
                    group.addTask { _ = try? await HTTPAnswer.of("GET", "/", port: port) }
                }
            }
            for session in sessions { try await session.client.roundTrip() }
            sessions[0].client.close()
            _ = try await sessions[0].client.closed()
            _ = try await poll(within: .seconds(20), "one to come in for the one that went") {
                try? await cluster.connect("latecomer", to: process)
            }
            for session in sessions.dropFirst() { try await session.client.roundTrip() }
            await process.kill()
        }
    }
}
