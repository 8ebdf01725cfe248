import TestSupport

extension Scenario {
    /// In the brief form a short lease, so that a brief outage is as much to it as a long one to the default; a short
    /// drain; a grace in which sessions are resumed.
    static func environment(_ form: Form) -> [String: String] {
        form == .brief
            ? [
                "MARTLET_LEASE_SECONDS": "3", "MARTLET_DRAIN_SECONDS": "3", "MARTLET_RESUME_GRACE_SECONDS": "10",
            ] : ["MARTLET_DRAIN_SECONDS": "5", "MARTLET_RESUME_GRACE_SECONDS": "30"]
    }

    static func options(
        _ form: Form, isDurable: Bool = false, proxies: Set<Cluster.ProxyPlace> = [], more: [String: String] = [:]
    ) -> Cluster.Options {
        Cluster.Options(
            nodes: 3, routers: 2, isDurable: isDurable, environment: environment(form).merging(more) { $1 },
            proxies: proxies)
    }

    /// All of them.
    static func all(_ form: Form) -> [Scenario] {
        processes(form) + redis(form) + links(form) + crowd(form)
    }

    /// Nodes and routers die or stand still.
    static func processes(_ form: Form) -> [Scenario] {
        [
            Scenario(name: "a node is killed", options: options(form), limits: Limits(silence: 4000)) { run in
                let node = try run.pick(run.cluster.nodes)
                await node.kill()
                try await run.wait(form == .brief ? 5000 : 15_000)
                try await node.start()
                try await node.waitUntilReady()
            },
            Scenario(name: "a node stands still", options: options(form), limits: Limits(silence: 15_000)) { run in
                let node = try run.pick(run.cluster.nodes)
                node.pause()
                try await run.wait(form == .brief ? 7000 : 20_000)
                node.resume()
                try await run.wait(3000)
            },
            Scenario(
                // Handed over, nobody would notice.
                name: "a router is killed", options: options(form, more: ["MARTLET_HANDOVER": "off"]),
                limits: Limits(silence: 4000)
            ) { run in
                let router = try run.pick(run.cluster.routers)
                await router.kill()
                try await run.wait(3000)
                try await router.start()
                try await router.waitUntilReady()
            },
            Scenario(
                name: "all nodes restart, one after the other", options: options(form),
                load: form == .brief
                    ? ChaosRun.Load() : ChaosRun.Load(rooms: 50, clients: 10, publishers: 2, interval: 500),
                limits: Limits(silence: 3000)
            ) { run in
                for node in run.cluster.nodes {
                    node.terminate()
                    try await node.process?.waitForExit(within: .seconds(20))
                    try await node.start()
                    try await node.waitUntilReady()
                }
            },
        ]
    }
}
