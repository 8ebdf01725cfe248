import Logging
import NIOCore
import NIOHTTP1
import WebSocketTransport

/// A line at the level `debug` for each request that opens no WebSocket; of those that do, `Session` tells. With the request's
/// id it is found beside the line of the router, or proxy, that it came through.
struct RequestLog: Sendable {
    let logger: Logger

    func following(
        _ answer: EventLoopFuture<HTTPResponse>, to request: HTTPRequest
    ) -> EventLoopFuture<HTTPResponse> {
        guard logger.logLevel <= .debug else { return answer }
        return answer.map { response in
            log("request", request, response)
            return response
        }
    }

    func following(_ decision: UpgradeDecision, on request: HTTPRequest) -> UpgradeDecision {
        if case .refuse(let response) = decision { log("upgrade refused", request, response) }
        return decision
    }

    private func log(_ message: Logger.Message, _ request: HTTPRequest, _ response: HTTPResponse) {
        logger.debug(
            message,
            metadata: [
                "method": "\(request.method.rawValue)", "path": "\(request.path)",
                "status": .stringConvertible(response.status.code), "client": "\(request.clientAddress)",
                "request_id": "\(request.requestID)",
            ])
    }
}
