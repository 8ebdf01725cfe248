import NIOCore
import Synchronization
import Testing

@testable import WebSocketTransport

/// A server whose connections a load balancer hands on with a header of the PROXY protocol.
@Suite("A server behind a load balancer")
struct BehindBalancerTests {
    private let question =
        "GET /who HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\nX-Request-ID: theirs\r\n\r\n"

    private func ask(_ header: ByteBuffer, of server: TestServer) throws -> String {
        let socket = try RawSocket(port: server.port)
        socket.send(Array(header.readableBytesView) + Array(question.utf8))
        socket.finishSending()
        return String(decoding: socket.receiveAll(), as: UTF8.self)
    }

    @Test("learns of its header whose a connection is, whether through TLS, and its name; clients say none of it")
    func header() throws {
        let server = try TestServer(readsProxyProtocol: true)
        let client = try #require(IPAddress("203.0.113.9"))
        let told = ProxyProtocol.header(from: (client, 4711), to: (.loopback, 443), isSecure: true, id: "lb-7")
        #expect(try ask(told, of: server).hasSuffix("\r\n\r\n203.0.113.9 true lb-7"))
        let bare = ProxyProtocol.header(from: (client, 4711), to: (.loopback, 80), id: "two words")
        let answer = try ask(bare, of: server)
        #expect(
            answer.contains("\r\n\r\n203.0.113.9 false ") && !answer.contains("words") && !answer.contains("theirs"))
        try server.stop()
    }

    @Test(
        "T16: takes a client whose address the header does not say for an unknown one, and believes nothing that it says of itself"
    )
    func unknown() throws {
        let server = try TestServer(readsProxyProtocol: true)
        let signature = ProxyProtocol.localHeader.readableBytesView.prefix(12)
        let answer = try ask(ByteBuffer(bytes: signature + [0x21, 0x00, 0x00, 0x00]), of: server)
        #expect(answer.contains("\r\n\r\n:: false ") && !answer.contains("theirs"))
        // The balancer's own word counts.
        let own = try ask(ProxyProtocol.localHeader, of: server)
        #expect(own.hasSuffix("\r\n\r\n198.51.100.1 false theirs"))
        try server.stop()
    }

    @Test("closes a connection of the balancer that begins otherwise, and says why")
    func none() throws {
        let said = Mutex<[String]>([])
        let server = try TestServer(
            readsProxyProtocol: true,
            onUnreadable: { what, client in
                guard case .proxyHeader(let reason) = what else { return }
                said.withLock { $0.append("\(client): \(reason)") }
            })
        #expect(try ask(ByteBuffer(), of: server) == "")
        #expect(
            said.withLock(\.self)
                == ["127.0.0.1: it does not begin with a header of the PROXY protocol, version 2"])
        try server.stop()
    }

    @Test("where it expects none, a header is no HTTP")
    func unexpected() throws {
        let server = try TestServer()
        let header = ProxyProtocol.header(from: (.loopback, 1), to: (.loopback, 2))
        #expect(try ask(header, of: server).hasPrefix("HTTP/1.1 400 "))
        try server.stop()
    }
}
