import Glibc
import Testing

@testable import martlet

@Suite("What martlet dev starts")
struct DevPlanTests {
    private func plan(
        _ environment: [String: String] = [:], port: String? = nil, nodes: Int = 3, redis: String? = nil
    ) throws -> DevPlan {
        try DevPlan(
            settings: Settings(environment: environment, flags: ["MARTLET_PORT": port]), nodes: nodes,
            standingRedis: redis, folder: "/c/.martlet", socketFolder: "/c/.martlet/redis",
            program: "/bin/martlet", randomSecret: "random")
    }

    @Test("Redis first, then three nodes on the ports after the router's")
    func standard() throws {
        let plan = try plan()
        #expect(plan.children.map(\.name) == ["redis", "node-a", "node-b", "node-c", "router"])
        #expect(plan.children.map(\.tier) == [0, 1, 1, 1, 1])
        #expect(plan.ports.map(\.port) == [8080, 8081, 8082, 8083, 9081, 9082, 9083, 9080])
        #expect(plan.page == "http://127.0.0.1:8080/")
        #expect(plan.children[0].arguments.starts(with: ["shim", "--exit-with-fd", "3", "--", "redis-server"]))
        #expect(plan.children[1].arguments == ["node", "--exit-with-fd", "3"])
        let node = plan.children[2].environment
        #expect(node["MARTLET_NODE_NAME"] == "node-b")
        #expect(node["MARTLET_PORT"] == "8082")
        #expect(node["MARTLET_REDIS_URL"] == "unix:///c/.martlet/redis/redis.sock")
        #expect(node["MARTLET_AUTH"] == "none")
        #expect(node["MARTLET_SECRET"] == "random")
    }

    @Test("every setting that the children get is in the table")
    func childrenAreWellConfigured() throws {
        let plan = try plan([
            "MARTLET_NODE_NAME": "mine", "MARTLET_ADVERTISE": "h:1", "MARTLET_SECRET": "0123456789abcdef",
        ])
        for child in plan.children {
            var environment = ["MARTLET_NODE_NAME": "mine", "MARTLET_ADVERTISE": "h:1"]
            for (key, value) in child.environment { environment[key] = value }
            let settings = try Settings(environment: environment)
            guard child.tier == 1 else { continue }
            #expect(settings.advertise == (child.name == "router" ? nil : "127.0.0.1:\(settings.port ?? 0)"))
            #expect(settings.secret == "0123456789abcdef")
            #expect(settings.nodeName == (child.name == "router" ? nil : child.name))
        }
    }

    @Test("a Redis that stands is used and none is started; MARTLET_AUTH of the environment stays")
    func standing() throws {
        let plan = try plan(["MARTLET_AUTH": "token"], nodes: 1, redis: "redis://r:1")
        #expect(plan.children.map(\.name) == ["node-a", "router"])
        #expect(plan.children[0].environment["MARTLET_REDIS_URL"] == "redis://r:1")
        #expect(plan.children[0].environment["MARTLET_AUTH"] == "token")
        #expect(plan.authentication == .token)
    }

    @Test("a certificate is the router's alone: nodes speak plain HTTP to it on loopback")
    func secure() throws {
        let plan = try plan(["MARTLET_TLS_CERT": "/c/cert.pem", "MARTLET_TLS_KEY": "/c/key.pem"])
        #expect(plan.isSecure && plan.page == "https://127.0.0.1:8080/" && plan.chatURL == "wss://127.0.0.1:8080/ws")
        for child in plan.children where child.tier == 1 {
            let isRouter = child.name == "router"
            #expect(child.environment["MARTLET_TLS_CERT"] == .some(isRouter ? "/c/cert.pem" : nil))
            #expect(child.environment["MARTLET_TLS_KEY"] == .some(isRouter ? "/c/key.pem" : nil))
            #expect(child.environment["MARTLET_NODE_TLS_CA"] == .some(nil))
        }
        #expect(plan.children.last?.readiness == .https(host: "127.0.0.1", port: 8080, path: "/_router/healthz"))
        let banner = DevBanner.text(
            plan, pids: [:], program: "martlet", token: nil, authority: (".martlet/tls/ca.pem", true))
        #expect(banner.contains("curl --cacert .martlet/tls/ca.pem https://127.0.0.1:8080/readyz"))
    }

    @Test("a banner whose first command works: with a user, or with a token where the nodes ask for one")
    func banner() throws {
        let open = DevBanner.text(try plan(), pids: [:], program: "martlet", token: nil)
        #expect(open.contains("martlet chat general --user alice "))
        #expect(open.contains("WARNING: MARTLET_AUTH=none"))
        let closed = DevBanner.text(
            try plan(["MARTLET_AUTH": "token"]), pids: [:], program: "martlet", token: "a.b.c")
        #expect(closed.contains("    export MARTLET_CHAT_TOKEN=a.b.c\n    martlet chat general "))
        #expect(!closed.contains("--user"))
        #expect(!closed.contains("WARNING"))
    }

    @Test("a terminal that stands still costs lines, which are told later, and stops no child")
    func stalledTerminal() throws {
        var ends: [Int32] = [-1, -1]
        var child: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0 && pipe(&child) == 0)
        // The output's pipe stays open: its writer lives as long as the process.
        defer { close(child[1]) }
        let output = DevOutput(names: ["node-a"], colour: false, descriptor: ends[1], maximumLines: 1000)
        output.follow(child[0], of: 0)
        // Far more than both pipes and the queue hold; returns only because somebody reads it.
        for number in 0..<20_000 {
            Terminal.write("line \(number) \(String(repeating: "x", count: 90))\n", to: child[1])
        }
        var text = ""
        var chunk = [UInt8](repeating: 0, count: 65536)
        while !text.contains("lines were left out, as nobody read them\n") {
            let count = read(ends[0], &chunk, chunk.count)
            try #require(count > 0)
            text += String(decoding: chunk[..<count], as: UTF8.self)
        }
        #expect(text.hasPrefix("node-a | line 0 x"))
        #expect(text.contains("\ndev    | "))
        output.say("goes on")
        output.flush()
    }

    @Test("node counts and ports that cannot be are usage errors")
    func limits() throws {
        #expect(throws: Failure.self) { try plan(nodes: 0) }
        #expect(throws: Failure.self) { try plan(nodes: 27) }
        #expect(throws: Failure.self) { try plan(port: "65533") }
        #expect(throws: Failure.self) { try plan(port: "0") }
        for port in ["8077", "8083", "65533", "0"] {
            #expect(throws: Failure.self) { try plan(["MARTLET_INTERNAL_PORT": port]) }
        }
        #expect(try plan(["MARTLET_INTERNAL_PORT": "8076"]).children[1].environment["MARTLET_INTERNAL_PORT"] == "8077")
        #expect(throws: Never.self) { try plan(port: "65532") }
    }

    @Test("a readiness answer is its status, else the first line of its body")
    func readiness() {
        #expect(Readiness.judge(http: Array("HTTP/1.1 200 OK\r\n\r\n".utf8)) == .ready)
        #expect(
            Readiness.judge(http: Array("HTTP/1.1 503 No\r\nA: b\r\n\r\nno lease\nx".utf8))
                == .notYet(reason: "HTTP 503: no lease"))
        #expect(Readiness.judge(http: []) == .notYet(reason: "no answer"))
    }

    @Test("T12: a log line of a child is shown for people, with nothing a terminal would act on")
    func logLine() {
        let line = #"{"ts":"2026-09-21T14:13:20.123Z","level":"info","msg":"up\u001b[2J","node":"a 1","n":3}"#
        #expect(
            LogLine(Array(line.utf8)[...])?.text(colour: false)
                == #"14:13:20.123 INFO     up\u{1b}[2J  node="a 1" n=3"#)
        #expect(LogLine(Array("{no".utf8)[...]) == nil)
        #expect(LogLine(Array("plain".utf8)[...]) == nil)
    }
}
