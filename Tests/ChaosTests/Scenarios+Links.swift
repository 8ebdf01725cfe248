import TestSupport

extension Scenario {
    /// The network is bad, or clients are.
    static func links(_ form: Form) -> [Scenario] {
        [
            Scenario(
                name: "the subscription alone is in a black hole", options: options(form, proxies: [.redis]),
                limits: Limits(silence: 20_000)
            ) { run in
                let proxy = try run.pick(run.cluster.proxies.redis)
                try await run.outage {
                    await proxy.set(.blackHole, for: .marked)
                    try await run.wait(form == .brief ? 7000 : 15_000)
                    await proxy.heal()
                }
                try await run.wait(2000)
            },
            Scenario(
                name: "a node is cut off from Redis, not from its clients", options: options(form, proxies: [.redis]),
                limits: Limits(silence: 25_000)
            ) { run in
                let proxy = try run.pick(run.cluster.proxies.redis)
                try await run.outage {
                    if run.number(0...1) == 0 {
                        await proxy.set(.blackHole)
                    } else {
                        await proxy.refuse(true)
                        await proxy.reset()
                    }
                    try await run.wait(form == .brief ? 6000 : 20_000)
                    await proxy.heal()
                    await proxy.refuse(false)
                }
                try await run.wait(2000)
            },
            Scenario(
                name: "clients reach the routers over a bad network", options: options(form, proxies: [.routers]),
                limits: Limits(silence: 20_000)
            ) { run in
                try await badNetwork(run, run.cluster.proxies.routers, LineHarm.allCases, form)
            },
            Scenario(
                name: "routers reach the nodes over a bad network", options: options(form, proxies: [.nodes]),
                limits: Limits(silence: 20_000)
            ) { run in
                try await badNetwork(run, run.cluster.proxies.nodes, [.reset, .cut, .blackHole, .slow], form)
            },
            storm(form),
            slowClients(form),
        ]
    }

    private enum LineHarm: CaseIterable {
        case deafClient, deafServer, cut, reset, blackHole, slow
    }

    /// Each of the harms in turn, the first one while everybody is connected, each to a proxy through which somebody is.
    private static func badNetwork(
        _ run: ChaosRun, _ proxies: [FaultProxy], _ harms: [LineHarm], _ form: Form
    ) async throws {
        for _ in 0..<(form == .brief ? 1 : 12 / harms.count) {
            for harm in harms.prefix(1) + run.shuffled(Array(harms.dropFirst())) {
                let proxy = try await run.pick(
                    poll(within: .seconds(10), "somebody to be connected") {
                        let used = proxies.filter { $0.figures.current.open > 0 }
                        return used.isEmpty ? nil : used
                    })
                switch harm {
                case .cut: await proxy.cut()
                case .reset: await proxy.reset()
                case .blackHole: await proxy.set(.blackHole)
                case .deafServer: await proxy.set(.halfOpen(.toServer))
                case .deafClient: await proxy.set(.halfOpen(.toClient))
                case .slow: await proxy.set(.slowAndSplit)
                }
                try await run.wait(run.number(500...2000))
                await proxy.heal()
            }
        }
        try await run.wait(3000)
    }

    static let nobodyWasSlow = "no client was slow enough to be closed with 4001"

    /// Lines that bring nothing for four seconds, in which 2 MB are said: more than the kernel and a node together
    /// keep for a client. Not longer than a node waits for its Close frame to be read (5 s), or the code would be lost.
    private static func slowClients(_ form: Form) -> Scenario {
        Scenario(
            name: "30 % of the clients are slow",
            options: options(
                form, proxies: [.nodes],
                more: ["MARTLET_LIMIT_OUTBOUND_BYTES": "65536", "MARTLET_LIMIT_MESSAGE_BYTES": "16384"]),
            load: ChaosRun.Load(rooms: 1, clients: 7, publishers: 5, interval: 150, slow: 2, padding: 15_000),
            limits: Limits(silence: 4000)
        ) { run in
            for _ in 0..<(form == .brief ? 2 : 5) {
                var stall = Fault()
                stall.held = [.toClient]
                for proxy in run.cluster.proxies.nodes { await proxy.set(stall, for: .marked) }
                try await run.wait(4000)
                for proxy in run.cluster.proxies.nodes { await proxy.heal() }
                try await run.wait(1500)
            }
            if run.closedAsSlow == 0 { run.note(.answer, nobodyWasSlow) }
        }
    }

    /// The connections of all who listen break at once, and all come back to what was said meanwhile.
    private static func storm(_ form: Form) -> Scenario {
        Scenario(
            name: form == .brief ? "300 clients come back at once" : "2,000 clients come back at once",
            options: options(form, proxies: [.routers]),
            load: ChaosRun.Load(
                rooms: form == .brief ? 6 : 40, clients: 50, publishers: 1, publishersAreSafe: true,
                interval: form == .brief ? 300 : 1000,
                patience: 15_000),
            limits: Limits(silence: form == .brief ? 8000 : 40_000)
        ) { run in
            for _ in 0..<(form == .brief ? 1 : 2) {
                for proxy in run.cluster.proxies.routers { await proxy.reset() }
                try await run.wait(500)
                try await run.allJoined()
                try await run.wait(1500)
            }
        }
    }
}

extension Fault {
    static func halfOpen(_ way: Way) -> Fault {
        var fault = Fault()
        fault.swallowed = [way]
        return fault
    }

    /// A phone in a tunnel.
    static var slowAndSplit: Fault {
        var fault = Fault()
        (fault.latency, fault.jitter, fault.isSplit) = (.milliseconds(50), .milliseconds(100), true)
        fault.bytesPerSecond = 50_000
        return fault
    }
}
