import ClusterState
import Testing
import WireProtocol

@Suite("The key layout")
struct ClusterKeysTests {
    let keys = ClusterKeys(prefix: "martlet")
    let incarnation = Incarnation(name: "node-a", number: 7)
    let session = SessionID("abcdefghijklmnopqrstuv")

    @Test("is the table of the design, letter for letter")
    func layout() throws {
        let i = try #require(incarnation)
        let s = try #require(session)
        let room = try RoomName(validating: "general")
        let user = try UserName(validating: "alice")
        #expect(keys.nodes == "martlet:nodes")
        #expect(keys.incarnationCounter == "martlet:incarnation")
        #expect(keys.orders == "martlet:{orders}")
        #expect(keys.audit == "martlet:{orders}:audit")
        #expect(keys.node(i) == "martlet:{i:node-a.7}")
        #expect(keys.nodeRooms(i) == "martlet:{i:node-a.7}:rooms")
        #expect(keys.nodeSessions(i) == "martlet:{i:node-a.7}:sessions")
        #expect(keys.roomMeta(room) == "martlet:{r:general}:meta")
        #expect(keys.roomLog(room) == "martlet:{r:general}:log")
        #expect(keys.roomSessions(room) == "martlet:{r:general}:sessions")
        #expect(keys.roomUsers(room) == "martlet:{r:general}:users")
        #expect(keys.roomSessions(room, on: i) == "martlet:{r:general}:on:node-a.7")
        #expect(keys.roomDead(room) == "martlet:{r:general}:dead")
        #expect(keys.roomSent(room) == "martlet:{r:general}:sent")
        #expect(keys.roomSentPrevious(room) == "martlet:{r:general}:sent.prev")
        #expect(keys.roomRead(room) == "martlet:{r:general}:read")
        #expect(keys.userSessions(user) == "martlet:{u:alice}:sessions")
        #expect(keys.session(s) == "martlet:{s:abcdefghijklmnopqrstuv}")
        #expect(keys.roomChannel(room) == "martlet:{r:general}")
        #expect(keys.userChannel(user) == "martlet:{u:alice}")
        #expect(keys.controlChannel == "martlet:control")
    }

    @Test(
        "T10: lets no user name forge a hash tag or another user's key",
        arguments: ["a}b", "{r:general}", "a:b", "%7D", "a b"])
    func hostileUserNames(name: String) throws {
        let user = try UserName(validating: name)
        let key = keys.userSessions(user)
        #expect(key.filter { $0 == "{" || $0 == "}" } == "{}")
        #expect(key.hasSuffix("}:sessions"))
        #expect(key != "martlet:{u:\(name)}:sessions")
        #expect(UserName(percentEncoded: key.dropFirst("martlet:{u:".count).dropLast("}:sessions".count)) == user)
    }

    @Test("T10: keeps a private room of hostile names in one hash tag")
    func privateRoom() throws {
        let room = try RoomName.direct(UserName(validating: "a}b"), UserName(validating: "{c"))
        #expect(keys.roomMeta(room).filter { $0 == "{" || $0 == "}" } == "{}")
    }
}

@Suite("An incarnation")
struct IncarnationTests {
    @Test("reads what it writes, also when the name holds dots and a port")
    func roundTrip() throws {
        for text in ["node-a.7", "host.example:8081.12", "a.1.9223372036854775807"] {
            #expect(Incarnation(text)?.description == text)
        }
        #expect(Incarnation("host.example:8081.12")?.name == "host.example:8081")
    }

    @Test(
        "is refused when it could not stand in a key or a header",
        arguments: [
            "", ".", "a", "a.", ".1", "a.0", "a.-1", "a.+1", "a.01", "a.1x", "a b.1", "a{b.1", "ä.1",
            "a.99999999999999999999",
        ])
    func malformed(text: String) {
        #expect(Incarnation(text) == nil)
    }

    @Test("has a name of at most 128 bytes")
    func longName() {
        #expect(Incarnation(name: String(repeating: "n", count: 128), number: 1) != nil)
        #expect(Incarnation(name: String(repeating: "n", count: 129), number: 1) == nil)
    }
}
