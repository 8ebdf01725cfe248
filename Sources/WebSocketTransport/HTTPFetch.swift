package import NIOCore
package import NIOHTTP1
import NIOPosix
package import TLSClient

/// One GET (RFC 9112) on a connection of its own: the whole answer, within a time and a size, or why there is none. Redirects
/// are not followed: only the address itself was trusted.
package struct HTTPFetch: Sendable {
    private let host: String
    private let port: Int
    private let head: HTTPRequestHead
    private let timeout: TimeAmount
    private let maximumBytes: Int

    package struct Answer: Sendable {
        package fileprivate(set) var headers = HTTPHeaders()
        package fileprivate(set) var body: [UInt8] = []
    }

    /// The end of a sentence that begins with the address.
    package struct Failure: Error, Sendable, CustomStringConvertible {
        package let description: String

        package init(description: String) { self.description = description }
    }

    /// - Parameters:
    ///   - authority: as it goes into the `Host` header.
    ///   - target: path and query as they go into the request line.
    ///   - accept: media types, as in the header of that name.
    ///   - timeout: from the first packet to the last byte.
    ///   - maximumBytes: of the body.
    package init(
        host: String, port: Int, authority: String, target: String, accept: String, timeout: TimeAmount,
        maximumBytes: Int
    ) {
        self.host = host
        self.port = port
        self.timeout = timeout
        self.maximumBytes = maximumBytes
        head = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: target,
            headers: ["Host": authority, "Accept": accept, "User-Agent": "martlet", "Connection": "close"])
    }

    /// Fails with ``Failure``, also when another status than 200 is answered.
    ///
    /// - Parameter tls: nil: HTTP as it is.
    package func get(tls: TLSClient?, on loop: any EventLoop) -> EventLoopFuture<Answer> {
        let answer = loop.makePromise(of: Answer.self)
        let connected = ClientBootstrap(group: loop)
            .connectTimeout(timeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try tls?.secure(channel, host: host)
                    try pipeline.addHTTPClientHandlers()
                    try pipeline.addHandler(Reader(head, maximumBytes, answer))
                }
            }
            .connect(host: host, port: port)
        connected.whenFailure { answer.fail(Failure(description: "cannot be reached: \($0)")) }
        let limit = loop.scheduleTask(in: timeout) {
            answer.fail(Failure(description: "did not answer within \(timeout.nanoseconds / 1_000_000_000) seconds"))
        }
        answer.futureResult.whenComplete { _ in
            limit.cancel()
            connected.whenSuccess { $0.close(promise: nil) }
        }
        return answer.futureResult
    }

    /// Sends the request and gathers the answer. On one loop.
    private final class Reader: ChannelInboundHandler {
        typealias InboundIn = HTTPClientResponsePart
        typealias OutboundOut = HTTPClientRequestPart

        private let head: HTTPRequestHead
        private let maximumBytes: Int
        private let promise: EventLoopPromise<Answer>
        private var answer = Answer()

        init(_ head: HTTPRequestHead, _ maximumBytes: Int, _ promise: EventLoopPromise<Answer>) {
            self.head = head
            self.maximumBytes = maximumBytes
            self.promise = promise
        }

        func channelActive(context: ChannelHandlerContext) {
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            context.fireChannelActive()
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head):
                guard head.status == .ok else { return fail("answered \(head.status.code), not 200") }
                answer.headers = head.headers
            case .body(let part):
                guard answer.body.count + part.readableBytes <= maximumBytes else {
                    return fail("answered more than \(maximumBytes) bytes")
                }
                answer.body += part.readableBytesView
            case .end:
                promise.succeed(answer)
            }
        }

        func channelInactive(context: ChannelHandlerContext) {
            fail("closed the connection before its answer was whole")
            context.fireChannelInactive()
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            fail("\(error is TLSFailure ? "is not trusted" : "cannot be understood"): \(error)")
        }

        /// Whoever waits for the answer then closes the connection.
        private func fail(_ reason: String) {
            promise.fail(Failure(description: reason))
        }
    }
}
