import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@testable import ClusterState

@Suite("The history of a room")
struct RoomHistoryTests {
    @Test("a page begins and ends within a batch")
    func pagesOfBatches() async throws {
        try await ClusterFixture.run { cluster in
            for batch in [1...10, 11...13, 14...14, 15...30] {
                let publications = try batch.map { try publication("\($0)") }
                _ = try await cluster.rooms.publish(
                    to: room(), channels: nil, publications, limits: HistoryLimits(), newEpoch: "e"
                ).get()
            }
            #expect(try await cluster.command("XLEN", cluster.keys.roomLog(room())).int == 4)
            for first in Int64(1)...30 {
                for count in [1, 2, 7, 30] {
                    let last = min(30, first + Int64(count) - 1)
                    let forward = try await cluster.rooms.history(
                        room: room(), range: .after(first - 1), limit: count
                    ).get()
                    #expect(forward.messages.map(\.seq) == Array(first...last))
                    #expect(forward.messages.allSatisfy { $0.clientID == "\($0.seq)" })
                    #expect(forward.more == (last < 30))
                    let ranged = try await cluster.rooms.history(room: room(), range: .range(first, last), limit: 500)
                        .get()
                    #expect(ranged.messages.map(\.seq) == Array(first...last))
                    #expect(!ranged.more)
                    let oldest = max(1, first - Int64(count))
                    let backward = try await cluster.rooms.history(
                        room: room(), range: .before(first), limit: count
                    ).get()
                    #expect(backward.messages.map(\.seq) == Array((oldest..<first)))
                    #expect(backward.more == (oldest > 1 && first > 1))
                }
            }
            #expect(try await cluster.seqs(.latest, limit: 20) == Array(11...30))
            let light = try await cluster.rooms.history(room: room(), range: .after(3), limit: 500, maximumBytes: 1)
                .get()
            #expect(light.messages.map(\.seq) == [4, 5])
            #expect(light.more)
        }
    }

    @Test("the past is read in pages, oldest first")
    func historyPages() async throws {
        try await ClusterFixture.run { cluster in
            for index in 1...10 { _ = try await cluster.publish(publication("\(index)")) }
            #expect(try await cluster.seqs(.latest, limit: 3) == [8, 9, 10])
            #expect(try await cluster.seqs(.before(8), limit: 3) == [5, 6, 7])
            #expect(try await cluster.seqs(.before(2), limit: 3) == [1])
            #expect(try await cluster.seqs(.before(1), limit: 3) == [])
            #expect(try await cluster.seqs(.before(-5), limit: 3) == [])
            #expect(try await cluster.seqs(.after(0), limit: 3) == [1, 2, 3])
            #expect(try await cluster.seqs(.after(9), limit: 3) == [10])
            #expect(try await cluster.seqs(.after(10), limit: 3) == [])
            #expect(try await cluster.seqs(.after(-1), limit: 1) == [1])
            #expect(try await cluster.seqs(.after(.max), limit: 1) == [])
            #expect(try await cluster.seqs(.range(4, 6)) == [4, 5, 6])
            #expect(try await cluster.seqs(.range(6, 4)) == [])
            #expect(try await cluster.seqs(.range(-4, 1)) == [1])
            #expect(try await cluster.rooms.history(room: room(), range: .after(10), limit: 5).get().head?.seq == 10)
        }
    }

    @Test("a page ends by count or by weight, and says whether its range has more")
    func historyWeight() async throws {
        try await ClusterFixture.run { cluster in
            func page(_ range: HistoryRange, limit: Int = 500, bytes: Int? = nil) async throws -> String {
                let page = try await cluster.rooms.history(
                    room: room(), range: range, limit: limit, maximumBytes: bytes
                ).get()
                return "\(page.messages.first?.seq ?? 0)-\(page.messages.last?.seq ?? 0)" + (page.more ? "+" : "")
            }
            #expect(try await page(.latest) == "0-0")
            let kilobyte = String(repeating: "x", count: 1000)
            for index in 1...40 { _ = try await cluster.publish(publication("\(index)", kilobyte)) }
            #expect(try await page(.latest) == "1-40")
            #expect(try await page(.latest, limit: 40) == "1-40")
            #expect(try await page(.latest, limit: 39) == "2-40+")
            #expect(try await page(.latest, bytes: 10_900) == "31-40+")
            #expect(try await page(.before(31), bytes: 10_900) == "21-30+")
            #expect(try await page(.before(11), bytes: 10_900) == "1-10")
            #expect(try await page(.after(0), bytes: 10_900) == "1-10+")
            #expect(try await page(.after(30), bytes: 10_900) == "31-40")
            #expect(try await page(.after(0), limit: 3, bytes: 10_900) == "1-3+")
            #expect(try await page(.range(5, 8), bytes: 4400) == "5-8")
            #expect(try await page(.range(5, 8), bytes: 3300) == "5-7+")
            #expect(try await page(.range(5, 8), bytes: 1) == "5-6+", "a reader gets beyond the message it knows")
            #expect(try await page(.range(8, 8), bytes: 1) == "8-8")
        }
    }

    @Test("300 messages of 256 KiB are read in pages, on a connection that stays")
    func heavyHistory() async throws {
        try await ClusterFixture.run { cluster in
            // One entry repeated by the server: this is about reading.
            let text = String(repeating: "x", count: 256 * 1024)
            let body = "tagg - 0 \(text.utf8.count) bob\n" + text
            try await cluster.command("HSET", cluster.keys.roomMeta(room()), "epoch", "e", "seq", "300")
            let write = RedisScript(
                name: "write",
                source: """
                    for seq = 1, 300 do redis.call('XADD', KEYS[1], seq .. '-0', 'h', '1 1', 'b', ARGV[1]) end
                    """)
            _ = try await cluster.redis.evaluate(
                write, keys: [.string(cluster.keys.roomLog(room()))], arguments: [.string(body)]
            ).get()
            let page = try await cluster.rooms.history(room: room(), range: .range(1, .max), limit: 300).get()
            #expect(page.messages.map(\.seq) == [1, 2])
            #expect(page.more)
            try await cluster.command("DEL", cluster.keys.roomLog(room()))
        }
    }

    @Test("of messages that are too old none is read, in no direction and in no page, and what was met of them goes")
    func tooOld() async throws {
        try await ClusterFixture.run { cluster in
            let log = try cluster.keys.roomLog(room())
            // Batches of three, one a minute until now: 28, 29 and 30 were said just now, 25 to 27 a minute ago.
            let write = RedisScript(
                name: "write",
                source: """
                    redis.call('DEL', KEYS[1], KEYS[2])
                    redis.call('HSET', KEYS[2], 'epoch', 'e', 'seq', 30, 'tag', 'tagg')
                    if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], 'age', ARGV[2]) end
                    for batch = 1, 10 do
                        local ts = string.format('%d', redis.call('TIME')[1] * 1000 - (10 - batch) * 60000)
                        redis.call('XADD', KEYS[1], batch * 3 .. '-0', 'h', ts .. ' 3', 'b', string.rep(ARGV[1], 3))
                    end
                    """)
            func fill(age: String) async throws {
                _ = try await cluster.redis.evaluate(
                    write, keys: [.string(log), .string(cluster.keys.roomMeta(room()))],
                    arguments: ["tagg - 0 2 bob\nhi", .string(age)]
                ).get()
            }
            func read(_ range: HistoryRange, limit: Int = 500, maxAge: Int64?) async throws -> HistoryPage {
                try await cluster.rooms.history(room: room(), range: range, limit: limit, maxAge: maxAge).get()
            }
            for fresh in 0...10 {
                let age = Int64(fresh) * 60_000 - 30_000
                // As who reads has it, as the room has it, or both: the less.
                for (own, readers) in [("", age), ("\(age)", nil), ("\(age)", 86_400_000), ("86400000", age)] {
                    try await fill(age: own)
                    let first = 31 - Int64(fresh) * 3
                    let expected = Array(first..<31)
                    for range in [HistoryRange.latest, .before(31), .after(0), .range(1, 30), .after(first - 1)] {
                        let page = try await read(range, maxAge: readers)
                        #expect(page.messages.map(\.seq) == expected, "\(fresh), \(range)")
                        #expect(!page.more)
                        #expect(page.head?.seq == 30)
                    }
                    #expect(try await read(.before(first), maxAge: readers).messages.isEmpty)
                    #expect(
                        try await read(.after(0), limit: 1, maxAge: readers).messages.map(\.seq)
                            == Array(expected.prefix(1)))
                    #expect(try await read(.after(0), limit: 1, maxAge: readers).more == (fresh > 0))
                    let met = try await read(.after(0), maxAge: readers).tooOld
                    #expect(met == (fresh == 10 ? nil : first - 1))
                    #expect(try await read(.latest, maxAge: readers).tooOld == met)
                    guard let met, let readers else { continue }
                    // One that is not too old is not taken for it, whoever says so.
                    try await cluster.rooms.trim(room: room(), through: 30, maxAge: 86_400_000_000).get()
                    try await cluster.rooms.trim(room: room(), through: met, maxAge: readers).get()
                    #expect(try await cluster.command("XLEN", log).int == Int64(fresh))
                    #expect(try await read(.after(0), maxAge: readers).messages.map(\.seq) == expected)
                    #expect(try await read(.after(0), maxAge: readers).tooOld == nil)
                }
            }
        }
    }
}
