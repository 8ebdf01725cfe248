import ClusterState
import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@Suite("Membership of a room")
struct RoomMembershipTests {
    @Test("the first to come makes the room, is told so, and is announced")
    func firstJoin() async throws {
        try await ClusterFixture.run { cluster in
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let result = try await cluster.rooms.join(membership("s1", "alice", info: #"{"name":"A"}"#)).get()
                #expect(result.refusal == nil)
                #expect(result.head.epoch.utf8.count == 8)
                #expect(result.head.seq == 0)
                #expect(result.head.tag == "-")
                #expect(result.head.pv == 1)
                #expect(result.head.count == 1)
                #expect(result.members == [#"{"user":"alice","info":{"name":"A"}}"#])
                #expect(try await cluster.rooms.head(room: room()).get() == result.head)
            }
            #expect(heard.map(presence) == [#"pv 1 count 1 +{"user":"alice","info":{"name":"A"}}"#])
        }
    }

    @Test("the same join again changes nothing and says nothing")
    func idempotentJoin() async throws {
        try await ClusterFixture.run { cluster in
            let first = try await cluster.rooms.join(membership("s1", "alice")).get()
            let before = try await cluster.rooms.members(room: room()).get()
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let again = try await cluster.rooms.join(membership("s1", "alice")).get()
                #expect(again == first)
            }
            #expect(heard.isEmpty)
            #expect(try await cluster.rooms.members(room: room()).get() == before)
        }
    }

    @Test("G4: a user is in the room as long as one of their sessions is")
    func twoSessions() async throws {
        try await ClusterFixture.run { cluster in
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let one = try membership("s1", "alice", on: "node-a.1")
                let two = try membership("s2", "alice", on: "node-b.2")
                _ = try await cluster.rooms.join(one).get()
                let second = try await cluster.rooms.join(two).get()
                #expect(second.head.count == 1)
                #expect(try await cluster.rooms.leave(one).get())
                #expect(try await cluster.rooms.head(room: room()).get()?.count == 1)
                #expect(try await cluster.rooms.leave(two).get())
                #expect(try await cluster.rooms.head(room: room()).get()?.count == 0)
            }
            #expect(heard.map(presence) == [#"pv 1 count 1 +{"user":"alice"}"#, #"pv 2 count 0 -{"user":"alice"}"#])
        }
    }

    @Test("the most present session is the user's status, in the order online, away, busy, invisible")
    func statusOrder() async throws {
        try await ClusterFixture.run { cluster in
            let rooms = cluster.rooms
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let hidden = try await rooms.join(membership("s1", "alice", status: .invisible)).get()
                #expect(hidden.head.count == 0)
                #expect(hidden.members == [])
                _ = try await rooms.join(membership("s2", "alice", status: .busy)).get()
                #expect(try await rooms.setStatus(membership("s1", "alice", status: .away)).get())
                _ = try await rooms.join(membership("s3", "alice", status: .online)).get()
                #expect(try await rooms.setStatus(membership("s3", "alice", status: .online)).get())
                #expect(try await rooms.setStatus(membership("s3", "alice", status: .invisible)).get())
                #expect(try await rooms.leave(membership("s1", "alice")).get())
                #expect(
                    try await rooms.presence(room: room(), limit: 10).get().members
                        == [#"{"user":"alice","status":"busy"}"#])
                #expect(try await rooms.setStatus(membership("s2", "alice", status: .invisible)).get())
                #expect(try await rooms.presence(room: room(), limit: 10).get().members == [])
                #expect(try await rooms.leave(membership("s2", "alice")).get())
                #expect(try await rooms.leave(membership("s3", "alice")).get())
            }
            #expect(
                heard.map(presence) == [
                    #"pv 1 count 1 +{"user":"alice","status":"busy"}"#,
                    #"pv 2 count 1 ~{"user":"alice","status":"away"}"#,
                    #"pv 3 count 1 ~{"user":"alice","status":"online"}"#,
                    #"pv 4 count 1 ~{"user":"alice","status":"away"}"#,
                    #"pv 5 count 1 ~{"user":"alice","status":"busy"}"#,
                    #"pv 6 count 0 -{"user":"alice"}"#,
                ])
        }
    }

    @Test("only the owner of a session gives it a status")
    func foreignStatus() async throws {
        try await ClusterFixture.run { cluster in
            let rooms = cluster.rooms
            #expect(try await !rooms.setStatus(membership("s1", "alice", status: .away)).get())
            _ = try await rooms.join(membership("s1", "alice", on: "node-a.1", generation: 2)).get()
            #expect(
                try await !rooms.setStatus(membership("s1", "alice", on: "node-b.1", generation: 2, status: .away))
                    .get())
            #expect(
                try await !rooms.setStatus(membership("s1", "alice", on: "node-a.1", generation: 1, status: .away))
                    .get())
            #expect(
                try await rooms.setStatus(membership("s1", "alice", on: "node-a.1", generation: 2, status: .away)).get()
            )
        }
    }

    @Test("a session that moves to another node neither leaves nor joins, and stands on one node")
    func move() async throws {
        try await ClusterFixture.run { cluster in
            let rooms = cluster.rooms
            let old = try membership("s1", "alice", on: "node-a.1")
            let new = try membership("s1", "alice", on: "node-b.2", generation: 2)
            _ = try await rooms.join(old).get()
            let first = try await rooms.members(room: room()).get()
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let moved = try await rooms.join(new).get()
                #expect(moved.refusal == nil)
                #expect(moved.head.pv == 1)
                #expect(moved.head.count == 1)
            }
            #expect(heard.isEmpty)
            #expect(try await rooms.sessionsOn(old.incarnation, room: room()).get() == [])
            #expect(try await rooms.sessionsOn(new.incarnation, room: room()).get() == [new.session.string])
            let members = try await rooms.members(room: room()).get()
            #expect(members.map(\.incarnation) == [new.incarnation])
            #expect(members.map(\.generation) == [2])
            #expect(members.map(\.joinedAt) == first.map(\.joinedAt), "a move keeps the time of the join")
        }
    }

    @Test("G4, T27: an old owner that wakes up late can neither remove a session that moved on nor take it back")
    func lateOldOwner() async throws {
        try await ClusterFixture.run { cluster in
            let rooms = cluster.rooms
            let old = try membership("s1", "alice", on: "node-a.1")
            let new = try membership("s1", "alice", on: "node-b.2", generation: 2)
            _ = try await rooms.join(old).get()
            _ = try await rooms.join(new).get()
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let didLeave = try await rooms.leave(old).get()
                #expect(!didLeave)
                #expect(try await !rooms.leave(membership("s1", "alice", on: "node-b.2", generation: 1)).get())
                #expect(try await !rooms.leave(membership("s1", "alice", on: "node-a.1", generation: 2)).get())
                #expect(try await rooms.join(old).get().refusal == .older)
                #expect(try await rooms.head(room: room()).get()?.count == 1)
                #expect(try await rooms.leave(new).get())
                #expect(try await !rooms.leave(new).get(), "only once")
            }
            #expect(heard.map(presence) == [#"pv 2 count 0 -{"user":"alice"}"#])
        }
    }

    @Test("an entry of unknown generation leaves by its incarnation alone")
    func anyGeneration() async throws {
        try await ClusterFixture.run { cluster in
            let rooms = cluster.rooms
            _ = try await rooms.join(membership("s1", "alice", on: "node-a.1", generation: 7)).get()
            func stray(on node: String) throws -> Membership {
                try membership("s1", "alice", on: node, generation: RoomStore.anyGeneration)
            }
            #expect(try await !rooms.leave(stray(on: "node-b.2")).get())
            #expect(try await rooms.head(room: room()).get()?.count == 1)
            #expect(try await rooms.leave(stray(on: "node-a.1")).get())
            #expect(try await rooms.head(room: room()).get()?.count == 0)
        }
    }

    @Test("an earlier life of a node does not take a session back from a later one")
    func earlierIncarnation() async throws {
        try await ClusterFixture.run { cluster in
            _ = try await cluster.rooms.join(membership("s1", "alice", on: "node-a.2")).get()
            #expect(try await cluster.rooms.join(membership("s1", "alice", on: "node-a.1")).get().refusal == .older)
            #expect(try await cluster.rooms.join(membership("s1", "alice", on: "node-a.3")).get().refusal == nil)
        }
    }

    @Test("names that JSON must escape stand in lists and events as they should")
    func escapedNames() async throws {
        try await ClusterFixture.run { cluster in
            let name = #"a"b\c{d}%e:日本 '"#
            let json = #"{"user":"a\"b\\c{d}%e:日本 '"}"#
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let result = try await cluster.rooms.join(membership("s1", name)).get()
                #expect(result.members == [json])
                #expect(try await cluster.rooms.members(room: room()).get().map(\.user.string) == [name])
                #expect(try await cluster.rooms.leave(membership("s1", name)).get())
            }
            #expect(heard.map(presence) == ["pv 1 count 1 +\(json)", "pv 2 count 0 -\(json)"])
        }
    }

    @Test("a list in a join has at most 100 members; presence and sessions have pages for all")
    func manyMembers() async throws {
        try await ClusterFixture.run { cluster in
            let rooms = cluster.rooms
            let all = try (1...700).map { try membership("s\($0)", "user\($0)") }
            try await inPortions(of: 100, all) { rooms.join($0) }
            let again = try await rooms.join(all[0]).get()
            #expect(again.head.count == 700)
            #expect(again.members.count == 100)
            let (head, members) = try await rooms.presence(room: room(), limit: 5000).get()
            #expect(head?.count == 700)
            #expect(Set(members) == Set((1...700).map { #"{"user":"user\#($0)"}"# }))
            #expect(try await rooms.presence(room: room(), limit: 7).get().members.count == 7)
            #expect(try await Set(rooms.members(room: room()).get().map(\.session)) == Set(all.map(\.session)))
            #expect(try await rooms.sessionsOn(incarnation("node-a.1"), room: room()).get().count == 700)
        }
    }

    @Test("of a room that is not, there is no head, no member and no message")
    func noRoom() async throws {
        try await ClusterFixture.run { cluster in
            let head = try await cluster.rooms.head(room: room()).get()
            #expect(head == nil)
            #expect(try await cluster.rooms.presence(room: room(), limit: 10).get().head == nil)
            #expect(try await cluster.rooms.history(room: room(), range: .latest, limit: 10).get().head == nil)
            #expect(try await cluster.rooms.members(room: room()).get() == [])
            #expect(try await !cluster.rooms.leave(membership("s1", "alice")).get())
            #expect(try await cluster.everyKey() == [])
        }
    }

    @Test(
        "while there are members only the log expires, with its newest message; when the last is gone everything does")
    func expiry() async throws {
        try await ClusterFixture.run { cluster in
            let limits = HistoryLimits(maxAge: 3_600_000, afterlife: 7_200_000)
            let m = try membership("s1", "alice")
            func ttl(_ key: String) async throws -> Int64 { try await cluster.command("PTTL", key).int ?? -3 }
            let (meta, log) = try (cluster.keys.roomMeta(room()), cluster.keys.roomLog(room()))
            let sent = try cluster.keys.roomSent(room())
            func publish(_ id: String, _ limits: HistoryLimits) async throws {
                // The last message was said at another moment than this one.
                try await cluster.command("HSET", meta, "ts", "1")
                _ = try await cluster.rooms.publish(
                    to: room(), channels: nil, [publication(id)], limits: limits, newEpoch: "ep"
                ).get()
            }
            let whole: ClosedRange<Int64> = 3_590_000...3_600_100
            _ = try await cluster.rooms.join(m).get()
            try await publish("1", limits)
            #expect(try await ttl(meta) == -1)
            #expect(try await whole.contains(ttl(log)))
            #expect(try await (1...240_000).contains(ttl(sent)), "ids are kept for two minutes, twice")
            try await cluster.command("PEXPIRE", log, "1000000")
            #expect(try await cluster.rooms.leave(m).get())
            #expect(try await ttl(log) <= 1_000_000, "who leaves says nothing new")
            #expect(try await (10_700_000...10_800_000).contains(ttl(meta)))
            #expect(try await cluster.everyKey() == ["{r:general}:meta", "{r:general}:log", "{r:general}:sent"])
            // Somebody publishes from outside: the room lives on from then.
            try await publish("2", limits)
            #expect(try await whole.contains(ttl(log)))
            _ = try await cluster.rooms.join(m).get()
            #expect(try await ttl(meta) == -1)
            #expect(try await whole.contains(ttl(log)))
            // The age was changed.
            try await publish("3", HistoryLimits(maxAge: 60_000, afterlife: 7_200_000))
            #expect(try await (50_000...60_100).contains(ttl(log)))
            #expect(try await cluster.command("HGET", meta, "age").string == "60000")
            // Of a version by which a log had no end while there were members.
            try await cluster.command("PERSIST", log)
            #expect(try await cluster.rooms.leave(m).get())
            #expect(try await (50_000...60_000).contains(ttl(log)))
        }
    }

    @Test("T24: a room in which nothing was said is forgotten a minute after its last member")
    func silentRoom() async throws {
        try await ClusterFixture.run { cluster in
            let m = try membership("s1", "alice")
            let epoch = try await cluster.rooms.join(m).get().head.epoch
            #expect(try await cluster.rooms.leave(m).get())
            let ttl = try await cluster.command("PTTL", cluster.keys.roomMeta(room())).int ?? 0
            #expect((50_000...60_000).contains(ttl))
            #expect(try await cluster.rooms.join(m).get().head.epoch == epoch)
            #expect(try await cluster.command("PTTL", cluster.keys.roomMeta(room())).int == -1)
        }
    }

    @Test("2,000 rooms of one visit and one message leave nothing behind but their ids, which end by themselves")
    func oneShotRooms() async throws {
        try await ClusterFixture.run(on: RedisServerProcess()) { cluster in
            let limits = HistoryLimits(maxAge: 2000, afterlife: 1000)
            let rooms = cluster.rooms
            let message = try publication("c")
            let wereIn = try await inPortions(
                of: 100, (1...2000).map { try membership("s1", "alice", room: "room\($0)") }
            ) { m in
                rooms.join(m).flatMap { _ in
                    rooms.publish(to: m.room, channels: nil, [message], limits: limits, newEpoch: "ep")
                }.flatMap { _ in rooms.leave(m) }
            }
            #expect(!wereIn.contains(false))
            let deadline = ContinuousClock.now + .seconds(20)
            while try await cluster.command("DBSIZE").int != 2000, ContinuousClock.now < deadline {}
            let left = try await cluster.everyKey()
            #expect(left.count == 2000 && left.allSatisfy { $0.hasSuffix(":sent") })
            #expect(
                try await (1...240_000).contains(cluster.command("PTTL", cluster.keys.roomSent(room("room7"))).int ?? 0)
            )
        }
    }
}
