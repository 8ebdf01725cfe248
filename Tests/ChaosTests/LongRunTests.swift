import ChatCore
import TestSupport
import Testing

/// `make chaos MINUTES=10 SEED=…`: scenarios in their full form and in random order, until the time is over.
@Suite("Chaos for minutes", .enabled(if: Chaos.minutes != nil), .serialized)
struct LongRunTests {
    @Test("Scenarios at random, from one seed, and a table of what they came to")
    func longRun() async throws {
        let begin = ContinuousClock.now
        let limit = Duration.seconds(60 * (Chaos.minutes ?? 1))
        print("chaos: seed \(Chaos.seed), \(Chaos.minutes ?? 1) minutes")
        var random = FastRandom(seed: Chaos.seed)
        var table = ChaosTable()
        var left: [Scenario] = []
        while begin.duration(to: .now) < limit {
            // All of them before one comes again.
            if left.isEmpty { left = Chaos.chosen(Scenario.all(.full), by: \.name).shuffled(using: &random) }
            guard let scenario = left.popLast() else { break }
            let seed = random.next() % 1_000_000
            do {
                let verdict = try await scenario.run(seed: seed)
                table.add(scenario, verdict)
                print("chaos: \(scenario.name), seed \(seed): \(verdict.line)")
                Chaos.record(scenario, verdict, seed: seed)
            } catch {
                Issue.record("\(scenario.name), seed \(seed): \(error)")
            }
        }
        print("\nSeed \(Chaos.seed), \(begin.duration(to: .now)):\n\n\(table.markdown)")
    }
}

/// Figures of each scenario and of all, as Markdown.
struct ChaosTable {
    private var rows: [(name: String, runs: Int, limit: Int64, verdict: Verdict)] = []

    mutating func add(_ scenario: Scenario, _ verdict: Verdict) {
        if let index = rows.firstIndex(where: { $0.name == scenario.name }) {
            rows[index].runs += 1
            rows[index].verdict = rows[index].verdict + verdict
        } else {
            rows.append((scenario.name, 1, scenario.limits.silence, verdict))
        }
    }

    private static let heads = [
        "scenario", "runs", "published", "acked", "delivered", "missing", "doubled", "reordered", "gaps said",
        "longest silence (limit)", "false leaves", "other problems",
    ]

    var markdown: String {
        let all = rows.reduce(Verdict()) { $0 + $1.verdict }
        let lines = rows.sorted { $0.name < $1.name }
            .map { Self.cells($0.name, $0.runs, $0.verdict, limit: $0.limit) }
        let sum = Self.cells("all", rows.reduce(0) { $0 + $1.runs }, all, limit: nil)
        return ([Self.heads, Self.heads.map { _ in "---" }] + lines + [sum])
            .map { "| " + $0.joined(separator: " | ") + " |" }.joined(separator: "\n")
    }

    private static func cells(_ name: String, _ runs: Int, _ verdict: Verdict, limit: Int64?) -> [String] {
        let others = verdict.problems.count { [.unsaid, .answer, .presence].contains($0.kind) }
        let silence = seconds(verdict.longestSilence) + (limit.map { " (\(seconds($0)))" } ?? "")
        let figures = [
            runs, verdict.published, verdict.acknowledged, verdict.delivered, verdict.missing, verdict.doubled,
            verdict.reordered, verdict.gaps,
        ]
        return [name] + figures.map(String.init) + [silence, String(verdict.falseLeaves), String(others)]
    }

    private static func seconds(_ milliseconds: Int64) -> String {
        "\(milliseconds / 1000).\((milliseconds % 1000) / 100) s"
    }
}
