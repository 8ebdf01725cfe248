import NIOCore
import WebSocketTransport
import WireProtocol

/// What the router answers itself.
struct RouterResponse {
    let status: Int
    let reason: String
    var fields: [(String, String)] = []
    let type: String
    let body: [UInt8]

    init(status: Int, reason: String, type: String, body: [UInt8]) {
        self.status = status
        self.reason = reason
        self.type = type
        self.body = body
    }

    /// `{"error":{"code":…,"reason":…,"message":…}}`, as nodes answer too: the status again, a word for programs, a
    /// sentence for people.
    private static func failure(_ status: Int, _ reason: String, _ word: String, _ message: String) -> RouterResponse {
        var body = JSONWriter()
        body.beginObject()
        body.key("error")
        body.beginObject()
        body.key("code")
        body.value(status)
        body.key("reason")
        body.value(word)
        body.key("message")
        body.value(message)
        body.endObject()
        body.endObject()
        return RouterResponse(status: status, reason: reason, type: "application/json", body: body.bytes + [0x0A])
    }

    static func noNode(retryAfter seconds: Int) -> RouterResponse {
        var response = failure(503, "Service Unavailable", "no_node", "no node can take this request now; try again")
        response.fields.append(("Retry-After", String(seconds)))
        return response
    }

    static func tooManyUpgrades(retryAfter seconds: Int) -> RouterResponse {
        var response = failure(
            503, "Service Unavailable", "too_many_upgrades", "too many clients connect at once; try again")
        response.fields.append(("Retry-After", String(seconds)))
        return response
    }

    static func refusal(_ refusal: GateRefusal) -> RouterResponse {
        var response = failure(
            refusal.statusCode, refusal.statusPhrase, refusal.reason.rawValue, refusal.message)
        response.fields.append(("Retry-After", String(refusal.retryAfterSeconds)))
        return response
    }

    static let badGateway = failure(
        502, "Bad Gateway", "bad_gateway", "the node did not answer properly; try again")

    static let gatewayTimeout = failure(
        504, "Gateway Timeout", "gateway_timeout", "the node did not answer in time; try again")

    static let headTimeout = failure(
        408, "Request Timeout", "request_timeout", "the request head did not come in time")

    static func refusal(of fault: HTTPFault) -> RouterResponse {
        switch fault {
        case .malformed(let what):
            failure(400, "Bad Request", "bad_request", "the request is not valid HTTP/1.1: \(what)")
        case .headTooLarge:
            failure(
                431, "Request Header Fields Too Large", "head_too_large",
                "the request head is larger than this server takes")
        case .versionNotSupported:
            failure(505, "HTTP Version Not Supported", "version_not_supported", "send HTTP/1.1")
        }
    }

    static let originNotAllowed = failure(
        403, "Forbidden", "origin_not_allowed",
        "pages of this origin may not ask where a node is; the router's MARTLET_ORIGINS names those that may")

    static let notFound = failure(404, "Not Found", "not_found", "there is nothing at this path")

    static func methodNotAllowed(but allowed: String) -> RouterResponse {
        var response = failure(
            405, "Method Not Allowed", "method_not_allowed", "this path does not take this method")
        response.fields.append(("Allow", allowed))
        return response
    }

    /// - Parameters:
    ///   - id: of the request, where there is one.
    ///   - withBody: false in an answer to HEAD.
    func bytes(id: String?, closes: Bool, withBody: Bool = true) -> ByteBuffer {
        var out = ByteBuffer()
        out.writeString("HTTP/1.1 \(status) \(reason)\r\nContent-Type: \(type)\r\nContent-Length: \(body.count)\r\n")
        for (name, value) in fields { out.writeString("\(name): \(value)\r\n") }
        if let id { out.writeString("X-Request-ID: \(id)\r\n") }
        out.writeString("Cache-Control: no-store\r\n")
        for field in HTTPResponse.protections { out.writeString("\(field.name): \(field.value)\r\n") }
        if closes { out.writeString("Connection: close\r\n") }
        out.writeString("\r\n")
        if withBody { out.writeBytes(body) }
        return out
    }
}

/// The paths that the router keeps to itself: everything that begins with `/_router/`, and `/locate`.
enum RouterEndpoints {
    static let prefix = "/_router/"
    /// `ClientConnection+Locate.swift` answers it.
    static let locate = "/locate"

    /// nil for a path that is a node's, and for `locate`.
    static func answer(to request: ProxiedRequest) -> RouterResponse? {
        guard request.path.hasPrefix(prefix) else { return nil }
        guard request.path == "/_router/healthz" else { return .notFound }
        guard request.head.method == "GET" || request.head.method == "HEAD" else {
            return .methodNotAllowed(but: "GET, HEAD")
        }
        return RouterResponse(status: 200, reason: "OK", type: "text/plain", body: Array("ok\n".utf8))
    }
}
