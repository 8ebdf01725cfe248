import Foundation
import TestSupport
import Testing

/// Each scenario once, briefly. CHAOS_SEED=N repeats what a seed did; the seed of each is printed.
@Suite("A cluster under chaos loses, doubles and reorders nothing", .timeLimit(.minutes(10)))
struct ScenarioTests {
    @Test("G1 G2 G3 G4: nodes and routers die, stand still and restart under load", arguments: 0..<4)
    func processes(index: Int) async throws { try await Chaos.expectHolds(Scenario.processes(.brief)[index]) }

    @Test("G1 G2 G3 G4 G5: Redis dies, stands still, forgets a tail or everything under load", arguments: 0..<7)
    func redis(index: Int) async throws { try await Chaos.expectHolds(Scenario.redis(.brief)[index]) }

    @Test("G1 G2 G3 G5 G6: black holes, bad networks, a herd and slow clients", arguments: 0..<6)
    func links(index: Int) async throws { try await Chaos.expectHolds(Scenario.links(.brief)[index]) }

    @Test("G1 G2 G4: clients of a node that is killed are soon where their keys lead")
    func crowd() async throws { try await Chaos.expectHolds(Scenario.crowd(.brief)[0]) }
}

enum Chaos {
    static let environment = ProcessInfo.processInfo.environment
    /// How long `make chaos` lasts; `nil` in all other runs.
    static let minutes = environment["CHAOS_MINUTES"].flatMap { Double($0) }
    static let seed = environment["CHAOS_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 1...999_999)
    /// So many clusters at once: they mostly wait.
    private static let gate = Gate(3)

    static func run(_ body: @Sendable () async throws -> Void) async throws { try await gate.run(weight: 1, body) }

    static func expectHolds(_ scenario: Scenario) async throws {
        try await run {
            print("chaos: \(scenario.name), seed \(seed)")
            let verdict = try await scenario.run(seed: seed)
            print("chaos: \(scenario.name), seed \(seed): \(verdict.line)")
            record(scenario, verdict, seed: seed)
        }
    }

    static func record(_ scenario: Scenario, _ verdict: Verdict, seed: UInt64) {
        for objection in scenario.objections(to: verdict) {
            Issue.record("\(scenario.name), seed \(seed): \(objection)")
        }
    }

    /// CHAOS_ONLY=words: those with these words in their names.
    static func chosen<Element>(_ elements: [Element], by name: (Element) -> String) -> [Element] {
        guard let words = environment["CHAOS_ONLY"], !words.isEmpty else { return elements }
        return elements.filter { name($0).contains(words) }
    }
}
