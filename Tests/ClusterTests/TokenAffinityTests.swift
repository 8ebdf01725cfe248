import MartletClient
import TestSupport
import Testing

@Suite("Clients of the Swift SDK with tokens, behind a router", .patience)
struct TokenAffinityTests {
    private static let settings = [
        "MARTLET_AUTH": "token", "MARTLET_TOKEN_SECRET": "a secret of the tests, long enough for all",
    ]

    private func token(_ user: String) async throws -> String {
        let output = try await MartletProgram.run(["token", "mint", user], environment: Self.settings)
        try #require(output.exit == .status(0), "\(output.errorText)")
        return String(output.text.prefix { $0 != "\n" })
    }

    /// Where a client comes to be online.
    private func place(of client: MartletClient) async throws -> (node: String, session: String) {
        let states = client.states()
        client.connect()
        for await state in states {
            if case .online(let node, let session) = state { return (node, session) }
            if case .closed(_, let reason) = state { throw TimedOut("the client ended: \(reason)") }
        }
        throw TimedOut("the client said no end")
    }

    @Test(
        "are where admin route says, of one address though they be, and are handed over; those who say no key share a node"
    )
    func byUser() async throws {
        var options = Cluster.Options(nodes: 3, routers: 1, environment: Self.settings)
        options.nodesHaveURLs = true
        try await Machine.with(options, weight: 2) { cluster in
            let router = cluster.routers[0]
            let url = "ws://127.0.0.1:\(router.port)/ws"
            var homes: [String: String] = [:]
            for user in ["grüße & co/1"] + (0..<30).map({ _ in newUser() }) where Set(homes.values).count < 3 {
                homes[user] = try await cluster.admin("route", user)["node"]?.string
            }
            try #require(Set(homes.values).count == 3)
            var unkept: Set<String> = []
            for (user, home) in homes {
                let token = try await token(user)
                for credential in [MartletClient.Credential.token(token), .tokenProvider { token }] {
                    let client = try MartletClient(url: url, credential: credential)
                    let (node, session) = try await place(of: client)
                    #expect(node == home)
                    let process = try #require(cluster.nodes.first { $0.name == node })
                    let connect = try await process.logged("the connect") { $0["session"]?.string == session }
                    let line = try await router.logged("the handover") {
                        $0["msg"]?.string == "handed over" && $0["request_id"] == connect["request_id"]
                    }
                    #expect(line["node"]?.string == home && line["key"]?.string == "key")
                    client.close()
                }
                let located = try MartletClient(url: url, credential: .token(token), locatesNode: true)
                #expect(try await place(of: located).node == home)
                located.close()
                let unnamed = try MartletClient(url: url, credential: .token(token), keepsToNode: false)
                unkept.insert(try await place(of: unnamed).node)
                unnamed.close()
            }
            #expect(unkept.count == 1)
            let lines = router.log.filter { $0["path"]?.string == "/ws" }
            #expect(
                lines.filter { $0["msg"]?.string == "handed over" }.count == 3 * homes.count, "not those who located")
            #expect(!lines.contains { homes.keys.contains(where: $0.text.contains) }, "no user is in the log")
        }
    }
}
