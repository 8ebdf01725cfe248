import TLSClient
import TestSupport
import TestTLS
import Testing

@testable import WebSocketTransport

@Suite("Certificates by server name")
struct ServerNameTests {
    private static let names: [[String]] = [
        ["DNS:first.example", "IP:127.0.0.1"], ["DNS:*.chat.example", "DNS:chat.example"], ["DNS:a.chat.example"],
    ]

    @Test(
        "exactly that name, else a wildcard that it fits, else the first",
        arguments: [
            (nil, 0), ("", 0), ("first.example", 0), ("chat.example", 1), ("CHAT.Example", 1), ("b.chat.example", 1),
            ("a.chat.example", 2), ("a.b.chat.example", 0), (".chat.example", 1), ("example", 0), ("other.example", 0),
        ] as [(String?, Int)])
    func choice(name: String?, index: Int) {
        let choice = CertificateChoice(Self.names.map { $0.map { String($0.dropFirst(4)) } } + [["chat.example"]])
        #expect(choice.index(for: name) == index)
    }

    @Test(
        "clients are shown the certificate of the name that they ask for, in both versions, and a new one of it later")
    func shown() async throws {
        let authority = try await Certificates()
        var pairs: [Certificates.Pair] = []
        for (index, names) in Self.names.enumerated() {
            pairs.append(try await authority.issue("server-\(index)", names: names))
        }
        let credentials = try TLSCredentials(pairs.map { ($0.certificate, $0.key) })
        let server = try TestServer(tls: credentials)
        func answer(_ name: String?, _ host: String, _ version: TLSSocket.Version? = nil) throws -> [UInt8] {
            var options = TLSSocket.Options(authority: authority.authority)
            (options.serverName, options.host, options.version) = (name, host, version)
            let socket = try TLSSocket(port: server.port, options)
            socket.send("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(socket.receiveResponse().body == "hello")
            return socket.certificate
        }
        // OpenSSL checks each against the host, so a wrong one would end the handshake.
        for version in [nil, .tls12] as [TLSSocket.Version?] {
            _ = try answer("chat.example", "chat.example", version)
            _ = try answer("b.chat.example", "b.chat.example", version)
            _ = try answer("first.example", "first.example", version)
            _ = try answer("nobody.example", "first.example", version)
            _ = try answer(nil, "first.example", version)
        }
        let before = try [("a.chat.example"), ("b.chat.example")].map { try answer($0, $0) }
        #expect(before[0] != before[1])
        try await authority.issue("server-2", names: Self.names[2])
        guard case .loaded(let loaded) = credentials.look(isForced: true) else {
            Issue.record("the new files were not read")
            return
        }
        #expect(loaded.certificates.map(\.file) == pairs.map(\.certificate))
        let after = try [("a.chat.example"), ("b.chat.example")].map { try answer($0, $0) }
        #expect(after[0] != before[0] && after[1] == before[1])
        try server.stop()
    }

    @Test("each certificate must be that of its key")
    func mismatch() async throws {
        let authority = try await Certificates()
        let (one, two) = (try await authority.issue("one"), try await authority.issue("two"))
        #expect(throws: TLSFailure("the key in \(one.key) is not that of the certificate in \(two.certificate)")) {
            try TLSCredentials([(one.certificate, one.key), (two.certificate, one.key)])
        }
    }
}
