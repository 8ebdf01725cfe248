import Logging
import Testing
import WebSocketTransport

@testable import NodeServer

@Suite("A node's memory limit")
struct MemoryLimitTests {
    private func guards(_ bytes: Int) -> NodeGuards {
        var configuration = NodeConfiguration(name: "a", version: "1", authentication: .none)
        configuration.limits.memoryBytes = bytes
        let guards = NodeGuards(configuration, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        guards.watchMemory()
        return guards
    }

    @Test("T24: over it the node is not ready and takes nobody, below it and without it, it does")
    func limit() throws {
        let bytes = try #require(NodeGuards.residentBytes())
        #expect((1 << 20...1 << 36).contains(bytes))
        #expect(guards(bytes / 2).reasonNotReady != nil && guards(bytes / 2).gate.isOutOfMemory)
        for limit in [0, 1 << 40] { #expect(guards(limit).reasonNotReady == nil && !guards(limit).gate.isOutOfMemory) }
    }
}
