import Glibc
import Synchronization

/// Signals as events of the program: the handler writes the number to a pipe, a thread reads it. Children that are
/// spawned meanwhile inherit neither a blocked mask nor the pipe.
enum Signals {
    private static let pipeEnd = Atomic<Int32>(-1)

    /// From now on the signals are not deadly; `action` gets each of them, on a thread of its own, in order.
    /// Call it once in a process.
    static func handle(_ signals: [Int32], _ action: @escaping @Sendable (Int32) -> Void) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let reader = ends[0]
        pipeEnd.store(ends[1], ordering: .sequentiallyConsistent)
        Threads.detach {
            var number: UInt8 = 0
            while true {
                let count = read(reader, &number, 1)
                if count == 1 {
                    action(Int32(number))
                } else if count == 0 || errno != EINTR {
                    return
                }
            }
        }
        for number in signals {
            var setup = sigaction()
            setup.__sigaction_handler.sa_handler = { number in
                // Only what signal-safety(7) allows: an atomic load and write(2).
                let saved = errno
                var byte = UInt8(truncatingIfNeeded: number)
                _ = write(Signals.pipeEnd.load(ordering: .relaxed), &byte, 1)
                errno = saved
            }
            setup.sa_flags = SA_RESTART
            sigaction(number, &setup, nil)
        }
    }
}
