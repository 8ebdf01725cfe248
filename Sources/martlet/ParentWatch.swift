import Glibc

/// Ends a child whose parent died without a word. The parent holds the write end of a pipe and never writes; the read
/// end reaches EOF when the parent is gone, however it went (SIGKILL too).
enum ParentWatch {
    /// At EOF sends this process SIGTERM, so that it ends as it does on every other day; what is still there after
    /// `grace` seconds ends with exit code 1.
    static func start(fd: Int32, grace: UInt32 = 3) {
        onEnd(of: fd) {
            kill(getpid(), SIGTERM)
            sleep(grace)
            Logs.flush()
            _exit(1)
        }
    }

    /// Calls `action` once on a thread of its own, at EOF or when the descriptor is none.
    static func onEnd(of descriptor: Int32, _ action: @escaping @Sendable () -> Void) {
        Threads.detach {
            var byte: UInt8 = 0
            while true {
                let count = read(descriptor, &byte, 1)
                if count == 0 || (count < 0 && errno != EINTR) { break }
            }
            action()
        }
    }
}

enum Threads {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// For work that blocks in a system call for as long as the process lives.
    static func detach(_ run: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(Body(run))
        let result = pthread_create(
            &thread, nil,
            { raw in
                if let raw { Unmanaged<Body>.fromOpaque(raw).takeRetainedValue().run() }
                return nil
            }, context.toOpaque())
        if result == 0 {
            pthread_detach(thread)
        } else {
            context.release()
        }
    }
}
