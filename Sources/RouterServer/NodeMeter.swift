import Synchronization

/// What the connections of this router to one node came to, over the node's restarts, since it came into the list.
///
/// Reads count on all loops with relaxed additions and no lock.
final class NodeMeter: Sendable {
    /// Those in use, with tunnels; what was handed over is none of them.
    let connections = Atomic(0)
    /// Bytes of HTTP and of tunnels, inside TLS.
    let toNode = Atomic(0)
    let fromNode = Atomic(0)
    private let connects = Mutex(ConnectTimes())

    struct ConnectTimes: Sendable {
        /// Seconds; the last bucket has no bound.
        static let bounds = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

        var counts = [Int](repeating: 0, count: bounds.count + 1)
        var sum = 0.0

        mutating func add(_ seconds: Double) {
            counts[Self.bounds.firstIndex { seconds <= $0 } ?? Self.bounds.count] += 1
            sum += seconds
        }
    }

    /// - Parameter seconds: until a request could be sent, the handshake of TLS included.
    func connected(in seconds: Double) { connects.withLock { $0.add(seconds) } }

    var connectTimes: ConnectTimes { connects.withLock { $0 } }
}

/// The meters by the nodes' names.
final class NodeMeters: Sendable {
    private let table = Mutex<[String: NodeMeter]>([:])

    func meter(of name: String) -> NodeMeter {
        table.withLock { table in
            if let meter = table[name] { return meter }
            let meter = NodeMeter()
            table[name] = meter
            return meter
        }
    }

    /// Forgets all but these, and those to which connections are open.
    func keep(only names: Set<String>) {
        table.withLock { table in
            table = table.filter { names.contains($0.key) || $0.value.connections.load(ordering: .relaxed) > 0 }
        }
    }
}

/// What one connection to a node carried; each byte counts in the node's meter, too. Confined to the connection's loop.
final class ProxiedTraffic {
    let meter: NodeMeter
    private(set) var toNode = 0
    private(set) var fromNode = 0
    private var isOpen = true
    /// Called when the connection to the node has ended, with the bytes sent and received.
    var whenClosed: (@Sendable (Int, Int) -> Void)?

    /// The connection is open.
    init(_ meter: NodeMeter) {
        self.meter = meter
        meter.connections.add(1, ordering: .relaxed)
    }

    func sent(_ bytes: Int) {
        toNode += bytes
        meter.toNode.add(bytes, ordering: .relaxed)
    }

    func received(_ bytes: Int) {
        fromNode += bytes
        meter.fromNode.add(bytes, ordering: .relaxed)
    }

    /// May be called again.
    func closed() { goesOn()(0, 0) }

    /// Whoever has the connection from now on counts in the meter, and calls this at its end, with what it sent and received.
    func goesOn() -> @Sendable (Int, Int) -> Void {
        guard isOpen else { return { _, _ in } }
        isOpen = false
        let (meter, toNode, fromNode, whenClosed) = (meter, toNode, fromNode, whenClosed)
        self.whenClosed = nil
        return { sent, received in
            meter.connections.subtract(1, ordering: .relaxed)
            whenClosed?(toNode + sent, fromNode + received)
        }
    }
}
