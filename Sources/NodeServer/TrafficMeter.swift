import ClusterState
import NIOCore
import Telemetry

/// A message that is measured on its way through the node.
struct DeliveryMark: Sendable, Equatable {
    /// When its publish was read from its sender's connection, in monotonic nanoseconds.
    let cameAt: UInt64
    /// For how many messages it stands.
    let standsFor: UInt32
}

/// Which messages are measured: each while few come, then one of sixteen, which stands for all of them.
struct DeliverySampling {
    /// In a tick of the hub.
    static var fewest: Int { 32 }
    static var stride: UInt32 { 16 }
    private var seen = 0

    /// A tick of the hub begins.
    mutating func tick() { seen = 0 }

    /// For how many the next message stands; nil for one that is not measured.
    mutating func next() -> UInt32? {
        seen += 1
        if seen <= Self.fewest { return 1 }
        return (seen - Self.fewest) % Int(Self.stride) == 0 ? Self.stride : nil
    }
}

/// What one shard has given its sessions.
struct ShardTraffic: Sendable {
    /// Since the start.
    let deliveries: Int
    /// Since the last time that it was asked; nil when nothing was measured.
    let delays: Histogram?
}

/// What a node carries, over the last five seconds: read once a second, told with each heartbeat.
struct TrafficMeter {
    private static var span: TimeAmount { .seconds(5) }
    private var messagesIn = RateWindow(seconds: 5)
    private var messagesOut = RateWindow(seconds: 5)
    private var delays: [(at: NIODeadline, Histogram)] = []

    /// - Parameter publishes: since the start.
    mutating func read(publishes: Int, _ shards: [ShardTraffic], now: NIODeadline) {
        messagesIn.read(publishes, at: now.uptimeNanoseconds)
        messagesOut.read(shards.reduce(0) { $0 + $1.deliveries }, at: now.uptimeNanoseconds)
        for case let measured? in shards.map(\.delays) { delays.append((now, measured)) }
        delays.removeAll { now - $0.at >= Self.span }
    }

    var figures: NodeTraffic {
        var all = Histogram()
        for (_, measured) in delays { all.add(measured) }
        return NodeTraffic(
            messagesIn: messagesIn.perSecond, messagesOut: messagesOut.perSecond,
            p99Milliseconds: all.count == 0 ? nil : Double(all.quantile(0.99)) / 1e6)
    }
}
