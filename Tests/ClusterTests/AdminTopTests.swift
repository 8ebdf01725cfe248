import Glibc
import TestSupport
import Testing

@Suite("martlet admin top")
struct AdminTopTests {
    /// Says something in the room again and again, until it is cancelled.
    private func talk(_ session: Session, in room: String) -> Task<Void, any Error> {
        Task {
            while !Task.isCancelled {
                try await session.say("hello", in: room)
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    @Test("--json: a line an interval, in which what clients do is what it says", .patience)
    func json() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, routers: 1)) { cluster in
            let rooms = [newRoom(), newRoom()]
            let user = newUser()
            let speakers = [try await cluster.connect(user, to: 0), try await cluster.connect(user, to: 1)]
            let listener = try await cluster.connect(newUser(), to: 0)
            for room in rooms { try await listener.join(room) }
            for (speaker, room) in zip(speakers, rooms) { try await speaker.join(room) }
            let traffic = zip(speakers, rooms).map { talk($0, in: $1) }
            let lines = try await poll(
                within: .seconds(40), "both nodes to tell what they carry, and the router that it knows both"
            ) { () -> [JSON]? in
                let output = try await MartletProgram.run(
                    ["admin", "top", "--json", "--count", "2", "--interval", "0.2"], environment: cluster.environment)
                #expect(output.exit == .status(0))
                let lines = try output.text.split(separator: "\n").map { try JSON(parsing: String($0)) }
                let nodes = lines.last?["nodes"]?.array ?? []
                // The router tells what it knows every few seconds.
                guard lines.last?["routers"]?.array?.first?["nodes_known"]?.int == 2 else { return nil }
                return nodes.count == 2 && nodes.allSatisfy { $0["p99_ms"]?.number ?? 0 > 0 } ? lines : nil
            }
            for task in traffic { task.cancel() }
            #expect(lines.count == 2)
            #expect((lines[1]["at"]?.int ?? 0) - (lines[0]["at"]?.int ?? 0) >= 190)
            let totals = try #require(lines[1]["totals"])
            #expect(totals["nodes"]?["ready"]?.int == 2 && totals["routers"]?.int == 1)
            #expect(totals["sessions"]?.int == 3 && totals["users"]?.int == 2 && totals["rooms"]?.int == 2)
            let nodes = lines[1]["nodes"]?.array ?? []
            let (a, b) = (nodes[0], nodes[1])
            // All listening is on node-a; those who speak get acks.
            for node in nodes {
                #expect((0.1...60).contains(node["messages_in_per_second"]?.number ?? 0), "\(node.text)")
            }
            #expect((a["messages_out_per_second"]?.number ?? 0) > (b["messages_out_per_second"]?.number ?? 0))
            let sum = nodes.reduce(0) { $0 + ($1["messages_in_per_second"]?.number ?? 0) }
            #expect(abs(sum - (totals["messages_in_per_second"]?.number ?? 0)) < 0.02)
            let worst = nodes.compactMap { $0["p99_ms"]?.number }.max()
            #expect(totals["p99_ms"]?.number == worst && (0.01...5000).contains(worst ?? 0))
        }
    }

    @Test("elsewhere than on a terminal it prints JSON, and ends with 3 and a sentence when Redis goes away", .patience)
    func redisGone() async throws {
        let redis = try await ClusterRedis.start()
        let top = try await ChildProcess.spawn(
            MartletProgram.path, ["admin", "top", "--interval", "0.1", "--redis", redis.url], name: "top")
        _ = try await top.output.wait(within: .seconds(30), "a line") { $0.text.contains("\n") ? true : nil }
        #expect(top.output.current.text.hasPrefix("{\"at\":"))
        await redis.stop()
        #expect(try await top.waitForExit(within: .seconds(60)) == .status(3))
        #expect(top.output.current.standardErrorLines.count == 1)
    }

    @Test("on a terminal it is redrawn in place, fits, says that Redis is gone, and leaves all as it was", .patience)
    func terminal() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, routers: 1)) { cluster in
            @Sendable func top() throws -> PseudoTerminal {
                let own = ["PATH": "/usr/bin:/bin", "TERM": "xterm", "NO_COLOR": "1"]
                return try PseudoTerminal.spawn(
                    MartletProgram.path, ["admin", "top", "--interval", "0.2"],
                    environment: cluster.environment.merging(own) { $1 }, columns: 100, rows: 24)
            }
            let terminal = try top()
            try await terminal.shows("the cluster") { screen in
                let lines = screen.lines
                let isWhole = lines.contains { $0.hasPrefix("NODE ") } && lines.contains { $0.hasPrefix("ROUTER ") }
                return isWhole && lines.contains("nodes 2 ready, 0 draining, 0 dead   routers 1")
                    && lines.contains("sessions 0   users 0   rooms 0") ? true : nil
            }
            #expect(!terminal.isCooked)
            let session = try await cluster.connect(newUser(), to: 0)
            _ = try await session.join(newRoom())
            try await terminal.shows("one session") { $0.lines.contains("sessions 1   users 1   rooms 1") ? true : nil }
            let (drawings, isAlternate) = try await terminal.shows("some drawings") {
                $0.drawings >= 5 && !$0.isCursorShown ? ($0.drawings, $0.isAlternate) : nil
            }
            #expect(drawings >= 5 && isAlternate)
            let written = String(decoding: terminal.state.current.bytes, as: UTF8.self)
            #expect(written.ranges(of: "\u{1B}[?1049h").count == 1)

            terminal.resize(columns: 50, rows: 9)
            try await terminal.shows("what fits") { screen in
                screen.lines.contains { $0.hasPrefix("… ") } || screen.lines.contains { $0.hasPrefix("ROUTER ") }
                    ? true : nil
            }
            terminal.resize(columns: 120, rows: 30)
            try await terminal.shows("all of it again") { screen in
                screen.lines.contains { $0.hasPrefix("node-b.") && $0.contains("ready") } ? true : nil
            }
            #expect(terminal.state.current.screen.scrolled == 0)
            await cluster.redis.kill()
            try await terminal.shows("that Redis is gone, above what was last known") { screen in
                screen.lines.first?.contains("does not answer") == true
                    && screen.lines.contains { $0.hasPrefix("node-a.") } ? true : nil
            }
            try await cluster.redis.startAgain()
            try await terminal.shows("that it is back") { screen in
                screen.lines.first?.hasPrefix("martlet ") == true && screen.lines.contains { $0.hasPrefix("node-a.") }
                    ? true : nil
            }
            #expect(terminal.state.current.screen.unknown.isEmpty)
            // Ctrl-Z gives the terminal back to the shell, and fg takes it again.
            terminal.type("\u{1A}")
            try await terminal.shows("what was there before") { !$0.isAlternate && $0.isCursorShown ? true : nil }
            _ = try await poll(within: .seconds(10), "it to stop") {
                terminal.isCooked && terminal.isStopped ? true : nil
            }
            terminal.send(SIGCONT)
            try await terminal.shows("the cluster again") { screen in
                screen.isAlternate && screen.lines.contains { $0.hasPrefix("node-a.") } ? true : nil
            }
            terminal.type("\u{3}")
            try await expectLeft(terminal)

            for end in ["q", "SIGTERM"] {
                let terminal = try top()
                try await terminal.shows("the cluster") { screen in
                    screen.lines.contains { $0.hasPrefix("NODE ") } ? true : nil
                }
                if end == "q" { terminal.type("q") } else { terminal.send(SIGTERM) }
                try await expectLeft(terminal)
            }
            session.client.abort()
        }
    }

    private func expectLeft(_ terminal: PseudoTerminal) async throws {
        #expect(try await terminal.waitForExit() == .status(0))
        let screen = terminal.state.current.screen
        #expect(!screen.isAlternate && screen.isCursorShown && terminal.isCooked)
        #expect(screen.text.allSatisfy { $0 == "\n" }, "\(screen.text)")
    }
}

extension JSON {
    fileprivate var number: Double? { if case .double(let value) = self { value } else { int.map(Double.init) } }
}
