package import Glibc
import Synchronization

/// A TCP port that nothing listens on, below the range from which the system takes ports of outgoing connections, with the
/// one 1000 above it, where `martlet dev` has its internal port: so it is still free when a server that was killed wants it again.
package enum FreePort {
    private static let given = Mutex<Set<Int>>([])

    package static func next() throws -> Int {
        for _ in 0..<500 {
            let port = Int.random(in: 15_000..<31_500)
            guard given.withLock({ $0.insert(port).inserted }), isFree(port) else { continue }
            return port
        }
        throw SystemCallFailed("no free port", EADDRINUSE)
    }

    private static func isFree(_ port: Int) -> Bool {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { return false }
        defer { close(fd) }
        return withLoopback(port: port) { bind(fd, $0, $1) } == 0
    }
}

/// - Parameter last: byte of the address, 127.0.0.1 unless given.
package func withLoopback<Result>(
    _ last: UInt8 = 1, port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
) -> Result {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = in_port_t(UInt16(port).bigEndian)
    address.sin_addr.s_addr = (0x7F00_0000 + UInt32(last)).bigEndian
    return withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}
