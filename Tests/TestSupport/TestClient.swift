import Glibc
import Synchronization

/// A WebSocket client on a bare socket, independent of everything it tests. It collects what the server says, answers
/// pings unless told not to, and notes what RFC 6455 or RFC 8259 forbid a server.
package final class TestClient: Sendable, SocketHandler {
    package struct Closed: Sendable, Equatable {
        /// 1006 when the connection ended without a Close frame.
        package var code: UInt16
        package var reason: String

        package init(code: UInt16, reason: String) {
            (self.code, self.reason) = (code, reason)
        }
    }

    package struct Refused: Error, CustomStringConvertible {
        package let answer: HTTPAnswer
        package var description: String { "the upgrade was refused with \(answer.status): \(answer.text)" }
    }

    package struct ConnectionClosed: Error, CustomStringConvertible {
        package let description: String
    }

    /// What clients speak that are asked for no subprotocol, see ``speech``.
    package enum Speech: Sendable {
        case json
        case protobuf
        /// One this, the next that.
        case alternating
    }

    /// Tests that say everything in JSON run in protobuf with another value.
    @TaskLocal package static var speech = Speech.json
    private static let connections = Mutex(0)

    package struct Heard: Sendable {
        /// Not yet taken by ``next(_:within:where:)``.
        package var unread: [JSON] = []
        package var all: [JSON] = []
        package var pings = 0
        package var pongs: [[UInt8]] = []
        package var binary: [[UInt8]] = []
        package var closed: Closed?
        package var violations: [String] = []
        fileprivate var head: HTTPHead?
        fileprivate var refused: HTTPAnswer?
        /// What the server agreed on in `Sec-WebSocket-Extensions`.
        package var extensions: String?
        package var compressedMessages = 0
    }

    package struct Options: Sendable {
        package var headers: [(String, String)] = []
        package var subprotocols: [String] = []
        package var answersPings = true
        /// Answers a Close frame and lets the server end the connection.
        package var answersClose = true
        package var timeout: Duration = .seconds(10)
        /// The last byte of the address 127.0.0.x that it connects from.
        package var source: UInt8 = 1
        /// Sees each message first, on the reactor's thread; true: it is not collected.
        package var tap: (@Sendable (TestClient, JSON) -> Bool)?
        /// Sees the text of each message before that; true: it is neither parsed nor collected.
        package var tapText: (@Sendable ([UInt8]) -> Bool)?

        package init() {}
    }

    private struct Reading {
        var isUpgraded = false
        var head: [UInt8] = []
        var frames = ServerFrameParser()
        var close: Closed?
    }

    private struct Writing {
        var fd: Int32
        var pending: [UInt8] = []
        var sentClose = false
    }

    package let heard = Watched(Heard())
    private let options: Options
    /// Says and hears `martlet.v1.protobuf`, which is JSON to the test.
    package let speaksProtobuf: Bool
    private let key = WebSocketKey.random()
    private let reading = Mutex(Reading())
    private let writing: Mutex<Writing>

    private init(fd: Int32, options: Options) {
        var options = options
        if options.subprotocols.isEmpty, Self.nextSpeaksProtobuf() {
            options.subprotocols = ["martlet.v1.protobuf", "martlet.v1.json"]
        }
        self.options = options
        speaksProtobuf = options.subprotocols.first == "martlet.v1.protobuf"
        writing = Mutex(Writing(fd: fd))
    }

    /// - Throws: ``Refused`` with the server's answer when that is not 101.
    package static func connect(
        port: Int,
        path: String,
        options: Options = Options()
    ) async throws -> TestClient {
        let fd = try await offPool { try openSocket(port: port, source: options.source) }
        let client = TestClient(fd: fd, options: options)
        SocketReactor.shared.add(fd, client)
        var head = "GET \(path) HTTP/1.1\r\nHost: 127.0.0.1:\(port)\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += "Sec-WebSocket-Key: \(client.key)\r\nSec-WebSocket-Version: 13\r\n"
        if !client.options.subprotocols.isEmpty {
            head += "Sec-WebSocket-Protocol: \(client.options.subprotocols.joined(separator: ", "))\r\n"
        }
        for (name, value) in options.headers { head += "\(name): \(value)\r\n" }
        client.send(raw: Array((head + "\r\n").utf8))
        do {
            let refused = try await client.heard.wait(within: options.timeout, "the answer to the upgrade") { heard in
                if let refused = heard.refused { return Result<HTTPAnswer?, any Error>.success(refused) }
                if let closed = heard.closed, heard.head == nil {
                    return .failure(ConnectionClosed(description: "closed in the handshake: \(closed)"))
                }
                return heard.head == nil ? nil : .success(nil)
            }.get()
            if let refused { throw Refused(answer: refused) }
            return client
        } catch {
            client.abort()
            throw error
        }
    }

    private static func nextSpeaksProtobuf() -> Bool {
        switch speech {
        case .json: false
        case .protobuf: true
        case .alternating:
            connections.withLock { count in
                count += 1
                return count.isMultiple(of: 2)
            }
        }
    }

    /// The headers of the 101; names in lower case.
    package func header(_ name: String) -> String? { heard.current.head?[name] }

    package var violations: [String] { heard.current.violations }
    package var isOpen: Bool { heard.current.closed == nil }

    // MARK: Sending

    package func send(_ message: JSON) {
        guard speaksProtobuf else { return send(text: message.text) }
        do {
            send(ClientFrame(ClientFrame.Opcode.binary, try ProtobufBridge.encode(message)))
        } catch {
            heard.update { $0.violations.append("the test said \(error)") }
        }
    }

    package func send(text: String) { send(ClientFrame(ClientFrame.Opcode.text, text: text)) }

    package func send(_ frame: ClientFrame) { send(raw: frame.bytes) }

    package func send(raw bytes: [UInt8]) {
        let blocked = writing.withLock { writing -> Int32? in
            guard writing.fd >= 0 else { return nil }
            let wasEmpty = writing.pending.isEmpty
            writing.pending += bytes
            return wasEmpty && !Self.flush(&writing) ? writing.fd : nil
        }
        if let blocked { SocketReactor.shared.setWrites(blocked, true) }
    }

    /// Sends a Close frame; ``closed(within:)`` tells the server's answer.
    package func close(code: UInt16 = 1000, reason: String = "") {
        writing.withLock { $0.sentClose = true }
        send(ClientFrame.close(code: code, reason: reason))
    }

    /// Ends the TCP connection without a word.
    package func abort() {
        let fd = writing.withLock { $0.fd }
        if fd >= 0 { SocketReactor.shared.remove(fd) }
    }

    package func setReads(_ reads: Bool) {
        let fd = writing.withLock { $0.fd }
        if fd >= 0 { SocketReactor.shared.setReads(fd, reads) }
    }

    // MARK: Hearing

    /// Takes the first message that matches out of those not taken yet, or waits for it.
    package func next(
        _ what: @autoclosure @escaping @Sendable () -> String,
        within limit: Duration = .seconds(10),
        where matches: @escaping @Sendable (JSON) -> Bool
    ) async throws -> JSON {
        try await heard.wait(within: limit, "\(what()); unread: \(self.heard.current.unread.map(\.text))") { heard in
            if let index = heard.unread.firstIndex(where: matches) {
                return Result<JSON, any Error>.success(heard.unread.remove(at: index))
            }
            return heard.closed.map {
                .failure(
                    ConnectionClosed(
                        description: "closed with \($0.code) \($0.reason) while waiting for \(what()); unread: "
                            + "\(heard.unread.map(\.text))"
                    )
                )
            }
        }.get()
    }

    package func next(
        _ type: String,
        room: String? = nil,
        id: String? = nil,
        within limit: Duration = .seconds(10)
    ) async throws -> JSON {
        let what = "\(type)\(room.map { " in \($0)" } ?? "")\(id.map { " for \($0)" } ?? "")"
        return try await next(what, within: limit) { message in
            message["type"]?.string == type && (room == nil || message["room"]?.string == room)
                && (id == nil || message["id"]?.string == id)
        }
    }

    @discardableResult
    package func closed(within limit: Duration = .seconds(10)) async throws -> Closed {
        try await heard.wait(within: limit, "the end of the connection") { $0.closed }
    }

    /// All that the server sent before it answered this ping (a WebSocket ping: the transport's own order).
    package func roundTrip(within limit: Duration = .seconds(10)) async throws {
        let token = Array("\(UInt64.random(in: 0...UInt64.max))".utf8)
        send(ClientFrame(ClientFrame.Opcode.ping, token))
        try await heard.wait(within: limit, "the pong") { heard in
            if heard.pongs.contains(token) { return Result<Void, any Error>.success(()) }
            return heard.closed.map {
                .failure(ConnectionClosed(description: "closed with \($0.code) \($0.reason) before the pong"))
            }
        }.get()
    }

    // MARK: On the reactor's thread

    func socketIsReadable() -> Bool {
        let fd = writing.withLock { $0.fd }
        var lives = true
        withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 16) { buffer in
            while true {
                let count = recv(fd, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else {
                    lives = count < 0 && errno == EAGAIN
                    return
                }
                take(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                // Fair to the other sockets: the rest is read in the next turn.
                if count < buffer.count { return }
                return
            }
        }
        return lives
    }

    func socketIsWritable() -> Bool {
        let done = writing.withLock { writing in writing.fd >= 0 && Self.flush(&writing) ? writing.fd : nil }
        if let done { SocketReactor.shared.setWrites(done, false) }
        return true
    }

    func socketWillClose() {
        writing.withLock { $0.fd = -1 }
        let close = reading.withLock { $0.close }
        heard.update { heard in
            heard.closed = close ?? Closed(code: 1006, reason: "the connection ended without a Close frame")
        }
    }

    private func take(_ bytes: UnsafeRawBufferPointer) {
        var news: [ServerFrameParser.Event] = []
        var head: HTTPHead?
        var refused: HTTPAnswer?
        var violations: [String] = []
        var compressed = 0
        reading.withLock { reading in
            if reading.isUpgraded {
                reading.frames.append(bytes)
            } else {
                reading.head.append(contentsOf: bytes)
                do {
                    guard let whole = try HTTPHead(parsing: reading.head) else { return }
                    guard whole.status == 101 else {
                        refused = try HTTPAnswer(parsing: reading.head, toHead: false, atEnd: false)
                        return
                    }
                    if whole["sec-websocket-accept"] != WebSocketKey.accept(for: key) {
                        violations.append("a wrong Sec-WebSocket-Accept")
                    }
                    if let chosen = whole["sec-websocket-protocol"], !options.subprotocols.contains(chosen) {
                        violations.append("a subprotocol that was not asked for")
                    }
                    head = whole
                    reading.isUpgraded = true
                    reading.frames.allowsCompression = whole["sec-websocket-extensions"] != nil
                    reading.head[whole.length...].withUnsafeBytes { reading.frames.append($0) }
                } catch {
                    violations.append("\(error)")
                }
            }
            let known = reading.frames.violations.count
            while let event = reading.frames.next() {
                if case .close(let code, let reason) = event { reading.close = Closed(code: code, reason: reason) }
                news.append(event)
            }
            violations += reading.frames.violations[known...]
            compressed = reading.frames.compressedMessages
        }
        digest(news, head: head, refused: refused, violations: violations, compressed: compressed)
    }

    private func digest(
        _ news: [ServerFrameParser.Event],
        head: HTTPHead?,
        refused: HTTPAnswer?,
        violations: [String],
        compressed: Int
    ) {
        var violations = violations
        var messages: [JSON] = []
        var pings = 0
        var pongs: [[UInt8]] = []
        var binary: [[UInt8]] = []
        for event in news {
            switch event {
            case .text(let text) where options.tapText?(text) == true: break
            case .text(let bytes) where !speaksProtobuf, .binary(let bytes) where speaksProtobuf:
                do {
                    let message = try speaksProtobuf ? ProtobufBridge.decode(bytes) : JSON(parsing: bytes[...])
                    if message["type"]?.string == nil { violations.append("a message without type: \(message.text)") }
                    if options.tap?(self, message) != true { messages.append(message) }
                } catch {
                    violations.append("\(error)")
                }
            case .text: violations.append("text for a client of martlet.v1.protobuf")
            case .binary(let bytes): binary.append(bytes)
            case .ping(let payload):
                pings += 1
                if options.answersPings { send(ClientFrame(ClientFrame.Opcode.pong, payload)) }
            case .pong(let payload): pongs.append(payload)
            case .close(let code, _):
                let answers = writing.withLock { writing in
                    defer { writing.sentClose = true }
                    return !writing.sentClose && options.answersClose
                }
                if answers {
                    send(code == 1005 ? ClientFrame(ClientFrame.Opcode.close) : ClientFrame.close(code: code))
                }
            }
        }
        if news.isEmpty, head == nil, refused == nil, violations.isEmpty { return }
        heard.update { [messages, violations, pings, pongs, binary] heard in
            heard.unread += messages
            heard.all += messages
            heard.pings += pings
            heard.pongs += pongs
            heard.binary += binary
            heard.violations += violations
            heard.compressedMessages = compressed
            if let head {
                heard.head = head
                heard.extensions = head["sec-websocket-extensions"]
            }
            if let refused { heard.refused = refused }
        }
    }

    /// - Returns: whether everything was written.
    private static func flush(_ writing: inout Writing) -> Bool {
        while !writing.pending.isEmpty {
            let count = writing.pending.withUnsafeBytes {
                Glibc.send(writing.fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                if errno == EAGAIN { return false }
                // The reader will hear of the end.
                writing.pending = []
                return true
            }
            writing.pending.removeFirst(count)
        }
        return true
    }

    private static func openSocket(port: Int, source: UInt8) throws -> Int32 {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0 else { throw SystemCallFailed("socket") }
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let isBound = source == 1 || withLoopback(source, port: 0) { bind(fd, $0, $1) } == 0
        guard isBound, withLoopback(port: port, { Glibc.connect(fd, $0, $1) }) == 0 else {
            let error = SystemCallFailed("connect from 127.0.0.\(source) to port \(port)")
            Glibc.close(fd)
            throw error
        }
        var on: Int32 = 1
        setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        return fd
    }
}
