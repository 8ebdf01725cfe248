import CLinux
import Glibc
import NIOPosix
import Synchronization

/// A node's end of ``HandoverSocket``: takes connections that routers of its host accepted.
package final class HandoverReceiver: Sendable {
    /// With all bytes that were read of a connection, from the request's head on: nil leaves it to the router. What is returned
    /// is called with its descriptor, which is the callee's then, once the router has the answer. Both on a thread of the
    /// receiver's.
    package typealias Taker = @Sendable ([UInt8]) -> ((CInt) -> Void)?

    /// What a line takes of this process.
    package static let descriptorsOfLine = 2
    private let mostLines: Int
    private let listener: CInt
    private let end: CInt
    private let isEnded = Mutex(false)
    private let thread = NIOThreadPool(numberOfThreads: 1)

    /// - Parameters:
    ///   - address: where routers dial the node.
    ///   - mostLines: of all routers; each has one for each of its loops.
    ///   - refused: called on the thread, with `mostLines`, when a line was closed that would have been one too many.
    /// - Returns: nil where there can be none: another node of this host has the address, it is too long, or no descriptor is
    ///   left.
    package init?(
        address: String, mostLines: Int = 64, refused: @escaping @Sendable (Int) -> Void = { _ in },
        take: @escaping Taker
    ) {
        guard let listener = HandoverSocket.listen(at: address) else { return nil }
        let end = eventfd(0, Int32(EFD_CLOEXEC))
        guard end >= 0 else {
            close(listener)
            return nil
        }
        (self.listener, self.end, self.mostLines) = (listener, end, mostLines)
        thread.start()
        thread.submit { _ in self.run(take, refused) }
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

    /// One loop of a router.
    private struct Line {
        /// Where its queue comes, and the answers go.
        let socket: CInt
        /// -1 until it has come.
        var queue: CInt = -1

        var awaited: pollfd { pollfd(fd: queue < 0 ? socket : queue, events: Int16(POLLIN), revents: 0) }

        func close() {
            Glibc.close(socket)
            if queue >= 0 { Glibc.close(queue) }
        }
    }

    private func run(_ take: Taker, _ refused: (Int) -> Void) {
        var buffer = [UInt8](repeating: 0, count: HandoverQueue.mostMessageBytes)
        var lines: [Line] = []
        // Out of descriptors or memory, accept(2) fails while a router waits: it is tried again after 100 ms.
        var canAccept = true
        while true {
            var waits = [canAccept ? listener : -1, end].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            waits += lines.map(\.awaited)
            guard poll(&waits, nfds_t(waits.count), canAccept ? -1 : 100) >= 0 else { continue }
            canAccept = true
            if waits[1].revents != 0 { break }
            for index in lines.indices.reversed() where waits[2 + index].revents != 0 {
                if !serve(&lines[index], &buffer, take) { lines.remove(at: index).close() }
            }
            guard waits[0].revents != 0 else { continue }
            let socket = accept4(listener, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
            if socket < 0 {
                canAccept = [EAGAIN, EINTR, ECONNABORTED].contains(errno)
            } else if lines.count < mostLines, HandoverSocket.isOfOwnUser(socket) {
                lines.append(Line(socket: socket))
            } else {
                close(socket)
                if lines.count >= mostLines { refused(mostLines) }
            }
        }
        for line in lines { line.close() }
        close(listener)
        close(end)
        thread.shutdownGracefully { _ in }
    }

    /// - Returns: false when the router is gone, or no router.
    private func serve(_ line: inout Line, _ buffer: inout [UInt8], _ take: Taker) -> Bool {
        var descriptor: CInt = -1
        guard line.queue >= 0 else {
            let count = receive_with_descriptor(line.socket, &buffer, buffer.count, &descriptor)
            line.queue = descriptor
            return descriptor >= 0 || (count < 0 && isNothingThere)
        }
        let count = receive_with_descriptor(line.queue, &buffer, buffer.count, &descriptor)
        if count < 0, isNothingThere { return true }
        // It is this process's from here on. One whose descriptor found no room (EMSGSIZE) has to be answered, too.
        guard count > 0 || (count < 0 && errno == EMSGSIZE) else { return false }
        let serveIt = descriptor >= 0 ? take(HandoverQueue.content(buffer[..<count])) : nil
        if descriptor >= 0, serveIt == nil { close(descriptor) }
        var answer = serveIt == nil ? HandoverSocket.refused : HandoverSocket.taken
        let isAnswered = send(line.socket, &answer, 1, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) == 1
        // Not before: what the client says to a `101` is then none that a router which has no answer yet could read. To a
        // router that is gone nobody answers, and the connection is this process's all the same.
        serveIt?(descriptor)
        return isAnswered
    }

    /// After a call that returned -1: also where a router was faster, and has taken all back.
    private var isNothingThere: Bool { errno == EAGAIN || errno == EINTR }
}
