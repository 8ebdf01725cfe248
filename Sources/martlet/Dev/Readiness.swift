import Glibc
import LoadGenerator

/// How to ask a child whether it can serve.
enum Readiness: Sendable, Equatable {
    /// 200 is yes.
    case http(host: String, port: Int, path: String)
    /// The same through TLS, whoever's certificate it shows: it is asked how it is, and told nothing.
    case https(host: String, port: Int, path: String)
    /// PONG on the socket is yes, LOADING is not yet.
    case redis(socket: String)

    enum Answer: Equatable, Sendable {
        case ready
        case notYet(reason: String)
    }

    /// Blocks for at most about two seconds.
    func ask() -> Answer {
        switch self {
        case .http(let host, let port, let path):
            guard let descriptor = Sockets.connect(host: host, port: port) else {
                return .notYet(reason: "port \(port) does not answer")
            }
            defer { close(descriptor) }
            let request = "GET \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            return Self.judge(http: Sockets.exchange(descriptor, request) { $0.count > 8192 })
        case .https(let host, let port, let path):
            var trust = TLSTrust()
            trust.verifies = false
            do throws(LoadError) {
                let name = host.contains(":") ? "[\(host)]" : host
                let endpoint = try Endpoint("https://\(name):\(port)\(path)")
                let status = try httpStatus(of: endpoint, trust: trust, timeoutSeconds: 2)
                return status == 200 ? .ready : .notYet(reason: "HTTP \(status)")
            } catch {
                return .notYet(reason: error.description)
            }
        case .redis(let socket):
            guard let descriptor = Sockets.connect(path: socket) else { return .notYet(reason: "no socket yet") }
            defer { close(descriptor) }
            let reply = Sockets.exchange(descriptor, "PING\r\n") { $0.last == UInt8(ascii: "\n") }
            let text = String(decoding: reply, as: UTF8.self)
            return text.hasPrefix("+PONG") ? .ready : .notYet(reason: String(text.prefix { !$0.isNewline }))
        }
    }

    static func judge(http reply: [UInt8]) -> Answer {
        let lines = String(decoding: reply, as: UTF8.self).split(
            omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        let status = (lines.first ?? "").split(separator: " ").dropFirst().first ?? ""
        if status == "200" { return .ready }
        let body = lines.drop { !$0.isEmpty }.first { !$0.isEmpty } ?? ""
        let code = status.isEmpty ? "no answer" : "HTTP \(status)"
        return .notYet(reason: body.isEmpty ? code : "\(code): \(body.prefix(200))")
    }
}

/// Blocking sockets for a question or two on this machine, with two seconds for each step.
enum Sockets {
    static func connect(host: String, port: Int) -> Int32? {
        withAddresses(host: host, port: port) { address in
            open(address.pointee.ai_family, address.pointee.ai_addr, address.pointee.ai_addrlen)
        }
    }

    static func connect(path: String) -> Int32? {
        guard var address = unixAddress(path) else { return nil }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                open(AF_UNIX, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// nil when the path does not fit into an address (107 bytes).
    static func unixAddress(_ path: String) -> sockaddr_un? {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return nil }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return address
    }

    /// Sends the text and reads until `enough`, the end, or two silent seconds.
    static func exchange(_ descriptor: Int32, _ text: String, enough: ([UInt8]) -> Bool) -> [UInt8] {
        Terminal.write(text, to: descriptor)
        var reply: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while !enough(reply) {
            let count = read(descriptor, &chunk, chunk.count)
            if count > 0 { reply += chunk[..<count] } else if count == 0 || errno != EINTR { break }
        }
        return reply
    }

    enum Listening: Equatable { case free, inUse, refused(String) }

    /// Whether somebody could listen there now. A port that is only in TIME_WAIT counts as free.
    static func tryListening(host: String, port: Int) -> Listening {
        var result = Listening.refused("no such address")
        _ = withAddresses(host: host, port: port) { address -> Int32? in
            let descriptor = socket(address.pointee.ai_family, Int32(SOCK_STREAM.rawValue), 0)
            guard descriptor >= 0 else { return nil }
            defer { close(descriptor) }
            var on: Int32 = 1
            setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
            let bound = bind(descriptor, address.pointee.ai_addr, address.pointee.ai_addrlen) == 0
            if bound && listen(descriptor, 1) == 0 {
                result = .free
            } else {
                result = errno == EADDRINUSE ? .inUse : .refused(ChildProcess.reason(errno))
            }
            return 0
        }
        return result
    }

    /// The first result that is not nil, over the addresses of the name.
    private static func withAddresses(
        host: String, port: Int, _ body: (UnsafePointer<addrinfo>) -> Int32?
    ) -> Int32? {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, String(port), &hints, &list) == 0 else { return nil }
        defer { freeaddrinfo(list) }
        var next = list
        while let address = next {
            if let result = body(address) { return result }
            next = address.pointee.ai_next
        }
        return nil
    }

    private static func open(_ family: Int32, _ address: UnsafePointer<sockaddr>, _ length: socklen_t) -> Int32? {
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var patience = timeval(tv_sec: 2, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &patience, socklen_t(MemoryLayout<timeval>.size))
        }
        guard Glibc.connect(descriptor, address, length) == 0 else {
            close(descriptor)
            return nil
        }
        return descriptor
    }
}
