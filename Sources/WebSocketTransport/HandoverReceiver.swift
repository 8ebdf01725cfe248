import CLinux
import Glibc
import NIOPosix
import Synchronization

/// A node's end of ``HandoverSocket``: takes connections that routers of its host accepted.
package final class HandoverReceiver: Sendable {
    /// Bytes that were read, from the request's head on; false to leave the connection to the router. Called on a thread of
    /// the receiver's; with true the descriptor is the callee's.
    package typealias Taker = @Sendable (CInt, [UInt8]) -> Bool

    private static let mostRouters = 64
    private let listener: CInt
    private let end: CInt
    private let isEnded = Mutex(false)
    private let thread = NIOThreadPool(numberOfThreads: 1)

    /// - Parameter address: where routers dial the node.
    /// - Returns: nil where there can be none: another node of this host has the address, or it is too long.
    package init?(address: String, take: @escaping Taker) {
        guard let listener = HandoverSocket.listen(at: address) else { return nil }
        self.listener = listener
        end = eventfd(0, Int32(EFD_CLOEXEC))
        thread.start()
        thread.submit { _ in self.run(take) }
    }

    /// From now on routers proxy. May be called again.
    package func stop() {
        isEnded.withLock { isEnded in
            guard !isEnded else { return }
            isEnded = true
            var one: UInt64 = 1
            _ = write(end, &one, 8)
        }
    }

    private func run(_ take: Taker) {
        var buffer = [UInt8](repeating: 0, count: HandoverSocket.mostBytes)
        var waits = [listener, end].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while true {
            guard poll(&waits, nfds_t(waits.count), -1) >= 0 else { continue }
            if waits[1].revents != 0 { break }
            if waits[0].revents != 0, let router = accept(waits.count - 2) {
                waits.append(pollfd(fd: router, events: Int16(POLLIN), revents: 0))
            }
            for index in waits.indices.dropFirst(2) where waits[index].revents != 0 {
                if !serve(waits[index].fd, &buffer, take) {
                    close(waits[index].fd)
                    waits[index].fd = -1
                }
            }
            waits.removeAll { $0.fd < 0 }
        }
        for wait in waits { close(wait.fd) }
        thread.shutdownGracefully { _ in }
    }

    private func accept(_ routers: Int) -> CInt? {
        let router = accept4(listener, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
        guard router >= 0 else { return nil }
        guard routers < Self.mostRouters, HandoverSocket.isOfOwnUser(router) else {
            close(router)
            return nil
        }
        return router
    }

    /// - Returns: false when the router is gone, or no router.
    private func serve(_ router: CInt, _ buffer: inout [UInt8], _ take: Taker) -> Bool {
        var connection: CInt = -1
        let count = receive_with_descriptor(router, &buffer, buffer.count, &connection)
        guard count > 0, connection >= 0 else {
            if connection >= 0 { close(connection) }
            return count < 0 && (errno == EAGAIN || errno == EINTR)
        }
        let isTaken = take(connection, Array(buffer[..<count]))
        if !isTaken { close(connection) }
        var answer = isTaken ? HandoverSocket.taken : HandoverSocket.refused
        return send(router, &answer, 1, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) == 1
    }
}
