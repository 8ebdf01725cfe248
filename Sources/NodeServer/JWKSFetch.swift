import NIOCore
import NIOHTTP1
import NIOPosix
import TLSClient
import TokenAuth

/// Why there is no JWK Set: the end of a sentence that begins with its address.
package struct JWKSFailure: Error, Sendable, CustomStringConvertible {
    package let description: String
}

/// One GET of a JWK Set.
enum JWKSFetch {
    struct Answer: Sendable {
        let keys: TokenKeys
        /// Seconds for which it may be kept (`Cache-Control: max-age`, RFC 9111 section 5.2.2.1), where the answer says so.
        let maximumAge: Int64?
    }

    /// From the first packet to the last byte.
    static let timeout: TimeAmount = .seconds(5)

    /// Fails with ``JWKSFailure``. Redirects are not followed: the address is who vouches for the keys.
    static func get(
        _ address: JWKSAddress, tls: TLSClient?, on loop: any EventLoop
    ) -> EventLoopFuture<Answer> {
        let promise = loop.makePromise(of: JWKSReader.Body.self)
        let connected = ClientBootstrap(group: loop)
            .connectTimeout(timeout)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try tls.secure(channel, host: address.host) }
                    try pipeline.addHTTPClientHandlers()
                    try pipeline.addHandler(JWKSReader(address, promise))
                }
            }
            .connect(host: address.host, port: address.port)
        connected.whenFailure { promise.fail(JWKSFailure(description: "cannot be reached: \($0)")) }
        let limit = loop.scheduleTask(in: timeout) {
            promise.fail(JWKSFailure(description: "did not answer within 5 seconds"))
        }
        promise.futureResult.whenComplete { _ in
            limit.cancel()
            connected.whenSuccess { $0.close(promise: nil) }
        }
        // Keys are checked as they are read, which takes long enough to hold up a loop.
        return promise.futureResult.flatMap { body in
            NIOThreadPool.singleton.runIfActive(eventLoop: loop) {
                do throws(TokenKeyError) {
                    let keys = try TokenKeys(parsing: body.bytes, from: .network)
                    return Answer(keys: keys, maximumAge: body.maximumAge)
                } catch {
                    throw JWKSFailure(description: "\(error)")
                }
            }
        }
    }
}

/// Sends the request and gathers the answer, up to the size of a key set. On one loop.
private final class JWKSReader: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    struct Body: Sendable {
        var bytes: [UInt8] = []
        var maximumAge: Int64?
    }

    private let address: JWKSAddress
    private let promise: EventLoopPromise<Body>
    private var body = Body()

    init(_ address: JWKSAddress, _ promise: EventLoopPromise<Body>) {
        self.address = address
        self.promise = promise
    }

    func channelActive(context: ChannelHandlerContext) {
        let head = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: address.target,
            headers: [
                "Host": address.authority, "Accept": "application/jwk-set+json, application/json",
                "User-Agent": "martlet", "Connection": "close",
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            guard head.status == .ok else { return fail("answered \(head.status.code), not 200", context) }
            body.maximumAge = Self.maximumAge(head.headers)
        case .body(let part):
            guard body.bytes.count + part.readableBytes <= TokenKeys.maximumBytes else {
                return fail("answered more than \(TokenKeys.maximumBytes) bytes", context)
            }
            body.bytes += part.readableBytesView
        case .end:
            promise.succeed(body)
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        promise.fail(JWKSFailure(description: "closed the connection before its answer was whole"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail("\(error is TLSFailure ? "is not trusted" : "cannot be understood"): \(error)", context)
    }

    private func fail(_ reason: String, _ context: ChannelHandlerContext) {
        promise.fail(JWKSFailure(description: reason))
        context.close(promise: nil)
    }

    private static func maximumAge(_ headers: HTTPHeaders) -> Int64? {
        for directive in headers[canonicalForm: "cache-control"] {
            let sides = directive.split(separator: "=", maxSplits: 1)
            if sides.count == 2, sides[0].lowercased() == "max-age" { return Int64(sides[1]) }
        }
        return nil
    }
}
