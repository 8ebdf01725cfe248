import Glibc

/// A TCP connection to this machine for one question and its answer, with a deadline on each call. Blocks: use it from
/// ``offPool(_:)``.
struct BlockingSocket: ~Copyable {
    private let fd: Int32

    init(port: Int, timeout seconds: Int) throws {
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw SystemCallFailed("socket") }
        var limit = timeval(tv_sec: seconds, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let fd = fd
        guard withLoopback(port: port, { connect(fd, $0, $1) }) == 0 else {
            throw SystemCallFailed("connect to port \(port)")
        }
    }

    deinit {
        close(fd)
    }

    func write(_ text: String) throws {
        try write(Array(text.utf8))
    }

    func write(_ bytes: [UInt8]) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SystemCallFailed("send") }
            rest = rest.dropFirst(count)
        }
    }

    /// Appends what came; false at the end of the stream.
    func read(into bytes: inout [UInt8]) throws -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = recv(fd, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SystemCallFailed("recv") }
            bytes.append(contentsOf: buffer[..<count])
            return count > 0
        }
    }
}
