import Foundation
import TestSupport
import Testing

@Suite("Headers of HTTP answers")
struct HeadersTests {
    private func expectProtected(_ answer: HTTPAnswer, _ what: String) {
        #expect(answer["x-content-type-options"] == "nosniff", "\(what)")
        #expect(answer["x-frame-options"] == "DENY", "\(what)")
        #expect(answer["referrer-policy"] == "no-referrer", "\(what)")
        for name in ["server", "x-powered-by", "via"] { #expect(answer[name] == nil, "\(what)") }
        for name in ["x-content-type-options", "x-frame-options", "referrer-policy", "content-security-policy"] {
            #expect(answer.headers.count { $0.name == name } <= 1, "\(what) has \(name) once")
        }
        let text = answer.headers.map { "\($0.name): \($0.value)" }.joined() + (answer.status == 200 ? "" : answer.text)
        #expect(!text.lowercased().contains("martlet/") && !text.contains("0.1.0"), "\(what) tells no version")
    }

    @Test(
        "T13: every answer of node and router, errors too, forbids sniffing, frames and referrers, and names no version"
    )
    func everyAnswer() async throws {
        try await SharedCluster.use { cluster in
            let requests: [(method: String, path: String, headers: [(String, String)], status: Int)] = [
                ("GET", "/", [], 200), ("HEAD", "/chat.js", [], 200), ("GET", "/martlet.js", [], 200),
                ("GET", "/healthz", [], 200), ("GET", "/readyz", [], 200), ("GET", "/nothing", [], 404),
                ("POST", "/", [], 405), ("GET", "/ws", [], 426), ("GET", "/%zz", [], 400),
                ("GET", "/", [("Host", "")], 0), ("BAD METHOD", "/", [], 400),
                ("GET", "/", [("X", String(repeating: "x", count: 100_000))], 431),
            ]
            for process in [cluster.nodes[0], cluster.routers[0]] {
                for request in requests {
                    let answer = try await HTTPAnswer.of(
                        request.method, request.path, port: process.port, headers: request.headers)
                    let what = "\(request.method) \(request.path) of \(process.name): \(answer.status)"
                    if request.status != 0 { #expect(answer.status == request.status, "\(what)") }
                    expectProtected(answer, what)
                }
                for path in ["/healthz", "/readyz", "/metrics", "/nodes", "/"] {
                    expectProtected(try await process.internals(path), "internal \(path) of \(process.name)")
                }
            }
            for path in ["/_router/healthz", "/_router/other"] {
                expectProtected(try await cluster.routers[0].get(path), path)
            }
        }
    }

    @Test("T13: the pages may run no script and use no style but those of their own files, and hold none of their own")
    func pages() async throws {
        try await SharedCluster.use { cluster in
            for process in [cluster.nodes[0], cluster.routers[0]] {
                let page = try await process.get("/")
                let policy = try #require(page["content-security-policy"])
                let rules = policy.split(separator: ";").map { $0.split(separator: " ").map(String.init) }
                #expect(rules.first { $0.first == "default-src" } == ["default-src", "'none'"])
                #expect(rules.first { $0.first == "script-src" } == ["script-src", "'self'"])
                #expect(rules.first { $0.first == "style-src" } == ["style-src", "'self'"])
                #expect(rules.first { $0.first == "frame-ancestors" } == ["frame-ancestors", "'none'"])
                #expect(!policy.contains("unsafe"))
                let inline = try Regex(#"<script(?![^>]*\ssrc=)|<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:"#)
                    .ignoresCase()
                #expect(page.text.firstMatch(of: inline) == nil)
            }
        }
    }
}
