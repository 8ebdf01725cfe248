import NIOCore
import NIOHTTP1
import Testing
import WebSocketTransport

@Suite("Whom a server takes for its client")
struct ClientAddressTests {
    private func client(trusted: [String], forwarded: [String]) throws -> String {
        let server = try HTTPServer.start(
            host: "127.0.0.1", port: 0, group: TestServer.group,
            trustedProxies: TrustedProxies(trusted.compactMap { AddressBlock($0) }),
            onRequest: { request, loop in
                loop.makeSucceededFuture(
                    HTTPResponse(status: .ok, contentType: "text/plain", body: request.clientAddress.description))
            },
            onUpgrade: { _, _ in .accept { _ in Echo() } }
        ).wait()
        defer { try? server.close().wait() }
        let socket = try RawSocket(port: try #require(server.localAddress?.port))
        let lines = forwarded.map { "X-Forwarded-For: \($0)\r\n" }.joined()
        socket.send("GET / HTTP/1.1\r\nHost: x\r\n\(lines)Connection: close\r\n\r\n")
        return socket.receiveResponse().body
    }

    @Test("T16: the peer, unless it is a trusted proxy: then the first that no trusted proxy stands for")
    func believesTrustedProxiesAlone() throws {
        #expect(try client(trusted: [], forwarded: ["203.0.113.9"]) == "127.0.0.1")
        #expect(try client(trusted: ["127.0.0.0/8"], forwarded: []) == "127.0.0.1")
        #expect(try client(trusted: ["127.0.0.0/8"], forwarded: ["198.51.100.1, 203.0.113.9"]) == "203.0.113.9")
        #expect(try client(trusted: ["127.0.0.0/8"], forwarded: ["2001:db8::1", "127.0.0.2"]) == "2001:db8::1")
        #expect(try client(trusted: ["10.0.0.0/8"], forwarded: ["203.0.113.9"]) == "127.0.0.1")
    }

    @Test("one who has an IPv6 address has all of its network")
    func network() throws {
        let addresses = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "192.0.2.1", "192.0.2.2"]
        let networks = try addresses.map { try #require(IPAddress($0)).network.description }
        #expect(networks == ["2001:db8::", "2001:db8::", "2001:db8:0:1::", "192.0.2.1", "192.0.2.2"])
    }

    @Test("an IPv4 peer of an IPv6 socket is named in its own form")
    func names() throws {
        let names = ["::ffff:192.0.2.1", "::1", "2001:db8::1", "192.0.2.1", "::"]
        #expect(names.map { IPAddress($0)?.description } == ["192.0.2.1", "::1", "2001:db8::1", "192.0.2.1", "::"])
    }
}
