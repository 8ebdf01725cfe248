import Foundation
import Glibc
import Synchronization

/// What the reactor drives. Both are called on its one thread.
protocol SocketHandler: AnyObject, Sendable {
    /// Reads until the socket has no more. False: the connection is over, and the reactor closes the descriptor.
    func socketIsReadable() -> Bool
    /// Writes what is pending. False: the connection is over.
    func socketIsWritable() -> Bool
    /// The handler forgets the descriptor here, under the lock under which it writes.
    func socketWillClose()
}

/// One thread that waits on the sockets of all test clients. Not NIO on purpose: what is tested stands on NIO.
final class SocketReactor: Sendable {
    static let shared = SocketReactor()

    private struct Entry {
        let handler: any SocketHandler
        var reads = true
        var writes = false
        var shallClose = false
    }

    private struct State {
        var entries: [Int32: Entry] = [:]
        var isDirty = true
    }

    private let state = Mutex(State())
    private let wake: (read: Int32, write: Int32)

    private init() {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        precondition(socketpair(AF_UNIX, type, 0, &ends) == 0, "no socket pair to wake the reactor with")
        wake = (ends[0], ends[1])
        Thread.detachNewThread { [self] in run() }
    }

    func add(_ fd: Int32, _ handler: any SocketHandler) {
        change { $0[fd] = Entry(handler: handler) }
    }

    func setReads(_ fd: Int32, _ reads: Bool) {
        change { $0[fd]?.reads = reads }
    }

    func setWrites(_ fd: Int32, _ writes: Bool) {
        change { $0[fd]?.writes = writes }
    }

    func remove(_ fd: Int32) {
        change { $0[fd]?.shallClose = true }
    }

    private func change(_ body: (inout [Int32: Entry]) -> Void) {
        state.withLock { state in
            body(&state.entries)
            state.isDirty = true
        }
        var byte: UInt8 = 0
        _ = write(wake.write, &byte, 1)
    }

    private func run() {
        var polled: [pollfd] = []
        var scratch = [UInt8](repeating: 0, count: 4096)
        while true {
            let closing = state.withLock { state -> [(Int32, any SocketHandler)] in
                guard state.isDirty else { return [] }
                state.isDirty = false
                var closing: [(Int32, any SocketHandler)] = []
                for (fd, entry) in state.entries where entry.shallClose { closing.append((fd, entry.handler)) }
                for (fd, _) in closing { state.entries[fd] = nil }
                polled = [pollfd(fd: wake.read, events: Int16(POLLIN), revents: 0)]
                for (fd, entry) in state.entries {
                    let events = (entry.reads ? POLLIN : 0) | (entry.writes ? POLLOUT : 0)
                    polled.append(pollfd(fd: fd, events: Int16(events), revents: 0))
                }
                return closing
            }
            for (fd, handler) in closing { finish(fd, handler) }
            guard poll(&polled, nfds_t(polled.count), -1) > 0 else { continue }
            if polled[0].revents != 0 {
                _ = read(wake.read, &scratch, scratch.count)
            }
            for index in 1..<max(1, polled.count) where polled[index].revents != 0 {
                serve(polled[index])
            }
        }
    }

    private func serve(_ polled: pollfd) {
        guard let entry = state.withLock({ $0.entries[polled.fd] }), !entry.shallClose else { return }
        let events = Int32(polled.revents)
        var lives = true
        if events & POLLOUT != 0 { lives = entry.handler.socketIsWritable() }
        if lives, events & (POLLIN | POLLHUP | POLLERR) != 0 {
            // A paused reader hears of the end all the same.
            if entry.reads {
                lives = entry.handler.socketIsReadable()
            } else if events & (POLLHUP | POLLERR) != 0 {
                lives = false
            }
        }
        guard !lives else { return }
        state.withLock { state in
            state.entries[polled.fd] = nil
            state.isDirty = true
        }
        finish(polled.fd, entry.handler)
    }

    private func finish(_ fd: Int32, _ handler: any SocketHandler) {
        handler.socketWillClose()
        close(fd)
    }
}
