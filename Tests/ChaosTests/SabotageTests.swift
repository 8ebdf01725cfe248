import ClusterState
import RedisClient
import TestSupport
import Testing

/// Each scenario against a cluster that lacks the protection which the scenario is about (``Sabotage/all``). What nothing
/// objects to then would also pass unseen in a cluster that had lost it by a mistake.
@Suite("Without a protection its scenario fails", .timeLimit(.minutes(10)))
struct SabotageTests {
    @Test("The checker objects, and for that reason", arguments: Chaos.chosen(Sabotage.all, by: \.scenario))
    func objects(sabotage: Sabotage) async throws {
        let whole = try #require(Scenario.all(.brief).first { $0.name == sabotage.scenario })
        let harmed = sabotage.applied(to: whole)
        try await Chaos.run {
            let verdict = try await harmed.run(seed: Chaos.seed)
            print(
                "chaos: \(sabotage.scenario), without \"\(sabotage.protection)\", seed \(Chaos.seed): \(verdict.line)")
            #expect(sabotage.isSeen(verdict), "\(verdict.line) \(verdict.problems.prefix(4))")
            #expect(!harmed.objections(to: verdict).isEmpty)
        }
    }

    @Test("Each scenario has one")
    func scenariosAreCovered() {
        #expect(Set(Scenario.all(.brief).map(\.name)) == Set(Sabotage.all.map(\.scenario)))
    }

    @Test("Each line that is taken away stands in a script, and what stands there instead is no longer")
    func linesExist() {
        for sabotage in Sabotage.all {
            for (line, instead) in sabotage.lines {
                #expect(ClusterScripts.all.contains { $0.source.contains(line) }, "\(sabotage.protection): \(line)")
                #expect(instead.utf8.count <= line.utf8.count, "\(instead)")
            }
        }
    }
}
