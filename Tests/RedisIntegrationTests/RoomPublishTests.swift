import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

extension ClusterFixture {
    func publish(
        _ batch: Publication..., to room: RoomName? = nil, channels: [String]? = nil,
        limits: HistoryLimits = HistoryLimits()
    ) async throws -> [PublishOutcome] {
        let general = try TestedRoom.general
        return try await rooms.publish(
            to: room ?? general, channels: channels, batch, limits: limits, newEpoch: "newepoch"
        ).get()
    }

    func seqs(_ range: HistoryRange = .latest, limit: Int = 500) async throws -> [Int64] {
        try await rooms.history(room: TestedRoom.general, range: range, limit: limit).get().messages.map(\.seq)
    }
}

enum TestedRoom {
    static var general: RoomName { get throws { try room() } }
}

@Suite("Publishing to a room")
struct RoomPublishTests {
    @Test("G1: numbers a batch and stores and relays it in one")
    func batch() async throws {
        try await ClusterFixture.run { cluster in
            var ts: Int64 = 0
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let outcomes = try await cluster.publish(
                    publication("1", tag: "tagA", origin: "s1"), publication("2", "ho", tag: "tagB"))
                guard case .stored(1, let first, "newepoch") = outcomes[0] else { throw Unexpected(outcomes) }
                ts = first
                #expect(outcomes[1] == .stored(seq: 2, ts: ts, epoch: "newepoch"))
            }
            let origin = try session("s1").string
            #expect(
                heard == [
                    "M2 \(ts) 2 - newepoch\ntagA \(origin) 1 24 bob\n1\"from\":\"bob\",\"text\":\"hi\""
                        + "tagB - 1 24 bob\n2\"from\":\"bob\",\"text\":\"ho\""
                ])
            #expect(try await cluster.command("XLEN", cluster.keys.roomLog(room())).int == 1)
            let page = try await cluster.rooms.history(room: room(), range: .latest, limit: 10).get()
            let messages = page.messages
            #expect(page.head == RoomHead(epoch: "newepoch", seq: 2, tag: "tagB", pv: 0, count: 0))
            #expect(messages.map(\.tag) == ["tagA", "tagB"])
            #expect(messages.map(\.origin) == [origin, ""])
            #expect(messages.map(\.clientID) == ["1", "2"])
            #expect(messages.map(\.from.string) == ["bob", "bob"])
            #expect(messages.map(\.ts) == [ts, ts])
            #expect(
                messages.map { String(buffer: $0.body) } == [
                    #""from":"bob","text":"hi""#, #""from":"bob","text":"ho""#,
                ])
        }
    }

    @Test("goes on from the epoch and tag that stand")
    func goesOn() async throws {
        try await ClusterFixture.run { cluster in
            let epoch = try await cluster.rooms.join(membership("s1", "alice")).get().head.epoch
            _ = try await cluster.publish(publication("1", tag: "tagA"))
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let outcomes = try await cluster.publish(publication("2", tag: "tagB"))
                guard case .stored(2, _, epoch) = outcomes[0] else { throw Unexpected(outcomes) }
            }
            #expect(heard.first?.wholeMatch(of: /M2 \d+ 1 tagA (\S+)\ntagB .*/.dotMatchesNewlines())?.1 == epoch[...])
            #expect(try await cluster.rooms.head(room: room()).get()?.count == 1, "presence is not touched")
        }
    }

    @Test("G3: the same id again is answered with the first seq and is not relayed again")
    func duplicates() async throws {
        try await ClusterFixture.run { cluster in
            let first = try await cluster.publish(publication("1"), publication("2"))
            guard case .stored(1, let ts, let epoch) = first[0] else { throw Unexpected(first) }
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                #expect(
                    try await cluster.publish(publication("1", tag: "late"))
                        == [.duplicate(seq: 1, ts: ts, tag: "1___", epoch: epoch)])
                let mixed = try await cluster.publish(
                    publication("2"), publication("3"), publication("3"), publication("3", "no"))
                #expect(mixed[0] == .duplicate(seq: 2, ts: ts, tag: "2___", epoch: epoch))
                guard case .stored(3, let later, epoch) = mixed[1] else { throw Unexpected(mixed) }
                #expect(mixed[2] == .duplicate(seq: 3, ts: later, tag: "3___", epoch: epoch))
                #expect(mixed[3] == .idReused)
                #expect(
                    try await cluster.publish(publication("1"), publication("2", "no"))
                        == [.duplicate(seq: 1, ts: ts, tag: "1___", epoch: epoch), .idReused])
            }
            #expect(heard.count == 1)
            #expect(heard.first?.wholeMatch(of: /M3 \d+ 1 2___ \S+\n3___ .*/.dotMatchesNewlines()) != nil)
            #expect(try await cluster.seqs() == [1, 2, 3])
            #expect(try await cluster.rooms.head(room: room()).get()?.tag == "3___")
        }
    }

    @Test("G3, T9: the same id with another body is an error, and another user's same id is not")
    func reusedID() async throws {
        try await ClusterFixture.run { cluster in
            _ = try await cluster.publish(publication("1"))
            #expect(try await cluster.publish(publication("1", "other")) == [.idReused])
            let other = try await cluster.publish(publication("1", from: "carol"))
            guard case .stored(2, _, _) = other[0] else { throw Unexpected(other) }
        }
    }

    @Test("G3: an id is known for two generations of two minutes, and then no more")
    func sentIsSwapped() async throws {
        try await ClusterFixture.run { cluster in
            let keys = try (
                cluster.keys.roomMeta(room()), cluster.keys.roomSent(room()), cluster.keys.roomSentPrevious(room())
            )
            func twoMinutesPass() async throws {
                let swap = try await #require(cluster.command("HGET", keys.0, "swap").int)
                try await cluster.command("HSET", keys.0, "swap", String(swap - 120_001))
            }
            _ = try await cluster.publish(publication("1"))
            #expect(try await cluster.command("EXISTS", keys.2).int == 0)
            try await twoMinutesPass()
            _ = try await cluster.publish(publication("2"))
            #expect(try await cluster.command("HEXISTS", keys.1, "bob\nclient\n1").int == 0)
            #expect(try await cluster.command("HEXISTS", keys.2, "bob\nclient\n1").int == 1)
            guard case .duplicate(1, _, _, _) = try await cluster.publish(publication("1"))[0] else {
                throw Unexpected([])
            }
            #expect(try await cluster.publish(publication("1", "other")) == [.idReused])
            try await twoMinutesPass()
            _ = try await cluster.publish(publication("3"))
            guard case .stored(4, _, _) = try await cluster.publish(publication("1"))[0] else { throw Unexpected([]) }
            for key in [keys.1, keys.2] {
                let ttl = try await cluster.command("PTTL", key).int ?? 0
                #expect((1...240_000).contains(ttl), "an idle room keeps no ids")
            }
        }
    }

    @Test("a generation of ids also ends at 150,000 fields, 100,000 ids at least")
    func sentIsCapped() async throws {
        try await ClusterFixture.run { cluster in
            let keys = try (
                cluster.keys.roomMeta(room()), cluster.keys.roomSent(room()), cluster.keys.roomSentPrevious(room())
            )
            _ = try await cluster.publish(publication("1"))
            for start in stride(from: 0, to: 150_000, by: 1000) {
                let fields = (start..<(start + 1000)).flatMap { ["filler \($0)", "1 1 x"] }
                _ = try await cluster.redis.command((["HSET", keys.1] + fields).map { .string($0) }).get()
            }
            try await cluster.command("HSET", keys.0, "seq", "1023")
            _ = try await cluster.publish(publication("2"))
            #expect(try await cluster.command("HLEN", keys.1).int == 2, "the id, and the field that makes it a table")
            #expect(try await (cluster.command("HLEN", keys.2).int ?? 0) > 150_000)
            guard case .duplicate(1, _, _, _) = try await cluster.publish(publication("1"))[0] else {
                throw Unexpected([])
            }
        }
    }

    @Test("the log keeps as many as it may: exactly in a small one, up to 31 and a batch more in a large one")
    func trimByCount() async throws {
        try await ClusterFixture.run { cluster in
            for index in 1...25 {
                _ = try await cluster.publish(publication("\(index)"), limits: HistoryLimits(maxMessages: 10))
            }
            #expect(try await cluster.seqs() == Array(16...25))
            let many = try (26...1000).map { try publication("\($0)") }
            _ = try await cluster.rooms.publish(
                to: room(), channels: nil, many, limits: HistoryLimits(maxMessages: 300), newEpoch: "x"
            ).get()
            let kept = try await cluster.seqs()
            #expect(kept.last == 1000)
            #expect((300...331 + 255).contains(kept.count))
        }
    }

    @Test("a limit that was lowered is reached in steps of a thousand messages")
    func trimInSteps() async throws {
        try await ClusterFixture.run { cluster in
            _ = try await cluster.publish(publication("1"))
            let write = RedisScript(
                name: "write",
                source: "for seq = 2, 3500 do redis.call('XADD', KEYS[1], seq .. '-0', 'h', ARGV[1], 'b', '') end")
            let head = "\(try await cluster.redisTime()) 1"
            _ = try await cluster.redis.evaluate(
                write, keys: [.string(cluster.keys.roomLog(room()))], arguments: [.string(head)]
            ).get()
            try await cluster.command("HSET", cluster.keys.roomMeta(room()), "seq", "3500")
            var lengths: [Int64?] = []
            for id in 2...5 {
                _ = try await cluster.publish(publication("\(id)"), limits: HistoryLimits(maxMessages: 100))
                lengths.append(try await cluster.command("XLEN", cluster.keys.roomLog(room())).int)
            }
            #expect(lengths == [2501, 1502, 503, 100])
        }
    }

    @Test("of what has passed the history age some goes at each look, and nobody looks before the oldest has")
    func trimByAge() async throws {
        try await ClusterFixture.run { cluster in
            let (meta, log) = try (cluster.keys.roomMeta(room()), cluster.keys.roomLog(room()))
            /// Also what is too old to be read.
            func stored() async throws -> [Int] {
                let entries = try await cluster.command("XRANGE", log, "-", "+").array ?? []
                return entries.compactMap { $0.array?.first?.string.flatMap { Int($0.dropLast(2)) } }
            }
            _ = try await cluster.publish(publication("first"))
            try await cluster.command("DEL", log)
            for seq in 1...150 {
                try await cluster.command(
                    "XADD", log, "\(seq)-0", "h", "1000 1", "b", "tagg - 0 12 bob\n" + #""text":"old""#)
            }
            try await cluster.command("HSET", meta, "oldest", "1000")
            for (seq, left) in [("150", 50), ("151", 0)] {
                try await cluster.command("HSET", meta, "seq", seq, "ts", "1000")
                _ = try await cluster.publish(publication(seq), limits: HistoryLimits(maxAge: 60_000))
                #expect(try await stored().filter { $0 <= 150 }.count == left, "a hundred at a time")
            }
            #expect(try await stored() == [151, 152])
            // The oldest that it knows of now is message 151: it does not look, and this one stays.
            try await cluster.command("XADD", log, "153-0", "h", "1000 1", "b", "tagg - 0 12 bob\n" + #""text":"old""#)
            try await cluster.command("HSET", meta, "seq", "153", "ts", "1000")
            _ = try await cluster.publish(publication("152"), limits: HistoryLimits(maxAge: 60_000))
            #expect(try await stored() == [151, 152, 153, 154])
        }
    }

    @Test("in a small log, and beside a duplicate, each message of a batch stands alone")
    func apart() async throws {
        try await ClusterFixture.run { cluster in
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let four = try (1...4).map { try publication("\($0)") }
                _ = try await cluster.rooms.publish(
                    to: room(), channels: nil, four, limits: HistoryLimits(maxMessages: 3), newEpoch: "e"
                ).get()
                #expect(try await cluster.seqs() == [2, 3, 4])
                _ = try await cluster.publish(publication("5"), publication("3"), publication("6"))
            }
            #expect(try await cluster.seqs() == [2, 3, 4, 5, 6])
            let runs = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                let mixed = try ["7", "8", "5", "9", "10", "11", "4"].map { try publication($0) }
                let outcomes = try await cluster.rooms.publish(
                    to: room(), channels: nil, mixed, limits: HistoryLimits(), newEpoch: "e"
                ).get()
                guard case .duplicate(5, _, "5___", _) = outcomes[2], case .stored(11, _, _) = outcomes[5],
                    case .duplicate(4, _, "4___", _) = outcomes[6]
                else { throw Unexpected(outcomes) }
            }
            #expect(runs.map { $0.prefix { $0 != " " } } == ["M8", "M11"], "in runs, in a large log")
            #expect(try await cluster.seqs() == Array(2...11))
            let heads = heard.map { $0.prefix { $0 != "\n" }.split(separator: " ") }
            #expect(
                heads.map { "\($0[0]) \($0[2]) \($0[3])" } == [
                    "M1 1 -", "M2 1 1___", "M3 1 2___", "M4 1 3___", "M5 1 4___", "M6 1 5___",
                ])
        }
    }

    @Test("G3: of a batch, too, each id is known, and known by its own text, also after a swap")
    func duplicatesOfBatch() async throws {
        try await ClusterFixture.run { cluster in
            let batch = try (1...40).map { try publication("\($0)") }
            _ = try await cluster.publish(publication("0"))
            let stored = try await cluster.rooms.publish(
                to: room(), channels: nil, batch, limits: HistoryLimits(), newEpoch: "e"
            ).get()
            guard case .stored(2, let ts, let epoch) = stored[0] else { throw Unexpected(stored) }
            for _ in 1...2 {
                for id in [1, 17, 40] {
                    let first = PublishOutcome.duplicate(
                        seq: Int64(id) + 1, ts: ts, tag: batch[id - 1].tag, epoch: epoch)
                    #expect(try await cluster.publish(publication("\(id)")) == [first])
                    #expect(try await cluster.publish(publication("\(id)", "other")) == [.idReused])
                }
                let again = try await cluster.rooms.publish(
                    to: room(), channels: nil, batch, limits: HistoryLimits(), newEpoch: "e"
                ).get()
                #expect(
                    again
                        == batch.enumerated().map {
                            .duplicate(seq: Int64($0.offset) + 2, ts: ts, tag: $0.element.tag, epoch: epoch)
                        })
                // Two minutes have passed: the next message swaps.
                try await cluster.command("HSET", cluster.keys.roomMeta(room()), "swap", "1")
                _ = try await cluster.publish(publication("new"))
            }
        }
    }

    @Test("a private message goes to the channels of its users, with its room in the header")
    func direct() async throws {
        try await ClusterFixture.run { cluster in
            let (alice, bob) = try (user("alice"), user("b:ob"))
            let room = RoomName.direct(alice, bob)
            let channels = [cluster.keys.userChannel(alice), cluster.keys.userChannel(bob)]
            var toRoom: [String] = []
            let heard = try await cluster.heard(on: channels[1]) {
                toRoom = try await cluster.heard(on: cluster.keys.roomChannel(room)) {
                    _ = try await cluster.publish(publication("1", tag: "tagA"), to: room, channels: channels)
                }
            }
            #expect(toRoom == [])
            #expect(heard.count == 1)
            #expect(
                heard.first?.wholeMatch(of: /D1 \d+ 1 - newepoch dm:alice:b%3Aob\ntagA .*/.dotMatchesNewlines()) != nil)
            #expect(try await cluster.rooms.history(room: room, range: .latest, limit: 5).get().messages.count == 1)
            let ttl = try await cluster.command("PTTL", cluster.keys.roomLog(room)).int ?? -1
            #expect(ttl > 0, "nobody joins a private room, so it ends with its history")
        }
    }

    @Test("a room without history has seqs and once-only, and no log")
    func noHistory() async throws {
        try await ClusterFixture.run { cluster in
            let limits = HistoryLimits(maxMessages: 0)
            _ = try await cluster.publish(publication("1"), limits: limits)
            let outcomes = try await cluster.publish(publication("1"), publication("2"), limits: limits)
            guard case .duplicate(1, _, _, _) = outcomes[0], case .stored(2, _, _) = outcomes[1] else {
                throw Unexpected(outcomes)
            }
            #expect(try await cluster.command("EXISTS", cluster.keys.roomLog(room())).int == 0)
        }
    }

    @Test("time never goes back, and large numbers stay whole")
    func numbers() async throws {
        try await ClusterFixture.run { cluster in
            _ = try await cluster.publish(publication("1"))
            try await cluster.command(
                "HSET", cluster.keys.roomMeta(room()), "seq", "100000000000000", "ts", "3000000000000", "pv",
                "200000000000000")
            let outcomes = try await cluster.publish(publication("2"))
            #expect(outcomes == [.stored(seq: 100_000_000_000_001, ts: 3_000_000_000_000, epoch: "newepoch")])
            #expect(try await cluster.rooms.join(membership("s1", "alice")).get().head.pv == 200_000_000_000_001)
            #expect(try await cluster.seqs() == [1, 100_000_000_000_001])
        }
    }

    @Test("G1: a batch of any size keeps its order")
    func largeBatch() async throws {
        try await ClusterFixture.run { cluster in
            let batch = try (1...600).map { try publication("\($0)") }
            let outcomes = try await cluster.rooms.publish(
                to: room(), channels: nil, batch, limits: HistoryLimits(), newEpoch: "ep"
            ).get()
            let seqs = outcomes.map { outcome -> Int64 in
                if case .stored(let seq, _, "ep") = outcome { seq } else { -1 }
            }
            #expect(seqs == Array(1...600))
            let none = try await cluster.rooms.publish(
                to: room(), channels: nil, [], limits: HistoryLimits(), newEpoch: "ep"
            ).get()
            #expect(none.isEmpty)
        }
    }

    @Test("an epoch is turned once; what is still there of the one before stays, and its ids are known")
    func turnEpoch() async throws {
        try await ClusterFixture.run { cluster in
            let nowhere = try await cluster.rooms.turnEpoch(room: room(), from: "a", to: "b").get()
            #expect(nowhere == nil)
            _ = try await cluster.publish(publication("1"))
            #expect(try await cluster.rooms.turnEpoch(room: room(), from: "newepoch", to: "one").get() == "one")
            #expect(try await cluster.rooms.turnEpoch(room: room(), from: "newepoch", to: "two").get() == "one")
            #expect(try await cluster.seqs() == [1])
            let outcomes = try await cluster.publish(publication("1"), publication("2"))
            guard case .duplicate(1, _, _, "one") = outcomes[0], case .stored(2, _, "one") = outcomes[1] else {
                throw Unexpected(outcomes)
            }
        }
    }

    @Test("what is left of an earlier life of a room does not get into the next")
    func secondLife() async throws {
        try await ClusterFixture.run { cluster in
            _ = try await cluster.publish(publication("1"), publication("2"))
            try await cluster.command("DEL", cluster.keys.roomMeta(room()))
            let outcomes = try await cluster.publish(publication("1"))
            guard case .stored(1, _, _) = outcomes[0] else { throw Unexpected(outcomes) }
            #expect(try await cluster.seqs() == [1])
        }
    }

    @Test("typing is relayed and not stored")
    func typing() async throws {
        try await ClusterFixture.run { cluster in
            let heard = try await cluster.heard(on: cluster.keys.roomChannel(room())) {
                try await cluster.rooms.typing(
                    room: room(), origin: session("s1"), frame: ByteBuffer(string: #"{"type":"typing"}"#)
                ).get()
            }
            #expect(try heard == ["T\(session("s1").string)\n{\"type\":\"typing\"}"])
            #expect(try await cluster.everyKey() == [])
        }
    }
}

struct Unexpected: Error, CustomStringConvertible {
    let description: String
    init(_ outcomes: [PublishOutcome]) { description = "unexpected \(outcomes)" }
}
