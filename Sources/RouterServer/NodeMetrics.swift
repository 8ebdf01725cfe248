import NIOCore
import Synchronization
import Telemetry

/// What a router tells of each node, by its name.
enum NodeMetrics {
    static func write(_ table: NodeTable, _ meters: NodeMeters, to text: inout MetricsText, now: NIODeadline) {
        for node in table.nodes {
            let causes = [
                ("check", table.failingCheck(node) != nil), ("failure", table.ejected(node, now: now) != nil),
            ]
            for (cause, isLeftOut) in causes {
                text.gauge(
                    "martlet_router_left_out",
                    help: "1 while others get the node's new clients, as far as there are any, by what it failed.",
                    isLeftOut ? 1 : 0, labels: ["node": node.name, "cause": cause])
            }
        }
        for (node, counts) in table.pickCounts { write(counts, of: node, to: &text) }
        for node in table.nodes { write(meters.meter(of: node.name), of: node.name, to: &text) }
    }

    private static func write(_ counts: NodeTable.PickCounts, of node: String, to text: inout MetricsText) {
        let labels: MetricsText.Labels = ["node": node]
        text.counter(
            "martlet_router_picks_total", help: "Clients for whom the node was picked, also where it failed them.",
            counts.picks, labels: labels)
        text.counter(
            "martlet_router_spills_total",
            help: "Clients whose first choice the node was, and who went elsewhere as it was at its bound.",
            counts.spills, labels: labels)
        text.counter(
            "martlet_router_ejections_total", help: "Times that the node was left out as it did not serve a client.",
            counts.ejections, labels: labels)
        text.counter(
            "martlet_router_checks_total", help: "Checks that said something of the node.", counts.checks,
            labels: labels)
        text.counter(
            "martlet_router_check_failures_total", help: "Those that were not answered with 200.", counts.failedChecks,
            labels: labels)
    }

    private static func write(_ meter: NodeMeter, of node: String, to text: inout MetricsText) {
        text.gauge(
            "martlet_router_node_connections", help: "Connections to the node that are in use, tunnels included.",
            meter.connections.load(ordering: .relaxed), labels: ["node": node])
        for (way, bytes) in [
            ("to_node", meter.toNode.load(ordering: .relaxed)), ("from_node", meter.fromNode.load(ordering: .relaxed)),
        ] {
            text.counter(
                "martlet_router_bytes_total", help: "Bytes that were proxied, inside TLS.", bytes,
                labels: ["node": node, "way": way])
        }
        let times = meter.connectTimes
        text.histogram(
            "martlet_router_connect_seconds",
            help: "How long it took to connect to the node for a request, with the handshake of TLS.",
            bounds: NodeMeter.ConnectTimes.bounds, counts: times.counts, sum: times.sum, labels: ["node": node])
    }
}
