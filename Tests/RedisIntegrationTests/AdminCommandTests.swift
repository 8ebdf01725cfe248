import ClusterState
import Foundation
import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@Suite("martlet admin")
struct AdminCommandTests {
    @Test("an order to a node that the audit cannot take is given all the same, and that is said")
    func unnoted() async throws {
        try await AdminFixture.with { fixture in
            let node = try await fixture.node("node-a")
            _ = try await fixture.client.command(["SET", .string(fixture.keys.audit), "no stream"]).get()
            for (order, begins, state) in [
                ("drain", "node-a.1 was asked to drain", "draining"),
                ("undrain", "node-a.1 takes clients again", "ready"),
            ] {
                let given = try await fixture.run(order, node.description)
                #expect(given.exit == .status(0))
                #expect(given.text.hasPrefix(begins), "\(given.text)")
                #expect(
                    given.standardErrorLines == [
                        "martlet: the node has the order, but Redis did not take the line for `martlet admin audit`"
                    ])
                #expect(try await fixture.json("nodes").array?.first?["state"]?.string == state)
            }
        }
    }

    @Test("nodes: state, lease and what the indexes count, with no node running")
    func nodes() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            _ = try await fixture.node("node-b", lease: .milliseconds(1))
            try await fixture.session("alice", on: a, in: ["general", "x"])
            try await fixture.session("bob", on: a, in: ["general"])
            for (order, said) in [
                ("drain", "node-b.2 was asked to drain; it moves 0 sessions.\n"),
                ("undrain", "node-b.2 takes clients again; 0 sessions are still there.\n"), ("drain", ""),
            ] {
                let given = try await fixture.run(order, "node-b")
                #expect(given.exit == .status(0))
                #expect(given.text.hasPrefix(said + (said.isEmpty ? "" : "But its lease ended ")), "\(given.text)")
            }
            let nodes = try #require(try await fixture.json("nodes").array)
            #expect(nodes.map { $0["node"]?.string } == ["node-a", "node-b"])
            #expect(nodes.map { $0["state"]?.string } == ["ready", "draining"])
            #expect(nodes[0]["incarnation"]?.string == a.description)
            #expect(nodes[0]["address"]?.string == "127.0.0.1:1")
            #expect(nodes[0]["sessions"]?.int == 2)
            #expect(nodes[0]["rooms"]?.int == 2)
            #expect((1...60_000).contains(nodes[0]["lease_ms"]?.int ?? 0))
            #expect((nodes[1]["lease_ms"]?.int ?? 0) < 0)
            let table = try await fixture.run("nodes")
            #expect(table.text.hasPrefix("NODE "))
            #expect(!table.text.contains("\u{1B}"))
        }
    }

    @Test("route: the order of a key, who is picked and why; a room where rooms are keys")
    func route() async throws {
        try await AdminFixture.with { fixture in
            for name in ["node-a", "node-b", "node-c"] { _ = try await fixture.node(name) }
            let json = try await fixture.json("route", "alice")
            #expect(json["key"]?.string == "alice")
            let order = try #require(json["order"]?.array)
            #expect(json["node"] == order[0]["node"])
            #expect(Set(order.map { $0["node"]?.string }) == ["node-a", "node-b", "node-c"])
            #expect(order.map { $0["place"]?.int } == [1, 2, 3])
            #expect(order.map { $0["verdict"]?.string } == ["picked", "reserve", "reserve"])
            #expect(order[0]["why"]?.string == "picked: the first choice, 0 of 250 sessions")
            #expect(order.allSatisfy { $0["weight"]?.int == 100 && $0["bound"]?.int == 250 })

            let first = order[0]["node"]?.string ?? ""
            #expect(try await fixture.run("drain", first).exit == .status(0))
            let drained = try await fixture.json("route", "alice")
            #expect(drained["node"] == order[1]["node"])
            #expect(drained["order"]?.array?.last?["verdict"]?.string == "draining")
            #expect(drained["order"]?.array?.last?["place"] == .null)

            let table = try await fixture.run("route", "alice")
            #expect(table.text.hasPrefix("PLACE "))
            #expect(table.text.contains("drains: takes no clients"))
            #expect(table.errorText.contains("MARTLET_SECRET is not set"))
            let keyed = try await MartletProgram.run(
                ["admin", "route", "alice", "--room", "general", "--json"],
                environment: fixture.environment.merging([
                    "MARTLET_SECRET": "a secret of sixteen bytes", "MARTLET_AFFINITY": "room,user",
                    "MARTLET_BALANCE_FACTOR": "0",
                ]) { $1 })
            #expect(keyed.errorText.isEmpty)
            let general = try JSON(parsing: keyed.text)
            #expect(general["key"]?.string == "general")
            #expect(general["order"]?.array?.first?["bound"] == .null)
        }
        try await AdminFixture.expectNotFound(["route", "alice"], "no node has registered")
        try await AdminFixture.expectUsage(["route"])
        try await AdminFixture.expectUsage(["route", "--room", "general"])
    }

    @Test("presence: users with all their sessions; count is what clients see")
    func presence() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            let b = try await fixture.node("node-b")
            let first = try await fixture.session("alice", on: a, in: ["general"])
            let second = try await fixture.session("alice", on: b, in: ["general"], status: .away)
            try await fixture.session("ghost", on: b, in: ["general"], status: .invisible)
            let json = try await fixture.json("presence", "general")
            #expect(json["room"]?.string == "general")
            #expect(json["count"]?.int == 1)
            let users = try #require(json["users"]?.array)
            #expect(users.map { $0["user"]?.string } == ["alice", "ghost"])
            #expect(users[0]["status"]?.string == "online")
            let sessions = try #require(users[0]["sessions"]?.array)
            #expect(Set(sessions.map { $0["session"]?.string }) == [first.string, second.string])
            #expect(Set(sessions.map { $0["node"]?.string }) == ["node-a", "node-b"])
            #expect(sessions.allSatisfy { $0["joined_at"]?.int == 1_790_000_000_000 })
        }
    }

    @Test("rooms, room, user, sessions and stats tell the same story")
    func lookups() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            let b = try await fixture.node("node-b")
            let one = try await fixture.session("alice", on: a, in: ["x", "general"])
            let two = try await fixture.session("alice", on: b, in: [])
            let gone = try await fixture.session("bob", on: b, in: ["left"])
            try await fixture.leave(gone, "bob", on: b, in: ["left"])

            let rooms = try #require(try await fixture.json("rooms").array)
            #expect(rooms.map { $0["room"]?.string } == ["general", "x"])
            #expect(rooms.allSatisfy { $0["users"]?.int == 1 && $0["sessions"]?.int == 1 && $0["seq"]?.int == 0 })
            #expect(try await fixture.json("room", "left")["users"]?.int == 0)

            let user = try await fixture.json("user", "alice")
            let sessions = try #require(user["sessions"]?.array)
            #expect(Set(sessions.map { $0["session"]?.string }) == [one.string, two.string])
            let places = sessions.first { $0["session"]?.string == one.string }?["rooms"]?.array
            #expect(places?.map { $0["room"]?.string } == ["general", "x"])

            #expect(try await fixture.json("sessions").array?.count == 2)
            let onB = try #require(try await fixture.json("sessions", "--node", "node-b").array)
            #expect(onB.map { $0["session"]?.string } == [two.string])

            let stats = try await fixture.json("stats")
            #expect(stats["sessions"]?.int == 2)
            #expect(stats["users"]?.int == 1)
            #expect(stats["nodes"]?["ready"]?.int == 2)
            #expect(stats["redis"]?["eviction_policy"]?.string == "noeviction")
            for command in [["rooms"], ["room", "x"], ["user", "alice"], ["sessions"], ["stats"], ["presence", "x"]] {
                let output = try await MartletProgram.run(["admin"] + command, environment: fixture.environment)
                #expect(output.exit == .status(0), "\(command)")
                #expect(!output.text.isEmpty, "\(command)")
            }
        }
    }

    @Test("publish writes a message with seq that history shows; controls in it never reach the terminal")
    func publish() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            try await fixture.session("alice", on: a, in: ["general"])
            #expect(try await fixture.json("publish", "general", "one")["seq"]?.int == 1)
            let second = try await fixture.json("publish", "general", "two\u{1B}[2J\n\"q\"", "--from", "al")
            #expect(second["seq"]?.int == 2)
            let history = try await fixture.json("history", "general")
            #expect(history["seq"]?.int == 2)
            let messages = try #require(history["messages"]?.array)
            #expect(messages.map { $0["from"]?.string } == ["operator", "al"])
            #expect(messages.map { $0["text"]?.string } == ["one", "two\u{1B}[2J\n\"q\""])
            #expect(messages.map { $0["seq"]?.int } == [1, 2])
            #expect(try await fixture.json("history", "general", "--before", "2")["messages"]?.array?.count == 1)
            #expect(try await fixture.json("history", "general", "--after", "1")["messages"]?.array?.count == 1)
            let shown = try await fixture.run("history", "general").text
            #expect(shown.contains(#"al: two\u{1b}[2J\n"q""#))
            #expect(!shown.contains("\u{1B}"))
        }
    }

    @Test("publish into the room of two users is for these two")
    func publishDirect() async throws {
        try await AdminFixture.with { fixture in
            let room = "dm:alice:bob"
            #expect(try await fixture.json("publish", room, "hi", "--from", "bob", "--create")["seq"]?.int == 1)
            let refused = try await fixture.run("publish", room, "hi", "--from", "carol")
            #expect(refused.exit == .status(1))
            #expect(refused.errorText == "martlet: \(room) is the room of two users, and carol is neither of them")
        }
    }

    @Test("publish does not shorten a history that is longer than its own settings say")
    func publishKeepsHistory() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            try await fixture.session("alice", on: a, in: ["general"])
            for index in 0..<5 { _ = try await fixture.json("publish", "general", "m\(index)") }
            let output = try await MartletProgram.run(
                ["admin", "publish", "general", "last"],
                environment: fixture.environment.merging(["MARTLET_HISTORY_MESSAGES": "2"]) { $1 })
            #expect(output.exit == .status(0))
            #expect(try await fixture.json("history", "general")["messages"]?.array?.count == 6)
        }
    }

    @Test("a full Redis refuses a message: exit code 1 and a sentence")
    func outOfMemory() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            try await fixture.session("alice", on: a, in: ["general"])
            try await fixture.redis.command("CONFIG", "SET", "maxmemory", "1")
            let output = try await fixture.run("publish", "general", "x")
            #expect(output.exit == .status(1))
            #expect(output.errorText.contains("OOM"))
            #expect(try await fixture.json("nodes").array?.count == 1)
        }
    }

    @Test("tail shows what is stored, then messages, comings and goings as they happen")
    func tail() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            try await fixture.session("alice", on: a, in: ["general"])
            _ = try await fixture.json("publish", "general", "stored")
            let tail = try await ChildProcess.spawn(
                MartletProgram.path, ["admin", "tail", "general", "--json"], name: "tail",
                environment: fixture.environment)
            @Sendable func lines(_ count: Int) async throws -> [JSON] {
                try await tail.output.wait(within: .seconds(10), "\(count) lines of tail") { output in
                    let lines = output.text.split(separator: "\n")
                    return lines.count >= count ? lines.compactMap { try? JSON(parsing: String($0)) } : nil
                }
            }
            #expect(try await lines(1).first?["text"]?.string == "stored")
            _ = try await fixture.json("publish", "general", "live")
            try await fixture.session("bob", on: a, in: ["general"])
            let all = try await lines(3)
            #expect(all[1]["type"]?.string == "message")
            #expect(all[1]["seq"]?.int == 2)
            #expect(all[2]["type"]?.string == "presence")
            #expect(all[2]["joined"]?.array?.first?["user"]?.string == "bob")
            await tail.end()
        }
    }

    @Test("kick waits for the sessions to go; what stays is exit code 1")
    func kick() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            let session = try await fixture.session("bob", on: a, in: ["general", "x"])
            // Stands for the node: what it hears it does.
            let order = try await MartletProgram.run(
                ["admin", "kick", "bob", "--json"], environment: fixture.environment)
            #expect(order.exit == .status(1))
            #expect(order.errorText.contains("1 of 1 session of bob"))
            #expect(try JSON(parsing: order.text)["remaining"]?.array?.map(\.string) == [session.string])

            let heard = try await KickEar.listen(fixture, user: UserName(validating: "bob"))
            async let heeded = fixture.json("kick", "bob", "--room", "x")
            let room = try await heard.wait(within: .seconds(10), "the order on the user's channel") { $0 }
            #expect(room == "x")
            try await fixture.leave(session, "bob", on: a, in: ["x"])
            let report = try await heeded
            #expect(report["room"]?.string == "x")
            #expect(report["remaining"]?.array?.isEmpty == true)
        }
    }

    @Test(
        "what does not exist is exit code 1 and one sentence",
        arguments: [
            (["room", "nowhere"], "there is no room nowhere"),
            (["presence", "nowhere"], "there is no room nowhere"),
            (["history", "nowhere"], "there is no room nowhere"),
            (["tail", "nowhere"], "there is no room nowhere"),
            (["publish", "nowhere", "x"], "there is no room nowhere"),
            (["user", "nobody"], "no session of user nobody is connected"),
            (["kick", "nobody"], "no session of user nobody is connected"),
            (["kick", "nobody", "--room", "r"], "user nobody is not in room r"),
            (["drain", "node-z"], "there is no node node-z"),
            (["undrain", "node-z"], "there is no node node-z"),
            (["sessions", "--node", "node-z"], "there is no node node-z"),
        ])
    func notFound(arguments: [String], sentence: String) async throws {
        try await AdminFixture.expectNotFound(arguments, sentence)
    }

    @Test(
        "what is typed wrong is exit code 2 and one sentence, before Redis is asked",
        arguments: [
            ["room", "bad room"], ["room"], ["user", ""], ["fly"], ["nodes", "--frobnicate"],
            ["history", "r", "--limit", "0"], ["nodes", "--redis", "http://x"], ["nodes", "--prefix", "{x}"],
            ["tail", "r", "--last", "x"], ["nodes", "--watch", "--every", "0"], ["top", "--interval", "0"],
            ["top", "--count", "0"],
        ])
    func usage(arguments: [String]) async throws {
        try await AdminFixture.expectUsage(arguments)
    }

    @Test("the fields in docs/admin.md are those that are printed, no more and no less")
    func documentedFields() async throws {
        let documented = try AdminDocument.examples()
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            try await fixture.session("alice", on: a, in: ["general"])
            var printed: [String: JSON] = [:]
            printed["publish"] = try await fixture.json("publish", "general", "hi")
            let router = RouterFigures(
                name: "r", address: "h:1", internalAddress: "h:2", version: "1", startedAt: 1, readyNodes: 1)
            try await RouterStore(redis: fixture.client, keys: fixture.keys)
                .tell(router, id: "1", lease: .seconds(60)).get()
            printed["top"] = try await fixture.json("top", "--count", "1")
            for command in ["nodes", "routers", "rooms", "sessions", "stats"] {
                printed[command] = try await fixture.json(command)
            }
            for command in ["presence", "history"] { printed[command] = try await fixture.json(command, "general") }
            printed["user"] = try await fixture.json("user", "alice")
            // `rooms` is documented by what `room` prints.
            printed["rooms"] = try await fixture.json("room", "general")
            let kick = try await fixture.run("kick", "alice", "--json")
            printed["kick"] = try JSON(parsing: kick.text)
            printed["ban"] = try await fixture.json("ban", "bob")
            printed["unban"] = try await fixture.json("unban", "bob")
            printed["audit"] = try await fixture.json("audit", "--last", "1")
            #expect(Set(documented.keys) == Set(printed.keys))
            for (command, example) in documented {
                #expect(AdminDocument.fields(example) == printed[command].map(AdminDocument.fields), "\(command)")
            }
        }
    }

    @Test("an unknown MARTLET_ key in the environment is exit code 2 and names the nearest one")
    func unknownKey() async throws {
        let output = try await MartletProgram.run(["admin", "nodes"], environment: ["MARTLET_REDIS_URI": "x"])
        #expect(output.exit == .status(2))
        #expect(output.errorText.contains("MARTLET_REDIS_URL"))
    }

    @Test("a Redis that does not answer is exit code 3, whether nobody listens or it hangs")
    func unreachable() async throws {
        let nobody = try await MartletProgram.run(
            ["admin", "nodes"], environment: ["MARTLET_REDIS_URL": "redis://127.0.0.1:\(try FreePort.next())"])
        #expect(nobody.exit == .status(3))
        #expect(nobody.standardErrorLines.count == 1)
        #expect(nobody.errorText.hasPrefix("martlet: Redis at 127.0.0.1:"))
        try await AdminFixture.with { fixture in
            fixture.redis.pause()
            let hanging = try await fixture.run("nodes")
            fixture.redis.resume()
            #expect(hanging.exit == .status(3))
        }
    }
}

/// The examples of docs/admin.md: "- `COMMAND`" begins an item, a fenced json block in it is what it prints.
enum AdminDocument {
    static func examples() throws -> [String: JSON] {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        // The checkout may have been built under another path than it stands in now.
        let text = try #require(
            [root + "/docs/admin.md", "docs/admin.md"].lazy.compactMap {
                try? String(contentsOfFile: $0, encoding: .utf8)
            }
            .first)
        var examples: [String: JSON] = [:]
        var command = ""
        for line in text.split(separator: "\n") {
            if line.hasPrefix("- `") { command = String(line.dropFirst(3).prefix { $0 != "`" }) }
            let trimmed = line.drop { $0 == " " }
            if trimmed.hasPrefix("{") || trimmed.hasPrefix("[{") {
                examples[command] = try JSON(parsing: String(trimmed))
            }
        }
        return examples
    }

    /// Every path of keys, with `[]` for an element.
    static func fields(_ json: JSON) -> Set<String> {
        if let members = json.object {
            return members.reduce(into: []) { set, member in
                set.insert(member.key)
                set.formUnion(fields(member.value).map { member.key + "." + $0 })
            }
        }
        return (json.array ?? []).reduce(into: []) { set, element in set.formUnion(fields(element).map { "[]." + $0 }) }
    }
}
