import CLinux
import Glibc

/// Why a run of the load generator could not start or go on; one sentence for the terminal.
package struct LoadError: Error, CustomStringConvertible {
    package let description: String

    package init(_ description: String) {
        self.description = description
    }

    static func system(_ what: String) -> LoadError {
        LoadError("\(what): \(String(cString: strerror(errno)))")
    }
}

/// An address of the form `ws://host[:port][/path][?query]`, or the same with `wss`, `http` or `https`.
package struct Endpoint: Sendable, Equatable {
    /// Through TLS.
    package let isSecure: Bool
    package let host: String
    package let port: UInt16
    /// Path and query, as the request line carries them.
    package let target: String

    package init(_ url: String) throws(LoadError) {
        guard let start = ["ws://", "wss://", "http://", "https://"].first(where: url.hasPrefix) else {
            throw LoadError("'\(url)' is no address of the form ws://host:port/ws or wss://host:port/ws")
        }
        isSecure = start == "wss://" || start == "https://"
        let rest = url.dropFirst(start.count)
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        let tail = rest.dropFirst(authority.count)
        let name: Substring
        let portText: Substring?
        if authority.hasPrefix("["), let end = authority.firstIndex(of: "]") {
            name = authority[authority.index(after: authority.startIndex)..<end]
            let after = authority[authority.index(after: end)...]
            portText = after.hasPrefix(":") ? after.dropFirst() : nil
        } else {
            let parts = authority.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            name = parts.first ?? ""
            portText = parts.count > 1 ? parts[1] : nil
        }
        guard !name.isEmpty, let port = portText.map({ UInt16($0) }) ?? (isSecure ? 443 : 80) else {
            throw LoadError("'\(url)' names no host, or no port between 0 and 65535")
        }
        host = String(name)
        self.port = port
        target = tail.hasPrefix("/") ? String(tail) : "/" + tail
    }

    /// The value of the `Host` header field.
    package var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// The same endpoint for one user, unless the address says already who connects.
    func target(for user: String) -> String {
        if target.contains("token=") || target.contains("user=") { return target }
        return target + (target.contains("?") ? "&" : "?") + "user=" + user
    }

    /// A connected, blocking TCP socket without Nagle's delay.
    /// - Parameter timeoutSeconds: bounds the connection attempt and each later read and write; 0 sets no bound.
    package func connect(timeoutSeconds: Int) throws(LoadError) -> Int32 {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let failure = getaddrinfo(host, String(port), &hints, &found)
        defer { if let found { freeaddrinfo(found) } }
        guard failure == 0, let first = found else {
            throw LoadError("\(host) is no known host: \(String(cString: gai_strerror(failure)))")
        }
        var candidate: UnsafeMutablePointer<addrinfo>? = first
        var refusal = LoadError("\(host) has no address")
        while let address = candidate {
            candidate = address.pointee.ai_next
            let kind = address.pointee.ai_socktype | Int32(SOCK_CLOEXEC.rawValue)
            let socket = Glibc.socket(address.pointee.ai_family, kind, address.pointee.ai_protocol)
            guard socket >= 0 else {
                refusal = .system("no socket for \(authority) (is the limit of open files too low?)")
                continue
            }
            var bound = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
            setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &bound, socklen_t(MemoryLayout<timeval>.size))
            setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &bound, socklen_t(MemoryLayout<timeval>.size))
            var one: Int32 = 1
            setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
            if Glibc.connect(socket, address.pointee.ai_addr, address.pointee.ai_addrlen) == 0 { return socket }
            refusal = .system("cannot connect to \(authority)")
            close(socket)
        }
        throw refusal
    }
}

/// Sends all bytes; waits up to 5 s at a time while the socket takes none.
func sendAll(_ bytes: [UInt8], to socket: Int32, through tls: TLSStream? = nil) throws(LoadError) {
    var sent = 0
    while sent < bytes.count {
        let result = bytes[sent...].withUnsafeBytes { rest in
            Result { () throws(LoadError) in try sendOnce(rest, to: socket, through: tls) }
        }
        let count = try result.get()
        sent += count
        guard count == 0 else { continue }
        var polled = pollfd(fd: socket, events: tls?.awaited ?? Int16(POLLOUT), revents: 0)
        if poll(&polled, 1, 5000) == 0 {
            errno = EAGAIN
            throw .system("the server stopped reading")
        }
    }
}

/// - Returns: how many bytes were taken; 0 when the socket takes none now.
func sendOnce(_ bytes: UnsafeRawBufferPointer, to socket: Int32, through tls: TLSStream?) throws(LoadError) -> Int {
    if let tls { return try tls.write(bytes) ? bytes.count : 0 }
    while true {
        let n = send(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
        if n < 0 && errno == EINTR { continue }
        if n < 0 && errno == EAGAIN { return 0 }
        guard n > 0 else { throw .system("the server stopped reading") }
        return n
    }
}

/// The status of an HTTP response and the length of its head; nil when it is not whole yet.
func responseHead(_ bytes: UnsafeRawBufferPointer) throws(LoadError) -> (status: Int, count: Int)? {
    let end: StaticString = "\r\n\r\n"
    guard let base = bytes.baseAddress,
        let found = memmem(base, bytes.count, end.utf8Start, end.utf8CodeUnitCount)
    else {
        if bytes.count >= 65536 { throw LoadError("the server's response head is over 64 KiB") }
        return nil
    }
    let line = String(decoding: bytes.prefix { $0 != 13 }, as: UTF8.self)
    let words = line.split(separator: " ")
    guard words.count > 1, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else {
        throw LoadError("the server answered '\(line.prefix(60))', which is no HTTP")
    }
    return (status, UnsafeRawPointer(found) - base + end.utf8CodeUnitCount)
}

/// The status with which an endpoint answers a plain GET.
/// - Parameters:
///   - trust: of an https:// endpoint.
///   - timeoutSeconds: bounds the connection attempt, the request and the answer, each for itself.
package func httpStatus(
    of endpoint: Endpoint, trust: TLSTrust = TLSTrust(), timeoutSeconds: Int
) throws(LoadError) -> Int {
    let socket = try endpoint.connect(timeoutSeconds: timeoutSeconds)
    defer { close(socket) }
    let request = "GET \(endpoint.target) HTTP/1.1\r\nHost: \(endpoint.authority)\r\nConnection: close\r\n\r\n"
    var tls: TLSStream?
    if endpoint.isSecure {
        let stream = try TLSStream(TLSContext(trust), to: endpoint.host, on: socket)
        // The socket blocks: who has to wait has waited for as long as there is time.
        guard try stream.handshake() else { throw LoadError("no TLS handshake with \(endpoint.authority) in time") }
        tls = stream
    }
    try sendAll(Array(request.utf8), to: socket, through: tls)
    var head: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 4096)
    while true {
        let n = try receive(&chunk, from: socket, through: tls)
        guard n > 0 else { throw LoadError("the server closed the connection before it answered") }
        head.append(contentsOf: chunk[..<n])
        let answer = head.withUnsafeBytes { bytes in
            Result { () throws(LoadError) in try responseHead(bytes) }
        }
        if let (status, _) = try answer.get() { return status }
    }
}

/// - Returns: how many bytes came; 0 at the end.
private func receive(
    _ chunk: inout [UInt8], from socket: Int32, through tls: TLSStream?
) throws(LoadError) -> Int {
    guard let tls else {
        while true {
            let n = recv(socket, &chunk, chunk.count, 0)
            if n < 0 && errno == EINTR { continue }
            guard n >= 0 else { throw .system("no answer to the request") }
            return n
        }
    }
    let result = chunk.withUnsafeMutableBytes { bytes in
        Result { () throws(LoadError) in try tls.read(into: bytes) }
    }
    switch try result.get() {
    case .bytes(let count): return count
    case .nothing: throw LoadError("no answer to the request in time")
    case .ended: return 0
    }
}
