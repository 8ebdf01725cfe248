package import ClusterState
import NIOCore
package import WireProtocol

extension ClusterAdmin {
    /// Those that hold their lease, by name and start.
    package func routers() async throws -> [RouterReport] {
        try await routerStore.list().get().map { RouterReport(record: $0) }
    }
}

package struct RouterReport: Report {
    package enum State: String, Sendable {
        case ready
        /// It knows no node that takes clients.
        case notReady = "not_ready"
        case draining
    }

    package let record: RouterRecord

    package init(record: RouterRecord) {
        self.record = record
    }

    package var figures: RouterFigures { record.figures }

    package var state: State {
        if figures.draining { return .draining }
        return figures.readyNodes > 0 ? .ready : .notReady
    }

    package func write(to json: inout JSONWriter) {
        json.beginObject()
        json.member("router", figures.name)
        json.member("id", record.id)
        json.member("address", figures.address)
        json.member("internal_address", figures.internalAddress)
        json.member("state", state.rawValue)
        json.member("connections", figures.connections)
        json.member("requests", figures.requests)
        json.member("requests_per_second", figures.requestsPerSecond)
        json.member("nodes_ready", figures.readyNodes)
        json.member("nodes_known", figures.nodes)
        json.key("ejected")
        json.beginArray()
        for node in figures.ejected { json.value(node) }
        json.endArray()
        json.member("lease_ms", record.leaseMs)
        json.member("version", figures.version)
        json.member("started_at", figures.startedAt)
        json.endObject()
    }
}
