import Foundation
import TestSupport
import Testing

/// What users choose, to the byte, in everything that a node makes of it.
@Suite("What people say stays data", .serialized)
struct InjectionTests {
    private static let hostile = [
        "x\r\nFLUSHALL\r\n", "*1\r\n$8\r\nFLUSHALL\r\n", "{r:general}:meta", "}:sessions", "%s%n%p", "\u{0}\u{1}",
        "'); redis.call('FLUSHALL') --", "]]..redis.call('SET','owned','1')..[[", "\"..redis.call('FLUSHALL')..\"",
        "\n+{\"user\":\"ghost\"}", " \n{}tagA - 0 2 ghost\n{}",
    ]
    private static let users = [
        "'); redis.call('FLUSHALL') --", "]]..redis.call('SET','owned','1')..[[", "{r:general}:meta", "x}:sessions",
        "*1 $8 FLUSHALL", "%7B%7D %s", "a\"b\\c",
    ]

    @Test("T10 and T11: no name, id or text becomes a key, a command or code; others hear it as it was", .patience)
    func redis() async throws {
        try await Machine.with(Cluster.Options(nodes: 2)) { cluster in
            try await cluster.redis.command("SET", "canary", "alive")
            let room = newRoom("injection")
            let listener = try await cluster.connect("listener", to: 1)
            try await listener.join(room)
            for user in Self.users {
                let session = try await cluster.connect(user, to: 0)
                try await session.join(room)
                try await listener.sees("joined", user, in: room)
                for (number, text) in Self.hostile.enumerated() {
                    // An id has 64 bytes at most; each is another one's only once.
                    try await session.say(text, in: room, id: "\(number) " + String(text.prefix(40)))
                    #expect(try await listener.hears(text, in: room)["from"]?.string == user)
                }
                session.client.send(["type": "direct", "to": "listener", "text": .string(user), "id": .string(user)])
                _ = try await session.client.next("ack", id: user)
                let direct = try await listener.client.next("the private message of \(user)") {
                    $0["to"]?.string == "listener" && $0["text"]?.string == user
                }
                #expect(direct["from"]?.string == user)
            }
            listener.client.send(["type": "history", "room": .string(room), "limit": 100, "id": "h"])
            let history = try await listener.client.next("history", id: "h")
            let texts = history["messages"]?.array?.compactMap { $0["text"]?.string } ?? []
            #expect(texts.suffix(Self.hostile.count) == Self.hostile[...])
            #expect(try await cluster.redis.command("GET", "canary").string == "alive")
            try await checkKeys(of: cluster)
        }
    }

    private func checkKeys(of cluster: Cluster) async throws {
        let keys = try await cluster.redis.command("KEYS", "*").strings.filter { $0 != "canary" }
        #expect(keys.count > 10)
        let kind = try Regex(
            "\(cluster.prefix):(nodes|incarnation|wait|bans|moderation.*|\\{[irus]:[A-Za-z0-9_.:@/%-]+\\}(:[a-z.]+(:[A-Za-z0-9_.:-]+)?)?)"
        )
        for key in keys { #expect(key.wholeMatch(of: kind) != nil, "a key of another kind: \(key)") }
    }

    @Test("T10: a room name that could be another key is refused, and nothing is written", .patience)
    func rooms() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let session = try await cluster.connect("alice", to: 0)
            let before = try await cluster.redis.command("DBSIZE").int
            for room in ["a}b", "{a}", "a b", "a\r\nDEL x", "a\u{0}", "dm:a:b}", "dm:{r:x}:a", "ä", "a*", "%7B"] {
                session.client.send(["type": "join", "room": .string(room), "id": .string("j")])
                #expect(try await session.client.next("error", id: "j")["code"]?.int == 108, "\(room)")
                session.client.send(["type": "message", "room": .string(room), "text": "x", "id": .string("m")])
                #expect(try await session.client.next("error", id: "m")["code"]?.int == 108, "\(room)")
            }
            #expect(try await cluster.redis.command("DBSIZE").int == before)
        }
    }

    @Test(
        "T12: nothing that a client brings begins a line of the log, or commands the terminal that shows it", .patience)
    func logs() async throws {
        let options = Cluster.Options(nodes: 1, routers: 1, environment: ["MARTLET_LOG_LEVEL": "debug"])
        try await Machine.with(options) { cluster in
            let evil = "x\",\"level\":\"fatal\"\u{202E}\u{9B}\\"
            let user = "u\",\"level\":\"fatal\"\u{202E}"
            for process in [cluster.nodes[0], cluster.routers[0]] {
                var brought = TestClient.Options()
                brought.headers = [
                    ("X-Request-ID", "a \" b"), ("Origin", "http://127.0.0.1:\(process.port)"),
                    ("User-Agent", evil), ("X-Forwarded-For", evil), ("Referer", evil),
                ]
                let session = try await cluster.connect(user, to: process, options: brought)
                let line = try await cluster.nodes[0].logged("the connect") { $0["session"]?.string == session.id }
                #expect(line["user"]?.string == user)
                #expect(line["request_id"]?.string.map { !$0.contains(" ") && !$0.contains("\"") } == true)
                var foreign = brought
                foreign.headers.append(("Origin", evil))
                await #expect(throws: TestClient.Refused.self) {
                    try await cluster.open("/ws?user=foreign", at: process, options: foreign)
                }
                let reason = "over\n{\"level\":\"fatal\"}\u{1B}[2J\u{2028}\u{7F}"
                session.client.close(code: 4711, reason: reason)
                let end = try await cluster.nodes[0].logged("the disconnect") {
                    $0["session"]?.string == session.id && $0["reason"] != nil
                }
                #expect(end["reason"]?.string == reason)
                for path in ["/%0A%7B%22level%22", "/\u{1B}[2J", "/x?user=%0A", "/a\"b"] {
                    _ = try? await HTTPAnswer.of("GET", path, port: process.port)
                }
            }
            for process in cluster.nodes + cluster.routers {
                #expect(process.logViolations.isEmpty, "\(process.logViolations)")
                let text = process.process?.output.current.errorText ?? ""
                #expect(!text.contains("\"level\":\"fatal\""))
                let commands = text.unicodeScalars.filter { scalar in
                    switch scalar.value {
                    case 0x0A: false
                    case 0..<0x20, 0x7F...0x9F, 0x200E, 0x200F, 0x2028...0x202E, 0x2066...0x2069: true
                    default: false
                    }
                }
                #expect(commands.isEmpty, "\(process.name) wrote \(commands.map(\.value))")
            }
        }
    }
}
