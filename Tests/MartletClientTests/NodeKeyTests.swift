import Testing
import WireProtocol

@testable import MartletClient

@Suite("What routers keep a client with a token by")
struct NodeKeyTests {
    private func token(_ payload: String, parts: Int = 3) -> String {
        ([Base64URL.encode(Array(#"{"alg":"HS256"}"#.utf8)), Base64URL.encode(Array(payload.utf8))]
            + Array(repeating: "AAAA", count: 3)).prefix(parts).joined(separator: ".")
    }

    @Test("it is whom the token is about, who may have any name")
    func subject() {
        for name in ["alice", "grüße & co/🐦", "a+b%20c", #"\"#, String(repeating: "x", count: 128)] {
            let escaped = name.replacing(#"\"#, with: #"\\"#)
            #expect(NodeKey.of(token(#"{"exp":1,"x":{"sub":"no"},"sub":"\#(escaped)"}"#)) == name)
        }
    }

    @Test("what is no token, or tells no user, brings no key and no failure")
    func nobody() {
        let payloads = [
            "{}", "[]", "", "no JSON", #""alice""#, #"{"sub":17}"#, #"{"sub":null}"#, #"{"sub":["alice"]}"#,
            #"{"sub":""}"#, #"{"sub":"a\nb"}"#, #"{"sub":"\#(String(repeating: "x", count: 129))"}"#,
        ]
        var tokens = payloads.map { token($0) } + [2, 4, 5].map { token(#"{"sub":"alice"}"#, parts: $0) }
        tokens += ["", ".", "..", "opaque", "a.b.c", "a.!!!!.c", "\u{0}.\u{0}.\u{0}", "é.é.é"]
        for token in tokens {
            #expect(NodeKey.of(token) == nil, "\(token)")
            #expect(NodeKey.address("ws://r/ws?client=c", of: token) == "ws://r/ws?client=c")
        }
    }

    @Test("it stands in the query, percent-encoded")
    func address() {
        #expect(
            NodeKey.address("ws://r/ws?client=c", of: token(#"{"sub":"ü &/+"}"#))
                == "ws://r/ws?client=c&key=%C3%BC%20%26%2F%2B")
    }

    @Test("a key, a user or a token in the URL goes before it")
    func given() {
        for query in ["key=k", "a=b&user=u", "token=ey", "key=", "key"] {
            #expect(NodeKey.isGiven(in: "ws://r/ws?\(query)"), "\(query)")
        }
        for url in ["ws://r/ws", "ws://r/key=k", "ws://r/ws?", "ws://r/ws?room=key&keys=1&a=user"] {
            #expect(!NodeKey.isGiven(in: url), "\(url)")
        }
    }

    @Test("it is of the token that the first frame of the attempt shows")
    func sameToken() {
        var machine = ClientStateMachine(client: "c1", identity: .provider)
        #expect(machine.firstToken == nil)
        for token in ["one", "two"] {
            #expect((token == "one" ? machine.start(now: 0) : machine.retry(now: 2)).last == .askForToken)
            #expect(machine.connect(withToken: token, now: 0) == [.connect(resuming: false)])
            #expect(machine.firstToken == token)
            let sent = machine.opened().compactMap {
                if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil }
            }
            #expect(sent.first?.contains(#""token":"\#(token)""#) == true)
            _ = machine.lost(code: 1006, reason: "", now: 1, random: 0)
        }
        #expect(ClientStateMachine(client: "c1", identity: .token("ey")).firstToken == "ey")
        #expect(ClientStateMachine(client: "c1", identity: .user("alice")).firstToken == nil)
    }
}
