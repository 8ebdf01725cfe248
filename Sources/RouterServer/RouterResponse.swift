import NIOCore
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

    static let forbidden = failure(
        403, "Forbidden", "forbidden",
        "this path is for this machine and for the networks of MARTLET_TRUSTED_PROXIES")

    static let notFound = failure(404, "Not Found", "not_found", "there is nothing at this path")

    static var methodNotAllowed: RouterResponse {
        var response = failure(
            405, "Method Not Allowed", "method_not_allowed", "this path does not take this method")
        response.fields.append(("Allow", "GET, HEAD"))
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
        if closes { out.writeString("Connection: close\r\n") }
        out.writeString("\r\n")
        if withBody { out.writeBytes(body) }
        return out
    }
}

/// The paths that the router keeps to itself: everything that begins with `/_router/`.
enum RouterEndpoints {
    static let prefix = "/_router/"

    /// nil for a path that is a node's.
    static func answer(to request: ProxiedRequest, table: NodeTable, now: NIODeadline) -> RouterResponse? {
        guard request.path.hasPrefix(prefix) else { return nil }
        let isNodes = request.path == "/_router/nodes"
        guard isNodes || request.path == "/_router/healthz" else { return .notFound }
        guard request.head.method == "GET" || request.head.method == "HEAD" else { return .methodNotAllowed }
        if isNodes {
            // Who may ask for the order of keys could find many that meet on one node.
            guard request.isFromInside else { return .forbidden }
            return RouterResponse(
                status: 200, reason: "OK", type: "application/json",
                body: nodes(table, key: QueryItems(target: request.target)["key"], now: now))
        }
        return RouterResponse(status: 200, reason: "OK", type: "text/plain", body: Array("ok\n".utf8))
    }

    /// `{"nodes":[{"node","address","state","late","sessions","ejected_ms"}]}` by name; with a key also
    /// `"key"` and `"order"`, the names from its first choice on, the ejected left out.
    static func nodes(_ table: NodeTable, key: String?, now: NIODeadline) -> [UInt8] {
        var out = JSONWriter()
        out.beginObject()
        out.key("nodes")
        out.beginArray()
        for node in table.nodes {
            out.beginObject()
            out.key("node")
            out.value(node.name)
            out.key("address")
            out.value(node.address)
            out.key("state")
            out.value(node.state.rawValue)
            out.key("late")
            out.value(node.isLate)
            out.key("sessions")
            out.value(node.sessions)
            out.key("ejected_ms")
            out.value((table.ejected(node, now: now)?.nanoseconds ?? 0) / 1_000_000)
            out.endObject()
        }
        out.endArray()
        if let key {
            out.key("key")
            out.value(key)
            out.key("order")
            out.beginArray()
            for node in table.order(for: key, now: now) { out.value(node.name) }
            out.endArray()
        }
        out.endObject()
        return out.bytes + [0x0A]
    }
}
