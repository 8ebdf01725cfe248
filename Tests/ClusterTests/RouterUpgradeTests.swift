import TestSupport
import Testing

/// Two routers that accept from one listening socket, as systemd passes it, and one after the other starts anew.
@Suite("Two routers behind one address", .patience)
struct RouterUpgradeTests {
    @Test("start anew in turn: no connection is refused or lost meanwhile, and tunnels go on until they end")
    func restart() async throws {
        // Else connections are the nodes' own as soon as they are open.
        let options = Cluster.Options(
            nodes: 2,
            environment: [
                "MARTLET_HANDOVER": "off", "MARTLET_DRAIN_SECONDS": "120",
                // Routers believe a client's request id.
                "MARTLET_TRUSTED_PROXIES": "127.0.0.0/8",
            ])
        try await Machine.with(options, weight: 2) { cluster in
            let (room, address) = (newRoom(), try SharedAddress())
            let routers = try await address.routers(2, of: cluster)
            /// Who accepts is chance: those of the other go.
            @Sendable func two(of router: ClusterProcess) async throws -> [Session] {
                var sessions: [Session] = []
                while sessions.count < 2 {
                    var options = TestClient.Options()
                    let id = newUser("request")
                    options.headers = [("X-Request-ID", id)]
                    let session = try await cluster.connect(newUser(), port: address.port, options: options)
                    let owner = try await poll(within: .seconds(10), "a router to have \(id)") {
                        routers.first { $0.log.contains { $0["request_id"]?.string == id } }
                    }
                    guard owner === router else {
                        session.client.close()
                        continue
                    }
                    try await session.join(room)
                    sessions.append(session)
                }
                return sessions
            }
            var members = [try await two(of: routers[0]), try await two(of: routers[1])]
            let attempts = Attempts(on: cluster, port: address.port)
            for (index, router) in routers.enumerated() {
                let before = attempts.made
                router.terminate()
                _ = try await router.logged("that it drains") { $0["msg"] == "draining" }
                _ = try await poll(within: .seconds(60), "others to be taken meanwhile") {
                    attempts.made > before + 20 ? true : nil
                }
                for session in members[index] {
                    let text = "through it still: \(session.user)"
                    try await session.say(text, in: room)
                    for other in members.joined() where other.user != session.user {
                        _ = try await other.hears(text, in: room)
                    }
                }
                #expect(router.process?.isRunning == true, "it has tunnels")
                for session in members[index] {
                    session.client.close()
                    try await session.client.closed()
                }
                #expect(try await router.process?.waitForExit(within: .seconds(60)) == .status(0))
                try await router.start()
                try await router.isReady()
                members[index] = try await two(of: router)
            }
            let failures = await attempts.end()
            #expect(failures == [])
            #expect(attempts.made > 50)
        }
    }

    @Test("keep nobody out while none of them runs: who comes waits for the next that starts")
    func noneRuns() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let address = try SharedAddress()
            let routers = try await address.routers(2, of: cluster)
            for router in routers { await router.kill() }
            async let waits = cluster.connect(newUser(), port: address.port)
            _ = try await poll(within: .seconds(60), "it to wait") { address.isWaitedAt ? true : nil }
            try await routers[1].start()
            _ = try await waits
        }
    }

    @Test(
        "what is passed and cannot be taken is one sentence",
        arguments: [
            ("2", "LISTEN_FDS passes 2 sockets, and one is taken"),
            ("1", "LISTEN_FDS passes no listening TCP socket"),
        ])
    func cannotBeTaken(count: String, sentence: String) async throws {
        let output = try await ChildProcess.run(
            "/bin/sh",
            ["-c", "LISTEN_PID=$$ LISTEN_FDS=\(count) exec \"$0\" router 3</dev/null", MartletProgram.path],
            environment: ["PATH": "/usr/bin:/bin"], within: .seconds(20))
        #expect(output.exit == .status(2))
        #expect(output.standardErrorLines.last?.hasPrefix("martlet: \(sentence)") == true, "\(output.errorText)")
    }
}
