import NIOCore
import NIOHTTP1
import NIOPosix
import TLSClient
import TokenAuth
import WebSocketTransport

/// One GET of a JWK Set.
enum JWKSFetch {
    struct Answer: Sendable {
        let keys: TokenKeys
        /// Seconds for which it may be kept (`Cache-Control: max-age`, RFC 9111 section 5.2.2.1), where the answer says so.
        let maximumAge: Int64?
    }

    /// Fails with ``HTTPFetch/Failure``. Redirects are not followed: the address is who vouches for the keys.
    static func get(
        _ address: JWKSAddress, tls: TLSClient?, on loop: any EventLoop
    ) -> EventLoopFuture<Answer> {
        let fetch = HTTPFetch(
            host: address.host, port: address.port, authority: address.authority, target: address.target,
            accept: "application/jwk-set+json, application/json", timeout: .seconds(5),
            maximumBytes: TokenKeys.maximumBytes)
        // Keys are checked as they are read, which takes long enough to hold up a loop.
        return fetch.get(tls: tls, on: loop).flatMap { answer in
            NIOThreadPool.singleton.runIfActive(eventLoop: loop) {
                do throws(TokenKeyError) {
                    let keys = try TokenKeys(parsing: answer.body, from: .network)
                    return Answer(keys: keys, maximumAge: maximumAge(answer.headers))
                } catch {
                    throw HTTPFetch.Failure(description: "\(error)")
                }
            }
        }
    }

    private static func maximumAge(_ headers: HTTPHeaders) -> Int64? {
        for directive in headers[canonicalForm: "cache-control"] {
            let sides = directive.split(separator: "=", maxSplits: 1)
            if sides.count == 2, sides[0].lowercased() == "max-age" { return Int64(sides[1]) }
        }
        return nil
    }
}
