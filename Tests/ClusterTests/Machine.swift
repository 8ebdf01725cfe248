import TestSupport
import Testing

/// How much of the machine the tests of this target may use at once: a cluster that mostly waits costs 1, one that
/// keeps the cores busy costs all.
enum Machine {
    static let capacity = 6
    private static let gate = Gate(capacity)

    static func with(
        _ options: Cluster.Options = Cluster.Options(),
        weight: Int = 1,
        _ body: @Sendable (Cluster) async throws -> Void
    ) async throws {
        try await gate.run(weight: weight) { try await Cluster.with(options, body) }
    }

    static func with(weight: Int = 1, _ body: @Sendable () async throws -> Void) async throws {
        try await gate.run(weight: weight, body)
    }
}

/// Three nodes and a router for all tests that harm nothing. It ends with the test process.
enum SharedCluster {
    private static let cluster = Task { try await Cluster.start(Cluster.Options(nodes: 3, routers: 1)) }

    static func use(_ body: @Sendable (Cluster) async throws -> Void) async throws {
        try await Machine.with {
            let cluster = try await cluster.value
            try await body(cluster)
            try cluster.checkClients()
            try await cluster.checkAccess()
        }
    }
}

extension Trait where Self == TimeLimitTrait {
    /// For tests that wait for the machine: their wait counts, too, and is most of what they take on a slow one.
    static var patience: Self { .timeLimit(.minutes(10)) }
}

/// A room name that no other test uses.
func newRoom(_ name: String = "room") -> String { "\(name)-\(UInt32.random(in: 0...UInt32.max))" }

/// A user name that no other test uses.
func newUser(_ name: String = "user") -> String { "\(name)-\(UInt32.random(in: 0...UInt32.max))" }
