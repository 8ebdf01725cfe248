import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import Testing
import WebSocketTransport

private func environment(_ name: String) -> Int? {
    getenv(name).flatMap { Int(String(cString: $0)) }
}

/// No tests of their own: what a person runs beside a tool.
@Suite("By hand")
struct IdleMemoryTests {
    /// Resident memory that an idle connection costs the server's process, after each has sent and got one message.
    /// `MARTLET_TEST_IDLE=2000 swift test --filter idleMemory`; the clients are plain sockets of this process,
    /// which cost the kernel, not its heap.
    @Test("idle memory", .enabled(if: environment("MARTLET_TEST_IDLE") != nil))
    func idleMemory() throws {
        let count = environment("MARTLET_TEST_IDLE") ?? 0
        let server = try TestServer()
        var sockets: [RawSocket] = []
        sockets.reserveCapacity(2 * count)
        func open(_ number: Int) throws {
            for _ in 0..<number {
                let socket = try RawSocket(port: server.port)
                socket.openWebSocket()
                socket.send(clientText("hello"))
                #expect(socket.receiveFrame()?.payload == Array("hello".utf8))
                sockets.append(socket)
            }
        }
        try open(200)
        let before = residentBytes()
        try open(count)
        let after = residentBytes()
        print("idle connection: \(Double(after - before) / Double(count)) bytes of \(count)")
        sockets = []
        try server.stop()
    }

    private func residentBytes() -> Int {
        guard let file = fopen("/proc/self/statm", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        guard fgets(&line, 256, file) != nil else { return 0 }
        let fields = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self).split(
            separator: " ")
        return (fields.count > 1 ? Int(fields[1]) ?? 0 : 0) * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}
