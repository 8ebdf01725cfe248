import CLinux
import Glibc
package import NIOCore
import NIOPosix
import Synchronization

/// A listening socket, and the thread that takes connections off it.
///
/// NIO makes a channel on a loop of every connection before anybody can look at it; under a flood that is most of a node's work.
/// Here whoever is not to be served costs accept(2) and close(2), and no loop hears of it (docs/performance.md, "Beside a flood").
///
/// 1. `admit` says on this thread what becomes of a connection; with nil it is reset.
/// 2. The others go to the loops in turn.
/// 3. The thread has what the loops leave of the CPUs: those who are connected come before those who want to be.
/// 4. Out of descriptors or memory, accept(2) fails while connections wait: it is tried again after 100 ms, and the
///    listening socket stays.
package final class Acceptor: Sendable {
    package let localAddress: SocketAddress?
    private let descriptor: CInt
    private let isStopping = Mutex(false)
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let ended: EventLoopPromise<Void>

    /// Listens on `host` (a name, an IPv4 or IPv6 address) and `port` (0: any that is free), and takes connections from now on.
    ///
    /// - Parameters:
    ///   - keepAlive: what every connection has of tcp(7); nil: the system's.
    ///   - serve: sets up the channel, on its loop, before it is active. It throws to have it closed.
    /// - Throws: `IOError` of bind(2), `SocketAddressError.UnknownHost`.
    package static func start<Admission: Sendable>(
        host: String, port: Int, keepAlive: TCPKeepAlive? = nil, group: any EventLoopGroup,
        admit: @escaping @Sendable (IPAddress) -> Admission?,
        serve: @escaping @Sendable (any Channel, IPAddress, Admission) throws -> Void
    ) throws -> Acceptor {
        let acceptor = try Acceptor(host: host, port: port, keepAlive: keepAlive, group: group)
        acceptor.thread.start()
        acceptor.thread.submit { _ in
            acceptor.acceptAll { connection, peer in
                guard let admission = admit(peer) else { return Self.reset(connection) }
                let loop = group.next()
                _ = ClientBootstrap(group: loop).channelInitializer { channel in
                    loop.makeCompletedFuture { try serve(channel, peer, admission) }
                }.withConnectedSocket(connection)
            }
        }
        return acceptor
    }

    private init(host: String, port: Int, keepAlive: TCPKeepAlive?, group: any EventLoopGroup) throws {
        let address = try SocketAddress.makeAddressResolvingHost(host, port: port)
        let family = address.protocol == .inet6 ? AF_INET6 : AF_INET
        descriptor = try Self.check(
            "socket", socket(family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
        do {
            // The accepted ones inherit what is set here.
            try Self.set(SOL_SOCKET, SO_REUSEADDR, 1, descriptor)
            try Self.set(Int32(IPPROTO_TCP), TCP_NODELAY, 1, descriptor)
            try keepAlive?.set(on: descriptor)
            let descriptor = descriptor
            try Self.check("bind", address.withSockAddr { bind(descriptor, $0, socklen_t($1)) })
            try Self.check("listen", listen(descriptor, 4096))
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        var bound = address
        bound.port = Self.port(of: descriptor)
        localAddress = bound
        ended = group.any().makePromise()
    }

    /// Closes the listening socket. Succeeds when the port is free; may be called again.
    @discardableResult
    package func stop() -> EventLoopFuture<Void> {
        isStopping.withLock { isStopping in
            // Wakes accept(2), which then says EINVAL; the descriptor is closed after this alone.
            if !isStopping { shutdown(descriptor, Int32(SHUT_RDWR)) }
            isStopping = true
        }
        return ended.futureResult
    }

    private func acceptAll(_ take: (CInt, IPAddress) -> Void) {
        // On Linux the nice value is a thread's own (setpriority(2), "C library/kernel differences").
        setpriority(Int32(PRIO_PROCESS.rawValue), 0, 10)
        while !isStopping.withLock(\.self) {
            var storage = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let flags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            let connection = withUnsafeMutableBytes(of: &storage) { bytes in
                accept4(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length, flags)
            }
            if connection >= 0 {
                take(connection, withUnsafeBytes(of: storage) { IPAddress(sockaddr: $0) })
            } else if errno != EINTR, errno != ECONNABORTED, !isStopping.withLock(\.self) {
                usleep(100_000)
            }
        }
        Glibc.close(descriptor)
        thread.shutdownGracefully { _ in }
        ended.succeed()
    }

    /// Without TIME-WAIT, which would keep 60 s of a flood in the kernel.
    private static func reset(_ connection: CInt) {
        var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
        setsockopt(connection, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        Glibc.close(connection)
    }

    private static func port(of descriptor: CInt) -> Int? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutableBytes(of: &storage) { bytes in
            guard getsockname(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length) == 0
            else { return nil }
            // In both families the port is the second word of 16 bits.
            return Int(UInt16(bigEndian: bytes.load(fromByteOffset: 2, as: UInt16.self)))
        }
    }

    fileprivate static func set(_ level: CInt, _ option: CInt, _ value: CInt, _ descriptor: CInt) throws {
        var value = value
        try check("setsockopt", setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<CInt>.size)))
    }

    @discardableResult
    private static func check(_ call: String, _ result: CInt) throws -> CInt {
        guard result >= 0 else { throw IOError(errnoCode: errno, reason: call) }
        return result
    }
}

/// tcp(7): when a silent peer is asked whether it is there, how often, and after how many silent asks it is gone. In seconds.
package struct TCPKeepAlive: Sendable {
    package let idle: CInt
    package let interval: CInt
    package let probes: CInt

    package init(idle: CInt, interval: CInt, probes: CInt) {
        (self.idle, self.interval, self.probes) = (idle, interval, probes)
    }

    package func set(on descriptor: CInt) throws {
        try Acceptor.set(SOL_SOCKET, SO_KEEPALIVE, 1, descriptor)
        for (option, value) in [(TCP_KEEPIDLE, idle), (TCP_KEEPINTVL, interval), (TCP_KEEPCNT, probes)] {
            try Acceptor.set(Int32(IPPROTO_TCP), option, value, descriptor)
        }
    }
}
