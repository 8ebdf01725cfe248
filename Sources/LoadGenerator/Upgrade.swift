import Glibc

/// Opens a WebSocket connection, blocking, and waits for the server's `welcome`: then it knows who we are.
/// - Parameter user: stands in the query, for servers that run without authentication.
func openWebSocket(_ endpoint: Endpoint, user: String) throws(LoadError) -> Int32 {
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
        var reader = FrameReader()
        _ = try awaitMessage("welcome", on: socket, &reader, first: rest)
        return socket
    } catch {
        close(socket)
        throw error
    }
}

/// Reads, blocking, until a message of this type has come; what came with it is dropped.
/// - Parameter first: bytes that were read before.
/// - Returns: its `seq`, or 0.
func awaitMessage(
    _ type: StaticString,
    on socket: Int32,
    _ reader: inout FrameReader,
    first: [UInt8] = []
) throws(LoadError) -> Int64 {
    var seq: Int64?
    var refusal: String?
    let look = { (frame: FrameReader.Frame) in
        let message = Scan(payload: frame.payload)
        if message.isType(type) { seq = message.seq ?? 0 }
        if message.isType("error") || frame.opcode == 8 { refusal = message.text }
    }
    var fault = first.withUnsafeBytes { reader.read($0, look) }
    var chunk = [UInt8](repeating: 0, count: 65536)
    while true {
        if let reason = refusal ?? fault { throw LoadError("instead of '\(type)' the server sent \(reason)") }
        if let seq { return seq }
        let n = recv(socket, &chunk, chunk.count, 0)
        if n < 0 && errno == EINTR { continue }
        guard n > 0 else { throw LoadError("the server sent no '\(type)' within 5 s") }
        fault = chunk.withUnsafeBytes { reader.read(UnsafeRawBufferPointer(rebasing: $0[..<n]), look) }
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
