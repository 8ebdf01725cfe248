import Logging
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import RouterServer

private let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

@Suite("Access lines of a router", .timeLimit(.minutes(5)))
struct AccessLogTests {
    private let upgrade =
        "GET /ws?key=k&token=secret HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

    /// As text, without the time.
    private func lines(_ log: LogRecorder, _ message: String) -> [[String: String]] {
        log.lines.withLock { $0.filter { $0.message == message } }.map { line in
            line.metadata.filter { $0.key != "ms" }.mapValues { "\($0)" }
        }
    }

    private func wait(_ log: LogRecorder, _ message: String) async throws -> [String: String] {
        try await poll(within: .seconds(60), "the line \(message)") { lines(log, message).first }
    }

    @Test("T3: a tunnel has a line when it begins and one when it ends, which tells its bytes; neither has a query")
    func tunnel() async throws {
        let node = try await FakeNode.start("a")
        let log = LogRecorder()
        try await withRouter(over: [node.node], log: log) { _, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade)
            let server = try await node.connection()
            let head = try await server.receiveHead()
            try await server.send(accepted)
            _ = try await client.receiveHead()
            let begun = try await wait(log, "upgrade")
            #expect(lines(log, "tunnel ended").isEmpty)
            try await client.send("12345")
            _ = try await server.receiveText(5)
            try await server.send("123")
            _ = try await client.receiveText(3)
            client.close()
            await server.end()
            server.close()
            let ended = try await wait(log, "tunnel ended")
            let id = try #require(begun["request_id"])
            #expect(
                begun == [
                    "method": "GET", "path": "/ws", "status": "101", "node": "a", "key": "key", "client": "127.0.0.1",
                    "request_id": id, "tries": "1", "handed_over": "false",
                ])
            #expect(
                ended == [
                    "node": "a", "client": "127.0.0.1", "request_id": id, "bytes_in": "\(head.utf8.count + 5)",
                    "bytes_out": "\(accepted.utf8.count + 3)",
                ])
            #expect(lines(log, "tunnel ended").count == 1)
        }
        try await node.stop()
    }

    @Test("a client that goes before it is answered is told by 499; one that went amid an answer by its status, cut")
    func cut() async throws {
        for (answer, status) in [("", "499"), ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "200")] {
            let node = try await FakeNode.start("a")
            let log = LogRecorder()
            try await withRouter(over: [node.node], log: log) { _, port, _ in
                let client = try await Wire.connect(port: port)
                try await client.send("GET /page?key=k HTTP/1.1\r\nHost: a\r\n\r\n")
                let server = try await node.connection()
                _ = try await server.receiveHead()
                if !answer.isEmpty {
                    try await server.send(answer)
                    _ = try await client.receiveHead()
                    _ = try await client.receiveText(4)
                }
                try await client.reset()
                await server.end()
                let line = try await wait(log, "request")
                #expect(line["status"] == status && line["cut"] == "true" && line["node"] == "a")
                #expect(line["bytes_out"] == String(answer.utf8.count))
                server.close()
            }
            #expect(lines(log, "request").count == 1)
            try await node.stop()
        }
    }

    @Test("a request that another node took has one line, with how many were asked")
    func tries() async throws {
        let nodes = [
            try await FakeNode.start("a") { _ in "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n" },
            try await FakeNode.start("b") { _ in "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n" },
        ]
        let log = LogRecorder()
        try await withRouter(over: nodes.map(\.node), log: log) { router, port, _ in
            let client = try await Wire.connect(port: port)
            try await client.send(upgrade)
            #expect(try await client.receiveHead().hasPrefix("HTTP/1.1 503 "))
            let line = try await wait(log, "upgrade")
            #expect(line["tries"] == "2" && line["status"] == "503" && line["handed_over"] == "false")
            #expect(line["node"] == router.core.order(for: "k").last?.name)
            client.close()
        }
        #expect(lines(log, "upgrade").count == 1)
        for node in nodes { try await node.stop() }
    }
}
