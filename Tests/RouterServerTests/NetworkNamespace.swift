import CLinux
import Foundation
import Glibc
import Synchronization

/// A network of a thread's own (network_namespaces(7)), with loopback alone, and with what that thread starts in it.
enum NetworkNamespace {
    /// CLONE_NEWNET of linux/sched.h.
    private static let newNetwork: CInt = 0x4000_0000

    struct Unavailable: Error, CustomStringConvertible {
        let description: String
    }

    /// Whether this process may make one: it takes CAP_SYS_ADMIN.
    static let isAllowed: Bool = (try? runThread { try enter() }) != nil

    /// Runs `body` on a thread in a namespace of its own.
    ///
    /// - Parameter ports: the ephemeral ones there.
    static func run<Result: Sendable>(
        ports: ClosedRange<Int>, _ body: @escaping @Sendable () throws -> Result
    ) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            let thread = Thread {
                continuation.resume(
                    with: Swift.Result {
                        try enter()
                        try setPorts(ports)
                        return try body()
                    })
            }
            thread.stackSize = 8 << 20
            thread.start()
        }
    }

    private static func runThread(_ body: @escaping @Sendable () throws -> Void) throws {
        let outcome = Mutex<Result<Void, any Error>?>(nil)
        let done = DispatchSemaphore(value: 0)
        Thread {
            let result = Result { try body() }
            outcome.withLock { $0 = result }
            done.signal()
        }.start()
        done.wait()
        try outcome.withLock { $0 }?.get()
    }

    /// The calling thread's network is a new one from here on.
    private static func enter() throws {
        guard unshare(newNetwork) == 0 else {
            throw Unavailable(description: "unshare(2): \(String(cString: strerror(errno)))")
        }
        try configure("lo", SIOCSIFFLAGS, [UInt8(IFF_UP)])
    }

    /// Loopback of the calling thread's network has the address, too.
    static func addAddress(_ address: [UInt8]) throws {
        // struct sockaddr_in: the family in two bytes, two of the port.
        try configure("lo:1", SIOCSIFADDR, [UInt8(AF_INET), 0, 0, 0] + address)
    }

    /// That one again is nobody's.
    static func removeAddress() throws { try configure("lo:1", SIOCSIFFLAGS, [0]) }

    /// ioctl(2) with a struct ifreq (netdevice(7)): the name in 16 bytes, what belongs to the request behind it.
    private static func configure(_ interface: String, _ request: CInt, _ content: [UInt8]) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 40)
        bytes.replaceSubrange(0..<interface.utf8.count, with: interface.utf8)
        bytes.replaceSubrange(16..<16 + content.count, with: content)
        guard ioctl(descriptor, UInt(request), &bytes) == 0 else {
            throw Unavailable(description: "ioctl(2): \(String(cString: strerror(errno)))")
        }
    }

    private static func setPorts(_ ports: ClosedRange<Int>) throws {
        try "\(ports.lowerBound) \(ports.upperBound)\n".write(
            toFile: "/proc/sys/net/ipv4/ip_local_port_range", atomically: false, encoding: .utf8)
    }
}

/// A TCP socket of IPv4 that waits at most a minute for anything.
///
/// `@unchecked Sendable`: used on one thread.
final class PlainSocket: @unchecked Sendable {
    struct Failed: Error, CustomStringConvertible {
        let call: String
        let code: CInt
        var description: String { "\(call): \(String(cString: strerror(code)))" }
    }

    private let descriptor: CInt

    private init(_ descriptor: CInt) {
        self.descriptor = descriptor
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
    }

    deinit { close(descriptor) }

    private static func with<Result>(
        _ host: String, _ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        inet_pton(AF_INET, host, &address.sin_addr)
        return withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private static func check(_ call: String, _ result: CInt) throws {
        guard result >= 0 else { throw Failed(call: call, code: errno) }
    }

    private static func bound(_ host: String, _ port: Int) throws -> PlainSocket {
        let socket = PlainSocket(Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0))
        var one: CInt = 1
        let length = socklen_t(MemoryLayout<CInt>.size)
        setsockopt(socket.descriptor, SOL_SOCKET, SO_REUSEADDR, &one, length)
        // A port that bind(2) has taken no connect(2) chooses, whatever its address.
        if port == 0 { setsockopt(socket.descriptor, Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, &one, length) }
        try check("bind", with(host, port) { bind(socket.descriptor, $0, $1) })
        return socket
    }

    static func listen(_ host: String, _ port: Int) throws -> PlainSocket {
        let socket = try bound(host, port)
        try check("listen", Glibc.listen(socket.descriptor, 64))
        return socket
    }

    static func connect(from: (String, Int), to: (String, Int)) throws -> PlainSocket {
        let socket = try bound(from.0, from.1)
        try check("connect", with(to.0, to.1) { Glibc.connect(socket.descriptor, $0, $1) })
        return socket
    }

    /// The next connection, and the address that it comes from.
    func accept() throws -> (PlainSocket, String) {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let accepted = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.accept(descriptor, $0, &length) }
        }
        try Self.check("accept", accepted)
        var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
        inet_ntop(AF_INET, &address.sin_addr, &text, socklen_t(text.count))
        return (
            PlainSocket(accepted), String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
        )
    }

    func send(_ text: String) throws {
        try Self.check(
            "send", CInt(clamping: Glibc.send(descriptor, text, text.utf8.count, Int32(MSG_NOSIGNAL))))
    }

    /// What comes next, at most 64 KiB.
    func receive() throws -> String {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        try Self.check("recv", CInt(clamping: count))
        return String(decoding: bytes.prefix(count), as: UTF8.self)
    }

    /// Its port is free at once.
    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }
}
