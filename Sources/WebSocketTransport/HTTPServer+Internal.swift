package import NIOCore
import NIOHTTP1

extension HTTPServer {
    /// A server for those who run this one: GET and HEAD of a few paths, and no WebSocket. Fails as ``start`` does.
    package static func startInternal(
        host: String, port: Int, group: any EventLoopGroup, onAcceptFailure: @escaping Acceptor.FailureHandler,
        paths: [String: RequestHandler]
    ) -> EventLoopFuture<HTTPServer> {
        start(
            host: host, port: port, group: group, webSocketPath: "", onAcceptFailure: onAcceptFailure,
            onRequest: { request, loop in
                guard let answer = paths[request.path] else {
                    let known = paths.keys.sorted().joined(separator: " ")
                    let message = "there is nothing at this path; there is \(known)"
                    return loop.makeSucceededFuture(.error(.notFound, reason: "not_found", message: message))
                }
                guard request.method == .GET || request.method == .HEAD else {
                    return loop.makeSucceededFuture(.methodNotAllowed)
                }
                return answer(request, loop)
            },
            onUpgrade: { _, _ in
                .refuse(.error(.notFound, reason: "not_found", message: "WebSocket is not spoken on this port"))
            })
    }
}

extension HTTPResponse {
    /// For paths that take GET and HEAD alone.
    package static let methodNotAllowed = error(
        .methodNotAllowed, reason: "method_not_allowed", message: "this path takes GET and HEAD",
        headers: ["Allow": "GET, HEAD"])

    package static func text(_ text: String) -> HTTPResponse {
        HTTPResponse(status: .ok, contentType: "text/plain; charset=utf-8", body: text)
    }
}
