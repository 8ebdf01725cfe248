import Foundation
import NIOCore
import NIOHTTP1
import TLSClient
import TestSupport
import TestTLS
import Testing

@testable import WebSocketTransport

@Suite("TLS credentials")
struct TLSCredentialsTests {
    private let authority: Certificates
    private let pair: Certificates.Pair

    init() async throws {
        authority = try await Certificates()
        pair = try await authority.issue("server")
    }

    private func failure(_ certificate: String, _ key: String, authorities: String? = nil) -> String? {
        do throws(TLSFailure) {
            _ = try TLSCredentials(certificate: certificate, key: key, clientAuthorities: authorities)
            return nil
        } catch {
            return error.description
        }
    }

    private func look(_ credentials: TLSCredentials, isForced: Bool = false) -> String {
        switch credentials.look(isForced: isForced) {
        case .unchanged: "unchanged"
        case .loaded: "loaded"
        case .failed(let failure): failure.description
        }
    }

    private func write(_ text: String, to path: String) throws {
        try text.write(toFile: path, atomically: true, encoding: .utf8)
    }

    @Test("what cannot be used is one sentence that names the file")
    func failures() async throws {
        let other = try await authority.issue("other")
        let folder = try TemporaryDirectory.make("tls")
        let empty = folder + "/empty.pem"
        try write("", to: empty)
        let broken = folder + "/broken.pem"
        try write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", to: broken)
        let encrypted = folder + "/encrypted.key"
        _ = try await ChildProcess.run(
            "openssl", ["ec", "-aes256", "-passout", "pass:secret", "-in", pair.key, "-out", encrypted],
            environment: ["PATH": "/usr/bin:/bin"])
        #expect(failure(pair.certificate, pair.key) == nil)
        #expect(failure(folder + "/none", pair.key) == "\(folder)/none cannot be read: No such file or directory")
        for path in [folder, empty, broken, pair.key] {
            #expect(failure(path, pair.key) == "\(path) holds no certificate in PEM")
        }
        for path in [folder, empty, pair.certificate, encrypted] {
            #expect(
                failure(pair.certificate, path) == "\(path) holds no private key in PEM that is not encrypted")
        }
        #expect(
            failure(pair.certificate, other.key)
                == "the key in \(other.key) is not that of the certificate in \(pair.certificate)")
        #expect(
            failure(pair.certificate, pair.key, authorities: empty) == "\(empty) holds no certificate in PEM")
    }

    @Test("files that changed are read again once they have been the same twice; a broken pair leaves the old in force")
    func reload() async throws {
        let credentials = try TLSCredentials(certificate: pair.certificate, key: pair.key)
        let server = try await HTTPServer.start(
            host: "127.0.0.1", port: 0, group: TestServer.group, tls: credentials,
            onRequest: { _, loop in loop.makeSucceededFuture(HTTPResponse(status: .ok)) },
            onUpgrade: { _, _ in .accept { _ in Echo() } }
        ).get()
        let port = try #require(server.localAddress?.port)
        let options = TLSSocket.Options(authority: authority.authority)
        let first = try TLSSocket(port: port, options)
        #expect(first.openWebSocket().hasPrefix("HTTP/1.1 101 "))
        #expect(look(credentials) == "unchanged")
        #expect(look(credentials) == "unchanged")

        try await authority.issue("server")
        #expect(look(credentials) == "unchanged", "it may still be written")
        #expect(look(credentials) == "loaded")
        #expect(look(credentials) == "unchanged")
        let second = try TLSSocket(port: port, options)
        #expect(second.certificate != first.certificate)
        first.sendText("still here")
        #expect(first.receiveFrame()?.payload == Array("still here".utf8))

        let key = try String(contentsOfFile: pair.key, encoding: .utf8)
        try write("no key", to: pair.key)
        #expect(look(credentials) == "unchanged")
        let failure = "\(pair.key) holds no private key in PEM that is not encrypted"
        #expect(look(credentials) == failure)
        #expect(look(credentials) == "unchanged", "it is said once")
        #expect(look(credentials, isForced: true) == failure)
        #expect(try TLSSocket(port: port, options).certificate == second.certificate)
        try write(key, to: pair.key)
        #expect(look(credentials, isForced: true) == "loaded")
        #expect(try TLSSocket(port: port, options).certificate == second.certificate)
        try await server.close().get()
    }

    @Test("it knows when the certificate ends")
    func end() async throws {
        let expired = try await authority.issue("expired", isExpired: true)
        let credentials = try TLSCredentials(certificate: expired.certificate, key: expired.key)
        #expect(credentials.value.certificates[0].notAfter == 1_577_923_200)
        // Behind one that lasts longer: the first to end counts.
        let chain = try [pair, expired].map { try String(contentsOfFile: $0.certificate, encoding: .utf8) }
        let both = try TemporaryDirectory.make("tls") + "/both.pem"
        try write(chain.joined(), to: both)
        let chained = try TLSCredentials(certificate: both, key: pair.key)
        #expect(chained.value.certificates[0].notAfter == 1_577_923_200)
    }

    @Test("the local authority vouches for this machine's names, and could for no others")
    func localAuthority() async throws {
        let folder = try TemporaryDirectory.make("tls")
        let made = try LocalAuthority.issue(days: 820)
        for (name, bytes) in [("ca.pem", made.authority), ("cert.pem", made.certificate), ("key.pem", made.key)] {
            try Data(bytes).write(to: URL(fileURLWithPath: "\(folder)/\(name)"))
        }
        let credentials = try TLSCredentials(certificate: "\(folder)/cert.pem", key: "\(folder)/key.pem")
        let days = (credentials.value.certificates[0].notAfter - Int64(Date().timeIntervalSince1970)) / 86400
        #expect((818...820).contains(days))
        let environment = ["PATH": "/usr/bin:/bin"]
        for name in ["localhost", "127.0.0.1", "::1"] {
            let purpose = name == "localhost" ? "-verify_hostname" : "-verify_ip"
            let verified = try await ChildProcess.run(
                "openssl",
                ["verify", "-x509_strict", "-purpose", "sslserver", purpose, name, "-CAfile", folder + "/ca.pem"]
                    + [folder + "/cert.pem"], environment: environment)
            #expect(verified.exit == .status(0), "\(name): \(verified.errorText)")
        }
        let shown = try await ChildProcess.run(
            "openssl", ["x509", "-in", folder + "/ca.pem", "-noout", "-ext", "nameConstraints,basicConstraints"],
            environment: environment)
        #expect(shown.text.contains("X509v3 Name Constraints: critical"), "\(shown.text)")
        #expect(shown.text.contains("DNS:localhost") && shown.text.contains("CA:TRUE, pathlen:0"), "\(shown.text)")
    }
}
