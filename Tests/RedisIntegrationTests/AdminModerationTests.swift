import ChatCore
import ClusterState
import NIOCore
import TestSupport
import Testing
import WireProtocol

@Suite("martlet admin: orders")
struct AdminModerationTests {
    @Test("ban, bans, unban, audit: what was ordered is shown until it is lifted, and remembered behind that")
    func ban() async throws {
        try await AdminFixture.with { fixture in
            let ban = try await fixture.json(
                "ban", "bob", "--for", "2h", "--reason", "sp\u{E4}m", "--by", "root", "--room", "general")
            #expect(ban["kind"]?.string == "ban" && ban["target"]?.string == "user" && ban["name"]?.string == "bob")
            #expect(ban["room"]?.string == "general" && ban["by"]?.string == "root")
            let (since, until) = (try #require(ban["since"]?.int), try #require(ban["until"]?.int))
            #expect(until == since + 7_200_000)
            let mute = try await fixture.json("mute", "--address", "10.1.2.3/8")
            #expect(mute["name"]?.string == "10.0.0.0/8" && mute["room"] == .null)
            #expect(mute["until"] == .null && mute["by"]?.string?.isEmpty == false)
            #expect(try await fixture.json("revoke", "jti-1")["target"]?.string == "token")
            #expect(try await fixture.json("revoke", "--user", "bob")["target"]?.string == "user")

            let bans = try #require(try await fixture.json("bans").array)
            #expect(bans.map { $0["kind"]?.string } == ["ban", "mute", "revoke", "revoke"])
            #expect(bans.first == ban)
            let table = try await fixture.run("bans")
            #expect(table.text.hasPrefix("ORDER ") && table.text.contains("sp\u{E4}m"))

            let lifted = try await fixture.json("unban", "bob", "--room", "general", "--by", "eve")
            #expect(lifted["name"]?.string == "bob")
            _ = try await fixture.json("unmute", "--address", "10.0.0.0/8")
            _ = try await fixture.json("unrevoke", "jti-1")
            #expect(try await fixture.json("bans").array?.map { $0["target"]?.string } == ["user"])

            let audit = try #require(try await fixture.json("audit").array)
            let actions = ["ban", "mute", "revoke", "revoke", "unban", "unmute", "unrevoke"]
            #expect(audit.map { $0["action"]?.string } == actions)
            #expect(audit.first?["by"]?.string == "root" && audit[4]["by"]?.string == "eve")
            #expect(try await fixture.json("audit", "--last", "2").array?.count == 2)
            #expect(try await fixture.run("audit").text.hasPrefix("WHEN "))
        }
    }

    @Test("an order that is past is in force no more, for the list and for who lifts it")
    func past() async throws {
        try await AdminFixture.with { fixture in
            _ = try await fixture.json("ban", "bob", "--for", "1s")
            try await fixture.redis.command("HSET", fixture.keys.orders, "ban user * bob", "1 2\nroot\n")
            #expect(try await fixture.json("bans").array?.isEmpty == true)
            let output = try await fixture.run("unban", "bob")
            #expect(output.exit == .status(1))
            #expect(output.errorText == "martlet: no ban of user bob is in force")
        }
    }

    @Test("a user, session or token whose name begins with a hyphen is named like any other")
    func hyphens() async throws {
        try await AdminFixture.with { fixture in
            for (option, name) in [("--user", "-bob"), ("--session", "-9j-55A4hWe_u2X"), ("--token", "--id")] {
                let output = try await fixture.run("ban", option, name, "--reason", "-")
                #expect(output.exit == .status(0), "\(output.errorText)")
            }
            let bans = try #require(try await fixture.json("bans").array)
            #expect(Set(bans.compactMap { $0["name"]?.string }) == ["-bob", "-9j-55A4hWe_u2X", "--id"])
            for command in ["revoke", "unrevoke"] {
                for (option, name) in [("--user", "-bob"), ("--session", "-9j-55A4hWe_u2X"), ("--token", "--id")] {
                    let output = try await fixture.run(command, option, name)
                    #expect(output.exit == .status(0), "\(output.errorText)")
                }
            }
        }
    }

    @Test("a kicked session that stays is said to, and cannot be resumed: the order stands for every node")
    func kick() async throws {
        try await AdminFixture.with { fixture in
            let a = try await fixture.node("node-a")
            let session = try await fixture.session("bob", on: a, in: ["general"])
            let order = try await fixture.run("kick", "bob", "--reason", "enough")
            #expect(order.exit == .status(1))
            #expect(order.errorText.contains("cannot be resumed"))
            let one = try await fixture.run("kick", "--session", session.string)
            #expect(one.exit == .status(1))
            let bans = try #require(try await fixture.json("bans").array)
            #expect(bans.map { $0["name"]?.string } == [session.string])
            #expect(bans.allSatisfy { $0["kind"]?.string == "kick" && $0["until"]?.int != nil })
            let from = try await fixture.json("kick", "--address", "192.0.2.0/24")
            #expect(from["target"]?.string == "address")
            #expect(try await fixture.json("kick", "--token", "jti-1")["until"]?.int != nil)
            let audit = try #require(try await fixture.json("audit").array)
            #expect(audit.map { $0["target"]?.string } == ["user", "session", "address", "token"])
            #expect(audit.allSatisfy { $0["action"]?.string == "kick" })
            #expect(audit.first?["name"]?.string == "bob")
        }
    }

    @Test(
        "an order about a room whose namespace nobody declared is refused, as a message is, and one there is can be lifted"
    )
    func undeclared() async throws {
        try await AdminFixture.with { fixture in
            for order in [
                ["ban", "bob", "--room", "nope:x"], ["mute", "bob", "--room", "nope:x"], ["publish", "nope:x", "hi"],
            ] {
                let output = try await MartletProgram.run(["admin"] + order, environment: fixture.environment)
                #expect(output.exit == .status(2))
                #expect(
                    output.errorText == "martlet: there is no namespace nope; declare it in the configuration first")
            }
            #expect(try await fixture.json("bans").array?.isEmpty == true)
            _ = try await fixture.json("ban", "bob", "--room", "dm:alice:bob")
            // Of a time at which it was declared.
            let user = try UserName(validating: "bob")
            let room = try RoomName(validating: "nope:x")
            let key = try #require(ModerationOrder.Key(.ban, .user(user), in: room))
            _ = try await ModerationStore(redis: fixture.client, keys: fixture.keys)
                .put([key], as: key, by: "root", reason: "", for: nil).get()
            #expect(try await fixture.json("unban", "bob", "--room", "nope:x")["room"]?.string == "nope:x")
        }
    }

    @Test(
        "what is not in force is exit code 1 and one sentence",
        arguments: [
            (["unban", "bob"], "no ban of user bob is in force"),
            (["unmute", "bob", "--room", "x"], "no mute of user bob in room x is in force"),
            (["unrevoke", "j"], "no revoke of token j is in force"),
            (["kick", "--session", "sessionsession1"], "there is no session sessionsession1"),
        ])
    func notFound(arguments: [String], sentence: String) async throws {
        try await AdminFixture.expectNotFound(arguments, sentence)
    }

    @Test(
        "what is typed wrong is exit code 2 and one sentence, before Redis is asked",
        arguments: [
            ["ban"], ["ban", "bob", "--user", "eve"], ["ban", "--address", "10.0.0.300"],
            ["ban", "--address", "::/129"],
            ["ban", "--session", "short"], ["ban", "bob", "--for", "2"], ["ban", "bob", "--for", "0s"],
            ["ban", "bob", "--for", "1y"], ["ban", "bob", "--for", "99999d"], ["ban", "--token", "j", "--room", "x"],
            ["ban", "bob", "--by", "a\nb"], ["ban", "bob", "--reason", "a\nb"], ["ban", "bob", "--room", "bad room"],
            ["revoke"], ["revoke", "j", "--user", "bob"], ["kick", "--token", ""], ["kick"],
            ["kick", "--address", "10.0.0.1", "--room", "x"], ["audit", "--last", "0"],
            ["mute", "--session", "s", "bob"],
        ])
    func usage(arguments: [String]) async throws {
        try await AdminFixture.expectUsage(arguments)
    }
}
