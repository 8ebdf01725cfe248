import CLinux
import Glibc

/// A socket address in numbers, of either family.
struct Address: Sendable {
    private var storage = sockaddr_storage()
    private var length = socklen_t(0)

    /// The IPv4 or IPv6 address written as `text`, with any port; nil when it is neither.
    init?(_ text: String) {
        var hints = addrinfo()
        hints.ai_flags = AI_NUMERICHOST
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(text, nil, &hints, &found) == 0, let first = found else { return nil }
        defer { freeaddrinfo(first) }
        length = first.pointee.ai_addrlen
        memcpy(&storage, first.pointee.ai_addr, Int(length))
    }

    /// That of the other side of a connected socket.
    init(peerOf socket: Int32) throws(LoadError) {
        length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let failure = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(socket, $0, &length) }
        }
        guard failure == 0 else { throw .system("a connection ended at once") }
    }

    var family: Int32 { Int32(storage.ss_family) }

    /// Whether it is one of 127.0.0.0/8, of which every one is this machine.
    var isLoopback4: Bool {
        guard family == AF_INET else { return false }
        var copy = storage
        return withUnsafeBytes(of: &copy) { $0[4] == 127 }
    }

    /// 16 addresses of this machine: each has all ports to itself.
    static let loopbacks = (1...16).compactMap { Address("127.0.0.\($0)") }

    /// A socket without Nagle's delay that connects, or has begun to, without waiting.
    /// - Parameter source: where it connects from; its port is chosen with the connection, so that each pair of
    ///   addresses has all ports.
    func connect(from source: Address?) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let socket = Glibc.socket(family, kind, 0)
        guard socket >= 0 else { return -1 }
        var one: Int32 = 1
        setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        if let source {
            setsockopt(socket, Int32(IPPROTO_IP), IP_BIND_ADDRESS_NO_PORT, &one, socklen_t(MemoryLayout<Int32>.size))
            if source.call({ bind(socket, $0, $1) }) != 0 { return Self.giveUp(socket) }
        }
        if call({ Glibc.connect(socket, $0, $1) }) != 0 && errno != EINPROGRESS { return Self.giveUp(socket) }
        return socket
    }

    /// Closes it, keeping `errno`.
    private static func giveUp(_ socket: Int32) -> Int32 {
        let reason = errno
        close(socket)
        errno = reason
        return -1
    }

    private func call(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        withUnsafePointer(to: storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }
}

/// An endpoint with what is needed to connect to it many times.
struct Target: Sendable {
    let endpoint: Endpoint
    /// `nil` for an endpoint without TLS.
    let tls: TLSContext?
    private let address: Address
    private let sources: [Address]

    /// Connects once, to find the address that answers.
    /// - Parameter sources: addresses to connect from, in turns; without any, those of the loopback network for a
    ///   target in it, and for others the kernel's choice.
    init(_ endpoint: Endpoint, sources: [Address], tls: TLSContext?) throws(LoadError) {
        let probe = try endpoint.connect(timeoutSeconds: 5)
        defer { close(probe) }
        address = try Address(peerOf: probe)
        self.endpoint = endpoint
        self.tls = endpoint.isSecure ? tls : nil
        let own = sources.isEmpty && address.isLoopback4 ? Address.loopbacks : sources
        for source in own where source.family != address.family {
            throw LoadError("\(endpoint.authority) cannot be reached from a source address of another family")
        }
        self.sources = own
    }

    /// - Parameter number: which of the sources it leaves from, over their count.
    func connect(_ number: Int) -> Int32 {
        address.connect(from: sources.isEmpty ? nil : sources[number % sources.count])
    }

    /// The request of a WebSocket handshake (RFC 6455 section 4.1).
    func request(user: String) -> [UInt8] {
        let request = """
            GET \(endpoint.target(for: user)) HTTP/1.1\r
            Host: \(endpoint.authority)\r
            Origin: \(endpoint.isSecure ? "https" : "http")://\(endpoint.authority)\r
            Upgrade: websocket\r
            Connection: Upgrade\r
            Sec-WebSocket-Version: 13\r
            Sec-WebSocket-Key: \(Self.nonce())\r
            \r\n
            """
        return Array(request.utf8)
    }

    /// 16 random bytes in base64.
    private static func nonce() -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text = [UInt8]()
        var bits = UInt64.random(in: 0 ... .max)
        for index in 0..<21 {
            if index == 10 { bits = UInt64.random(in: 0 ... .max) }
            text.append(alphabet[Int(bits & 63)])
            bits >>= 6
        }
        return String(decoding: text, as: UTF8.self) + "A=="
    }
}

/// Lifts the soft limit of open files to the hard one, and says whether `count` connections fit.
func requireDescriptors(_ count: Int) throws(LoadError) {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    guard limit.rlim_max >= UInt(count + 64) else {
        throw LoadError("\(count) connections need more open files than the limit of \(limit.rlim_max) (ulimit -n)")
    }
}
