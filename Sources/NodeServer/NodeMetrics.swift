import NIOCore
import Telemetry

/// What one shard counts. Confined to its loop; read by copying.
struct ShardMetrics: Sendable {
    var connections = 0
    var received = 0
    var rateLimited = 0
    var errors = 0
    var deliveries = 0
    var batches = 0
}

/// What the hub counts. Confined to its loop.
final class HubMetrics {
    var rooms = 0
    var publishes = 0
    var publishBatches = 0
    var publishesRefused = 0
    var relayed = 0
    var relayMalformed = 0
    var relayMisses = 0
    var logReads = 0
    var recoveryReads = 0
    var gaps = 0
    var transcoded = 0
    var deafness = 0
    var replicaWaits = 0
    var replicaWaitsShort = 0
    var orders = 0

    func snapshot(sessions: Int, waitingPublishes: Int, isConnected: Bool, hears: Bool, holdsLease: Bool) -> HubFigures
    {
        HubFigures(
            sessions: sessions, rooms: rooms, publishes: publishes, publishBatches: publishBatches,
            publishesRefused: publishesRefused, waitingPublishes: waitingPublishes, relayed: relayed,
            relayMalformed: relayMalformed, relayMisses: relayMisses, logReads: logReads, recoveryReads: recoveryReads,
            gaps: gaps, transcoded: transcoded, deafness: deafness, replicaWaits: replicaWaits,
            replicaWaitsShort: replicaWaitsShort, orders: orders,
            isConnected: isConnected, hears: hears, holdsLease: holdsLease)
    }
}

struct HubFigures: Sendable {
    let sessions: Int
    let rooms: Int
    let publishes: Int
    let publishBatches: Int
    let publishesRefused: Int
    let waitingPublishes: Int
    let relayed: Int
    let relayMalformed: Int
    let relayMisses: Int
    let logReads: Int
    let recoveryReads: Int
    let gaps: Int
    let transcoded: Int
    let deafness: Int
    let replicaWaits: Int
    let replicaWaitsShort: Int
    let orders: Int
    let isConnected: Bool
    let hears: Bool
    let holdsLease: Bool
}

/// The Prometheus text of one node.
enum NodeMetricsText {
    static func render(_ hub: HubFigures, _ shards: [ShardMetrics], upgradesRefused: Int, isReady: Bool) -> [UInt8] {
        var text = MetricsText()
        text.gauge("martlet_node_ready", help: "1 while the node can deliver.", isReady ? 1 : 0)
        text.gauge("martlet_redis_connected", help: "1 while the command connection is open.", hub.isConnected ? 1 : 0)
        text.gauge("martlet_redis_hears", help: "1 while the subscription hears itself.", hub.hears ? 1 : 0)
        text.gauge("martlet_lease_held", help: "1 while the node holds its lease.", hub.holdsLease ? 1 : 0)
        text.gauge("martlet_sessions", help: "Sessions with a user.", Double(hub.sessions))
        text.gauge("martlet_rooms", help: "Rooms with a session of this node.", Double(hub.rooms))
        text.gauge("martlet_publishes_waiting", help: "Publishes that wait for Redis.", Double(hub.waitingPublishes))
        text.counter("martlet_publishes_total", help: "Publishes taken from clients.", hub.publishes)
        text.counter("martlet_publish_batches_total", help: "Script calls that carried them.", hub.publishBatches)
        text.counter("martlet_publishes_refused_total", help: "Publishes answered with an error.", hub.publishesRefused)
        text.counter("martlet_relayed_total", help: "Messages that Redis relayed to this node.", hub.relayed)
        text.counter("martlet_relay_malformed_total", help: "Relayed messages that made no sense.", hub.relayMalformed)
        text.counter(
            "martlet_relay_misses_total", help: "Own messages that the relay did not bring in time.", hub.relayMisses)
        text.counter("martlet_log_reads_total", help: "Reads of a room's log to fill a hole.", hub.logReads)
        text.counter(
            "martlet_recovery_reads_total", help: "Reads of a room's log for clients that came back.", hub.recoveryReads
        )
        text.counter("martlet_gaps_total", help: "Holes that were told to clients.", hub.gaps)
        text.counter(
            "martlet_transcoded_total",
            help: "What goes to many and was put into protobuf, once for all who take that.", hub.transcoded)
        text.counter("martlet_deafness_total", help: "Times that the subscription was deaf.", hub.deafness)
        text.counter(
            "martlet_replica_waits_total", help: "Times that replicas were waited for (MARTLET_ACK_REPLICAS).",
            hub.replicaWaits)
        text.counter(
            "martlet_replica_waits_short_total", help: "Those after which too few replicas had all.",
            hub.replicaWaitsShort)
        text.gauge("martlet_orders", help: "Orders of operators in force (bans and their like).", Double(hub.orders))
        text.counter(
            "martlet_upgrades_refused_total", help: "New connections sent away because too many came at once.",
            upgradesRefused)
        for (index, shard) in shards.enumerated() {
            let labels: MetricsText.Labels = ["shard": String(index)]
            text.gauge(
                "martlet_connections", help: "Open WebSocket connections.", Double(shard.connections), labels: labels)
            text.counter(
                "martlet_messages_received_total", help: "Frames from clients.", shard.received, labels: labels)
            text.counter(
                "martlet_deliveries_total", help: "Room events given to a session; acks are none.", shard.deliveries,
                labels: labels)
            text.counter(
                "martlet_rate_limited_total", help: "Frames over the limit.", shard.rateLimited, labels: labels)
            text.counter("martlet_errors_total", help: "Error frames sent.", shard.errors, labels: labels)
        }
        return text.bytes
    }
}
