import ChatCore
import NIOCore
import RedisClient
import Testing
import WireProtocol

@testable import ClusterState

extension RESPValue {
    static func text(_ text: String) -> RESPValue { .bulk(ByteBuffer(string: text)) }
}

@Suite("What Redis holds of a room")
struct RoomRecordsTests {
    private func room() throws -> RoomName { try RoomName(validating: "general") }

    @Test("a session's value is six lines")
    func membership() throws {
        let value = "node-a.7\n3\n1790000000123\naway\nal ice\n{\"name\":\"A\"}"
        let m = try #require(Membership(room: room(), session: "abcdefghijklmnopqrstuv", value: value))
        #expect(m.incarnation.description == "node-a.7")
        #expect(m.generation == 3)
        #expect(m.joinedAt == 1_790_000_000_123)
        #expect(m.status == .away)
        #expect(m.user.string == "al ice")
        #expect(m.info == #"{"name":"A"}"#)
    }

    @Test(
        "a session's value that is none is passed over",
        arguments: [
            "", "node-a.7", "node-a.7\n3\n1\naway\nalice", "node-a\n3\n1\naway\nalice\n",
            "node-a.7\nx\n1\naway\nalice\n",
            "node-a.7\n3\n1\nhere\nalice\n", "node-a.7\n3\n1\naway\n\n",
        ])
    func malformedMembership(value: String) throws {
        #expect(try Membership(room: room(), session: "abcdefghijklmnopqrstuv", value: value) == nil)
        #expect(try Membership(room: room(), session: "short", value: "n.1\n3\n1\naway\nalice\n") == nil)
    }

    private func messages(_ entry: RESPValue, from first: Int64 = 0, to last: Int64 = .max) -> [StoredMessage] {
        var messages: [StoredMessage] = []
        StoredMessage.read(entry: entry, of: (first, last), into: &messages)
        return messages
    }

    private func entry(_ id: String, _ head: String, _ records: String) -> RESPValue {
        .array([.text(id), .array([.text("h"), .text(head), .text("b"), .text(records)])])
    }

    @Test("a log entry has the seq of its last message, one time, and a record a message")
    func storedMessages() throws {
        let session = "wZ3kq0-fHhK1mDd8sPpL2A"
        let records =
            "x7Qa \(session) 4 9 al ice\nc\n-7\"text\":\"\"" + "x7Qb - 0 4 bob\nbody" + "x7Qc - 0 4 bob\nlast"
        let entry = entry("42-0", "1790000000123 3", records)
        let all = messages(entry)
        #expect(all.map(\.seq) == [40, 41, 42])
        #expect(all.map(\.ts) == Array(repeating: 1_790_000_000_123, count: 3))
        #expect(all.map(\.tag) == ["x7Qa", "x7Qb", "x7Qc"])
        #expect(all.map(\.from.string) == ["al ice", "bob", "bob"])
        #expect(all.map(\.origin) == [session, "", ""])
        #expect(all.map(\.clientID) == ["c\n-7", "", ""])
        #expect(all.map { String(buffer: $0.body) } == [#""text":"""#, "body", "last"])
        #expect(messages(entry, from: 41).map(\.seq) == [41, 42])
        #expect(messages(entry, from: 41, to: 41).map(\.seq) == [41])
        #expect(messages(entry, from: 43).isEmpty)
    }

    @Test("a log entry that is none is passed over")
    func malformedEntry() {
        let record = "t - 0 2 a\n{}"
        let entries: [RESPValue] = [
            .null, .integer(1), .array([]), .array([.text("42-0"), .null]),
            .array([.text("42-0"), .array([.text("h")])]),
            entry("42-1", "5 1", record), entry("x-0", "5 1", record), entry("42-0", "5", record),
            entry("42-0", "x 1", record), entry("42-0", "5 x", record), entry("42-0", "5 1", "t - 0 2\n{}"),
            entry("42-0", "5 1", "t - 0 2 \n{}"), entry("42-0", "5 1", "t - 0 3 a\n{}"), entry("42-0", "5 1", ""),
        ]
        for entry in entries {
            #expect(messages(entry).isEmpty, "\(entry)")
        }
    }

    @Test("a head without an epoch is no room")
    func head() {
        #expect(RoomHead([.null, .null, .null, .null, .null][...]) == nil)
        #expect(RoomHead([.text("ep")][...]) == nil)
        #expect(
            RoomHead([.text("ep"), .text("42"), .text("x7Qa"), .text("7"), .text("2")][...])
                == RoomHead(epoch: "ep", seq: 42, tag: "x7Qa", pv: 7, count: 2))
    }

    @Test("the fingerprint is FNV-1a of key, zero and body")
    func fingerprint() throws {
        func fingerprint(_ key: String, _ body: String) throws -> UInt64 {
            try Publication(
                dedupeKey: key, tag: "tagA", origin: nil, clientID: "", from: UserName(validating: "bob"),
                body: ByteBuffer(string: body)
            ).fingerprint
        }
        // FNV-1a of one zero byte, and of "foo\0bar".
        #expect(try fingerprint("", "") == 0xaf63_bd4c_8601_b7df)
        #expect(try fingerprint("foo", "bar") == 0x8a5f_40d8_2438_88aa)
    }

    @Test("limits below what makes sense are lifted")
    func limits() {
        let limits = HistoryLimits(maxMessages: -1, maxAge: 0, afterlife: -5)
        #expect(limits == HistoryLimits(maxMessages: 0, maxAge: 1, afterlife: 1))
    }

    @Test("a room keeps what the rules of its namespace say")
    func rules() {
        var rules = NamespaceRules()
        rules.historyMessages = 5
        rules.historyMilliseconds = 90_000
        #expect(HistoryLimits(rules) == HistoryLimits(maxMessages: 5, maxAge: 90_000))
    }

    private func texts(_ arguments: [RedisArgument]) -> [String] {
        arguments.map { argument in
            switch argument {
            case .string(let text): text
            case .bytes(let bytes): String(buffer: bytes)
            case .integer(let number): String(number)
            }
        }
    }

    @Test("a publish has six arguments, its channels, its marks, and one more a message")
    func publishArguments() throws {
        let publications = try [
            Publication(
                dedupeKey: "bob\nclient\nc-7", tag: "x7Qa",
                origin: SessionID("abcdefghijklmnopqrstuv"),
                clientID: #"c-\"7"#, from: UserName(validating: "bob"), body: ByteBuffer(string: #""text":"hi""#)),
            Publication(
                dedupeKey: "k", tag: "tagB", origin: nil, clientID: "",
                from: UserName(validating: "al ice"), body: ByteBuffer(string: #""data":1"#)),
        ]
        let limits = HistoryLimits(maxMessages: 10, maxAge: 20, afterlife: 30)
        let messages = [
            "1oz2s3hsem6h2 x7Qa\npcwdrwkwu2gz tagB\n", "bob\nclient\nc-7", "k",
        ]
        let records =
            "x7Qa abcdefghijklmnopqrstuv 5 11 bob\nc-\\\"7\"text\":\"hi\"" + "tagB - 0 8 al ice\n\"data\":1"
        #expect(
            try texts(
                RoomStore.publishArguments(
                    room(), channels: [], orChannel: "P:{r:general}", publications[...], limits: limits, newEpoch: "ep")
            )
                == ["ep", "10", "20 30", records, "", "1", "P:{r:general}"] + messages)
        #expect(
            try texts(
                RoomStore.publishArguments(
                    room(), channels: ["one", "two"], orChannel: "P:{r:general}", publications[...], limits: limits,
                    newEpoch: "ep"))
                == ["ep", "10", "20 30", records, " general", "2", "one", "two"] + messages)
    }

    @Test("a user's value says their status and info; who is invisible, or not such a value, is left out")
    func users() throws {
        func json(_ value: String) -> String? { RoomUser(name: #"a"b"#, value: value)?.json }
        #expect(json("2 0 1 0\n") == #"{"user":"a\"b"}"#)
        #expect(json("0 1 1 9\n{\"n\":1}") == #"{"user":"a\"b","status":"away","info":{"n":1}}"#)
        #expect(json("0 0 3 0\n") == #"{"user":"a\"b","status":"busy"}"#)
        for value in ["", "0 0 0 2\n", "0 0 0 0\n", "1 0 0\n", "1 0 0 0", "\n"] {
            #expect(json(value) == nil, "\(value)")
        }
        #expect(RoomUser.read(.null).isEmpty)
        #expect(RoomUser.read(.array([.text("a"), .text("1 0 0 0\n"), .text("b")])).map(\.name) == ["a"])
    }
}
