package import NIOCore
import NIOHTTP1
import Synchronization
import TLSClient
import Telemetry
package import WebSocketTransport
import WireProtocol

extension Router {
    /// Answers those who run the router, on a port of its own: `/healthz`, `/readyz`, `/metrics`, and `/nodes`, which with
    /// `?key=K` also tells their order for that key. Fails with `HTTPServerError` when it cannot listen.
    package func serveInternally(host: String, port: Int, group: any EventLoopGroup) -> EventLoopFuture<HTTPServer> {
        let core = core
        return HTTPServer.startInternal(
            host: host, port: port, group: group, onAcceptFailure: core.cannotAccept,
            paths: [
                "/healthz": { _, loop in loop.makeSucceededFuture(.text("ok\n")) },
                "/readyz": { _, loop in loop.makeSucceededFuture(Self.readiness(core)) },
                "/metrics": { _, loop in loop.makeSucceededFuture(Self.metrics(core)) },
                "/nodes": { request, loop in
                    let body = NodeTableReport.bytes(core.nodes, key: request.query("key"), now: .now())
                    let headers: HTTPHeaders = ["Content-Type": "application/json"]
                    return loop.makeSucceededFuture(
                        HTTPResponse(status: .ok, headers: headers, body: ByteBuffer(bytes: body)))
                },
            ])
    }

    private static func readiness(_ core: RouterCore) -> HTTPResponse {
        let reason: String
        if core.isDraining {
            reason = "draining"
        } else if core.nodes.nodes.contains(where: { $0.state == .ready }) {
            return .text("ready\n")
        } else {
            reason = "no node is ready"
        }
        return .error(.serviceUnavailable, reason: "not_ready", message: reason, headers: ["Retry-After": "1"])
    }

    private static func metrics(_ core: RouterCore) -> HTTPResponse {
        var text = MetricsText()
        text.gauge(
            "martlet_router_connections", help: "Open connections of clients, tunnels included.",
            Double(core.openConnections))
        text.counter(
            "martlet_router_handovers_total", help: "Connections that a node of this host took over.",
            core.handedOver.load(ordering: .relaxed))
        text.counter(
            "martlet_router_reuses_total", help: "Requests for which a connection to their node was there already.",
            core.reuses.load(ordering: .relaxed))
        let shown = [core.configuration.nodeTLS?.value.certificate].compactMap(\.self)
        for certificate in (core.configuration.tls?.value.certificates ?? []) + shown {
            text.certificate(certificate.file, notAfter: certificate.notAfter)
        }
        text.counter(
            "martlet_accept_failures_total",
            help: "Tries to take a connection that failed, as for want of descriptors; ten a second while it lasts.",
            core.failedAccepts.count)
        let table = core.nodes
        for state in RoutedNode.State.allCases {
            text.gauge(
                "martlet_router_nodes", help: "Nodes that it knows, by what Redis says of them.",
                Double(table.nodes.count { $0.state == state }), labels: ["state": state.rawValue])
        }
        NodeMetrics.write(table, core.meters, to: &text, now: .now())
        let (anomalies, refusals) = (core.gate.addresses.anomalies, core.gate.refusals)
        for cause in AnomalyCause.allCases {
            text.counter(
                "martlet_anomaly_total", help: "What clients did that none should.", anomalies[cause] ?? 0,
                labels: ["cause": cause.rawValue])
        }
        for reason in GateRefusal.Reason.allCases {
            text.counter(
                "martlet_connections_refused_total", help: "Connections and handshakes over a limit.",
                refusals[reason] ?? 0, labels: ["reason": reason.rawValue])
        }
        for (answer, count) in core.answers.counts {
            let labels: MetricsText.Labels = ["status": String(answer.status)]
            if answer.isUpgrade {
                text.counter(
                    "martlet_router_upgrades_total",
                    help: "Requests for a WebSocket that were answered; 101 opened one.",
                    count, labels: labels)
            } else {
                text.counter(
                    "martlet_router_requests_total", help: "Other requests that were answered.", count, labels: labels)
            }
        }
        return HTTPResponse(
            status: .ok, headers: ["Content-Type": MetricsText.contentType], body: ByteBuffer(bytes: text.bytes))
    }
}

/// How many requests were answered how.
final class AnswerCounts: Sendable {
    struct Answer: Hashable, Sendable {
        let isUpgrade: Bool
        let status: Int
    }

    private let table = Mutex<[Answer: Int]>([:])

    func add(isUpgrade: Bool, status: Int) {
        table.withLock { $0[Answer(isUpgrade: isUpgrade, status: status), default: 0] += 1 }
    }

    var total: Int { table.withLock { $0.values.reduce(0, +) } }

    /// By status.
    var counts: [(key: Answer, value: Int)] { table.withLock { $0 }.sorted { $0.key.status < $1.key.status } }
}

enum NodeTableReport {
    /// `{"nodes":[{"node","address","state","late","sessions","weight","url","ejected_ms","down"}]}` by name, `down` null
    /// or why its checks leave it out; with a key also `"key"`, `"order"`, the names from its first choice on, the ejected
    /// left out, and `"route"`, as `KeyRoute` writes it.
    static func bytes(_ table: NodeTable, key: String?, now: NIODeadline) -> [UInt8] {
        var out = JSONWriter()
        out.beginObject()
        out.key("nodes")
        out.beginArray()
        for node in table.nodes {
            out.beginObject()
            out.member("node", node.name)
            out.member("address", node.address)
            out.member("state", node.state.rawValue)
            out.member("late", node.isLate)
            out.member("sessions", node.sessions)
            out.member("weight", node.weight)
            out.key("url")
            if let url = node.url { out.value(url) } else { out.null() }
            out.member("ejected_ms", (table.ejected(node, now: now)?.nanoseconds ?? 0) / 1_000_000)
            out.key("down")
            if let failure = table.failingCheck(node) { out.value(failure.word) } else { out.null() }
            out.endObject()
        }
        out.endArray()
        if let key {
            out.member("key", key)
            out.key("order")
            out.beginArray()
            for node in table.order(for: key, now: now) { out.value(node.name) }
            out.endArray()
            out.key("route")
            table.route(for: key, now: now).writeEntries(to: &out)
        }
        out.endObject()
        return out.bytes + [0x0A]
    }
}
