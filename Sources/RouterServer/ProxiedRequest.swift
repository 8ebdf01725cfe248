package import NIOCore
package import WebSocketTransport

/// A client's request, checked, with all that decides where and how it goes on.
package struct ProxiedRequest: Sendable {
    package let head: RequestHead
    /// Origin form, or `*`.
    package let target: String
    package let host: String?
    package let body: BodyLength
    /// To WebSocket; other protocols are not offered to a node (an `Upgrade: h2c` would tunnel past every check).
    package let isUpgrade: Bool
    /// The client may send another request over its connection.
    package let keepsAlive: Bool
    package let client: IPAddress
    package let peerIsTrusted: Bool
    /// A trusted proxy says that the client speaks TLS with it.
    package let isSecureAtProxy: Bool
    package let id: String
    package let affinity: AffinityKey

    /// - Parameters:
    ///   - newID: names the request, unless a trusted proxy has named it.
    ///   - rule, subject: see `AffinityKey`.
    package init(
        _ head: RequestHead,
        peer: IPAddress,
        trusted: TrustedProxies,
        newID: String,
        affinity rule: AffinityRule = .standard,
        subject: (String) -> String?
    ) throws(HTTPFault) {
        self.head = head
        body = try head.bodyLength()
        (target, host) = try Self.targetAndHost(head)

        let options = head.fields.tokens("connection")
        keepsAlive = head.minorVersion == 1 && !options.contains("close")
        isUpgrade =
            head.method == "GET" && head.minorVersion == 1 && options.contains("upgrade")
            && head.fields.tokens("upgrade").contains("websocket")
        if isUpgrade, body != .none { throw .malformed("an upgrade cannot have a body") }

        peerIsTrusted = trusted.contains(peer)
        let chain = head.fields.values("x-forwarded-for").flatMap { String(buffer: $0).split(separator: ",") }
        isSecureAtProxy =
            peerIsTrusted && head.fields.first("x-forwarded-proto").map { $0.lowercased() == "https" } ?? false
        client = peerIsTrusted ? trusted.client(of: peer, chain: chain) : peer
        let given = peerIsTrusted ? head.fields.first("x-request-id") : nil
        id = given.flatMap { HTTPRequest.isRequestID($0) ? $0 : nil } ?? newID
        affinity = AffinityKey(of: head, by: rule, subject: subject, client: client)
    }

    /// The target without its query, as the access log shows it.
    package var path: Substring { target.prefix { $0 != "?" } }

    /// RFC 9112 sections 3.2 and 3.3: one Host in HTTP/1.1; the authority of an absolute target stands for it.
    private static func targetAndHost(_ head: RequestHead) throws(HTTPFault) -> (String, String?) {
        let hosts = head.fields.values("host").map { String(buffer: $0) }
        guard hosts.count == 1 || (hosts.isEmpty && head.minorVersion == 0) else {
            throw .malformed("it needs exactly one Host")
        }
        guard hosts.allSatisfy(isAuthority) else { throw .malformed("its Host is not a host name") }
        if head.target.hasPrefix("/") || (head.target == "*" && head.method == "OPTIONS") {
            return (head.target, hosts.first)
        }
        for scheme in ["http://", "https://"] where head.target.lowercased().hasPrefix(scheme) {
            let rest = head.target.dropFirst(scheme.utf8.count)
            let authority = String(rest.prefix { $0 != "/" && $0 != "?" })
            guard !authority.isEmpty, isAuthority(authority) else { break }
            let path = rest.dropFirst(authority.count)
            return (path.hasPrefix("/") ? String(path) : "/" + path, authority)
        }
        throw .malformed("its target is neither a path nor a URL")
    }

    private static func isAuthority(_ text: String) -> Bool {
        text.utf8.count <= 255
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"),
                    UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: "%"), UInt8(ascii: "~"):
                    true
                default: false
                }
            }
    }
}

/// What one hop says to the next only (RFC 9110 section 7.6.1), and what this hop therefore writes itself.
private enum HopByHop {
    static let names: Set<String> = [
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "content-length",
    ]
    /// What a client could forge to pass for a proxy.
    static func isForwarding(_ field: HTTPField) -> Bool {
        field.key.hasPrefix("x-forwarded-") || field.key == "forwarded" || field.key == "x-real-ip"
    }

    /// The fields without those names and without what Connection names.
    static func removed(from fields: [HTTPField]) -> [HTTPField] {
        let named = Set(fields.tokens("connection"))
        return fields.filter { !names.contains($0.key) && !named.contains($0.key) }
    }
}

extension ByteBuffer {
    fileprivate mutating func writeField(_ name: String, _ value: String) {
        writeString(name)
        writeStaticString(": ")
        writeString(value)
        writeStaticString("\r\n")
    }

    fileprivate mutating func writeField(_ field: HTTPField) {
        writeString(field.name)
        writeStaticString(": ")
        writeImmutableBuffer(field.value)
        writeStaticString("\r\n")
    }
}

extension ProxiedRequest {
    /// The head for a node.
    ///
    /// 1. Hop-by-hop fields end here; a WebSocket upgrade is written anew.
    /// 2. What says whom the request comes from is this hop's word, and that of trusted proxies:
    ///    - of a peer that is none, no X-Forwarded-*, Forwarded or X-Real-IP passes;
    ///    - X-Forwarded-For ends with the peer; before it stands what a trusted proxy wrote;
    ///    - X-Forwarded-Proto and -Host are what a trusted proxy wrote; where none did, they are what this hop saw, https
    ///      with `isSecure` (the client speaks TLS with it), and the Host.
    /// 3. The body is framed as `body` says, never twice.
    /// 4. With `keepsAlive` another request may follow; behind an upgrade none can.
    package func headForNode(
        address: String, peer: IPAddress, isSecure: Bool = false, keepsAlive: Bool = false
    ) -> ByteBuffer {
        var out = ByteBuffer()
        out.reserveCapacity(1024)
        out.writeString("\(head.method) \(target) HTTP/1.1\r\n")
        out.writeField("Host", host ?? address)
        let passing = HopByHop.removed(from: head.fields).filter { peerIsTrusted || !HopByHop.isForwarding($0) }
        for field in passing {
            if field.key == "host" || field.key == "x-request-id" || field.key == "x-forwarded-for" { continue }
            out.writeField(field)
        }
        let chain = peerIsTrusted ? head.fields.values("x-forwarded-for").map { String(buffer: $0) } : []
        out.writeField("X-Forwarded-For", (chain + [peer.description]).filter { !$0.isEmpty }.joined(separator: ", "))
        if passing.first("x-forwarded-proto") == nil {
            out.writeField("X-Forwarded-Proto", isSecure ? "https" : "http")
        }
        if let host, passing.first("x-forwarded-host") == nil {
            out.writeField("X-Forwarded-Host", host)
        }
        out.writeField("X-Request-ID", id)
        out.writeField("Via", "1.\(head.minorVersion) martlet")
        if isUpgrade {
            out.writeStaticString("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            return out
        }
        switch body {
        case .bytes(let count): out.writeField("Content-Length", String(count))
        case .chunked: out.writeField("Transfer-Encoding", "chunked")
        case .none:
            if head.fields.first("content-length") != nil { out.writeField("Content-Length", "0") }
        case .untilClose: break
        }
        out.writeStaticString(keepsAlive ? "\r\n" : "Connection: close\r\n\r\n")
        return out
    }
}

extension ResponseHead {
    /// Another request may follow on the connection that brought it (RFC 9112 section 9.3).
    var keepsAlive: Bool { minorVersion == 1 && !fields.tokens("connection").contains("close") }

    /// The node switched to WebSocket (RFC 6455 section 4.2.2).
    package var acceptsWebSocket: Bool {
        status == 101 && fields.tokens("upgrade") == ["websocket"] && fields.tokens("connection").contains("upgrade")
    }

    /// The head for the client.
    ///
    /// - Parameters:
    ///   - framing: of the body as it is written to the client.
    ///   - keepsLength: the answer has no body, but its Content-Length says how long it would be (HEAD, 304).
    ///   - closes: the connection ends after this answer.
    ///   - cookie: the value of a Set-Cookie to add.
    package func headForClient(framing: BodyLength, keepsLength: Bool, closes: Bool, cookie: String?) -> ByteBuffer {
        var out = ByteBuffer()
        out.reserveCapacity(512)
        out.writeString("HTTP/1.1 \(status) ")
        out.writeImmutableBuffer(reason)
        out.writeStaticString("\r\n")
        for field in HopByHop.removed(from: fields) { out.writeField(field) }
        if let cookie { out.writeField("Set-Cookie", cookie) }
        if status == 101 {
            out.writeStaticString("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            return out
        }
        switch framing {
        case .bytes(let count): out.writeField("Content-Length", String(count))
        case .chunked: out.writeField("Transfer-Encoding", "chunked")
        case .none:
            if keepsLength, let length = fields.first("content-length") {
                out.writeField("Content-Length", length)
            } else if status >= 200, status != 204, status != 304, !keepsLength {
                out.writeField("Content-Length", "0")
            }
        case .untilClose: break
        }
        // 426 names what to upgrade to (RFC 9110 section 15.5.22).
        if status == 426 { out.writeStaticString("Upgrade: websocket\r\n") }
        if closes || status == 426 {
            out.writeField(
                "Connection",
                [closes ? "close" : nil, status == 426 ? "Upgrade" : nil].compactMap { $0 }.joined(separator: ", ")
            )
        }
        out.writeStaticString("\r\n")
        return out
    }
}
