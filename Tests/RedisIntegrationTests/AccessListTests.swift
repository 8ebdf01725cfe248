import NIOCore
import RedisClient
import TestSupport
import Testing

@testable import ClusterState

@Suite("The Redis user of docs/operations.md")
struct AccessListTests {
    /// What is sent from outside the scripts.
    private static let commands = [
        "AUTH", "CLIENT", "EVALSHA", "GET", "HDEL", "HGET", "HKEYS", "HLEN", "HMGET", "HSCAN", "INFO", "PING",
        "PUBLISH",
        "SCARD", "SCRIPT", "SELECT", "SET", "SREM", "SSCAN", "SUBSCRIBE", "UNSUBSCRIBE", "WAIT", "XLEN",
    ]

    @Test("may do all that Martlet does, and none of what harms others")
    func suffices() async throws {
        let words = try RedisAccess.line()
        try await ClusterFixture.run(on: RedisServerProcess()) { cluster in
            _ = try await cluster.redis.command(words.map { .string($0) }).get()
            func may(_ command: String, _ arguments: [String] = []) async throws -> Bool {
                let reply = try await cluster.redis.command(
                    (["ACL", "DRYRUN", "martlet", command] + arguments).map { .string($0) }
                ).get()
                return reply.string == "OK"
            }
            let calls = ClusterScripts.all.flatMap { script in
                script.source.matches(of: /call\('([A-Z]+)'/).map { String($0.1) }
            }
            #expect(calls.count > 40)
            for command in Set(calls + Self.commands) {
                let usage = try await cluster.redis.command(["COMMAND", "INFO", .string(command)]).get()
                let arity = usage.array?.first?.array?.dropFirst().first?.int ?? 2
                var arguments = Array(repeating: "martlet:key", count: max(0, Int(abs(arity)) - 1))
                switch command {
                case "CLIENT": arguments = ["SETNAME", "martlet"]
                case "SCRIPT": arguments = ["LOAD", "return 1"]
                case "EVALSHA": arguments = ["sha", "1", "martlet:key"]
                case "XADD": arguments = ["martlet:key", "*", "a", "b"]
                default: break
                }
                #expect(try await may(command, arguments), "\(command) \(arguments)")
            }
            for command in ["FLUSHALL", "KEYS", "CONFIG", "SHUTDOWN"] {
                #expect(try await !may(command, ["GET", "x"].suffix(command == "KEYS" ? 1 : 2)), "\(command)")
            }
            #expect(try await !may("GET", ["other:key"]))
        }
    }
}
