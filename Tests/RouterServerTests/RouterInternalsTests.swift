import NIOCore
import NIOPosix
import Testing
import WebSocketTransport

@testable import RouterServer

@Suite("The internal port of a router")
struct RouterInternalsTests {
    @Test("T29: it tells the nodes, health and figures to GET and HEAD, and speaks no WebSocket")
    func endpoints() async throws {
        let node = try await FakeNode.start("node-1") { _ in "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" }
        try await withRouter(over: [node.node]) { router, port, directory in
            let server = try await router.serveInternally(
                host: "127.0.0.1", port: 0, group: MultiThreadedEventLoopGroup.singleton
            ).get()
            func ask(_ request: String) async throws -> (head: String, body: String) {
                let wire = try await Wire.connect(port: server.localAddress?.port ?? 0)
                defer { wire.close() }
                try await wire.send("\(request) HTTP/1.1\r\nHost: a\r\n\r\n")
                if request.hasPrefix("HEAD") { return (try await wire.receiveHead(), "") }
                return try await wire.receiveMessage()
            }
            #expect(
                try await ask("GET /nodes?key=x%22y").body
                    == #"{"nodes":[{"node":"node-1","address":"127.0.0.1:\#(node.port)","state":"ready","late":false,"sessions":0,"weight":100,"url":null,"ejected_ms":0,"down":null}],"key":"x\"y","order":["node-1"],"route":[{"node":"node-1","place":1,"verdict":"picked","why":"picked: the first choice, 0 of 250 sessions","weight":100,"sessions":0,"picks":0,"bound":250}]}"#
                    + "\n"
            )
            #expect(try await ask("GET /healthz").body == "ok\n")
            #expect(try await ask("GET /readyz").body == "ready\n")
            #expect(try await ask("HEAD /metrics").head.hasPrefix("HTTP/1.1 200 "))
            #expect(try await ask("POST /metrics").head.hasPrefix("HTTP/1.1 405 "))
            #expect(try await ask("GET /").head.hasPrefix("HTTP/1.1 404 "))
            #expect(try await ask("GET /ws").head.hasPrefix("HTTP/1.1 404 "))

            let client = try await Wire.connect(port: port)
            try await client.send("GET /rooms HTTP/1.1\r\nHost: a\r\n\r\n")
            _ = try await client.receiveMessage()
            let metrics = try await ask("GET /metrics").body
            #expect(metrics.contains("\nmartlet_router_connections 1\n"))
            #expect(metrics.contains("\nmartlet_router_nodes{state=\"ready\"} 1\n"))
            #expect(metrics.contains("\nmartlet_router_picks_total{node=\"node-1\"} 0\n"))
            #expect(metrics.contains("\nmartlet_router_spills_total{node=\"node-1\"} 0\n"))
            #expect(metrics.contains("\nmartlet_router_requests_total{status=\"200\"} 1\n"))
            #expect(metrics.contains("\nmartlet_router_left_out{node=\"node-1\",cause=\"check\"} 0\n"))
            #expect(metrics.contains("\nmartlet_router_left_out{node=\"node-1\",cause=\"failure\"} 0\n"))
            client.close()

            directory.set([])
            #expect(try await ask("GET /readyz").head.hasPrefix("HTTP/1.1 503 "))
            try await server.close().get()
        }
        try await node.stop()
    }
}
