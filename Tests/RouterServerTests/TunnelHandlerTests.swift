import NIOCore
import NIOEmbedded
import Testing

@testable import RouterServer

/// Time, which the tests with real TLS (`RouterTLSTests`) have none of.
@Suite("Tunnels in pipelines")
struct TunnelHandlerTests {
    private let loop = EmbeddedEventLoop()
    private let client: EmbeddedChannel
    private let node: EmbeddedChannel
    private let ends: (client: TunnelHandler, node: TunnelHandler)

    init() throws {
        (client, node) = (EmbeddedChannel(loop: loop), EmbeddedChannel(loop: loop))
        ends = (
            TunnelHandler(TunnelTimes(), idle: .seconds(70), isSecure: false, as: .client),
            TunnelHandler(TunnelTimes(), idle: .seconds(70), isSecure: false, as: .node)
        )
        for (channel, end) in [(client, ends.client), (node, ends.node)] {
            try channel.connect(to: SocketAddress(ipAddress: "192.0.2.1", port: 1)).wait()
            try channel.pipeline.syncOperations.addHandlers([HalfClosing(), end])
        }
        let first = TunnelHandler.Beginning(first: ByteBuffer(string: "first"), inputEnded: false)
        TunnelHandler.start(ends.client, first, ends.node, first)
        #expect(try client.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "first"))
        #expect(try node.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "first"))
    }

    /// An embedded channel knows no half-close and would end.
    private final class HalfClosing: ChannelOutboundHandler {
        typealias OutboundIn = ByteBuffer
        var outputHasEnded = false

        func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
            guard mode == .output else { return context.close(mode: mode, promise: promise) }
            outputHasEnded = true
            promise?.succeed()
        }
    }

    private func speak() throws {
        try node.writeInbound(ByteBuffer(string: "x"))
        #expect(try client.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "x"))
    }

    private var areOpen: Bool { client.isActive && node.isActive }
    private var areClosed: Bool { !client.isActive && !node.isActive }

    private func outputHasEnded(_ channel: EmbeddedChannel) throws -> Bool {
        try channel.pipeline.syncOperations.handler(type: HalfClosing.self).outputHasEnded
    }

    /// They read on for 5 s, and nobody gets it.
    private func expectEnding() throws {
        for channel in [client, node] {
            #expect(try outputHasEnded(channel))
            try channel.writeInbound(ByteBuffer(string: "late"))
        }
        #expect(try client.readOutbound(as: ByteBuffer.self) == nil)
        #expect(try node.readOutbound(as: ByteBuffer.self) == nil)
        loop.advanceTime(by: .milliseconds(4999))
        #expect(areOpen)
        loop.advanceTime(by: .milliseconds(1))
        #expect(areClosed)
    }

    @Test("end when neither side says anything for the idle time, and not before")
    func idle() throws {
        for _ in 0..<5 {
            loop.advanceTime(by: .seconds(69))
            try speak()
        }
        loop.advanceTime(by: .seconds(69))
        #expect(try !outputHasEnded(client) && !outputHasEnded(node))
        loop.advanceTime(by: .seconds(1))
        try expectEnding()
    }

    @Test("half closed have 30 s from then on, and again from each byte")
    func idleHalfClosed() throws {
        loop.advanceTime(by: .seconds(60))
        client.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        for _ in 0..<5 {
            loop.advanceTime(by: .seconds(29))
            try speak()
        }
        loop.advanceTime(by: .seconds(29))
        #expect(areOpen)
        loop.advanceTime(by: .seconds(1))
        // The client's input had ended, and nothing is left to wait for.
        #expect(!client.isActive && node.isActive)
        loop.advanceTime(by: .seconds(5))
        #expect(areClosed)
    }

    @Test("end when a drain has their turn")
    func drain() throws {
        client.pipeline.fireUserInboundEventTriggered(RouterCore.Drain(time: .seconds(12)))
        loop.advanceTime(by: .seconds(11))
        try speak()
        #expect(areOpen)
        loop.advanceTime(by: .seconds(1))
        try expectEnding()
    }

    @Test("when one end is lost the other ends behind what it was sent, and is closed when its input ends, too")
    func lost() throws {
        try node.writeInbound(ByteBuffer(string: "last words"))
        node.pipeline.fireChannelInactive()
        #expect(try client.readOutbound(as: ByteBuffer.self) == ByteBuffer(string: "last words"))
        #expect(try client.isActive && outputHasEnded(client))
        try client.writeInbound(ByteBuffer(string: "late"))
        client.pipeline.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        #expect(!client.isActive)
    }
}
