import Glibc
import Synchronization

/// Signals as events of the program: the handler writes the number to a pipe, a thread reads it. Children that are
/// spawned meanwhile inherit neither a blocked mask nor the pipe.
enum Signals {
    private static let readEnd = Atomic<Int32>(-1)
    private static let writeEnd = Atomic<Int32>(-1)

    /// From now on the signals are not deadly; they wait in the pipe for ``handle(_:_:)``. Call it before that, if at all.
    static func hold(_ signals: [Int32]) {
        if readEnd.load(ordering: .sequentiallyConsistent) < 0 {
            var ends: [Int32] = [-1, -1]
            guard pipe(&ends) == 0 else { return }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            // Many that nobody reads yet are as good as some, and hold up no thread.
            _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
            readEnd.store(ends[0], ordering: .sequentiallyConsistent)
            writeEnd.store(ends[1], ordering: .sequentiallyConsistent)
        }
        for number in signals { catchSignal(number) }
    }

    /// From now on the signals are not deadly; `action` gets each of them, on a thread of its own, in order; also those that were
    /// held, or blocked since the process began. Call it once in a process.
    static func handle(_ signals: [Int32], _ action: @escaping @Sendable (Int32) -> Void) {
        hold(signals)
        let reader = readEnd.load(ordering: .sequentiallyConsistent)
        guard reader >= 0 else { return }
        Threads.detach {
            // What all other threads may have blocked comes to this one.
            var taken = sigset_t()
            sigemptyset(&taken)
            for number in signals { sigaddset(&taken, number) }
            pthread_sigmask(SIG_UNBLOCK, &taken, nil)
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
    }

    private static func catchSignal(_ number: Int32) {
        var setup = sigaction()
        setup.__sigaction_handler.sa_handler = { number in
            // Only what signal-safety(7) allows: an atomic load and write(2).
            let saved = errno
            var byte = UInt8(truncatingIfNeeded: number)
            _ = write(Signals.writeEnd.load(ordering: .relaxed), &byte, 1)
            errno = saved
        }
        setup.sa_flags = SA_RESTART
        sigaction(number, &setup, nil)
    }
}
