import TestSupport

extension Scenario {
    /// Where clients are when a node of three dies, with as many as one machine can hold.
    static func crowd(_ form: Form) -> [Scenario] {
        let rooms = form == .brief ? 30 : 500
        let load = ChaosRun.Load(rooms: rooms, clients: 10, publishers: 1, interval: 5000, patience: 15_000)
        let more = [
            // The bound on a node's load holds from the first client on, and no node could take all.
            "MARTLET_BALANCE_FLOOR": "0", "MARTLET_LIMIT_CONNECTIONS": String(load.all * 2 / 3),
        ]
        return [
            Scenario(
                name: form == .brief
                    ? "one of three nodes of 300 clients is killed" : "one of three nodes of 5,000 clients is killed",
                options: options(form, more: more), load: load, limits: Limits(silence: 20_000)
            ) { run in
                let before = run.clients.map(\.node)
                let node = try run.pick(run.cluster.nodes)
                let began = run.recorder.now
                await node.kill()
                let moved = zip(run.clients, before).filter { $1 == node.name }.map(\.0)
                _ = try await poll(within: .seconds(60), "the clients of \(node.name) to be back") {
                    moved.allSatisfy { $0.isJoined && $0.node != node.name } ? true : nil
                }
                let took = run.recorder.now - began
                if moved.isEmpty { run.note(.answer, "nobody was on \(node.name)") }
                print("chaos: \(moved.count) of \(run.clients.count) clients were back after \(took) ms")
                if took > 10_000 { run.note(.answer, "\(moved.count) clients were back after \(took) ms only") }
                for (client, before) in zip(run.clients, before)
                where before != node.name && client.node != before {
                    run.note(.answer, "\(client.user) was on \(before), which lives, and is on \(client.node)")
                }
                try await run.checkPlaces(of: moved, without: node.name)
                try await node.start()
                try await node.waitUntilReady()
            }
        ]
    }
}

extension ChaosRun {
    /// Each is where its key leads among the nodes that live, none of which is over 125 % of the average or turned anybody away.
    fileprivate func checkPlaces(of moved: [ChaosClient], without dead: String) async throws {
        for client in moved {
            let nodes = try await cluster.routers[0].internals("/nodes?key=\(client.user)").json()
            let home = nodes["order"]?.array?.compactMap(\.string).first { $0 != dead } ?? "nowhere"
            if client.node != home {
                note(.answer, "\(client.user) is on \(client.node), its key leads to \(home)")
            }
        }
        let loads = Dictionary(grouping: clients, by: \.node).mapValues(\.count)
        print(
            "chaos: clients by node: \(loads.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "))"
        )
        for (node, load) in loads where load * loads.count * 100 > clients.count * 125 {
            note(.answer, "\(load) of \(clients.count) clients are on \(node), one of \(loads.count) nodes")
        }
        for node in cluster.nodes where node.process?.isRunning == true {
            let refusals = try await node.internals("/metrics").text.split(separator: "\n")
                .filter { $0.hasPrefix("martlet_connections_refused_total") && !$0.hasSuffix(" 0") }
            for refusal in refusals { note(.answer, "\(node.name): \(refusal)") }
        }
    }
}
