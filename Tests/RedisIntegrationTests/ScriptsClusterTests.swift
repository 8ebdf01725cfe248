import ChatCore
import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

@Suite("Every script on a Redis Cluster of three masters")
struct ScriptsClusterTests {
    @Test("T10: touches one hash tag and the keys it declares, and nothing else", .timeLimit(.minutes(10)))
    func declaredKeysOnly() async throws {
        let redis = try await RedisClusterProcess.start()
        var unseen = Set(ClusterScripts.all.map(\.name))
        for master in 0..<3 {
            let client = redis.clients[master]
            let names = try await scriptNames(client)
            let cluster = try await fixture(redis, master: master)
            let monitor = try await RedisMonitor.watching(port: redis.masters[master].port)
            try await everyScriptOnce(cluster, redis: redis, master: master)
            let commands = try await monitor.commands(upToMarkerOf: client)
            unseen.subtract(check(commands, names: names))
        }
        #expect(unseen.isEmpty, "no call of these was made here; add one to everyScriptOnce")
        await redis.stop()
    }

    @Test("a key that is not declared, or of another slot, is told here: the test can fail", .timeLimit(.minutes(10)))
    func theCheckCatches() async throws {
        let redis = try await RedisClusterProcess.start()
        let key = try await redis.name("k", on: 0) { $0 }
        let far = try await redis.name("k", on: 1) { $0 }
        let client = redis.clients[0]
        func evaluate(_ body: String, keys: [RedisArgument]) async throws -> RESPValue {
            let script = RedisScript(name: "wrong", source: "#!lua\n" + body)
            return try await client.evaluate(script, keys: keys, arguments: []).get()
        }
        await #expect(throws: RedisError.self) {
            try await evaluate("return 1", keys: [.string(key), .string(far)])
        }
        await #expect(throws: RedisError.self) {
            try await evaluate("return redis.call('GET', '\(far)')", keys: [.string(key)])
        }
        let undeclared = [
            RedisMonitor.Command(isInner: false, words: ["EVALSHA", "sha", "1", "{a}:one"]),
            RedisMonitor.Command(isInner: true, words: ["RENAME", "{a}:one", "{a}:two"]),
        ]
        #expect(undeclaredKeys(undeclared).map(\.key) == ["{a}:two"])
        await redis.stop()
    }

    // MARK: the check

    private func check(_ commands: [RedisMonitor.Command], names: [String: String]) -> Set<String> {
        for wrong in undeclaredKeys(commands) {
            Issue.record("\(names[wrong.sha] ?? wrong.sha) touches \(wrong.key), which it does not declare")
        }
        let calls = commands.filter { !$0.isInner && $0.words.first?.uppercased() == "EVALSHA" }
        for call in calls {
            guard call.words.count > 2, let count = Int(call.words[2]) else { continue }
            let keys = call.words.dropFirst(3).prefix(count)
            let tags = Set(keys.map(hashTag))
            #expect(tags.count == 1, "\(names[call.words[1]] ?? "a script") declares keys of \(tags)")
        }
        return Set(calls.compactMap { names[$0.words[1]] })
    }

    private func undeclaredKeys(_ commands: [RedisMonitor.Command]) -> [(sha: String, key: String)] {
        var sha = ""
        var declared: Set<String> = []
        var wrong: [(sha: String, key: String)] = []
        for command in commands {
            guard command.isInner else {
                if command.words.first?.uppercased().hasPrefix("EVAL") == true, command.words.count > 2 {
                    sha = command.words[1]
                    declared = Set(command.words.dropFirst(3).prefix(Int(command.words[2]) ?? 0))
                }
                continue
            }
            wrong += keys(of: command.words).filter { !declared.contains($0) }.map { (sha, $0) }
        }
        return wrong
    }

    private func keys(of words: [String]) -> [String] {
        switch words[0].uppercased() {
        case "TIME", "PUBLISH": []
        case "DEL", "UNLINK", "EXISTS", "RENAME": Array(words.dropFirst())
        default: Array(words.dropFirst().prefix(1))
        }
    }

    private func hashTag(_ key: String) -> Substring {
        guard let open = key.firstIndex(of: "{"), let close = key[open...].firstIndex(of: "}") else { return key[...] }
        return key[open...close]
    }

    private func scriptNames(_ client: RedisClient) async throws -> [String: String] {
        var names: [String: String] = [:]
        for script in ClusterScripts.all {
            let sha = try await client.command(["SCRIPT", "LOAD", .string(script.source)]).get().string
            names[try #require(sha)] = script.name
        }
        return names
    }

    // MARK: the calls

    /// A prefix whose three keys without a hash tag that scripts touch are on the master.
    private func fixture(_ redis: RedisClusterProcess, master: Int) async throws -> ClusterFixture {
        for index in 0..<500 {
            let cluster = ClusterFixture(redis: redis.clients[master], prefix: "p\(index)")
            if try await redis.owner(of: cluster.keys.nodes) == master,
                try await redis.owner(of: cluster.keys.incarnationCounter) == master,
                try await redis.owner(of: cluster.keys.routers) == master
            {
                return cluster
            }
        }
        throw RedisClusterProcess.NotWhole()
    }

    /// What nodes and operators do, with names whose keys are all on one master. A MOVED or CROSSSLOT fails the call.
    private func everyScriptOnce(_ cluster: ClusterFixture, redis: RedisClusterProcess, master: Int) async throws {
        let (keys, rooms, nodes) = (cluster.keys, cluster.rooms, cluster.nodes)
        func nodeName(_ prefix: String, _ number: Int64) async throws -> String {
            try await redis.name(prefix, on: master) { try keys.node(incarnation("\($0).\(number)")) }
        }
        let roomName = try await redis.name("room", on: master) { try keys.roomMeta(room($0)) }
        let userName = try await redis.name("us:er", on: master) { try keys.userSessions(user($0)) }
        let sessionName = try await redis.name("s", on: master) { try keys.session(session($0)) }
        let (here, who) = try (room(roomName), user(userName))

        let a = try await cluster.register(nodeName("node-a", 1))
        let b = try await cluster.register(nodeName("node-b", 2))
        #expect([a.number, b.number] == [1, 2])
        _ = try await cluster.heartbeat(a, draining: true)
        _ = try await nodes.requestDrain(a).get()
        _ = try await nodes.takeBackDrain(a).get()
        _ = try await nodes.addRoom(b, here).get()
        _ = try await nodes.sessions(of: b).get()
        _ = try await nodes.sessions(ofUser: who).get()
        let sessions = cluster.sessions
        let opened = try SessionRecord(session: session(sessionName), user: who, owner: b, generation: 1)
        _ = try await sessions.open(opened, secret: "one").get()
        _ = try await sessions.setRooms([here: true], of: opened).get()
        _ = try await sessions.setRooms([here: nil], of: opened).get()
        _ = try await sessions.detach(opened, grace: .seconds(30)).get()
        let resumed = try await sessions.resume(opened.session, by: a, presented: "one", next: "two").get()
        guard case .resumed(let record, _) = resumed else { throw RedisClusterProcess.NotWhole() }
        _ = try await sessions.confirm(record).get()
        let adopted = try await sessions.adopt(
            opened.session, user: who, of: a, leaseEnd: 1000, grace: .seconds(1), by: b
        ).get()
        #expect(adopted?.record.generation == 3)
        func member(_ name: String, on node: Incarnation, generation: Int64 = 1, _ status: PresenceStatus = .online)
            throws -> Membership
        {
            try membership(name, userName, on: node.description, generation: generation, status: status, room: roomName)
        }
        _ = try await rooms.join(member(sessionName, on: a)).get()
        _ = try await rooms.join(member(sessionName, on: b, generation: 2)).get()
        _ = try await rooms.join(member("other", on: a)).get()
        _ = try await rooms.setStatus(member("other", on: a, .away)).get()
        _ = try await rooms.leave(member("other", on: a)).get()
        for limits in [HistoryLimits(), HistoryLimits(maxMessages: 2), HistoryLimits(maxMessages: 0)] {
            for id in ["1", "1", "2", "3"] { _ = try await cluster.publish(publication(id), to: here, limits: limits) }
            _ = try await cluster.publish(
                publication("4"), publication("5"), publication("1"), to: here, limits: limits)
            // The next finds two minutes past, and the one after it an old entry.
            try await cluster.command("HSET", keys.roomMeta(here), "swap", "1", "ts", "1")
        }
        try await cluster.command("DEL", keys.roomLog(here))
        try await cluster.command("XADD", keys.roomLog(here), "1-0", "h", "1000 1", "b", "tagg - 0 2 bob\n{}")
        try await cluster.command("HSET", keys.roomMeta(here), "swap", "1", "ts", "1")
        _ = try await cluster.publish(publication("6"), to: here)
        _ = try await cluster.publish(publication("7"), to: here, channels: [keys.userChannel(who)])
        _ = try await rooms.history(room: here, range: .latest, limit: 10).get()
        _ = try await rooms.history(room: here, range: .after(1), limit: 10).get()
        _ = try await rooms.trim(room: here, through: 1, maxAge: 1000).get()
        _ = try await rooms.presence(room: here, limit: 10).get()
        _ = try await rooms.members(room: here).get()
        _ = try await rooms.turnEpoch(room: here, from: "newepoch", to: "other").get()
        let users = UserStore(redis: cluster.redis, keys: keys)
        try await users.noteDirect(here, of: who).get()
        #expect(try await users.directs(of: who, within: .seconds(10)).get().rooms == [here])
        for (name, others) in [("node-a.1", 0), ("node-b.1", 30)] {
            #expect(try await users.exchangeRate(of: who, 30, by: incarnation(name)).get() == others)
        }
        if try await redis.owner(of: keys.orders) == master {
            let orders = ModerationStore(redis: cluster.redis, keys: keys)
            guard let ban = ModerationOrder.Key(.ban, .user(who)) else { throw RedisClusterProcess.NotWhole() }
            #expect(try await orders.put([ban], as: ban, by: "op", reason: "", for: nil).get() != nil)
            #expect(try await orders.all().get().map(\.key) == [ban])
            orders.expire([ban])
            #expect(try await orders.head().get().version != "0-0")
            #expect(try await orders.lift(ban, by: "op", reason: "").get())
            try await orders.note(.drain, of: a, by: "op", reason: "").get()
            #expect(try await orders.audit(last: 5).get().count == 3)
        }
        let routers = RouterStore(redis: cluster.redis, keys: keys)
        let router = RouterFigures(name: "r", address: "h:1", internalAddress: "h:2", version: "1", startedAt: 1)
        try await routers.tell(router, id: "1", lease: .seconds(9)).get()
        #expect(try await routers.list().get().map(\.figures) == [router])
        try await routers.end(id: "1").get()
        _ = try await nodes.list().get()
        try await cluster.lapse(b)
        let reports = try await cluster.sweep(by: a)
        #expect(reports.map(\.memberships) == [1])
        #expect(reports.map(\.sessions) == [1])
        #expect(reports.map(\.isComplete) == [true])
        _ = try await cluster.publish(publication("8"), to: here)
        try await nodes.kick(user: who, room: here, reason: "").get()
        try await nodes.deregister(a).get()
    }
}
