import CLinux
import Dispatch
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing
import WebSocketTransport

/// What a delegate was told.
enum Event: Equatable {
    case text(String)
    case binary([UInt8])
    case readComplete
    case pong
    case caughtUp
    case closed(UInt16, String)
}

/// A delegate that writes down what it is told, and lets a test wait for it from another thread.
final class Recorder: WebSocketDelegate, Sendable {
    private let events = Mutex<[Event]>([])
    private let changed = DispatchSemaphore(value: 0)
    private let onText: @Sendable (WebSocketConnection, ByteBuffer) -> Void

    init(onText: @escaping @Sendable (WebSocketConnection, ByteBuffer) -> Void = { _, _ in }) {
        self.onText = onText
    }

    func add(_ event: Event) {
        events.withLock { $0.append(event) }
        changed.signal()
    }

    var all: [Event] { events.withLock { $0 } }
    var texts: [String] {
        all.compactMap { event in if case .text(let text) = event { text } else { nil } }
    }
    var closed: Event? {
        all.first { event in if case .closed = event { true } else { false } }
    }

    /// The events, once `condition` holds for them.
    @discardableResult
    func wait(
        for condition: ([Event]) -> Bool,
        location: SourceLocation = #_sourceLocation
    ) -> [Event] {
        let deadline = DispatchTime.now() + .seconds(10)
        while true {
            let events = all
            if condition(events) { return events }
            guard changed.wait(timeout: deadline) == .success else {
                Issue.record("waited in vain; so far: \(events)", sourceLocation: location)
                return events
            }
        }
    }

    @discardableResult
    func waitUntilClosed(location: SourceLocation = #_sourceLocation) -> Event? {
        wait(for: { $0.contains { if case .closed = $0 { true } else { false } } }, location: location)
        return closed
    }

    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
        onText(connection, text)
        add(.text(String(buffer: text)))
    }
    func webSocket(_ connection: WebSocketConnection, receivedBinary bytes: ByteBuffer) {
        add(.binary(Array(bytes.readableBytesView)))
    }
    func webSocketReadComplete(_ connection: WebSocketConnection) { add(.readComplete) }
    func webSocketReceivedPong(_ connection: WebSocketConnection) { add(.pong) }
    func webSocketCaughtUp(_ connection: WebSocketConnection) { add(.caughtUp) }
    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
        add(.closed(code, reason))
    }
}

/// Sends back what it gets.
final class Echo: WebSocketDelegate {
    func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) { connection.send(text: text) }
    func webSocket(_ connection: WebSocketConnection, receivedBinary bytes: ByteBuffer) {
        connection.send(binary: bytes)
    }
    func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {}
}

/// A server on a free port whose plain answers are `GET /hello` → "hello", `POST /echo` → the body, else 404.
struct TestServer {
    let server: HTTPServer
    let port: Int
    static let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)

    /// Ends connections quickly whose peers, like `RawSocket`, do not take part in the closing handshake.
    static var limits: WebSocketLimits {
        var limits = WebSocketLimits()
        limits.closeTimeout = .milliseconds(250)
        return limits
    }

    init(
        limits: WebSocketLimits = TestServer.limits,
        group: any EventLoopGroup = TestServer.group,
        readsProxyProtocol: Bool = false,
        tls: TLSCredentials? = nil,
        onUpgrade: @escaping HTTPServer.UpgradeHandler = { _, _ in .accept { _ in Echo() } },
        onUnreadable: @escaping HTTPServer.UnreadableHandler = { _, _ in }
    ) throws {
        server = try HTTPServer.start(
            host: "127.0.0.1",
            port: 0,
            group: group,
            limits: limits,
            trustedProxies: .loopback,
            readsProxyProtocol: readsProxyProtocol,
            tls: tls,
            onUnreadable: onUnreadable,
            onRequest: { request, loop in
                switch (request.method, request.path) {
                case (.GET, "/hello"), (.HEAD, "/hello"):
                    loop.makeSucceededFuture(HTTPResponse(status: .ok, contentType: "text/plain", body: "hello"))
                case (.GET, "/who"):
                    loop.makeSucceededFuture(
                        HTTPResponse(
                            status: .ok, contentType: "text/plain",
                            body: "\(request.clientAddress) \(request.isSecure) \(request.requestID)"))
                case (.GET, "/secure"):
                    loop.makeSucceededFuture(
                        HTTPResponse(
                            status: .ok, contentType: "text/plain",
                            body: "\(request.isSecure) \(request.asksForStrictTransport)"))
                case (.POST, "/echo"):
                    loop.makeSucceededFuture(HTTPResponse(status: .ok, body: request.body))
                case (.GET, "/later"):
                    loop.scheduleTask(in: .milliseconds(50)) {
                        HTTPResponse(status: .ok, body: ByteBuffer(string: "later"))
                    }.futureResult
                default:
                    loop.makeSucceededFuture(.error(.notFound, reason: "not_found", message: "Nothing is here."))
                }
            },
            onUpgrade: onUpgrade
        ).wait()
        port = try #require(server.localAddress?.port)
    }

    /// A server whose connections report to `recorder`.
    init(limits: WebSocketLimits = TestServer.limits, recorder: Recorder) throws {
        try self.init(limits: limits) { _, _ in .accept { _ in recorder } }
    }

    func stop() throws { try server.close().wait() }

    var url: String { "ws://127.0.0.1:\(port)/ws" }

    func connect(
        _ recorder: Recorder,
        path: String = "/ws",
        headers: HTTPHeaders = HTTPHeaders(),
        subprotocols: [String] = [],
        limits: WebSocketLimits = WebSocketLimits()
    ) throws -> WebSocketConnection {
        try WebSocketClient.connect(
            url: "ws://127.0.0.1:\(port)\(path)",
            headers: headers,
            subprotocols: subprotocols,
            on: TestServer.group.next(),
            limits: limits,
            delegate: { _ in recorder }
        ).wait()
    }
}

extension WebSocketConnection {
    /// Runs `body` on the connection's loop and waits for it.
    func onLoop<Value: Sendable>(_ body: @escaping @Sendable (WebSocketConnection) -> Value) throws -> Value {
        try eventLoop.submit { body(self) }.wait()
    }
}

/// A blocking TCP socket, to say what no proper client would. Reads time out after ten seconds.
final class RawSocket {
    fileprivate let descriptor: CInt
    private var buffered: [UInt8] = []

    init(port: Int, receiveBuffer: Int? = nil) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var size = receiveBuffer.map(Int32.init) {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        var timeout = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        let address = try SocketAddress(ipAddress: "127.0.0.1", port: port)
        let result = address.withSockAddr { Glibc.connect(descriptor, $0, socklen_t($1)) }
        try #require(result == 0, "connect: errno \(errno)")
    }

    deinit { close(descriptor) }

    func send(_ text: String) { send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { pointer in
                let rest = UnsafeRawBufferPointer(rebasing: pointer[sent...])
                return Glibc.send(descriptor, rest.baseAddress, rest.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return }
            sent += count
        }
    }

    func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// Up to `count` bytes; empty at the end of the stream.
    func receiveSome(_ count: Int = 65536) -> [UInt8] {
        if !buffered.isEmpty {
            let bytes = Array(buffered.prefix(count))
            buffered.removeFirst(bytes.count)
            return bytes
        }
        var bytes = [UInt8](repeating: 0, count: count)
        let received = recv(descriptor, &bytes, count, 0)
        return received > 0 ? Array(bytes.prefix(received)) : []
    }

    /// Exactly `count` bytes, fewer only at the end of the stream.
    func receive(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let some = receiveSome(count - bytes.count)
            if some.isEmpty { break }
            bytes += some
        }
        return bytes
    }

    /// Everything until the end of the stream.
    func receiveAll() -> [UInt8] {
        var bytes: [UInt8] = []
        while case let some = receiveSome(), !some.isEmpty { bytes += some }
        return bytes
    }

    /// Status line and headers, with their empty line.
    func receiveHead() -> String {
        var bytes: [UInt8] = []
        while bytes.suffix(4) != [13, 10, 13, 10] && bytes.count < 65536 {
            let byte = receive(1)
            if byte.isEmpty { break }
            bytes += byte
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A response with a `Content-Length`.
    func receiveResponse() -> (head: String, body: String) {
        let head = receiveHead()
        let length = head.lowercased().split(separator: "\r\n")
            .first { $0.hasPrefix("content-length: ") }
            .flatMap { Int($0.dropFirst("content-length: ".count)) }
        return (head, String(decoding: receive(length ?? 0), as: UTF8.self))
    }

    /// One unmasked frame: its first byte and its payload. Nil at the end of the stream.
    func receiveFrame() -> (first: UInt8, payload: [UInt8])? {
        let head = receive(2)
        guard head.count == 2 else { return nil }
        var length = Int(head[1])
        if length == 126 { length = receive(2).reduce(0) { $0 << 8 | Int($1) } }
        if length == 127 { length = receive(8).reduce(0) { $0 << 8 | Int($1) } }
        return (head[0], receive(length))
    }

    static let handshake = """
        GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n
        """

    /// Does the opening handshake.
    func openWebSocket(_ request: String = RawSocket.handshake) {
        send(request)
        let head = receiveHead()
        #expect(head.hasPrefix("HTTP/1.1 101 "))
    }
}

/// A frame as a client sends it.
func clientFrame(
    _ first: UInt8,
    _ payload: [UInt8],
    key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
) -> [UInt8] {
    var frame = [first]
    switch payload.count {
    case ..<126: frame.append(0x80 | UInt8(payload.count))
    case ...0xFFFF: frame += [0x80 | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
    default: frame += [0x80 | 127] + (0..<8).map { UInt8(truncatingIfNeeded: payload.count >> (56 - 8 * $0)) }
    }
    frame += key
    frame += payload.enumerated().map { $1 ^ key[$0 & 3] }
    return frame
}

func clientText(_ text: String) -> [UInt8] { clientFrame(0x81, Array(text.utf8)) }

func closePayload(_ code: UInt16, _ reason: String = "") -> [UInt8] {
    [UInt8(code >> 8), UInt8(code & 0xFF)] + Array(reason.utf8)
}

extension RawSocket {
    /// From now on closing sends a reset.
    func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
    }
}

/// Buffers that a test keeps past their delivery.
final class KeptBuffers: Sendable {
    private let buffers = Mutex<[ByteBuffer]>([])
    func add(_ buffer: ByteBuffer) { buffers.withLock { $0.append(buffer) } }
    var all: [ByteBuffer] { buffers.withLock { $0 } }
}
