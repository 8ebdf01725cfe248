import TestSupport
import Testing

@Suite("Two processes with one node name")
struct NodeNameTests {
    @Test("the first ends with one sentence and exit code 1, the second serves", .patience)
    func twins() async throws {
        try await Machine.with(Cluster.Options(nodes: 1)) { cluster in
            let first = cluster.nodes[0]
            let port = try FreePort.next()
            let own = ["MARTLET_PORT": "\(port)", "MARTLET_NODE_NAME": first.name]
            let second = ClusterProcess(
                .node, name: "twin", port: port, environment: cluster.environment.merging(own) { $1 })
            do {
                try await second.start()
                #expect(try await first.process?.waitForExit(within: .seconds(30)) == .status(1))
                let words = first.process?.output.current.standardErrorLines.last ?? ""
                #expect(words.hasPrefix("martlet: another process runs as node-a (node-a."))
                #expect(words.hasSuffix(" at 127.0.0.1:\(port)); give each node its own MARTLET_NODE_NAME"))
                try await second.waitUntilReady()
                let numbers = second.log.filter { $0["msg"]?.string == "registered" }
                #expect(numbers.count == 1, "it was not fenced in turn")
            } catch {
                await second.kill()
                throw error
            }
            await second.kill()
        }
    }
}
