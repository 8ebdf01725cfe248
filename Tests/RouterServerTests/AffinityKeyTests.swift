import NIOCore
import Testing
import WebSocketTransport

@testable import RouterServer

@Suite("What a request is kept to a node by")
struct AffinityKeyTests {
    private func key(
        _ target: String, _ fields: [(String, String)] = [], by rule: String = AffinityRule.standard.description
    ) throws -> AffinityKey {
        let head = RequestHead(
            method: "GET",
            target: target,
            minorVersion: 1,
            fields: fields.map { HTTPField($0.0, $0.1) }
        )
        return AffinityKey(
            of: head,
            by: try #require(AffinityRule(rule)),
            subject: { $0.hasPrefix("token-of-") ? String($0.dropFirst(9)) : nil },
            client: try #require(IPAddress("192.0.2.7"))
        )
    }

    private let id = String(repeating: "0a", count: 16)

    @Test("key, user, token, cookie and address come in this order")
    func precedence() throws {
        let all = [("Authorization", "Bearer token-of-erin"), ("Cookie", "a=b; martlet_affinity=\(id); c=d")]
        #expect(try key("/ws?user=bob&key=K&token=token-of-carol", all).value == "K")
        #expect(try key("/ws?user=bob&token=token-of-carol", all).value == "bob")
        #expect(try key("/ws?token=token-of-carol", all).value == "carol")
        #expect(try key("/ws", all).value == "erin")
        #expect(try key("/ws", [all[1]]).value == id)
        #expect(try key("/ws").value == "192.0.2.7")
        #expect(try key("/ws?user=bob", all).kind == .user)
        #expect(try key("/ws", all).kind == .token)
        #expect(try key("/ws", [all[1]]).kind == .cookie)
        #expect(try key("/ws").kind == .address)
    }

    @Test("what is empty or nonsense does not count")
    func nonsense() throws {
        #expect(try key("/ws?key=&user=bob").value == "bob")
        #expect(try key("/ws?token=garbage", [("Cookie", "martlet_affinity=\(id)")]).kind == .cookie)
        #expect(try key("/ws?token=garbage", [("Authorization", "Bearer token-of-erin")]).value == "erin")
        #expect(try key("/ws?token=token-of-", [("Authorization", "Bearer token-of-erin")]).value == "erin")
        #expect(try key("/ws", [("Authorization", "Basic token-of-erin")]).kind == .address)
        for bad in [
            "martlet_affinity=x", "martlet_affinity=", "martlet_affinity", "xmartlet_affinity=\(id)",
            "martlet_affinity=\(id)0",
        ] {
            #expect(try key("/ws", [("Cookie", bad)]).kind == .address)
        }
    }

    @Test("a name is the same however its query is encoded")
    func encoding() throws {
        for target in [
            "/ws?user=Zo%C3%AB+M", "/ws?user=Zo%c3%ab%20M", "/ws?x&%75ser=Zo%C3%AB%20M", "/ws?user=Zo%C3%AB+M&user=z",
        ] {
            #expect(try key(target).value == "Zoë M")
        }
        #expect(try key("/ws?user=50%").value == "50%")
        #expect(try key("/ws?user=%zz%4").value == "%zz%4")
        #expect(try key("/ws?user=a=b").value == "a=b")
        #expect(try key("/ws?other=1?user=a").kind == .address)
    }

    @Test("the cookie that is set is the cookie that is read")
    func cookie() throws {
        let value = AffinityKey.cookieValue(random: (1, .max))
        #expect(value == "0000000000000001ffffffffffffffff")
        #expect(try key("/", [("Cookie", "martlet_affinity=\(value)")]).value == value)
        #expect(AffinityKey.setCookie(value) == "martlet_affinity=\(value); Path=/; HttpOnly; SameSite=Lax")
    }

    @Test("what counts, and in which order, is a setting")
    func rules() throws {
        let all = [("X-Tenant", "acme"), ("Cookie", "martlet_affinity=\(id)")]
        let target = "/ws?key=K&user=bob&room=r%201"
        #expect(try key(target, all, by: "room,user").value == "r 1")
        #expect(try key(target, all, by: "room,user").kind == .room)
        #expect(try key("/ws?user=bob", all, by: "room,user").value == "bob")
        #expect(try key(target, all, by: "header:x-TENANT,key").value == "acme")
        #expect(try key(target, [], by: "header:X-Tenant,key").value == "K")
        #expect(try key(target, [("X-Tenant", "")], by: "header:X-Tenant").kind == .address)
        #expect(try key(target, all, by: "cookie").value == id)
        #expect(try key(target, all, by: "address").value == "192.0.2.7")
        #expect(try key(target, all, by: "user, address").value == "bob")
    }

    @Test("the cookie is set for those who have nothing else, where cookies count")
    func cookieWanted() throws {
        #expect(try key("/ws").wantsCookie)
        #expect(try !key("/ws?user=bob").wantsCookie)
        #expect(try !key("/ws", by: "user,address").wantsCookie)
        #expect(try key("/ws", by: "room,cookie").wantsCookie)
    }

    @Test("a rule names each source once, and nothing behind the address")
    func badRules() {
        for bad in [
            "", "users", "user,user", "address,user", "user,", "header", "header:", "header:a b", "User", "room room",
            "header:X,header:x",
        ] {
            #expect(AffinityRule(bad) == nil, "\(bad)")
        }
        #expect(AffinityRule("room,header:X-A")?.description == "room,header:x-a,address")
        #expect(AffinityRule(AffinityRule.standard.description) == .standard)
    }
}
