package import NIOCore

/// Where a router learns of the nodes.
package protocol NodeDirectory: Sendable {
    /// From now on tells every list of nodes that it reads, on a thread of its own choosing, one at a time; nothing while
    /// it can read none. Called once.
    func start(_ changed: @escaping @Sendable ([RoutedNode]) -> Void)

    func stop() -> EventLoopFuture<Void>
}
