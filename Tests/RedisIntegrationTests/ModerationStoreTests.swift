import ChatCore
import ClusterState
import NIOCore
import RedisClient
import TestSupport
import Testing
import WireProtocol

@Suite("Orders of operators in Redis")
struct ModerationStoreTests {
    private func key(_ field: String) throws -> ModerationOrder.Key { try #require(ModerationOrder.Key(field: field)) }

    private func changes(_ heard: [String]) -> [ModerationChange?] {
        heard.map { text in
            var text = text
            return text.withUTF8 { ModerationChange(parsing: UnsafeRawBufferPointer($0)) }
        }
    }

    @Test("an order is written, told with its version, and stands in the audit; so is its end")
    func putAndLift() async throws {
        try await ClusterFixture.run { cluster in
            let store = ModerationStore(redis: cluster.redis, keys: cluster.keys)
            let ban = try key("ban user * bob the builder")
            #expect(try await store.head().get().version == "0-0")
            let heard = changes(
                try await cluster.heard(on: cluster.keys.controlChannel) {
                    let terms = try await store.put([ban], as: ban, by: "root", reason: "a\nb", for: .seconds(60)).get()
                    #expect(terms?.until == terms.map { $0.since + 60_000 })
                    #expect(try await store.lift(ban, by: "eve", reason: "sorry").get())
                    #expect(try await !store.lift(ban, by: "eve", reason: "sorry").get())
                })
            #expect(heard.map { $0?.key } == [ban, ban])
            #expect(heard.first??.previous == "0-0")
            #expect(heard.first??.terms?.reason == "a\nb")
            #expect(heard.last??.previous == heard.first??.next && heard.last??.terms == nil)
            #expect(try await store.head().get().version == heard.last??.next)
            #expect(try await store.all().get().isEmpty)
            let audit = try await store.audit(last: 10).get()
            #expect(audit.map(\.subject) == [.people(ban, isLifted: false), .people(ban, isLifted: true)])
            #expect(audit.map(\.by) == ["root", "eve"])
            #expect(audit.map(\.reason) == ["a\nb", "sorry"])
            #expect(audit.first?.until != nil && audit.last?.until == nil)
            #expect(try await store.audit(last: 1).get().map(\.subject) == [.people(ban, isLifted: true)])
        }
    }

    @Test("several orders are one step, each with a version of its own, and one line of the audit")
    func several() async throws {
        try await ClusterFixture.run { cluster in
            let store = ModerationStore(redis: cluster.redis, keys: cluster.keys)
            let kicks = try ["kick session * sessionsession1", "kick session * sessionsession2"].map(key)
            let named = try key("kick user * bob")
            let heard = changes(
                try await cluster.heard(on: cluster.keys.controlChannel) {
                    _ = try await store.put(kicks, as: named, by: "root", reason: "", for: .hours(1)).get()
                    _ = try await store.put([], as: named, by: "root", reason: "", for: nil).get()
                })
            #expect(heard.map { $0?.key } == kicks)
            #expect(heard[1]?.previous == heard[0]?.next)
            let line = AuditEntry.Subject.people(named, isLifted: false)
            #expect(try await store.audit(last: 10).get().map(\.subject) == [line, line])
            #expect(Set(try await store.all().get().map(\.key)) == Set(kicks))
        }
    }

    @Test("what is past goes, what was given again meanwhile stays")
    func expiry() async throws {
        try await ClusterFixture.run { cluster in
            let store = ModerationStore(redis: cluster.redis, keys: cluster.keys)
            let keys = try (0..<1200).map { try key("ban user * user \($0)") }
            for start in stride(from: 0, to: keys.count, by: 100) {
                _ = try await store.put(
                    Array(keys[start..<(start + 100)]), as: keys[0], by: "r", reason: "", for: .milliseconds(1)
                ).get()
            }
            _ = try await store.put([keys[7]], as: keys[7], by: "r", reason: "", for: nil).get()
            #expect(try await store.all().get().count == 1200)
            store.expire(keys)
            #expect(try await store.all().get().map(\.key) == [keys[7]])
            _ = try await store.put([keys[8]], as: keys[8], by: "r", reason: "", for: .milliseconds(1)).get()
            #expect(try await !store.lift(keys[8], by: "r", reason: "").get(), "past: there is nothing to lift")
        }
    }

    @Test("a full Redis takes orders; more than there may be are refused, and those that stand can still be changed")
    func bounds() async throws {
        let server = try RedisServerProcess()
        try await ClusterFixture.run(on: server) { cluster in
            let store = ModerationStore(redis: cluster.redis, keys: cluster.keys)
            let ban = try key("ban user * bob")
            try await cluster.command("CONFIG", "SET", "maxmemory", "1")
            #expect(try await store.put([ban], as: ban, by: "r", reason: "", for: nil).get() != nil)
            #expect(try await store.lift(ban, by: "r", reason: "").get())
            _ = try await store.put([ban], as: ban, by: "r", reason: "", for: nil).get()
            try await cluster.command("CONFIG", "SET", "maxmemory", "0")
            for start in stride(from: 1, to: 100_000, by: 1000) {
                let fields = (start..<min(start + 1000, 100_000)).flatMap { ["ban user * u\($0)", "1 0\nr\n"] }
                _ = try await cluster.redis.command(
                    (["HSET", cluster.keys.orders] + fields).map { .string($0) }
                ).get()
            }
            let other = try key("ban user * other")
            #expect(try await store.put([other], as: other, by: "r", reason: "", for: nil).get() == nil)
            #expect(try await store.put([ban], as: ban, by: "r", reason: "new", for: nil).get()?.reason == "new")
            #expect(try await store.all().get().count == 100_000)
            #expect(try await store.lift(ban, by: "r", reason: "").get())
            #expect(try await store.put([other], as: other, by: "r", reason: "", for: nil).get() != nil)
        }
    }
}
