import NIOCore
import NIOPosix
import TLSClient
import WebSocketTransport

/// Asks a router where a client's node is (`GET /locate`), so that the client connects there without it.
enum NodeLocator {
    /// For the router's whole answer, and again for the node to accept the WebSocket.
    static let patience: TimeAmount = .seconds(2)

    /// Where to connect instead of `url`, with the same query; nil when the router knows no address of the node that will do:
    /// none at all, one that is no WebSocket address, or one without TLS where the router's has it. Fails when no proper
    /// answer came within `patience`.
    static func locate(
        _ url: String, tls: TLSClientOptions, on eventLoop: any EventLoop
    ) -> EventLoopFuture<String?> {
        let endpoint: WebSocketURL
        do throws(WebSocketClientError) {
            endpoint = try WebSocketURL(url)
        } catch {
            return eventLoop.makeFailedFuture(error)
        }
        let fetch = HTTPFetch(
            host: endpoint.host, port: endpoint.port, authority: endpoint.authority, target: target(endpoint.target),
            accept: "application/json", timeout: patience, maximumBytes: 4096)
        let secured =
            endpoint.isSecure
            ? NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { try Optional(tls.load()) }
            : eventLoop.makeSucceededFuture(nil)
        return secured.flatMap { fetch.get(tls: $0, on: eventLoop) }
            .map { address(in: $0.body, for: url, isSecure: endpoint.isSecure) }
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
}
