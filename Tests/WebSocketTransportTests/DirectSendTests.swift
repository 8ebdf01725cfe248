import Dispatch
import NIOCore
import NIOEmbedded
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

@testable import WebSocketTransport

private func textFrame(_ text: String) -> [UInt8] {
    var buffer = ByteBuffer()
    WebSocketFrame.appendText(ByteBuffer(string: text), to: &buffer)
    return Array(buffer.readableBytesView)
}

@Suite("Direct send")
struct DirectSendTests {
    @Test("coalesced, shared and large frames leave in the order of the calls, also through a full socket")
    func order() throws {
        var limits = TestServer.limits
        limits.maximumQueuedBytes = 64 << 20
        limits.closeTimeout = .seconds(5)
        let filler = String(repeating: "x", count: 3000)
        let count = 3000
        let recorder = Recorder { connection, _ in
            for number in 0..<count {
                switch number % 5 {
                case 0, 1: connection.send(text: ByteBuffer(string: "\(number)"))
                case 2: textFrame("\(number)").withUnsafeBytes { connection.sendFrames($0) }
                case 3: textFrame("\(number) \(filler)").withUnsafeBytes { connection.sendFrames($0) }
                default:
                    connection.send(text: ByteBuffer(string: "\(number) \(filler)"))
                    if number % 7 == 0 { connection.flush() }
                }
            }
            connection.close(code: 1000, reason: "")
        }
        let server = try TestServer(limits: limits, recorder: recorder)
        let socket = try RawSocket(port: server.port, receiveBuffer: 4096)
        socket.openWebSocket()
        socket.send(clientText("go"))
        recorder.wait { $0.contains(.readComplete) }
        for number in 0..<count {
            guard let frame = socket.receiveFrame() else {
                Issue.record("ended before \(number)")
                break
            }
            let text = String(decoding: frame.payload, as: UTF8.self)
            guard frame.first == 0x81, text == "\(number)" || text == "\(number) \(filler)" else {
                Issue.record("not \(number): \(text.prefix(20))")
                break
            }
        }
        #expect(socket.receiveFrame()?.payload == closePayload(1000))
        socket.send(clientFrame(0x88, closePayload(1000)))
        #expect(socket.receiveAll() == [])
        try server.stop()
    }

    @Test("a write that fails in NIO ends the connection after the send that caused it, not within")
    func failingWrite() throws {
        final class Failing: ChannelOutboundHandler {
            typealias OutboundIn = ByteBuffer
            func flush(context: ChannelHandlerContext) { context.close(promise: nil) }
        }
        let loop = EmbeddedEventLoop()
        let channel = EmbeddedChannel(handler: Failing(), loop: loop)
        let recorder = Recorder()
        // Without a socket of its own, all that it sends is left to NIO.
        let connection = WebSocketConnection(
            role: .server, loop: .current(on: loop), limits: SharedLimits(TestServer.limits), server: nil,
            subprotocol: nil)
        try channel.pipeline.syncOperations.addHandler(connection)
        connection.attach(recorder)
        textFrame("one").withUnsafeBytes { connection.sendFrames($0) }
        textFrame("two").withUnsafeBytes { connection.sendFrames($0) }
        #expect(recorder.all == [] && connection.queuedBytes > 0)
        loop.run()
        #expect(recorder.all == [.closed(1006, "")])
    }

    @Test("who does not read is closed with 4001 and may read why; the others get everything")
    func slowReader() throws {
        var limits = TestServer.limits
        limits.maximumQueuedBytes = 256 * 1024
        limits.closeTimeout = .seconds(5)
        let fan = Fan()
        let server = try TestServer(limits: limits) { request, loop in
            .accept { fan.add($0, on: loop, id: request.query("id") ?? "") }
        }
        let stalled = try RawSocket(port: server.port, receiveBuffer: 4096)
        stalled.openWebSocket(RawSocket.handshake.replacingPath("/ws?id=stalled"))
        let readers = (0..<4).map { _ in Recorder() }
        let connections = try readers.enumerated().map { try server.connect($1, path: "/ws?id=\($0)") }
        let filler = String(repeating: "y", count: 16000)
        var sent = 0
        while fan.codes["stalled"] == nil, !fan.isClosing("stalled"), sent < 2000 {
            let frame = textFrame("\(sent) \(filler)")
            fan.send(frame)
            // The readers keep up; only the stalled one may fall behind.
            for reader in readers { reader.wait { $0.contains(.text("\(sent) \(filler)")) } }
            sent += 1
        }
        #expect(sent < 2000)
        var next = 0
        while let frame = stalled.receiveFrame() {
            if frame.first == 0x88 {
                #expect(frame.payload == closePayload(4001, "slow, resume"))
                break
            }
            #expect(String(decoding: frame.payload, as: UTF8.self) == "\(next) \(filler)")
            next += 1
        }
        #expect(next > 0 && next < sent)
        stalled.send(clientFrame(0x88, closePayload(4001)))
        #expect(stalled.receiveAll() == [])
        #expect(fan.waitForCode("stalled") == 4001)
        for reader in readers { #expect(reader.texts.count == sent) }
        for connection in connections { #expect(try connection.onLoop { $0.isOpen }) }
        try server.stop()
    }

    @Test("a failing send tells nobody inside the call; the end is told once, after it")
    func failureIsDeferred() throws {
        let fan = Fan()
        let server = try TestServer { request, loop in
            .accept { fan.add($0, on: loop, id: request.query("id") ?? "") }
        }
        for round in 0..<20 {
            let id = "\(round)"
            do {
                let socket = try RawSocket(port: server.port)
                socket.openWebSocket(RawSocket.handshake.replacingPath("/ws?id=\(id)"))
                socket.reset()
            }
            while fan.codes[id] == nil { fan.send(textFrame("x")) }
            #expect(fan.codes[id] == 1006)
        }
        #expect(fan.toldDuringSend == 0)
        try server.stop()
    }

    /// Server and clients share the process and so the descriptor numbers: a frame sent to a number that was closed and
    /// given away would reach another connection, which would see a foreign id, or the server, which would see an
    /// unmasked frame (1002).
    @Test("no connection ever receives another's bytes while stalled readers, closes and accepts race")
    func descriptorReuse() throws {
        var limits = TestServer.limits
        limits.maximumQueuedBytes = 48 * 1024
        let fan = Fan()
        let ids = Atomic(0)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        defer { try? group.syncShutdownGracefully() }
        let server = try TestServer(limits: limits, group: group) { request, loop in
            .accept { fan.add($0, on: loop, id: request.query("id") ?? "") }
        }
        let readers = Readers(server: server, group: group, ids: { "\(ids.add(1, ordering: .relaxed).newValue)" })
        fan.startStorm(on: group)
        for _ in 0..<40 { readers.open() }
        let start = DispatchTime.now()
        // At least a second, and on a slow machine until enough has happened.
        func isEnough() -> Bool {
            let codes = fan.codes
            return readers.received > 2000 && codes.count > 100 && codes.values.contains(4001)
                && codes.values.contains(1006)
        }
        var stalled: [RawSocket] = []
        var round = 0
        while DispatchTime.now() < start + .seconds(1) || (!isEnough() && DispatchTime.now() < start + .seconds(120)) {
            let socket = try RawSocket(port: server.port, receiveBuffer: 2048)
            socket.openWebSocket(RawSocket.handshake.replacingPath("/ws?id=s\(round)"))
            if round % 2 == 0 { socket.reset() }
            stalled.append(socket)
            if stalled.count > 20 { stalled.removeFirst(stalled.count / 2) }
            round += 1
        }
        fan.stopStorm()
        readers.stop()
        stalled = []
        try server.stop()
        readers.waitUntilAllClosed()
        #expect(readers.foreign == [])
        #expect(isEnough(), "\(readers.received) received, closed \(fan.codes.values.sorted())")
        #expect(readers.badCodes == [])
        #expect(fan.codes.values.allSatisfy { $0 != 1002 && $0 != 1007 })
    }
}

/// The server's side: sends to all of its connections, on their loops, also to those that are gone.
private final class Fan: Sendable {
    private final class Member: WebSocketDelegate {
        let id: String
        let connection: WebSocketConnection
        /// Gone when its test is over, and connections end later.
        weak var fan: Fan?
        var turnsSinceClosed = 0
        var isClosed = false

        init(id: String, connection: WebSocketConnection, fan: Fan) {
            self.id = id
            self.connection = connection
            self.fan = fan
        }

        func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {}
        func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
            isClosed = true
            fan?.told(id, code)
        }
    }

    /// Confined to its loop.
    private final class Shard: @unchecked Sendable {
        let loop: any EventLoop
        var members: [Member] = []
        var storm: RepeatedTask?
        var generator = SystemRandomNumberGenerator()
        init(_ loop: any EventLoop) { self.loop = loop }
    }

    private struct State {
        var shards: [ObjectIdentifier: Shard] = [:]
        var codes: [String: UInt16] = [:]
        var sending = 0
        var toldDuringSend = 0
    }

    private let state = Mutex(State())

    var codes: [String: UInt16] { state.withLock { $0.codes } }
    var toldDuringSend: Int { state.withLock { $0.toldDuringSend } }

    private func shard(_ loop: any EventLoop) -> Shard {
        state.withLock { state in
            if let shard = state.shards[ObjectIdentifier(loop)] { return shard }
            let shard = Shard(loop)
            state.shards[ObjectIdentifier(loop)] = shard
            return shard
        }
    }

    private var shards: [Shard] { state.withLock { Array($0.shards.values) } }

    func add(_ connection: WebSocketConnection, on loop: any EventLoop, id: String) -> any WebSocketDelegate {
        let member = Member(id: id, connection: connection, fan: self)
        if id.hasPrefix("s") {
            try? connection.context?.channel.syncOptions?.setOption(.socketOption(.so_sndbuf), value: 4096)
        }
        shard(loop).members.append(member)
        return member
    }

    private func told(_ id: String, _ code: UInt16) {
        state.withLock { state in
            if state.sending > 0 { state.toldDuringSend += 1 }
            state.codes[id] = code
        }
    }

    func isClosing(_ id: String) -> Bool {
        shards.contains { shard in
            let answer = shard.loop.submit { shard.members.contains { $0.id == id && !$0.connection.isOpen } }
            return (try? answer.wait()) ?? true
        }
    }

    func waitForCode(_ id: String) -> UInt16? {
        let end = DispatchTime.now() + .seconds(120)
        while codes[id] == nil, DispatchTime.now() < end {
            for shard in shards { try? shard.loop.submit {}.wait() }
        }
        return codes[id]
    }

    /// One frame to every connection, from its loop; waits until that is done.
    func send(_ frame: [UInt8]) {
        for shard in shards {
            let done = shard.loop.submit {
                self.state.withLock { $0.sending += 1 }
                for member in shard.members { frame.withUnsafeBytes { member.connection.sendFrames($0) } }
                self.state.withLock { $0.sending -= 1 }
            }
            try? done.wait()
        }
    }

    /// Every millisecond each connection gets a frame that begins with its own id; some are closed or dropped at random, and
    /// those that are gone still get theirs for a while.
    func startStorm(on group: any EventLoopGroup) {
        let dots = String(repeating: ".", count: 30000)
        for loop in group.makeIterator() {
            let shard = shard(loop)
            loop.execute {
                shard.storm = loop.scheduleRepeatedTask(initialDelay: .zero, delay: .milliseconds(1)) { _ in
                    for member in shard.members {
                        let size = Int.random(
                            in: 0...(member.id.hasPrefix("s") ? 30000 : 3000),
                            using: &shard.generator
                        )
                        let frame = textFrame("\(member.id) \(dots.prefix(size))")
                        frame.withUnsafeBytes { member.connection.sendFrames($0) }
                        switch Int.random(in: 0..<400, using: &shard.generator) {
                        case 0: member.connection.close(code: 4000, reason: "")
                        case 1: member.connection.abort()
                        case 2: member.connection.send(text: ByteBuffer(string: "\(member.id) more"))
                        default: break
                        }
                        if member.isClosed { member.turnsSinceClosed += 1 }
                    }
                    shard.members.removeAll { $0.turnsSinceClosed > 50 }
                }
            }
        }
    }

    func stopStorm() {
        for shard in shards {
            try? shard.loop.submit {
                shard.storm?.cancel()
                shard.members = []
            }.wait()
        }
    }
}

/// Clients that check what they get, and open again when they are closed.
private final class Readers: Sendable {
    private struct State {
        var isStopped = false
        var open = 0
        var received = 0
        var foreign: [String] = []
        var badCodes: [UInt16] = []
    }

    private final class Reader: WebSocketDelegate {
        let prefix: String
        let owner: Readers
        init(prefix: String, owner: Readers) {
            self.prefix = prefix
            self.owner = owner
        }
        func webSocket(_ connection: WebSocketConnection, receivedText text: ByteBuffer) {
            let text = String(buffer: text)
            owner.state.withLock { state in
                state.received += 1
                if !text.hasPrefix(prefix) { state.foreign.append("\(prefix): \(text.prefix(20))") }
            }
        }
        func webSocketClosed(_ connection: WebSocketConnection, code: UInt16, reason: String) {
            owner.state.withLock { state in
                if ![1001, 1006, 4000, 4001].contains(code) { state.badCodes.append(code) }
            }
            owner.ended()
        }
    }

    private let state = Mutex(State())
    private let server: TestServer
    private let group: any EventLoopGroup
    private let ids: @Sendable () -> String
    private let closed = DispatchSemaphore(value: 0)

    init(server: TestServer, group: any EventLoopGroup, ids: @escaping @Sendable () -> String) {
        self.server = server
        self.group = group
        self.ids = ids
    }

    var received: Int { state.withLock { $0.received } }
    var foreign: [String] { state.withLock { $0.foreign } }
    var badCodes: [UInt16] { state.withLock { $0.badCodes } }

    func open() {
        guard
            state.withLock({ state in
                if state.isStopped { return false }
                state.open += 1
                return true
            })
        else { return }
        let id = ids()
        WebSocketClient.connect(
            url: "ws://127.0.0.1:\(server.port)/ws?id=\(id)",
            on: group.next(),
            limits: TestServer.limits,
            delegate: { _ in Reader(prefix: "\(id) ", owner: self) }
        ).whenFailure { _ in self.ended() }
    }

    private func ended() {
        state.withLock { $0.open -= 1 }
        closed.signal()
        open()
    }

    func stop() { state.withLock { $0.isStopped = true } }

    func waitUntilAllClosed() {
        while state.withLock({ $0.open }) > 0 {
            guard closed.wait(timeout: .now() + .seconds(120)) == .success else {
                Issue.record("\(state.withLock { $0.open }) readers are still open")
                return
            }
        }
    }
}

extension String {
    /// The opening handshake for another path.
    fileprivate func replacingPath(_ path: String) -> String {
        "GET \(path) " + split(separator: " ", maxSplits: 2)[2]
    }
}
