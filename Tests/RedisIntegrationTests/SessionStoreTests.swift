import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

extension ClusterFixture {
    var sessions: SessionStore { SessionStore(redis: redis, keys: keys) }

    /// Opens a session of alice's that can be resumed with `one`.
    func open(
        _ name: String = "s1", on node: Incarnation, rooms: [String: Bool] = ["general": false], secret: String? = "one"
    ) async throws -> SessionRecord {
        let record = SessionRecord(
            session: try session(name), user: try user("alice"), owner: node, client: "app", info: #"{"a":1}"#,
            status: .away, rooms: Dictionary(uniqueKeysWithValues: try rooms.map { (try room($0.key), $0.value) }))
        #expect(try await sessions.open(record, secret: secret).get() != nil)
        return record
    }

    func resume(
        _ name: String = "s1", on node: Incarnation, _ presented: String = "one", next: String = "two",
        user: UserName? = nil
    ) async throws -> ResumeResult {
        try await sessions.resume(session(name), by: node, presented: presented, next: next, user: user).get()
    }

    /// As ``resume(_:on:_:next:user:)``, where it must succeed.
    func resumed(_ name: String = "s1", on node: Incarnation, _ presented: String = "one", next: String = "two")
        async throws -> SessionRecord
    {
        let result = try await resume(name, on: node, presented, next: next)
        guard case .resumed(let record, _) = result else {
            Issue.record("\(result)")
            throw CancellationError()
        }
        return record
    }

    /// Milliseconds.
    func redisTime() async throws -> Int64 {
        let time = try await command("TIME").array ?? []
        return (time.first?.int ?? 0) * 1000 + (time.last?.int ?? 0) / 1000
    }
}

@Suite("A session that comes back")
struct SessionStoreTests {
    @Test("is found with its rooms, status and info on another node, under the next generation")
    func resume() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            let record = try await cluster.open(on: a, rooms: ["general": true, "other": false])
            #expect(try await cluster.sessions.setRooms([room("other"): nil, room("third"): false], of: record).get())
            var busy = record
            busy.status = .busy
            #expect(try await cluster.sessions.setStatus(of: busy).get())
            #expect(try await cluster.sessions.detach(record, grace: .seconds(30)).get())
            let ttl = try await cluster.command("PTTL", cluster.keys.session(record.session)).int ?? 0
            #expect((80_000...90_000).contains(ttl), "forgotten a minute after the grace")

            let told = try await cluster.heard(on: cluster.keys.userChannel(record.user)) {
                let result = try await cluster.resume(on: b)
                var expected = busy
                expected.owner = b
                expected.generation = 2
                expected.rooms = [try room("general"): true, try room("third"): false]
                #expect(result == .resumed(expected, previousOwner: a))
            }
            #expect(told == ["O\(record.session) 2\n"])
            #expect(try await cluster.command("PTTL", cluster.keys.session(record.session)).int == -1)
            #expect(try await cluster.command("HGET", cluster.keys.session(record.session), "until") == .null)
            #expect(try await cluster.nodes.sessions(ofUser: record.user).get().map(\.1) == [b])
            #expect(try await cluster.nodes.sessions(of: b).get().map(\.0) == [record.session])
        }
    }

    @Test("while it is still attached elsewhere leaves the old owner nothing to do")
    func oldOwner() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            let old = try await cluster.open(on: a)
            let new = try await cluster.resumed(on: b)
            let before = try await cluster.strings("HGETALL", cluster.keys.session(old.session))
            #expect(try await !cluster.sessions.detach(old, grace: .seconds(1)).get())
            #expect(try await !cluster.sessions.setRooms([room("x"): true], of: old).get())
            #expect(try await !cluster.sessions.setStatus(of: old).get())
            #expect(try await !cluster.sessions.confirm(old).get())
            #expect(try await cluster.sessions.open(old, secret: "one").get() == nil)
            #expect(try await !cluster.sessions.end(old).get())
            #expect(try await cluster.strings("HGETALL", cluster.keys.session(old.session)) == before)
            #expect(try await cluster.nodes.sessions(ofUser: old.user).get().map(\.1) == [b])
            #expect(try await cluster.nodes.sessions(of: a).get().isEmpty)
            #expect(try await cluster.sessions.end(new).get())
            #expect(try await !cluster.sessions.end(new).get(), "once")
            #expect(try await cluster.everyKey() == ["nodes", "incarnation", "{i:node-a.1}", "{i:node-b.2}"])
        }
    }

    @Test("on the node that has it already is not ended by its former connection")
    func sameNode() async throws {
        try await ClusterFixture.run { cluster in
            let a = try await cluster.register("node-a")
            let old = try await cluster.open(on: a)
            let new = try await cluster.resumed(on: a)
            #expect(new.generation == 2)
            #expect(try await !cluster.sessions.end(old).get())
            #expect(try await cluster.nodes.sessions(ofUser: old.user).get().map(\.1) == [a])
            #expect(try await cluster.nodes.sessions(of: a).get().map(\.0) == [old.session])
            #expect(try await cluster.sessions.setRooms([room("x"): true], of: new).get())
        }
    }

    @Test("needs its secret, its user and its grace; a refusal changes nothing")
    func refusals() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            #expect(try await cluster.resume(on: b) == .refused(.unknown))
            let record = try await cluster.open(on: a)
            _ = try await cluster.open("s2", on: a, secret: nil)
            let before = try await cluster.strings("HGETALL", cluster.keys.session(record.session))
            #expect(try await cluster.resume(on: b, "wrong") == .refused(.secret))
            #expect(try await cluster.resume(on: b, "") == .refused(.secret))
            #expect(try await cluster.resume(on: b, user: user("bob")) == .refused(.user))
            #expect(try await cluster.resume("s2", on: b, "") == .refused(.unknown), "it has no secret")
            #expect(try await cluster.resume(on: incarnation("node-c.9")) == .refused(.dead))
            #expect(try await cluster.strings("HGETALL", cluster.keys.session(record.session)) == before)
            #expect(try await cluster.nodes.sessions(of: b).get().isEmpty)
            #expect(try await cluster.sessions.detach(record, grace: .milliseconds(1)).get())
            try await cluster.command("HSET", cluster.keys.session(record.session), "until", "1000")
            #expect(try await cluster.resume(on: b, user: user("alice")) == .refused(.unknown), "the grace is over")
        }
    }

    @Test("the script refuses by itself too, what changed since the first look")
    func refusedByScript() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            let record = try await cluster.open(on: a)
            func script(_ secret: String, _ user: String = "") async throws -> [String] {
                let reply = try await cluster.redis.evaluate(
                    ClusterScripts.sessionResume, keys: [.string(cluster.keys.session(record.session))],
                    arguments: [
                        .string(b.description), .string(secret), "two", .string(user), "channel",
                        .string(record.session.string),
                    ]
                ).get()
                return (reply.array ?? []).compactMap(\.string)
            }
            #expect(try await script("wrong") == ["refused", "secret"])
            #expect(try await script("") == ["refused", "secret"])
            #expect(try await script("one", "bob") == ["refused", "user"])
            try await cluster.command("HSET", cluster.keys.session(record.session), "until", "1000")
            #expect(try await script("one") == ["refused", "unknown"])
            try await cluster.command("DEL", cluster.keys.session(record.session))
            #expect(try await script("one") == ["refused", "unknown"])
        }
    }

    @Test("may show the secret before, until the new one is confirmed")
    func rotation() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            _ = try await cluster.open(on: a)
            // The welcome with `two` is lost on the way, and the client comes again with `one`, and then once more.
            _ = try await cluster.resumed(on: b, "one", next: "two")
            _ = try await cluster.resumed(on: a, "one", next: "three")
            #expect(try await cluster.resume(on: b, "two", next: "x") == .refused(.secret), "nobody was ever given it")
            let fourth = try await cluster.resumed(on: b, "three", next: "four")
            #expect(fourth.generation == 4)
            #expect(try await cluster.resume(on: a, "one") == .refused(.secret))
            #expect(try await cluster.sessions.confirm(fourth).get())
            #expect(try await cluster.resume(on: a, "three") == .refused(.secret), "confirmed")
            #expect(try await cluster.resumed(on: a, "four", next: "five").generation == 5)
            #expect(try await !cluster.sessions.confirm(fourth).get(), "the secret of a later resume stays")
            #expect(try await cluster.resumed(on: b, "four", next: "six").generation == 6)
        }
    }

    @Test("of a dead node is adopted once, until its last lease and the grace are over")
    func adopt() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b, c) = try await (
                cluster.register("node-a"), cluster.register("node-b"), cluster.register("node-c")
            )
            let record = try await cluster.open(on: a, rooms: ["general": true])
            let now = try await cluster.redisTime()
            func adopt(by me: Incarnation, of dead: Incarnation, leaseEnd: Int64) async throws -> AdoptedSession? {
                try await cluster.sessions.adopt(
                    record.session, user: record.user, of: dead, leaseEnd: leaseEnd, grace: .seconds(30), by: me
                ).get()
            }
            let adopted = try #require(try await adopt(by: b, of: a, leaseEnd: now - 10_000))
            #expect(adopted.record.rooms == [try room("general"): true])
            #expect(adopted.record.owner == b)
            #expect(adopted.record.generation == 2)
            func expectTheRest(_ left: Int64) async throws {
                #expect((20_000 - (try await cluster.redisTime() - now)...20_000).contains(left))
            }
            try await expectTheRest(adopted.graceLeft.milliseconds)
            #expect(try await adopt(by: c, of: a, leaseEnd: now) == nil, "it is b's")
            #expect(try await cluster.nodes.sessions(of: c).get().isEmpty)
            #expect(try await cluster.nodes.sessions(of: b).get().map(\.0) == [record.session])
            #expect(try await cluster.nodes.sessions(ofUser: record.user).get().map(\.1) == [b])
            #expect(try await !cluster.sessions.detach(record, grace: .seconds(60)).get(), "a woke up late")
            // The adopter dies in turn: its own last lease does not shorten what is left, nor lengthen it without end.
            let again = try #require(try await adopt(by: c, of: b, leaseEnd: now - 60_000))
            try await expectTheRest(again.graceLeft.milliseconds)
            let repeated = try #require(try await adopt(by: c, of: b, leaseEnd: now - 60_000))
            #expect(repeated.record == again.record, "the same call again, after its answer was lost")
            #expect(try await cluster.nodes.sessions(of: c).get().map(\.0) == [record.session])
            #expect(try await cluster.resumed(on: a).generation == 4)
        }
    }

    @Test("too late to be resumed is adopted only to be ended; one without a secret is not")
    func adoptLate() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            let record = try await cluster.open(on: a)
            let plain = try await cluster.open("s2", on: a, secret: nil)
            func adopt(_ record: SessionRecord) async throws -> AdoptedSession? {
                try await cluster.sessions.adopt(
                    record.session, user: record.user, of: a, leaseEnd: 1000, grace: .seconds(30), by: b
                ).get()
            }
            let adopted = try #require(try await adopt(record))
            #expect(adopted.graceLeft == .zero)
            #expect(try await cluster.resume(on: b) == .refused(.unknown))
            #expect(try await cluster.sessions.end(adopted.record).get())
            #expect(try await adopt(plain) == nil)
            #expect(try await adopt(record) == nil, "it is gone")
        }
    }

    @Test("that its own node knows nothing of is taken back for a grace, unless its client came to it meanwhile")
    func takeBack() async throws {
        try await ClusterFixture.run { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            let opened = try await cluster.open(on: b, rooms: ["general": true])
            let lost = try await cluster.resumed(on: a)
            func takeBack(_ session: SessionID, by me: Incarnation) async throws -> AdoptedSession? {
                let result = try await cluster.sessions.takeBack(session, grace: .seconds(30), by: me).get()
                if case .taken(let session) = result { return session } else { return nil }
            }
            #expect(try await takeBack(opened.session, by: b) == nil, "it is a's")
            let taken = try #require(try await takeBack(opened.session, by: a))
            #expect(taken.record.generation == lost.generation + 1)
            #expect(taken.record.rooms == [try room("general"): true])
            #expect((29_000...30_000).contains(taken.graceLeft.milliseconds))
            let again = try #require(try await takeBack(opened.session, by: a))
            #expect(again.record == taken.record && again.graceLeft <= taken.graceLeft, "its end stays")
            // The client never got the answer to the resume that was lost.
            #expect(try await cluster.resumed(on: b).generation == taken.record.generation + 1)
            let plain = try await cluster.open("s2", on: a, secret: nil)
            #expect(try await takeBack(plain.session, by: a) == nil, "nobody can come back to it")
        }
    }

    @Test("of a full Redis can be detached, adopted, confirmed and ended, and fails to be opened or resumed")
    func outOfMemory() async throws {
        let server = try RedisServerProcess(configuration: ["maxmemory-policy noeviction"])
        try await ClusterFixture.run(on: server) { cluster in
            let (a, b) = try await (cluster.register("node-a"), cluster.register("node-b"))
            let record = try await cluster.open(on: a)
            try await cluster.command("CONFIG", "SET", "maxmemory", "1")
            let error = await #expect(throws: RedisError.self) { try await cluster.resume(on: b) }
            #expect(error?.isOutOfMemory == true)
            #expect(try await cluster.sessions.setRooms([room(): nil], of: record).get())
            #expect(try await cluster.sessions.confirm(record).get())
            #expect(try await cluster.sessions.detach(record, grace: .seconds(1)).get())
            let adopted = try await cluster.sessions.adopt(
                record.session, user: record.user, of: a, leaseEnd: 1000, grace: .seconds(1), by: b
            ).get()
            #expect(adopted?.record.generation == 2)
            if let adopted { #expect(try await cluster.sessions.end(adopted.record).get()) }
        }
    }
}
