import NIOCore
import RedisClient
import TestSupport
import Testing

@testable import ClusterState

@Suite("The Redis users of docs/operations.md")
struct AccessListTests {
    /// By the folders and files that speak to Redis for a role, and the scripts that it runs.
    private static func sources(of user: RedisAccess) throws -> String {
        let client = [
            "RedisClient/RedisClientCore", "RedisClient/RedisLink", "RedisClient/RedisSubscriber", "martlet/RedisStart",
        ]
        let stores = [
            "ClusterState/ModerationStore", "ClusterState/NodeStore", "ClusterState/NodeStore+Sweep",
            "ClusterState/RoomStore", "ClusterState/RoomStore+Messages", "ClusterState/SessionStore",
            "ClusterState/UserStore", "Admin/ClusterAdmin", "Admin/ClusterAdmin+Moderation",
            "Admin/ClusterAdmin+Orders", "Admin/ClusterTop", "NodeServer/ReplicaWait",
        ]
        let files = try (client + (user == .node ? stores : [])).map { try RedisAccess.text("Sources/\($0).swift") }
        let scripts = user == .node ? ClusterScripts.all : [ClusterScripts.nodeRead, ClusterScripts.routerTell]
        // Routers list nodes and say that they are there, and do nothing else of what the stores can.
        return (files + scripts.map(\.source)).joined(separator: "\n") + (user == .router ? "\"HKEYS\"" : "")
    }

    /// The commands that stand there in quotes.
    private static func sent(by user: RedisAccess, _ redis: RedisClient) async throws -> Set<String> {
        let words = Set(try sources(of: user).matches(of: /["']([A-Z]{3,})["']/).map { String($0.1) })
        var commands: Set<String> = []
        for word in words {
            let reply = try await redis.command(["COMMAND", "INFO", .string(word)]).get()
            if reply.array?.first?.array != nil { commands.insert(word) }
        }
        // AUTH takes no right; SELECT is for who sets a database; EVAL for scripts that a client was not made with.
        return commands.subtracting(["AUTH", "EVAL", "SELECT"])
    }

    @Test(
        "T26: may do all that Martlet does, each command that it sends by its name, and nothing else",
        arguments: RedisAccess.allCases)
    func suffices(user: RedisAccess) async throws {
        let words = try user.line()
        try await ClusterFixture.run(on: RedisServerProcess()) { cluster in
            let sent = try await Self.sent(by: user, cluster.redis)
            #expect(sent.count > (user == .node ? 40 : 10))
            // In parentheses stands what has channels or keys of its own.
            let rights = words.map { $0.drop { $0 == "(" } }.filter { $0.hasPrefix("+") }.map {
                $0.dropFirst().uppercased()
            }
            #expect(Set(rights.map { String($0.prefix { $0 != "|" }) }) == sent)
            #expect(rights.filter { $0.contains("|") }.sorted() == ["CLIENT|SETNAME", "SCRIPT|LOAD"])
            #expect(words.filter { $0.contains("@") } == ["-@all"])

            _ = try await cluster.redis.command(words.map { .string($0) }).get()
            func may(_ command: String, _ arguments: [String] = []) async throws -> Bool {
                let reply = try await cluster.redis.command(
                    (["ACL", "DRYRUN", user.rawValue, command] + arguments).map { .string($0) }
                ).get()
                return reply.string == "OK"
            }
            for command in sent {
                let usage = try await cluster.redis.command(["COMMAND", "INFO", .string(command)]).get()
                let arity = usage.array?.first?.array?.dropFirst().first?.int ?? 2
                // Where routers write, and nodes may, too.
                var arguments = Array(repeating: "martlet:routers", count: max(0, Int(abs(arity)) - 1))
                switch command {
                case "CLIENT": arguments = ["SETNAME", "martlet"]
                case "SUBSCRIBE", "UNSUBSCRIBE": arguments = ["martlet:control"]
                case "PUBLISH": arguments = ["martlet:control:probe:x", "x"]
                case "SCRIPT": arguments = ["LOAD", "return 1"]
                case "EVALSHA": arguments = ["sha", "1", "martlet:key"]
                case "XRANGE", "XREVRANGE": arguments = ["martlet:key", "+", "-"]
                case "XADD": arguments = ["martlet:key", "*", "a", "b"]
                default: break
                }
                #expect(try await may(command, arguments), "\(command) \(arguments)")
            }
            let others = [
                ("HGET", ["other:key", "x"]), ("PUBLISH", ["other:control", "x"]), ("PUBSUB", ["CHANNELS"]),
                ("CONFIG", ["GET", "x"]), ("FLUSHALL", []), ("SELECT", ["1"]),
            ]
            for (command, arguments) in others {
                #expect(try await !may(command, arguments), "\(command) \(arguments)")
            }
            for channel in ["martlet:control", "martlet:{r:x}"] {
                #expect(try await may("PUBLISH", [channel, "x"]) == (user == .node))
            }
            for key in ["martlet:nodes", "martlet:{i:node-a.1}", "martlet:{orders}"] {
                #expect(try await may("HSET", [key, "state", "dead"]) == (user == .node))
                #expect(try await may("HDEL", [key, "state"]) == (user == .node))
                #expect(try await may("PEXPIRE", [key, "1"]) == (user == .node))
            }
        }
    }
}
