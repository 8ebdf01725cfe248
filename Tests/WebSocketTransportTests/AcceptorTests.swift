import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Testing
import WebSocketTransport

@Suite("A listening socket")
struct AcceptorTests {
    private static let group = MultiThreadedEventLoopGroup.singleton

    /// A client's socket, which blocks.
    private static func connect(_ address: SocketAddress?) throws -> CInt {
        let address = try #require(address)
        let descriptor = socket(address.protocol == .inet6 ? AF_INET6 : AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let result = address.withSockAddr { Glibc.connect(descriptor, $0, socklen_t($1)) }
        let reason = errno
        guard result == 0 else {
            close(descriptor)
            throw IOError(errnoCode: reason, reason: "connect")
        }
        return descriptor
    }

    /// What read(2) says: bytes, 0 at the end, or the errno as a negative number.
    private static func read(_ descriptor: CInt) -> Int {
        var byte: UInt8 = 0
        let count = Glibc.read(descriptor, &byte, 1)
        return count < 0 ? -Int(errno) : count
    }

    @Test("a connection that is not admitted is reset, and no loop hears of it", arguments: ["127.0.0.1", "::1"])
    func refused(host: String) async throws {
        let peers = Mutex<[IPAddress]>([])
        let served = Mutex(0)
        let acceptor = try Acceptor.start(
            on: .bind(host: host, port: 0), group: Self.group,
            admit: { peer -> Int? in
                peers.withLock { $0.append(peer) }
                return nil
            },
            serve: { _, _, _ in served.withLock { $0 += 1 } })
        let client = try Self.connect(acceptor.localAddress)
        #expect(Self.read(client) == -Int(ECONNRESET))
        close(client)
        try await acceptor.stop().get()
        #expect(peers.withLock { $0.map(\.description) } == [host])
        #expect(served.withLock { $0 } == 0)
    }

    @Test("an admitted connection is set up on a loop with its peer and its admission; a setup that throws ends it")
    func admitted() async throws {
        struct No: Error {}
        let told = Mutex<[String]>([])
        let (closes, close) = AsyncStream.makeStream(of: Void.self)
        let acceptor = try Acceptor.start(
            on: .bind(host: "localhost", port: 0), keepAlive: TCPKeepAlive(idle: 7, interval: 3, probes: 2),
            group: Self.group,
            admit: { _ in 7 },
            serve: { channel, peer, number in
                channel.eventLoop.preconditionInEventLoop()
                var text = "\(number) loopback \(peer.isLoopback)"
                try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
                    for option in [TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT] {
                        var value: CInt = 0
                        var length = socklen_t(MemoryLayout<CInt>.size)
                        getsockopt($0, Int32(IPPROTO_TCP), option, &value, &length)
                        text += " \(value)"
                    }
                }
                let isFirst = told.withLock { told in
                    told.append(text)
                    return told.count == 1
                }
                guard isFirst else { throw No() }
                channel.closeFuture.whenComplete { _ in close.yield() }
            })
        let first = try Self.connect(acceptor.localAddress)
        shutdown(first, Int32(SHUT_WR))
        #expect(Self.read(first) == 0)
        for await _ in closes { break }
        let second = try Self.connect(acceptor.localAddress)
        #expect(Self.read(second) == 0)
        #expect(told.withLock { $0 } == Array(repeating: "7 loopback true 1 7 3 2", count: 2))
        for client in [first, second] { Glibc.close(client) }
        try await acceptor.stop().get()
    }

    @Test("a port in use is an error; once stopped, twice at that, it is free again")
    func ports() async throws {
        func start(_ port: Int) throws -> Acceptor {
            try Acceptor.start(
                on: .bind(host: "127.0.0.1", port: port), group: Self.group, admit: { _ -> Int? in nil },
                serve: { _, _, _ in })
        }
        let one = try start(0)
        let port = try #require(one.localAddress?.port)
        let error = #expect(throws: IOError.self) { _ = try start(port) }
        #expect(error?.errnoCode == EADDRINUSE)
        try await one.stop().get()
        try await one.stop().get()
        #expect(throws: IOError.self) { _ = try Self.connect(one.localAddress) }
        let two = try start(port)
        try await two.stop().get()
    }
}
