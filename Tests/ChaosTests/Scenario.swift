import TestSupport

/// One kind of harm, what it is done to, and what it may cost. Everything that is not stated is forbidden.
struct Scenario: Sendable {
    /// How long the harm lasts: as the tests have the time for, or as in the long run.
    enum Form: Sendable {
        case brief
        case full
    }

    struct Limits: Sendable {
        /// Milliseconds in which a client may hear nothing of its room, though others publish.
        var silence: Int64
        /// A room may lose what no log has: then `gap` says so to everybody.
        var gaps = false
        /// Users of a node that nobody can reach may leave, though they are connected to it.
        var leaves = false
        /// Acknowledged messages that each client may have to hear of as a gap.
        var forgotten = 0
        var acknowledged = 0.99
        /// Milliseconds from a publish to its answer, on a connection that lives (G5: 5 s).
        var answer: Int64 = 6500
    }

    let name: String
    var options = Cluster.Options(nodes: 3, routers: 2)
    var sync = "always"
    var load = ChaosRun.Load()
    var limits: Limits
    /// After the load: until all agree. A cluster that lacks a protection may never do so, and need not be waited for.
    var convergence = Duration.seconds(60)
    let harm: @Sendable (ChaosRun) async throws -> Void

    /// A cluster, load, harm, and what came of it.
    func run(seed: UInt64) async throws -> Verdict {
        var options = options
        options.redisSync = sync
        let cluster = try await Cluster.start(options)
        let run = ChaosRun(cluster, load, seed: seed)
        do {
            try await run.begin()
            try await harm(run)
            try await run.wait(1000)
            let verdict = await run.end(within: convergence)
            run.saveHistories()
            cluster.saveLogs()
            await cluster.stop()
            return verdict
        } catch {
            await run.stop()
            cluster.saveLogs()
            await cluster.stop()
            throw error
        }
    }

    /// What of a verdict this scenario does not allow; of many problems of a kind the first ones.
    func objections(to verdict: Verdict) -> [String] {
        var objections: [String] = []
        for kind in Verdict.Kind.allCases {
            let problems = verdict.problems.filter { $0.kind == kind }
            objections += problems.prefix(4).map(\.description)
            if problems.count > 4 {
                objections.append("\(kind): and \(problems.count - 4) more")
            }
        }
        func demand(_ holds: Bool, _ text: String) {
            if !holds { objections.append(text) }
        }
        demand(verdict.published > 0, "nothing was published")
        demand(limits.gaps || verdict.gaps == 0, "\(verdict.gaps) gaps")
        demand(limits.leaves || verdict.falseLeaves == 0, "\(verdict.falseLeaves) false leaves")
        demand(
            verdict.forgotten <= limits.forgotten * load.all,
            "\(verdict.forgotten) forgotten, \(limits.forgotten * load.all) may be")
        demand(verdict.acknowledgedShare >= limits.acknowledged, "acknowledged: \(verdict.acknowledgedShare)")
        demand(verdict.longestSilence <= limits.silence, "silent for \(verdict.longestSilence) ms")
        demand(verdict.longestAnswer <= limits.answer, "no answer for \(verdict.longestAnswer) ms")
        return objections
    }
}
