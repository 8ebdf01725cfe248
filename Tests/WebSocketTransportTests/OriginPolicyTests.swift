import NIOHTTP1
import Testing
import WebSocketTransport

@Suite("Pages of which origins may connect")
struct OriginPolicyTests {
    private func check(
        _ rules: String, _ origin: String?, host: String = "chat.example.com", proxied: [String: String] = [:],
        isTrusted: Bool = true, isSecure: Bool = false
    ) throws -> OriginPolicy.Verdict {
        var headers: HTTPHeaders = ["Host": host]
        if let origin { headers.add(name: "Origin", value: origin) }
        for (name, value) in proxied { headers.add(name: name, value: value) }
        let rules = try rules.split(separator: ",").map { try #require(OriginPolicy.Rule($0)) }
        return OriginPolicy(rules: rules).check(
            HTTPRequest(method: .GET, uri: "/ws", headers: headers, isSecure: isSecure, isFromTrustedProxy: isTrusted))
    }

    @Test(
        "T1: by default those of the same host and port",
        arguments: [
            ("https://chat.example.com", "chat.example.com", true),
            ("http://chat.example.com", "chat.example.com", true),
            ("https://CHAT.example.com", "chat.example.COM", true),
            ("https://chat.example.com:443", "chat.example.com", true),
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true), ("http://[::1]:8080", "[::1]:8080", true),
            ("https://evil.example", "chat.example.com", false), ("https://example.com", "chat.example.com", false),
            ("https://chat.example.com.evil.example", "chat.example.com", false),
            ("https://chat.example.com:8443", "chat.example.com", false),
            ("http://127.0.0.1:8081", "127.0.0.1:8080", false), ("null", "null", false),
            ("null", "chat.example.com", false),
            ("file://", "chat.example.com", false), ("https://chat.example.com/", "chat.example.com", false),
            ("https://chat.example.com@evil.example", "chat.example.com", false), ("", "chat.example.com", false),
            ("https://chat.example.com https://evil.example", "chat.example.com", false),
        ])
    func sameHost(origin: String, host: String, isAllowed: Bool) throws {
        #expect(try check("self", origin, host: host) == (isAllowed ? .allowed : .foreign))
    }

    @Test("behind a trusted proxy the host that it was asked for counts, and https is not for pages of http")
    func proxied() throws {
        let asked = ["X-Forwarded-Host": "chat.example.com"]
        func proxied(_ origin: String, isSecure: Bool = true) throws -> OriginPolicy.Verdict {
            try check("self", origin, host: "10.0.0.1:8081", proxied: asked, isSecure: isSecure)
        }
        #expect(try proxied("https://chat.example.com") == .allowed)
        #expect(try proxied("http://chat.example.com") == .foreign)
        #expect(try proxied("http://chat.example.com", isSecure: false) == .allowed)
        #expect(try proxied("https://chat.example.com", isSecure: false) == .allowed)
        #expect(try proxied("https://10.0.0.1:8081") == .foreign)
        let forged = ["X-Forwarded-Host": "evil.example"]
        #expect(try check("self", "https://evil.example", proxied: forged, isTrusted: false) == .foreign)
        #expect(try check("self", "https://chat.example.com", proxied: forged, isTrusted: false) == .allowed)
    }

    @Test("T1: those of the list, exactly, or every host below one")
    func list() throws {
        let rules = "https://app.example.com,https://*.example.org"
        #expect(try check(rules, "https://app.example.com") == .allowed)
        #expect(try check(rules, "https://a.example.org") == .allowed)
        #expect(try check(rules, "https://a.b.example.org") == .allowed)
        let foreign = [
            "http://app.example.com", "https://app.example.com:8443", "https://example.org", "http://a.example.org",
            "https://a.example.org:8443", "https://evilexample.org", "https://chat.example.com", "null",
        ]
        for origin in foreign { #expect(try check(rules, origin) == .foreign, "\(origin)") }
    }

    @Test("* is every origin that is one; none at all is another matter")
    func any() throws {
        #expect(try check("*", "http://evil.example") == .allowed)
        #expect(try check("*", "null") == .foreign)
        #expect(try check("*", nil) == .missing)
        #expect(OriginPolicy(allowsMissing: true).check(HTTPRequest(method: .GET, uri: "/")) == .allowed)
    }

    @Test("T1: two origins are none")
    func two() {
        let headers: HTTPHeaders = ["Host": "a.example", "Origin": "https://a.example"]
        var twice = headers
        twice.add(name: "Origin", value: "https://evil.example")
        #expect(OriginPolicy().check(HTTPRequest(method: .GET, uri: "/", headers: headers)) == .allowed)
        #expect(OriginPolicy().check(HTTPRequest(method: .GET, uri: "/", headers: twice)) == .foreign)
    }

    @Test(
        "what is no rule is none",
        arguments: [
            "", "null", "app.example.com", "https://", "ftp://app.example.com", "https://*example.com",
            "https://a.*.com",
            "https://app.example.com/", "https://app.example.com:0", "https://app.example.com:99999", "https://*.",
            "*.a",
        ])
    func noRule(text: String) {
        #expect(OriginPolicy.Rule(text) == nil)
    }
}
