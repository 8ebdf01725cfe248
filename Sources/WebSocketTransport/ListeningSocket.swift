import CLinux
import Glibc
package import NIOCore

/// A socket that listens for TCP connections: bound here, or passed by whoever started the process.
///
/// One that was passed (sd_listen_fds(3), systemd.socket(5)) is held by that supervisor and by every process it was passed
/// to. Connections wait in its one queue, and whoever accepts first has them: no process that ends takes any with it.
package struct ListeningSocket: Sendable {
    let descriptor: CInt
    /// Other processes have it, too, and it goes on listening when this one closes it.
    let isPassed: Bool

    /// Where it listens.
    package let localAddress: SocketAddress?

    /// - Parameters:
    ///   - host: a name, an IPv4 or IPv6 address.
    ///   - port: 0: any that is free.
    /// - Throws: `IOError` of bind(2), `SocketAddressError.UnknownHost`.
    package static func bind(host: String, port: Int) throws -> ListeningSocket {
        let address = try SocketAddress.makeAddressResolvingHost(host, port: port)
        let family = address.protocol == .inet6 ? AF_INET6 : AF_INET
        let flags = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let descriptor = try SystemCall.check("socket", socket(family, flags, 0))
        do {
            try SystemCall.set(SOL_SOCKET, SO_REUSEADDR, to: 1, of: descriptor)
            try SystemCall.check("bind", address.withSockAddr { Glibc.bind(descriptor, $0, socklen_t($1)) })
            try SystemCall.check("listen", listen(descriptor, 4096))
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        var bound = address
        bound.port = boundPort(of: descriptor)
        return ListeningSocket(descriptor: descriptor, isPassed: false, localAddress: bound)
    }

    /// What LISTEN_FDS says, where LISTEN_PID is this process: exactly one socket, which is descriptor 3. It is set not to
    /// block, for every process that has it. The variables are removed, so that no child takes them for its own.
    ///
    /// - Returns: nil where nothing was passed to this process.
    /// - Throws: ``PassedSocketError``
    package static func passed() throws(PassedSocketError) -> ListeningSocket? {
        let first: CInt = 3
        func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        guard variable("LISTEN_PID") == String(getpid()), let count = variable("LISTEN_FDS") else { return nil }
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { unsetenv(name) }
        guard count != "0" else { return nil }
        guard count == "1" else {
            throw PassedSocketError(
                "LISTEN_FDS passes \(count) sockets, and one is taken: give the .socket unit a single ListenStream=")
        }
        func option(_ name: CInt) -> CInt? { try? SystemCall.option(name, of: first) }
        let family = option(SO_DOMAIN)
        guard family == AF_INET || family == AF_INET6, option(SO_TYPE) == CInt(SOCK_STREAM.rawValue),
            option(SO_ACCEPTCONN) == 1
        else {
            throw PassedSocketError(
                "LISTEN_FDS passes no listening TCP socket: the .socket unit needs ListenStream= with a port, and Accept=no"
            )
        }
        guard fcntl(first, F_SETFD, FD_CLOEXEC) == 0,
            fcntl(first, F_SETFL, fcntl(first, F_GETFL) | O_NONBLOCK) == 0
        else {
            throw PassedSocketError(
                "the socket that LISTEN_FDS passes cannot be used (\(String(cString: strerror(errno))))")
        }
        return ListeningSocket(descriptor: first, isPassed: true, localAddress: address(of: first))
    }

    private static func withName<Result>(
        of descriptor: CInt, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return try withUnsafeMutableBytes(of: &storage) { bytes in
            guard getsockname(descriptor, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length) == 0
            else { return nil }
            return try body(UnsafeRawBufferPointer(bytes))
        }
    }

    private static func boundPort(of descriptor: CInt) -> Int? {
        // In both families the port is the second word of 16 bits.
        withName(of: descriptor) { Int(UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self))) }
    }

    private static func address(of descriptor: CInt) -> SocketAddress? {
        let host = withName(of: descriptor) { IPAddress(sockaddr: $0).description }
        guard let host, let port = boundPort(of: descriptor) else { return nil }
        return try? SocketAddress(ipAddress: host, port: port)
    }
}

/// Why a socket that was passed cannot be used, in one sentence.
package struct PassedSocketError: Error, CustomStringConvertible {
    package let description: String

    init(_ description: String) { self.description = description }
}
