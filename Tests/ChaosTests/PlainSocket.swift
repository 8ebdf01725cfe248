import Foundation
import Glibc
import TestSupport

/// A listening socket on a port that the system picked. Blocks.
final class PlainListener: Sendable {
    let port: Int
    private let fd: Int32

    init() throws {
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let fd = fd
        let bound = withLoopback(port: 0) { bind(fd, $0, $1) }
        guard bound == 0, listen(fd, 16) == 0 else { throw SystemCallFailed("listen") }
        var name = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutableBytes(of: &name) { bytes in
            _ = getsockname(fd, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length)
        }
        port = Int(UInt16(bigEndian: name.sin_port))
    }

    deinit { close(fd) }

    func accept() throws -> PlainSocket {
        let accepted = Glibc.accept(fd, nil, nil)
        guard accepted >= 0 else { throw SystemCallFailed("accept") }
        return PlainSocket(fd: accepted)
    }
}

/// A TCP socket and nothing more, so that a test sees an end, a reset and silence apart.
final class PlainSocket: Sendable {
    enum Received: Equatable {
        case bytes(String)
        case end
        case reset
        /// No byte within the time given.
        case nothing
    }

    private let fd: Int32

    init(fd: Int32) {
        self.fd = fd
    }

    init(port: Int) throws {
        fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        let fd = fd
        guard withLoopback(port: port, { connect(fd, $0, $1) }) == 0 else { throw SystemCallFailed("connect") }
    }

    deinit { close(fd) }

    func endOutput() { shutdown(fd, Int32(SHUT_WR)) }

    /// Closes it with RST. Nothing may be done with it any more but to let it go.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
        // The number stays taken until deinit, so that nobody else gets it meanwhile.
        var none = sockaddr()
        none.sa_family = sa_family_t(AF_UNSPEC)
        connect(fd, &none, socklen_t(MemoryLayout<sockaddr>.size))
    }

    func send(_ text: String) async throws {
        let fd = fd
        try await offPool {
            var rest = Array(text.utf8)[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { Glibc.send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                guard count > 0 else { throw SystemCallFailed("send") }
                rest = rest.dropFirst(count)
            }
        }
    }

    /// What came at once, up to 64 KiB.
    func receiveSome() async throws -> String {
        if case .bytes(let text) = try await receive(upTo: 65536, isWhole: false, within: 5) { return text }
        throw TimedOut("nothing was received")
    }

    /// All of so many bytes, or why not.
    func receive(_ count: Int, within seconds: Int = 5) async throws -> Received {
        try await receive(upTo: count, isWhole: true, within: seconds)
    }

    private func receive(upTo count: Int, isWhole: Bool, within seconds: Int) async throws -> Received {
        let fd = fd
        return try await offPool {
            var limit = timeval(tv_sec: seconds, tv_usec: 0)
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            var bytes = [UInt8](repeating: 0, count: count)
            var length = 0
            while length < count {
                let got = bytes.withUnsafeMutableBytes {
                    recv(fd, $0.baseAddress?.advanced(by: length), count - length, 0)
                }
                if got == 0 { return .end }
                if got < 0 {
                    switch errno {
                    case EINTR: continue
                    case EAGAIN: return .nothing
                    case ECONNRESET, EPIPE: return .reset
                    default: throw SystemCallFailed("recv")
                    }
                }
                length += got
                if !isWhole { break }
            }
            return .bytes(String(decoding: bytes[..<length], as: UTF8.self))
        }
    }
}
