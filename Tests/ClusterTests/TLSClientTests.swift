import Foundation
import MartletClient
import TestSupport
import Testing

/// What stands on the other side of TLS: Redis, or who ends `wss://`.
@Suite("TLS of clients", .patience)
struct TLSClientTests {
    @Test(
        "a cluster whose Redis is rediss:// and asks for certificates speaks nothing else to it, and comes back to it")
    func redis() async throws {
        let certificates = try await Certificates()
        let (server, own) = (try await certificates.issue("redis"), try await certificates.issue("node"))
        let port = try FreePort.next()
        let redis = [
            "MARTLET_REDIS_URL": "rediss://localhost:\(port)", "MARTLET_REDIS_TLS_CA": certificates.authority,
            "MARTLET_REDIS_TLS_CERT": own.certificate, "MARTLET_REDIS_TLS_KEY": own.key,
        ]
        var options = Cluster.Options(nodes: 2, routers: 1, isDurable: true, environment: redis)
        options.redisArguments = [
            "--tls-port", "\(port)", "--tls-cert-file", server.certificate, "--tls-key-file", server.key,
            "--tls-ca-cert-file", certificates.authority, "--tls-auth-clients", "yes",
        ]
        try await Machine.with(options) { cluster in
            let room = newRoom()
            let alice = try await cluster.connect("alice", to: 0)
            let bob = try await cluster.connect("bob", to: cluster.routers[0])
            try await alice.join(room)
            try await bob.join(room)
            try await alice.say("over TLS", in: room)
            _ = try await bob.hears("over TLS", in: room)
            let list = try await cluster.redis.command("CLIENT", "LIST").string ?? ""
            let martlets = list.split(separator: "\n").filter { $0.contains(" name=martlet") }
            #expect(martlets.count >= 5, "\(list)")
            #expect(martlets.allSatisfy { $0.contains(" laddr=127.0.0.1:\(port) ") }, "\(list)")

            let environment = redis.merging(["MARTLET_REDIS_PREFIX": cluster.prefix]) { $1 }
            let nodes = try await MartletProgram.run(["admin", "nodes"], environment: environment)
            #expect(nodes.exit == .status(0) && nodes.text.contains("node-b"), "\(nodes.errorText)")

            await cluster.redis.kill()
            try await cluster.redis.startAgain()
            for node in cluster.nodes { try await node.waitUntilReady() }
            try await poll(within: .seconds(20), "a message after Redis came back") {
                (try? await alice.say("again", in: room)).map { _ in () }
            }
            _ = try await bob.hears("again", in: room)

            for (changes, words) in [
                (["MARTLET_REDIS_TLS_CA": "/nowhere"], "/nowhere cannot be read"),
                (["MARTLET_REDIS_TLS_KEY": ""], "a client certificate needs its key"),
                (["MARTLET_REDIS_URL": cluster.redis.url], "settings of TLS to Redis are given"),
                (["MARTLET_REDIS_TLS_SERVER_NAME": "other.example"], "does not name other.example"),
            ] {
                let refused = try await MartletProgram.run(
                    ["admin", "nodes"], environment: environment.merging(changes) { $1 })
                #expect(
                    refused.exit != .status(0) && refused.errorText.contains(words), "\(words): \(refused.errorText)")
                #expect(refused.standardErrorLines.count == 1)
            }
        }
    }

    @Test("G2: the Swift SDK over wss:// converses and comes back; whom it may not trust it says")
    func sdk() async throws {
        let certificates = try await Certificates()
        let pair = try await certificates.issue("server", names: ["DNS:localhost"])
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let line = try await FaultProxy.start(to: cluster.nodes[0].port)
            let relay = try await TLSRelay.start(pair, to: line.port)
            let url = "wss://localhost:\(relay.port)/ws"
            let trusted = MartletClient.TLSOptions(trustRoots: .file(certificates.authority))
            let alice = try ConformancePlayer(url: url, credential: .user("alice"), tls: trusted)
            alice.client.connect()
            let room = newRoom()
            alice.join([room])
            try await see(alice, "alice to be in the room") { !$0.joined.isEmpty }
            let long = String(repeating: "é", count: 20_000)
            alice.send([long], to: .room(room))
            try await see(alice, "an ack") { $0.fates.map(\.fate) == ["acked"] }
            await line.cut()
            try await see(alice, "alice to be back") { $0.joined.count == 2 }
            let bob = try await cluster.connect("bob", to: 0)
            try await bob.join(room)
            try await bob.say("hi", in: room)
            try await see(alice, "bob's message") { $0.messages.map(\.text) == [long, "hi"] }
            alice.client.close()
            try await bob.sees("left", "alice", in: room)

            for (address, options, words) in [
                (url, MartletClient.TLSOptions(), "the server's certificate is of no authority that is trusted here"),
                ("wss://127.0.0.1:\(relay.port)/ws", trusted, "the server's certificate does not name 127.0.0.1"),
                ("wss://localhost:\(line.port)/ws", trusted, "the server does not speak TLS on this port"),
                (url, MartletClient.TLSOptions(trustRoots: .file("/nowhere")), "/nowhere cannot be read"),
            ] {
                let client = try MartletClient(url: address, credential: .user("x"), tls: options)
                let states = client.states()
                client.connect()
                for await case .waiting(_, let reason) in states {
                    #expect(reason.contains(words), "\(reason)")
                    break
                }
                client.close()
            }
            let named = MartletClient.TLSOptions(trustRoots: .file(certificates.authority), serverName: "localhost")
            let other = try MartletClient(
                url: "wss://127.0.0.1:\(relay.port)/ws", credential: .user("x"), tls: named)
            let states = other.states()
            other.connect()
            for await case .online in states { break }
            other.close()
            await relay.process.end()
            await line.stop()
        }
    }

    @Test("martlet chat speaks wss://, martlet healthcheck https://")
    func commands() async throws {
        let certificates = try await Certificates()
        let pair = try await certificates.issue("server")
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let relay = try await TLSRelay.start(pair, to: cluster.nodes[0].port)
            let chat = [
                MartletProgram.path, "chat", "--url", "wss://localhost:\(relay.port)/ws", "--cacert",
                certificates.authority, "--user", "eve", newRoom(),
            ]
            let typed = try await ChildProcess.run(
                "sh", ["-c", #"echo hello | "$0" "$@""#] + chat, environment: ["PATH": "/usr/bin:/bin"])
            #expect(typed.exit == .status(0) && typed.text.contains("hello"), "\(typed.text) \(typed.errorText)")
            let health = "https://127.0.0.1:\(relay.port)/readyz"
            for (arguments, exit) in [
                (["--cacert", certificates.authority], 0), (["--insecure"], 0), ([], 1),
            ] as [([String], Int32)] {
                let output = try await MartletProgram.run(["healthcheck", health] + arguments)
                #expect(output.exit == .status(exit), "\(arguments): \(output.errorText)")
                #expect(exit == 0 || output.errorText.contains("not trusted"))
            }
            await relay.process.end()
        }
    }
}
