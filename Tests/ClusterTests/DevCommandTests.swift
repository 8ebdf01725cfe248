import Foundation
import Glibc
import TestSupport
import TestTLS
import Testing

@Suite("martlet dev")
struct DevCommandTests {
    /// A dev cluster in a folder of its own.
    struct Dev: Sendable {
        let folder: String
        let port: Int
        let process: ChildProcess

        static func start(
            _ extra: [String] = [], port: Int? = nil, folder: String? = nil, environment: [String: String] = [:]
        ) async throws -> Dev {
            let folder = try folder ?? newFolder()
            // Four in a row: the router and up to three nodes.
            let port = try port ?? FreePort.first(ofRow: 4)
            let own = [
                "PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin",
                "MARTLET_INTERNAL_PORT": String(try FreePort.first(ofRow: 4)),
            ]
            let process = try await ChildProcess.spawn(
                "/bin/sh",
                ["-c", "cd \"$0\" && exec \"$@\"", folder, MartletProgram.path, "dev", "--port", String(port)] + extra,
                name: "dev",
                environment: own.merging(environment) { $1 })
            return Dev(folder: folder, port: port, process: process)
        }

        static func newFolder() throws -> String {
            let path = FileManager.default.temporaryDirectory.appendingPathComponent(
                "martlet dev \(UInt64.random(in: 0...UInt64.max))"
            ).path
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            return path
        }

        func says(_ text: String, within limit: Duration = .seconds(40)) async throws {
            _ = try await process.output.wait(within: limit, "dev to say \(text)") { output in
                output.text.contains(text) ? true : nil
            }
        }

        func martlet(_ arguments: String...) async throws -> ChildProcess.Output {
            try await ChildProcess.run(
                "/bin/sh", ["-c", "cd \"$0\" && exec \"$@\"", folder, MartletProgram.path] + arguments,
                environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"],
                within: .seconds(60))
        }

        func end() async {
            process.send(SIGTERM)
            _ = try? await process.waitForExit(within: .seconds(20))
            await process.end()
            try? FileManager.default.removeItem(atPath: folder)
        }
    }

    @Test("it brings up Redis, nodes and a router, says what to try, restarts what dies, and ends all with SIGTERM")
    func life() async throws {
        let dev = try await Dev.start(["--nodes", "2"])
        do {
            try await dev.says("Ctrl-C ends it all.")
            let text = dev.process.output.current.text
            #expect(text.contains("Open  http://127.0.0.1:\(dev.port)/"))
            #expect(text.contains("WARNING: MARTLET_AUTH=none"))
            #expect(!text.contains("\u{1B}"), "no colour without a terminal")
            let nodes = try await dev.martlet("admin", "nodes", "--json")
            let list = try #require(try JSON(parsing: nodes.text).array, "admin finds the cluster of its directory")
            #expect(list.map { $0["node"]?.string } == ["node-a", "node-b"])

            for user in ["alice", "bob", "carol"] {
                let route = try await dev.martlet("admin", "route", user, "--json")
                let located = try await HTTPAnswer.of("GET", "/locate?key=\(user)", port: dev.port).json()
                #expect(
                    try JSON(parsing: route.text)["node"] == located["node"], "admin knows the secret of its directory")
                #expect(route.errorText.isEmpty)
                #expect(located["url"]?.string?.hasPrefix("ws://127.0.0.1:") == true)
            }

            let children = Processes.descendants(of: dev.process.pid)
            // Two nodes, a router, the shim and its redis-server.
            #expect(children.count == 5)
            for child in children { kill(child.pid, SIGHUP) }
            let second = try await dev.martlet("dev", "--port", "1")
            #expect(second.exit == .status(1))
            #expect(
                second.errorText.contains("a dev cluster runs in this directory already (process \(dev.process.pid))"))

            #expect(children.filter(\.exists).count == 5, "SIGHUP ends none of them")

            let node = try #require(children.first { Processes.commandLine($0.pid).contains("node") })
            kill(node.pid, SIGKILL)
            try await dev.says("ended by signal 9")
            try await dev.says("is ready again")

            let all = Processes.descendants(of: dev.process.pid)
            dev.process.send(SIGTERM)
            #expect(try await dev.process.waitForExit(within: .seconds(20)) == .status(0))
            #expect(all.filter(\.exists).isEmpty)
        } catch {
            await dev.end()
            throw TimedOut("\(error)\n\(dev.process.output.current.text)")
        }
        await dev.end()
    }

    @Test("what it says to try next works as it stands there, also where the nodes ask for tokens", .patience)
    func banner() async throws {
        let dev = try await Dev.start(
            ["--nodes", "1", "--auth", "token"],
            environment: [
                "MARTLET_TOKEN_SECRET": "only for the tests of dev, 32 bytes"
            ])
        do {
            try await dev.says("Ctrl-C ends it all.")
            let lines = dev.process.output.current.text.split(separator: "\n").map { $0.drop { $0 == " " } }
            let export = try #require(lines.first { $0.hasPrefix("export MARTLET_CHAT_TOKEN=") })
            func command(_ part: String) throws -> String {
                String(try #require(lines.first { $0.contains(" \(part) ") }).prefix { $0 != "#" })
            }
            for (script, expected) in [
                ("echo hello | \(try command("chat general"))", "alice: hello"),
                (try command("admin presence general"), "general"),
                (try command("admin nodes").replacing("--watch", with: ""), "node-a"),
            ] {
                let output = try await ChildProcess.run(
                    "/bin/sh", ["-c", "cd \"$0\" && \(export) && \(script)", dev.folder],
                    environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"],
                    within: .seconds(60))
                #expect(output.exit == .status(0), "\(script): \(output.errorText)")
                #expect(output.text.contains(expected), "\(script): \(output.text)")
            }
        } catch {
            await dev.end()
            throw TimedOut("\(error)\n\(dev.process.output.current.text)")
        }
        await dev.end()
    }

    @Test("--tls: the page through https, with a certificate of an authority that stays the same", .patience)
    func secure() async throws {
        let folder = try Dev.newFolder()
        var authorities: [String] = []
        for round in 0..<2 {
            let dev = try await Dev.start(["--nodes", "1", "--tls"], folder: folder)
            do {
                try await dev.says("Ctrl-C ends it all.")
                let text = dev.process.output.current.text
                #expect(text.contains("Open  https://127.0.0.1:\(dev.port)/"))
                #expect(text.contains("it is a new one") == (round == 0))
                let authority = folder + "/.martlet/tls/ca.pem"
                authorities.append(try String(contentsOfFile: authority, encoding: .utf8))
                let options = TLSSocket.Options(authority: authority)
                let page = try TLSSocket(port: dev.port, options)
                page.send("GET / HTTP/1.1\r\nHost: localhost:\(dev.port)\r\nConnection: close\r\n\r\n")
                let head = page.receiveHead()
                #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n"))
                #expect(!head.contains("Strict-Transport-Security"), "it would hold for all that runs on localhost")
                let chat = try TLSSocket(port: dev.port, options)
                #expect(chat.openWebSocket("/ws?user=alice").hasPrefix("HTTP/1.1 101 "))
                #expect(
                    chat.receiveFrame().map { String(decoding: $0.payload, as: UTF8.self).contains("welcome") } == true)
                for file in ["ca.pem", "localhost.pem", "localhost.key"] {
                    let path = folder + "/.martlet/tls/" + file
                    let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
                    #expect(mode == 0o600, "\(file)")
                }
                let health = try await dev.martlet(
                    "healthcheck", "https://localhost:\(dev.port)/readyz", "--cacert", ".martlet/tls/ca.pem")
                #expect(health.exit == .status(0), "\(health.errorText)")
                let said = try await ChildProcess.run(
                    "/bin/sh", ["-c", #"cd "$0" && echo hello | "$1" chat general"#, folder, MartletProgram.path],
                    environment: ["PATH": "/usr/bin:/bin"], within: .seconds(60))
                #expect(said.exit == .status(0) && said.text.contains("hello"), "\(said.text) \(said.errorText)")
            } catch {
                await dev.end()
                throw TimedOut("\(error)\n\(dev.process.output.current.text)")
            }
            dev.process.send(SIGTERM)
            _ = try await dev.process.waitForExit(within: .seconds(20))
            await dev.process.end()
        }
        #expect(authorities[0] == authorities[1])
        try FileManager.default.removeItem(atPath: folder)
    }

    @Test("SIGKILL of dev leaves no child behind, and its data is there for the next start")
    func suddenDeath() async throws {
        let folder = try Dev.newFolder()
        let first = try await Dev.start(["--nodes", "1"], folder: folder)
        try await first.says("Ctrl-C ends it all.")
        _ = try await first.martlet("admin", "publish", "kept", "hello", "--create")
        let children = Processes.descendants(of: first.process.pid)
        #expect(children.count == 4)
        // With everysec, what was written in the last second may be lost; a write of our own that is older is not.
        _ = try await poll(within: .seconds(5), "the append-only file to be written") {
            Processes.appendOnlyBytes(folder) > 200 ? true : nil
        }
        await first.process.end()
        _ = try await poll(within: .seconds(15), "the children to end") {
            children.allSatisfy { !$0.exists } ? true : nil
        }
        let down = try await first.martlet("dev", "--down")
        #expect(down.exit == .status(0))
        #expect(down.text == "No cluster runs here.\n")

        let second = try await Dev.start(["--nodes", "1"], port: first.port, folder: folder)
        try await second.says("Ctrl-C ends it all.")
        let history = try await second.martlet("admin", "history", "kept", "--json")
        #expect(history.text.contains("hello"))
        let ended = try await second.martlet("dev", "--down")
        #expect(ended.exit == .status(0))
        #expect(ended.text == "The cluster (process \(second.process.pid)) has ended.\n")
        await second.end()
    }

    @Test("a port in use is one sentence that names the port and the flag, and nothing is started")
    func portInUse() async throws {
        let redis = try await ClusterRedis.start()
        let dev = try await Dev.start(port: redis.port - 1)
        #expect(try await dev.process.waitForExit(within: .seconds(10)) == .status(1))
        let sentences = dev.process.output.current.standardErrorLines
        #expect(sentences.count == 1)
        #expect(sentences.first?.contains("port \(redis.port)") == true)
        #expect(sentences.first?.contains("--port") == true)
        #expect(dev.process.output.current.text.isEmpty)
        await redis.stop()
        await dev.end()
    }

    @Test("with --redis it takes the one that stands, starts none, and leaves it running")
    func standingRedis() async throws {
        let redis = try await ClusterRedis.start()
        let dev = try await Dev.start(["--nodes", "1", "--redis", redis.url, "--prefix", "dev-test"])
        do {
            try await dev.says("Ctrl-C ends it all.")
            #expect(Processes.descendants(of: dev.process.pid).count == 2)
            #expect(try await redis.command("HLEN", "dev-test:nodes").int == 1)
        } catch {
            await dev.end()
            await redis.stop()
            throw error
        }
        await dev.end()
        #expect(try await redis.command("PING").string == "PONG")
        await redis.stop()
    }

    @Test("the shim ends its program when the pipe closes, and when it is killed itself")
    func shim() async throws {
        for kills in [false, true] {
            // The shell holds the pipe's write end as descriptor 4 and lives as long as the test wants.
            let shell = try await ChildProcess.spawn(
                "/bin/bash",
                ["-c", "exec 4> >(exec \"$0\" shim --exit-with-fd 0 -- sleep 1000); sleep 1000", MartletProgram.path],
                name: "shell", environment: ["PATH": "/usr/bin:/bin"])
            let sleeper = try await poll(within: .seconds(10), "the program to run") {
                Processes.descendants(of: shell.pid).first {
                    Processes.commandLine($0.pid) == ["sleep", "1000"] && $0.parent != shell.pid
                }
            }
            let shim = try #require(
                Processes.descendants(of: shell.pid).first { Processes.commandLine($0.pid).contains("shim") })
            #expect(sleeper.parent == shim.pid)
            if kills { kill(shim.pid, SIGKILL) } else { await shell.end() }
            _ = try await poll(within: .seconds(10), "the program to end") { sleeper.exists ? nil : true }
            await shell.end()
        }
    }
}

/// What /proc says.
enum Processes {
    struct Entry: Sendable, Hashable {
        let pid: pid_t
        let parent: pid_t
        /// Tells a process apart from a later one of the same number.
        let startTime: String

        /// A zombie counts as gone.
        var exists: Bool { Processes.entry(pid)?.startTime == startTime }
    }

    static func descendants(of root: pid_t) -> [Entry] {
        let numbers = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { pid_t($0) } ?? []
        let all = numbers.compactMap { entry($0) }
        var found: [Entry] = []
        var parents: Set<pid_t> = [root]
        while !parents.isEmpty {
            let children = all.filter { parents.contains($0.parent) }
            found += children
            parents = Set(children.map(\.pid))
        }
        return found
    }

    static func entry(_ pid: pid_t) -> Entry? {
        guard let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
            let fields = stat.split(separator: ")").last?.split(separator: " "), fields.count > 19, fields[0] != "Z",
            let parent = pid_t(fields[1])
        else { return nil }
        return Entry(pid: pid, parent: parent, startTime: String(fields[19]))
    }

    static func commandLine(_ pid: pid_t) -> [String] {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)) ?? ""
        return text.split(separator: "\0").map(String.init)
    }

    static func appendOnlyBytes(_ folder: String) -> Int {
        let path = folder + "/.martlet/redis/appendonlydir"
        let files = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return files.filter { $0.contains("incr") }.reduce(0) { sum, file in
            let size = (try? FileManager.default.attributesOfItem(atPath: path + "/" + file))?[.size] as? Int
            return sum + (size ?? 0)
        }
    }
}
