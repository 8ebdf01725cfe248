package import Glibc
import Synchronization

/// TCP ports that nothing listens on, below the range from which the system takes ports of outgoing connections: so one is
/// still free when a server that was killed wants it again. None is given twice.
package enum FreePort {
    private static let given = Mutex<Set<Int>>([])

    package static func next() throws -> Int { try first(ofRow: 1) }

    /// - Parameter count: how many ports in a row are free, as `martlet dev` wants them.
    package static func first(ofRow count: Int) throws -> Int {
        for _ in 0..<500 {
            let first = Int.random(in: 15_000..<31_500)
            let row = first..<first + count
            let isNew = given.withLock { given in
                guard given.isDisjoint(with: row) else { return false }
                given.formUnion(row)
                return true
            }
            if isNew, row.allSatisfy(isFree) { return first }
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
