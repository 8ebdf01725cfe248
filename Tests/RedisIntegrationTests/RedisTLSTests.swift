import NIOCore
import RedisClient
import TLSClient
import TestSupport
import Testing

@Suite("rediss://", .timeLimit(.minutes(10)))
struct RedisTLSTests {
    /// A redis-server that speaks TLS on one port and plainly on another.
    private struct Server {
        let redis: RedisServerProcess
        let port: Int
        var url: String { "rediss://:secret@localhost:\(port)" }

        init(_ certificate: Certificates.Pair, _ authority: String, asksForCertificates: Bool = false) throws {
            let port = try FreePort.next()
            self.port = port
            redis = try RedisServerProcess(configuration: [
                "tls-port \(port)", "tls-cert-file \(certificate.certificate)", "tls-key-file \(certificate.key)",
                "tls-ca-cert-file \(authority)", "tls-auth-clients \(asksForCertificates ? "yes" : "no")",
                "requirepass secret",
            ])
        }
    }

    @Test("commands, scripts and subscriptions go over TLS, also megabytes of them, and again after a cut")
    func speaks() async throws {
        let certificates = try await Certificates()
        let server = try Server(try await certificates.issue("redis"), certificates.authority)
        let tls = TLSClientOptions(authorities: certificates.authority)
        let script = RedisScript(name: "echo", source: "return ARGV[1]")
        let client = try await RedisClient.connected(server.url, scripts: [script], tls: tls)
        #expect(try await client.run("CLIENT", "INFO").string?.contains(" laddr=127.0.0.1:\(server.port) ") == true)
        #expect(try await client.evaluate(script, keys: [], arguments: ["hi"]).get().string == "hi")
        let subscriber = try await SubscriberUnderTest.started(client: client)
        var events = subscriber.events.makeAsyncIterator()
        #expect(await events.next() == .hears)
        try await subscriber.subscribe("a")
        let long = String(repeating: "é", count: 1_000_000)
        try await client.run("PUBLISH", "a", .string(long))
        #expect(await events.next() == .message(long, on: "a"))

        var states = client.states().makeAsyncIterator()
        #expect(await states.next() == true)
        let operatorClient = try await RedisClient.connected("redis://:secret@127.0.0.1:\(server.redis.port)")
        try await operatorClient.run("CLIENT", "KILL", "TYPE", "pubsub")
        #expect(await events.next() == .deaf)
        #expect(await events.next() == .hears)
        try await operatorClient.run("CLIENT", "KILL", "LADDR", .string("127.0.0.1:\(server.port)"))
        #expect(await states.next() == false)
        #expect(await states.next() == true)
        #expect(try await client.run("PING") == .status("PONG"))
        for each in [client, operatorClient] { try await each.close().get() }
        try await subscriber.stop()
    }

    @Test("a Redis that asks for certificates gets one, and a client without says that it does")
    func mutual() async throws {
        let certificates = try await Certificates()
        let strangers = try await Certificates(authority: "Strangers")
        let server = try Server(
            try await certificates.issue("redis"), certificates.authority, asksForCertificates: true)
        let pair = try await certificates.issue("node")
        let client = try await RedisClient.connected(
            server.url,
            tls: TLSClientOptions(
                authorities: certificates.authority, certificate: pair.certificate, key: pair.key))
        #expect(try await client.run("PING") == .status("PONG"))
        try await client.close().get()

        let without = TLSClientOptions(authorities: certificates.authority)
        #expect(try await whyNot(server.url, without).hasSuffix("the server asks for a client certificate"))
        let stranger = try await strangers.issue("node")
        let other = TLSClientOptions(
            authorities: certificates.authority, certificate: stranger.certificate, key: stranger.key)
        #expect(
            try await whyNot(server.url, other).hasSuffix("the server does not trust the authority of our certificate"))
    }

    @Test("who is not whom the certificate says is refused, in one sentence without the password")
    func refused() async throws {
        let certificates = try await Certificates()
        let strangers = try await Certificates(authority: "Strangers")
        let trusted = TLSClientOptions(authorities: certificates.authority)
        let named = try Server(
            try await certificates.issue("named", names: ["DNS:redis.example", "DNS:*.wild.example"]),
            certificates.authority)
        #expect(try await whyNot(named.url, trusted).hasSuffix("the server's certificate does not name localhost"))
        #expect(
            try await whyNot("rediss://:secret@127.0.0.1:\(named.port)", trusted)
                .hasSuffix("the server's certificate does not name 127.0.0.1"))
        let foreign = TLSClientOptions(authorities: strangers.authority)
        let unknown = "the server's certificate is of no authority that is trusted here"
        #expect(try await whyNot(named.url, foreign).hasSuffix(unknown))
        #expect(try await whyNot(named.url, TLSClientOptions()).hasSuffix(unknown))
        for name in ["redis.example", "Redis.Example", "a.wild.example"] {
            let called = TLSClientOptions(authorities: certificates.authority, serverName: name)
            let client = try await RedisClient.connected(named.url, tls: called)
            try await client.close().get()
        }
        for name in ["wild.example", "a.b.wild.example", "redis.example.org"] {
            let called = TLSClientOptions(authorities: certificates.authority, serverName: name)
            #expect(try await whyNot(named.url, called).hasSuffix("the server's certificate does not name \(name)"))
        }
        // The certificate of an address is not one of the name that led there, nor is a common name one.
        for names in [["IP:127.0.0.1"], ["email:a@localhost"]] {
            let other = try Server(try await certificates.issue("localhost", names: names), certificates.authority)
            #expect(try await whyNot(other.url, trusted).hasSuffix("the server's certificate does not name localhost"))
        }

        let old = try Server(try await certificates.issue("old", isExpired: true), certificates.authority)
        #expect(try await whyNot(old.url, trusted).hasSuffix("the server's certificate has expired"))
        #expect(
            try await whyNot("redis://:secret@127.0.0.1:\(named.port)", TLSClientOptions())
                .hasSuffix("where Redis speaks TLS, the URL is rediss://"))
        let plain = "rediss://:secret@localhost:\(named.redis.port)"
        #expect(try await whyNot(plain, trusted, patience: .milliseconds(500)).contains("no TLS on this port"))
    }

    @Test("an address is good where the certificate has it; a certificate that was replaced counts at the next connect")
    func renewed() async throws {
        let certificates = try await Certificates()
        let server = try Server(
            try await certificates.issue("redis", names: ["IP:127.0.0.1"]), certificates.authority,
            asksForCertificates: true)
        let pair = try await certificates.issue("node", isExpired: true)
        let tls = TLSClientOptions(
            authorities: certificates.authority, certificate: pair.certificate, key: pair.key)
        let client = try RedisClient.started("rediss://:secret@127.0.0.1:\(server.port)", tls: tls)
        #expect(try await client.whyNotConnected().message.hasSuffix("our certificate has expired"))
        try await certificates.issue("node")
        try await client.whenConnected(within: .seconds(50)).get()
        try await client.close().get()
    }

    @Test("files that cannot be used are named")
    func files() async throws {
        let certificates = try await Certificates()
        let (one, two) = (try await certificates.issue("one"), try await certificates.issue("two"))
        for (options, words) in [
            (TLSClientOptions(authorities: "/nowhere"), "/nowhere cannot be read: No such file or directory"),
            (TLSClientOptions(authorities: one.key), "\(one.key) holds no certificate in PEM"),
            (
                TLSClientOptions(certificate: one.certificate, key: one.certificate),
                "\(one.certificate) holds no private key in PEM that is not encrypted"
            ),
            (
                TLSClientOptions(certificate: one.certificate, key: two.key),
                "the key in \(two.key) is not that of the certificate in \(one.certificate)"
            ),
            (TLSClientOptions(certificate: one.certificate), "a client certificate needs its key"),
            (TLSClientOptions(key: one.key), "the key of a client needs its certificate"),
            (
                TLSClientOptions(serverName: "::1"),
                "the server name ::1 is an address: give the name in the certificate"
            ),
        ] {
            let configuration = try RedisConfiguration(url: "rediss://localhost", tls: options)
            let error = #expect(throws: TLSFailure.self) { try configuration.checkFiles() }
            #expect(error?.description == words)
        }
    }

    private func whyNot(
        _ url: String, _ tls: TLSClientOptions, patience: TimeAmount = .seconds(30)
    ) async throws -> String {
        let client = try RedisClient.started(url, tls: tls) { $0.connectTimeout = patience }
        let message = try await client.whyNotConnected().message
        #expect(!message.contains("secret") && !message.contains("\n"))
        try await client.close().get()
        return message
    }
}
