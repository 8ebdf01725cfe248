import NIOCore
import NIOHTTP1
import NIOPosix
import TLSClient
import WebSocketTransport

/// Asks a router where a client's node is (`GET /locate`), so that the client connects there without it.
enum NodeLocator {
    /// For the router's whole answer, and again for the node to accept the WebSocket.
    static let patience: TimeAmount = .seconds(2)
    private static let maximumBytes = 4096

    struct NoAnswer: Error {}

    /// Where to connect instead of `url`, with the same query; nil when the router knows no address of the node that will do:
    /// none at all, one that is no WebSocket address, or one without TLS where the router's has it. Fails when no proper
    /// answer came within `patience`.
    static func locate(
        _ url: String, tls: TLSClientOptions, on eventLoop: any EventLoop
    ) -> EventLoopFuture<String?> {
        guard let endpoint = try? WebSocketURL(url) else { return eventLoop.makeFailedFuture(NoAnswer()) }
        let answer = eventLoop.makePromise(of: [UInt8].self)
        let deadline = eventLoop.scheduleTask(in: patience) { answer.fail(NoAnswer()) }
        let secured =
            endpoint.isSecure
            ? NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { try Optional(tls.load()) }
            : eventLoop.makeSucceededFuture(nil)
        let connected = secured.flatMap { secure in
            ClientBootstrap(group: eventLoop)
                .connectTimeout(patience)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        let pipeline = channel.pipeline.syncOperations
                        try secure?.secure(channel, host: endpoint.host)
                        try pipeline.addHTTPClientHandlers()
                        try pipeline.addHandler(Reader(endpoint, answer))
                    }
                }
                .connect(host: endpoint.host, port: endpoint.port)
        }
        connected.whenFailure { answer.fail($0) }
        answer.futureResult.whenComplete { _ in
            deadline.cancel()
            connected.whenSuccess { $0.close(promise: nil) }
        }
        return answer.futureResult.map { address(in: $0, for: url, isSecure: endpoint.isSecure) }
    }

    /// `/chat/ws?user=a` is asked about at `/chat/locate?user=a`.
    static func target(_ target: String) -> String {
        let mark = target.firstIndex(of: "?") ?? target.endIndex
        let folder = target[..<mark].lastIndex(of: "/").map { target[...$0] } ?? "/"
        return folder + "locate" + target[mark...]
    }

    /// - Parameter url: the router's, with its query.
    static func address(in answer: [UInt8], for url: String, isSecure: Bool) -> String? {
        guard let address = JSONObject(answer)?.string("url"), !address.contains("?"),
            let endpoint = try? WebSocketURL(address), endpoint.isSecure || !isSecure
        else { return nil }
        return address + (url.firstIndex(of: "?").map { String(url[$0...]) } ?? "")
    }

    /// Sends the request and gathers the answer.
    private final class Reader: ChannelInboundHandler {
        typealias InboundIn = HTTPClientResponsePart
        typealias OutboundOut = HTTPClientRequestPart

        private let endpoint: WebSocketURL
        private let promise: EventLoopPromise<[UInt8]>
        private var body: [UInt8] = []

        init(_ endpoint: WebSocketURL, _ promise: EventLoopPromise<[UInt8]>) {
            self.endpoint = endpoint
            self.promise = promise
        }

        func channelActive(context: ChannelHandlerContext) {
            let head = HTTPRequestHead(
                version: .http1_1, method: .GET, uri: NodeLocator.target(endpoint.target),
                headers: ["Host": endpoint.authority, "Accept": "application/json", "Connection": "close"])
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            context.fireChannelActive()
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head):
                if head.status != .ok { promise.fail(NoAnswer()) }
            case .body(let part):
                body += part.readableBytesView
                if body.count > NodeLocator.maximumBytes { promise.fail(NoAnswer()) }
            case .end:
                promise.succeed(body)
            }
        }

        func channelInactive(context: ChannelHandlerContext) {
            promise.fail(NoAnswer())
            context.fireChannelInactive()
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            promise.fail(error)
            context.close(promise: nil)
        }
    }
}
