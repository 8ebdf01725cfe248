import Foundation
import TestSupport
import Testing

/// Each scenario once, briefly. CHAOS_SEED=N repeats what a seed did; the seed of each is printed.
@Suite("A cluster under chaos loses, doubles and reorders nothing", .timeLimit(.minutes(10)))
struct ScenarioTests {
    @Test("G1 G2 G3 G4: nodes and routers die, stand still and restart under load", arguments: 0..<4)
    func processes(index: Int) async throws { try await Chaos.expectHolds(Scenario.processes(.brief)[index]) }
}

enum Chaos {
    static let environment = ProcessInfo.processInfo.environment
    static let seed = environment["CHAOS_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...999_999)
    /// So many clusters at once: they mostly wait.
    private static let gate = Gate(3)

    static func expectHolds(_ scenario: Scenario, weight: Int = 1) async throws {
        try await gate.run(weight: weight) {
            print("chaos: \(scenario.name), seed \(seed)")
            let verdict = try await scenario.run(seed: seed)
            print("chaos: \(scenario.name), seed \(seed): \(verdict.line)")
            for objection in scenario.objections(to: verdict) {
                Issue.record("\(scenario.name), seed \(seed): \(objection)")
            }
        }
    }
}
