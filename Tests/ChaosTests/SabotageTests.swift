import ClusterState
import RedisClient
import TestSupport
import Testing

/// The same scenarios against a cluster that lacks one protection: a script in Redis without one of its lines. What
/// nothing objects to then would also pass unseen in a cluster that had lost it by a mistake.
@Suite("Without a protection its scenario fails", .timeLimit(.minutes(10)))
struct SabotageTests {
    struct Sabotage: Sendable, CustomTestStringConvertible {
        let protection: String
        /// A line of a script, and what stands there instead, of the same length.
        let line: String
        let instead: String
        let scenario: String
        var environment: [String: String] = [:]
        /// Whether the figures tell what is missing.
        let isSeen: @Sendable (Verdict) -> Bool

        var testDescription: String { protection }
    }

    static let all = [
        Sabotage(
            protection: "ids of publishes are remembered",
            line: "local before = known[index] or previous[index] or fresh[id]", instead: "local before = nil",
            scenario: "Redis stands still for 8 s"
        ) { $0.doubled > 0 },
        Sabotage(
            protection: "messages are kept in a log", line: "= ARGV[5] ~= '0', ARGV[3] ~= '0'",
            instead: "= ARGV[5] ~= '0', false", scenario: "a node is killed"
        ) { $0.gaps > 0 },
        Sabotage(
            protection: "only a lease that has ended lets others sweep a node",
            line: "((tonumber(node[2]) or 0) >= now or now > tonumber(ARGV[7]))", instead: "false",
            scenario: "a router is killed", environment: ["MARTLET_RESUME_GRACE_SECONDS": "0"]
        ) { $0.falseLeaves > 0 },
    ]

    @Test("The checker objects", arguments: all)
    func objects(sabotage: Sabotage) async throws {
        var scenario = try #require(Scenario.all(.brief).first { $0.name == sabotage.scenario })
        scenario.options.proxies.insert(.redis)
        let instead = sabotage.instead
        scenario.options.words = [
            sabotage.line: instead + String(repeating: " ", count: sabotage.line.utf8.count - instead.utf8.count)
        ]
        scenario.options.environment.merge(sabotage.environment) { $1 }
        let harmed = scenario
        try await Chaos.run {
            let verdict = try await harmed.run(seed: Chaos.seed)
            print("chaos: without \"\(sabotage.protection)\", seed \(Chaos.seed): \(verdict.line)")
            #expect(sabotage.isSeen(verdict), "\(verdict.line)")
            #expect(!harmed.objections(to: verdict).isEmpty)
        }
    }

    @Test("Each line stands in one script")
    func linesExist() throws {
        for sabotage in Self.all {
            let count = ClusterScripts.all.count { $0.source.contains(sabotage.line) }
            #expect(count == 1, "\(sabotage.protection): \(sabotage.line)")
        }
    }
}
