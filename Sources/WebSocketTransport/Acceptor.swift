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
/// 4. Out of descriptors or memory, accept(2) fails while connections wait: `onFailure` is told, it is tried again after
///    100 ms, and the listening socket stays.
package final class Acceptor: Sendable {
    /// On the acceptor's thread, with what accept(2) said.
    package typealias FailureHandler = @Sendable (IOError) -> Void

    package let localAddress: SocketAddress?
    /// As many as may wait in a queue (listen(2)) unless somebody raised that.
    private static let mostAtEnd = 4096

    private let descriptor: CInt
    private let isPassed: Bool
    /// Readable when the thread is to end.
    private let wake: CInt
    /// The thread, and connections between accept(2) and their loop.
    private let underWay = Mutex(1)
    private let isStopping = Mutex(false)
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let ended: EventLoopPromise<Void>

    /// Takes connections off the socket from now on, and closes it in the end.
    ///
    /// - Parameters:
    ///   - keepAlive: what every connection has of tcp(7); nil: the system's.
    ///   - ready: until it completes connections wait in the socket's queue.
    ///   - serve: sets up the channel, on its loop, before it is active. It throws to have it closed.
    /// - Throws: `IOError`.
    package static func start<Admission: Sendable>(
        on socket: ListeningSocket, keepAlive: TCPKeepAlive? = nil, after ready: EventLoopFuture<Void>? = nil,
        group: any EventLoopGroup, onFailure: @escaping FailureHandler = { _ in },
        admit: @escaping @Sendable (IPAddress) -> Admission?,
        serve: @escaping @Sendable (any Channel, IPAddress, Admission) throws -> Void
    ) throws -> Acceptor {
        let acceptor = try Acceptor(socket, keepAlive: keepAlive, group: group)
        acceptor.thread.start()
        (ready ?? group.any().makeSucceededVoidFuture()).whenComplete { _ in
            acceptor.thread.submit { _ in
                acceptor.acceptAll(onFailure: onFailure) { connection, peer in
                    guard let admission = admit(peer) else { return Self.reset(connection) }
                    let loop = group.next()
                    acceptor.underWay.withLock { $0 += 1 }
                    ClientBootstrap(group: loop).channelInitializer { channel in
                        loop.makeCompletedFuture { try serve(channel, peer, admission) }
                    }.withConnectedSocket(connection).whenComplete { _ in acceptor.isSetUp() }
                }
            }
        }
        return acceptor
    }

    private init(_ socket: ListeningSocket, keepAlive: TCPKeepAlive?, group: any EventLoopGroup) throws {
        (descriptor, isPassed) = (socket.descriptor, socket.isPassed)
        localAddress = socket.localAddress
        do {
            // The accepted ones inherit what is set here.
            try SystemCall.set(Int32(IPPROTO_TCP), TCP_NODELAY, to: 1, of: descriptor)
            try keepAlive?.set(on: descriptor)
            wake = try SystemCall.check("eventfd", eventfd(0, Int32(EFD_CLOEXEC)))
        } catch {
            Glibc.close(socket.descriptor)
            throw error
        }
        ended = group.any().makePromise()
    }

    /// Closes the listening socket: that of this process alone where it was passed. Succeeds when that is done, and the last
    /// connection that was accepted is set up; may be called again.
    @discardableResult
    package func stop() -> EventLoopFuture<Void> {
        isStopping.withLock { isStopping in
            guard !isStopping else { return }
            isStopping = true
            var one: UInt64 = 1
            _ = write(wake, &one, 8)
        }
        return ended.futureResult
    }

    private func acceptAll(onFailure: FailureHandler, _ take: (CInt, IPAddress) -> Void) {
        // On Linux the nice value is a thread's own (setpriority(2), "C library/kernel differences").
        setpriority(Int32(PRIO_PROCESS.rawValue), 0, 10)
        var waits = [descriptor, wake].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while !isStopping.withLock(\.self) {
            switch accept(take) {
            case 0, EINTR, ECONNABORTED: break
            case EAGAIN: poll(&waits, nfds_t(waits.count), -1)
            case let code:
                onFailure(IOError(errnoCode: code, reason: "accept"))
                usleep(100_000)
            }
        }
        // Connections in the queue of a socket that no other process has would end with it.
        if !isPassed { for _ in 0..<Self.mostAtEnd { guard accept(take) == 0 else { break } } }
        Glibc.close(descriptor)
        thread.shutdownGracefully { _ in }
        isSetUp()
    }

    /// - Returns: errno, 0 for a connection.
    private func accept(_ take: (CInt, IPAddress) -> Void) -> CInt {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let flags = Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let connection = withUnsafeMutableBytes(of: &storage) { bytes in
            accept4(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length, flags)
        }
        guard connection >= 0 else { return errno }
        take(connection, withUnsafeBytes(of: storage) { IPAddress(sockaddr: $0) })
        return 0
    }

    /// The thread has ended, or a connection that it took is set up.
    private func isSetUp() {
        let left = underWay.withLock { underWay in
            underWay -= 1
            return underWay
        }
        guard left == 0 else { return }
        Glibc.close(wake)
        ended.succeed()
    }

    /// Without TIME-WAIT, which would keep 60 s of a flood in the kernel.
    private static func reset(_ connection: CInt) {
        var linger = Glibc.linger(l_onoff: 1, l_linger: 0)
        setsockopt(connection, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<Glibc.linger>.size))
        Glibc.close(connection)
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
        try SystemCall.set(SOL_SOCKET, SO_KEEPALIVE, to: 1, of: descriptor)
        for (option, value) in [(TCP_KEEPIDLE, idle), (TCP_KEEPINTVL, interval), (TCP_KEEPCNT, probes)] {
            try SystemCall.set(Int32(IPPROTO_TCP), option, to: value, of: descriptor)
        }
    }
}
