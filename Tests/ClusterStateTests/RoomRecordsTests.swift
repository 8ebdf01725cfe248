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

    @Test("a log entry is a head of three lines and a body")
    func storedMessage() throws {
        let entry = RESPValue.array([
            .text("42-0"),
            .array([
                .text("h"), .text("1790000000123 x7Qa al ice\nSESSION 4\nc\n-7"), .text("b"), .text(#""text":"hi""#),
            ]),
        ])
        let message = try #require(StoredMessage(entry: entry))
        #expect(message.seq == 42)
        #expect(message.ts == 1_790_000_000_123)
        #expect(message.tag == "x7Qa")
        #expect(message.from.string == "al ice")
        #expect(message.origin == "SESSION")
        #expect(message.clientID == "c\n-7")
        #expect(message.body == ByteBuffer(string: #""text":"hi""#))
    }

    @Test("a log entry that is none is passed over")
    func malformedEntry() {
        let body: [RESPValue] = [.text("b"), .text("{}")]
        let entries: [RESPValue] = [
            .null, .integer(1), .array([]), .array([.text("42-0"), .null]),
            .array([.text("42-1"), .array([.text("h"), .text("5 t a\n- 0\n")] + body)]),
            .array([.text("x-0"), .array([.text("h"), .text("5 t a\n- 0\n")] + body)]),
            .array([.text("42-0"), .array([.text("h"), .text("5 t a\n- 0")] + body)]),
            .array([.text("42-0"), .array([.text("h"), .text("x t a\n- 0\n")] + body)]),
            .array([.text("42-0"), .array([.text("h"), .text("5 t\n- 0\n")] + body)]),
            .array([.text("42-0"), .array([.text("h"), .text("5 t \n- 0\n")] + body)]),
            .array([.text("42-0"), .array([.text("h")])]),
        ]
        for entry in entries {
            #expect(StoredMessage(entry: entry) == nil, "\(entry)")
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

    @Test("the fingerprint is FNV-1a")
    func fingerprint() {
        #expect(Publication.fingerprint(of: ByteBuffer()) == 0xcbf2_9ce4_8422_2325)
        #expect(Publication.fingerprint(of: ByteBuffer(string: "a")) == 0xaf63_dc4c_8601_ec8c)
        #expect(Publication.fingerprint(of: ByteBuffer(string: "foobar")) == 0x8594_4171_f739_67e8)
    }

    @Test("limits below what makes sense are lifted")
    func limits() {
        let limits = HistoryLimits(maxMessages: -1, maxAge: 0, afterlife: -5)
        #expect(limits == HistoryLimits(maxMessages: 0, maxAge: 1, afterlife: 1))
    }

    @Test("the limits of a room are those of its namespace, else the standard ones")
    func rules() throws {
        let rules = HistoryRules(byNamespace: [
            "news": HistoryLimits(maxMessages: 5), "dm": HistoryLimits(maxMessages: 7),
            "a/b": HistoryLimits(maxMessages: 9),
        ])
        let found = try ["news:1", "news:1:2", "news", "newspaper:1", "a/b:", ":news:1", "dm:alice:bob", "other:1"].map
        {
            rules.limits(of: try RoomName(validating: $0)).maxMessages
        }
        #expect(found == [5, 5, 1000, 1000, 9, 1000, 7, 1000])
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

    @Test("a publish has six arguments and six more a message")
    func publishArguments() throws {
        let publications = try [
            Publication(
                dedupeKey: "bob\nclient\nc-7", fingerprint: 35, tag: "x7Qa",
                origin: SessionID("abcdefghijklmnopqrstuv"),
                clientID: #"c-\"7"#, from: UserName(validating: "bob"), body: ByteBuffer(string: #""text":"hi""#)),
            Publication(
                dedupeKey: "k", fingerprint: .max, tag: "tagB", origin: nil, clientID: "",
                from: UserName(validating: "al ice"), body: ByteBuffer(string: #""data":1"#)),
        ]
        let limits = HistoryLimits(maxMessages: 10, maxAge: 20, afterlife: 30)
        let messages = [
            "bob\nclient\nc-7", "z", "x7Qa", "abcdefghijklmnopqrstuv 5\nc-\\\"7", "bob", #""text":"hi""#,
            "k", "3w5e11264sgsf", "tagB", "- 0\n", "al ice", #""data":1"#,
        ]
        let opening = #"{"type":"message","room":"general","seq":"#
        #expect(
            try texts(
                RoomStore.publishArguments(
                    room(), channels: [], orChannel: "P:{r:general}", publications[...], limits: limits, newEpoch: "ep")
            )
                == [opening, "ep", "10", "20 30", "0", "P:{r:general}"] + messages)
        #expect(
            try texts(
                RoomStore.publishArguments(
                    room(), channels: ["one", "two"], orChannel: "P:{r:general}", publications[...], limits: limits,
                    newEpoch: "ep"))
                == [opening, "ep", "10", "20 30", "2", "one", "two"] + messages)
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
