import Glibc

/// Opens a WebSocket connection with one blocking round trip.
/// - Parameter user: stands in the query, for servers that run without authentication.
/// - Returns: the socket, blocking, and what the server sent after its response head.
func openWebSocket(_ endpoint: Endpoint, user: String) throws(LoadError) -> (socket: Int32, rest: [UInt8]) {
    let socket = try endpoint.connect(timeoutSeconds: 5)
    let request = """
        GET \(endpoint.target(for: user)) HTTP/1.1\r
        Host: \(endpoint.authority)\r
        Upgrade: websocket\r
        Connection: Upgrade\r
        Sec-WebSocket-Version: 13\r
        Sec-WebSocket-Key: \(nonce())\r
        \r\n
        """
    do throws(LoadError) {
        try sendAll(Array(request.utf8), to: socket)
        let (status, rest) = try readResponseHead(from: socket)
        guard status == 101 else {
            throw LoadError("\(endpoint.authority)\(endpoint.target) answered \(status) where 101 was due")
        }
        return (socket, rest)
    } catch {
        close(socket)
        throw error
    }
}

/// 16 random bytes in base64 (RFC 6455 section 4.1).
private func nonce() -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    let characters = (0..<21).map { _ in alphabet[Int.random(in: 0..<64)] }
    return String(characters) + String(["A", "Q", "g", "w"][Int.random(in: 0..<4)]) + "=="
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
