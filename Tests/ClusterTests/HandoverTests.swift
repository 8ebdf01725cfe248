import Foundation
import Glibc
import TestSupport
import Testing

/// Routers that give connections to nodes of their own host, with real processes.
@Suite("A connection that is handed over", .patience)
struct HandoverTests {
    private func figure(_ name: String, of router: ClusterProcess) async throws -> Int {
        let text = try await router.internals("/metrics").text
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
        return Int(line?.split(separator: " ").last ?? "") ?? -1
    }

    @Test("is the node's own: the router has none of it, and its death is nobody's")
    func outlives() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, routers: 1)) { cluster in
            let (router, room) = (cluster.routers[0], newRoom())
            var sessions: [Session] = []
            for _ in 0..<4 { sessions.append(try await cluster.connect(newUser(), to: router)) }
            for session in sessions { try await session.join(room) }
            #expect(try await figure("martlet_router_handovers_total", of: router) == 4)
            // The request for the figures is on the internal port.
            #expect(try await figure("martlet_router_connections", of: router) == 0)
            await router.kill()
            for session in sessions {
                try await session.say("from \(session.user)", in: room)
                for other in sessions where other.user != session.user {
                    _ = try await other.hears("from \(session.user)", in: room)
                }
            }
        }
    }

    @Test("brings the client's address, the request's id, and every byte that came with the head")
    func wholeBeginning() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
            defer { close(descriptor) }
            func address(_ text: String, _ port: Int) -> sockaddr_in {
                var address = sockaddr_in()
                address.sin_family = sa_family_t(AF_INET)
                address.sin_port = in_port_t(port).bigEndian
                inet_pton(AF_INET, text, &address.sin_addr)
                return address
            }
            func call(_ address: sockaddr_in, _ body: (CInt, UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
                withUnsafeBytes(of: address) { bytes in
                    bytes.baseAddress.map { body(descriptor, $0.assumingMemoryBound(to: sockaddr.self), 16) } ?? -1
                }
            }
            try #require(call(address("127.0.0.9", 0), bind) == 0)
            try #require(call(address("127.0.0.1", cluster.routers[0].port), connect) == 0)
            var bytes = Array(
                """
                GET /ws?key=\(newUser()) HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n
                """.utf8)
            let user = newUser()
            bytes += ClientFrame(ClientFrame.Opcode.text, text: #"{"type":"auth","user":"\#(user)"}"#).bytes
            #expect(write(descriptor, bytes, bytes.count) == bytes.count)
            var heard: [UInt8] = []
            var chunk = [UInt8](repeating: 0, count: 4096)
            while !String(decoding: heard, as: UTF8.self).contains(#""type":"welcome""#) {
                let count = read(descriptor, &chunk, chunk.count)
                try #require(count > 0, "\(String(decoding: heard, as: UTF8.self))")
                heard += chunk[..<count]
            }
            let connect = try await cluster.nodes[0].logged("the client") { $0["msg"]?.string == "connect" }
            #expect(connect["address"]?.string == "127.0.0.9")
            // The node may speak before the router has written its line.
            let handed = try await cluster.routers[0].logged("the handover") { $0["msg"]?.string == "handed over" }
            #expect(handed["client"]?.string == "127.0.0.9" && handed["node"]?.string == cluster.nodes[0].name)
            #expect(handed["request_id"] == connect["request_id"])
            #expect(handed["handed_over"]?.bool == true && handed["tries"]?.int == 1)
        }
    }

    @Test("is proxied, where that is the setting")
    func proxied() async throws {
        let options = Cluster.Options(nodes: 1, routers: 1, environment: ["MARTLET_HANDOVER": "off"])
        try await Machine.with(options) { cluster in
            let router = cluster.routers[0]
            let session = try await cluster.connect(newUser(), to: router)
            try await session.join(newRoom())
            #expect(try await figure("martlet_router_handovers_total", of: router) == 0)
            #expect(try await figure("martlet_router_connections", of: router) == 1)
        }
    }

    /// Waits for the router's patience (5 s) also on a busy machine.
    private static var patient: TestClient.Options {
        var options = TestClient.Options()
        options.timeout = .seconds(60)
        return options
    }

    /// The line of an upgrade that ended there after the patience, which was not waited for twice.
    private static func took(_ line: JSON, at node: ClusterProcess) -> Bool {
        let time =
            switch line["ms"] {
            case .double(let time): time
            case .int(let time): Double(time)
            default: Double.infinity
            }
        return line["node"]?.string == node.name && time < 9500
    }

    /// As `/proc` names them, `socket:[18632]`: the same in all processes that have it.
    private func sockets(of process: ClusterProcess) throws -> Set<String> {
        let folder = "/proc/\(try #require(process.process).pid)/fd"
        let names = try FileManager.default.contentsOfDirectory(atPath: folder)
        let targets = names.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)") }
        return Set(targets.filter { $0.hasPrefix("socket:") })
    }

    @Test("a node that stands still loses its clients to the next, and when it wakes up has nothing of them")
    func hung() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, routers: 1)) { cluster in
            let (router, home, other) = (cluster.routers[0], cluster.nodes[0], cluster.nodes[1])
            var found: [String] = []
            while found.count < 4 {
                let session = try await cluster.connect(newUser(), to: router)
                if session.node.hasPrefix(home.name) { found.append(session.user) }
                session.client.close(code: 1000, reason: "done")
                _ = try await session.client.closed()
            }
            let users = found
            let before = home.log.count
            home.pause()
            defer { home.resume() }
            let sessions = try await withThrowingTaskGroup(of: Session.self) { group in
                for user in users {
                    group.addTask { try await cluster.connect(user, to: router, options: Self.patient) }
                }
                return try await group.reduce(into: [Session]()) { $0.append($1) }
            }
            #expect(sessions.allSatisfy { $0.node.hasPrefix(other.name) })
            _ = try await poll(within: .seconds(10), "the router's lines") {
                let lines = router.log.filter { $0["msg"]?.string == "handed over" && $0["tries"]?.int == 2 }
                return lines.count == users.count && lines.allSatisfy { Self.took($0, at: other) } ? true : nil
            }
            let held = router.log.filter { $0["msg"]?.string == "a node does not answer" }
            #expect(held.map { $0["node"]?.string } == [home.name])

            home.resume()
            try await home.waitUntilReady()
            let room = newRoom()
            for session in sessions { try await session.join(room) }
            #expect(home.log.dropFirst(before).allSatisfy { $0["msg"]?.string != "connect" })
            let shared = try await poll(within: .seconds(10), "the woken node to let go of what it was sent") {
                let shared = try sockets(of: home).intersection(sockets(of: other).union(sockets(of: router)))
                return shared.isEmpty ? shared : nil
            }
            #expect(shared.isEmpty)
            // What it gets from now on it serves again.
            let back = try await poll(within: .seconds(60), "the woken node to serve") {
                let session = try await cluster.connect(users[0], to: router)
                return session.node.hasPrefix(home.name) ? session : nil
            }
            try await back.join(room)
        }
    }

    @Test("where the only node stands still the client is told so, by the router")
    func hungAlone() async throws {
        try await Machine.with(Cluster.Options(nodes: 1, routers: 1)) { cluster in
            cluster.nodes[0].pause()
            defer { cluster.nodes[0].resume() }
            let (router, node) = (cluster.routers[0], cluster.nodes[0])
            let told = try await refusal { _ = try await cluster.open("/ws", at: router, options: Self.patient) }
            #expect(told.status == 504)
            _ = try await router.logged("the refusal") { $0["status"]?.int == 504 && Self.took($0, at: node) }
        }
    }

    @Test("who says nothing of themselves is handed over, too, and led by the address to the same node")
    func byAddress() async throws {
        try await Machine.with(Cluster.Options(nodes: 3, routers: 1)) { cluster in
            let router = cluster.routers[0]
            var served: Set<String> = []
            for _ in 0..<3 {
                let client = try await cluster.open("/ws", at: router)
                #expect(client.header("set-cookie") == nil)
                client.send(["type": "auth", "user": .string(newUser())])
                served.insert(try await client.next("welcome")["node"]?.string ?? "")
            }
            #expect(served.count == 1)
            _ = try await poll(within: .seconds(10), "all to have been handed over") {
                try await figure("martlet_router_handovers_total", of: router) == 3 ? true : nil
            }
        }
    }

    @Test("a node that stands still holds up nobody but its own clients")
    func aside() async throws {
        try await Machine.with(Cluster.Options(nodes: 2, routers: 1)) { cluster in
            let router = cluster.routers[0]
            var users: [String: [String]] = [:]
            while users.count < 2 || users.contains(where: { $1.count < 4 }) {
                let session = try await cluster.connect(newUser(), to: router)
                let home = try #require(cluster.nodes.first { session.node.hasPrefix($0.name) })
                users[home.name, default: []].append(session.user)
            }
            let home = cluster.nodes[0]
            let stuck = try #require(users[home.name])
            let free = try #require(users[cluster.nodes[1].name]?.first)
            home.pause()
            defer { home.resume() }
            let ended = Watched(0)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for user in stuck.prefix(4) {
                    group.addTask {
                        _ = try? await cluster.connect(user, to: router)
                        ended.update { $0 += 1 }
                    }
                }
                // The router has given all of them to the node that stands still.
                _ = try await poll(within: .seconds(30), "their requests at the router") {
                    try await figure("martlet_router_connections", of: router) >= 4 ? true : nil
                }
                let other = try await cluster.connect(free, to: router)
                #expect(ended.current == 0, "the other client came in only after them")
                #expect(other.node.hasPrefix(cluster.nodes[1].name))
                home.resume()
                try await group.waitForAll()
            }
        }
    }
}
