import NIOCore
import WebSocketTransport
import WireProtocol

/// `GET /locate?key=K`: which node a client of that key belongs to, and where it is reached without a router:
/// `{"node":"node-a","url":"wss://node-a.example.com/ws"}`, without `url` where it is not. Without `key` it is what the rest of
/// the request says, as in a handshake.
///
/// 1. It costs what a handshake costs: the same limits, and with a `url` the same pick, which nobody gives back.
/// 2. A page that another host served may read the answer where `MARTLET_ORIGINS` lets it connect.
extension ClientConnection {
    func locate(_ request: ProxiedRequest) {
        let (response, node) = located(request)
        core.log(request, status: response.status, node: node, started: .now())
        answer(response, to: request, closes: true)
    }

    private func located(_ request: ProxiedRequest) -> (RouterResponse, RoutedNode?) {
        guard request.head.method == "GET" else { return (.methodNotAllowed(but: "GET"), nil) }
        let origins = request.head.fields.values("origin").map { String(buffer: $0) }
        let forwarded = request.peerIsTrusted ? request.head.fields.first("x-forwarded-host") : nil
        let verdict = core.configuration.origins.check(
            origins, authority: OriginPolicy.first(of: forwarded) ?? request.host,
            isSecure: isSecure || request.isSecureAtProxy)
        guard verdict == .allowed else { return (.originNotAllowed, nil) }
        let key = QueryItems(target: request.target)["key"] ?? request.affinity.value
        let (nodes, pick) = core.pick(for: key)
        guard let node = nodes.first else {
            return (.noNode(retryAfter: core.nodes.retryAfter(now: .now())), nil)
        }
        // Its client comes through a router, which counts it then.
        if node.url == nil, let pick { core.giveBack(pick) }
        return (.location(of: node, origin: origins.first), node)
    }
}

extension RouterResponse {
    /// - Parameter origin: of the page that may read it.
    fileprivate static func location(of node: RoutedNode, origin: String?) -> RouterResponse {
        var body = JSONWriter()
        body.beginObject()
        body.member("node", node.name)
        if let url = node.url { body.member("url", url) }
        body.endObject()
        var response = RouterResponse(
            status: 200, reason: "OK", type: "application/json", body: body.bytes + [0x0A])
        response.fields.append(("Vary", "Origin"))
        if let origin { response.fields.append(("Access-Control-Allow-Origin", origin)) }
        return response
    }
}
