package import NIOCore
package import NIOHTTP1

/// One HTTP request, complete.
package struct HTTPRequest: Sendable {
    package let method: HTTPMethod
    /// The request target as it stood in the request line.
    package let uri: String
    /// The path with percent-escapes decoded; at least "/".
    package let path: String
    /// The query's pairs in order, decoded as forms are (`+` is a space).
    package let queryItems: [(name: String, value: String)]
    package let headers: HTTPHeaders
    package let body: ByteBuffer
    /// The peer, or whom a trusted proxy names as its client.
    package let clientAddress: IPAddress
    /// The client speaks TLS with this server, or with a trusted proxy that says so.
    package let isSecure: Bool
    /// The peer may say in `X-Forwarded-*` what it was asked.
    package let isFromTrustedProxy: Bool
    /// Another process accepted the connection and gave it away (``HTTPServer/adopt(_:saying:)``): nobody but this server can
    /// answer it any more.
    package let isAdopted: Bool
    /// What the server's gate wants answered; the application may answer all the same, as to a question for its health.
    package let refusal: HTTPResponse?
    /// What a trusted proxy calls the request (`X-Request-Id`), or else a load balancer the connection (PROXY protocol), where it
    /// is 1–128 bytes of `[A-Za-z0-9._:/+=@-]`; otherwise 15 random hex digits.
    package let requestID: String

    /// The first value of `name` in the query.
    package func query(_ name: String) -> String? {
        queryItems.first { $0.name == name }?.value
    }

    /// The client came through TLS to a host that is more than this machine's own name: what a browser is told to never again
    /// speak to without TLS (RFC 6797), on any port.
    package var asksForStrictTransport: Bool {
        guard isSecure, let authority = headers.first(name: "host")?.lowercased() else { return false }
        guard !authority.hasPrefix("["), let host = authority.split(separator: ":").first else { return false }
        return IPAddress(host) == nil && host != "localhost" && !host.hasSuffix(".localhost")
    }

    /// The subprotocols that the client offers, in its order of preference.
    package var offeredSubprotocols: [String] {
        headers[canonicalForm: "sec-websocket-protocol"].map(String.init)
    }

    package init(
        method: HTTPMethod,
        uri: String,
        headers: HTTPHeaders = HTTPHeaders(),
        body: ByteBuffer = ByteBuffer(),
        clientAddress: IPAddress = .unspecified,
        isSecure: Bool = false,
        isFromTrustedProxy: Bool = false,
        isAdopted: Bool = false,
        refusal: HTTPResponse? = nil,
        connectionID: String? = nil
    ) {
        self.method = method
        self.uri = uri
        self.headers = headers
        self.body = body
        self.clientAddress = clientAddress
        self.isSecure = isSecure
        self.isFromTrustedProxy = isFromTrustedProxy
        self.isAdopted = isAdopted
        self.refusal = refusal
        let target = RequestTarget(uri)
        self.path = target?.path ?? "/"
        self.queryItems = target?.queryItems ?? []
        let given = isFromTrustedProxy ? headers.first(name: "x-request-id") ?? connectionID : connectionID
        self.requestID = given.flatMap { Self.isRequestID($0) ? $0 : nil } ?? Self.newRequestID()
    }

    /// What a proxy may call a request; anything else is not passed on, and not logged.
    package static func isRequestID(_ text: String) -> Bool {
        (1...128).contains(text.utf8.count) && text.utf8.allSatisfy(isRequestIDByte)
    }

    private static func newRequestID() -> String {
        // 15 digits stand in the string itself: a connection keeps it for its log lines, and nothing else.
        let digits = String(UInt64.random(in: 0..<1 << 60), radix: 16)
        return String(repeating: "0", count: 15 - digits.count) + digits
    }

    private static func isRequestIDByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
            UInt8(ascii: "0")...UInt8(ascii: ":"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
            UInt8(ascii: "/"), UInt8(ascii: "+"), UInt8(ascii: "="), UInt8(ascii: "@"):
            true
        default: false
        }
    }
}

/// One HTTP answer. `Content-Length`, `Connection`, `Date` and the ``protections`` are added when it is written.
package struct HTTPResponse: Sendable {
    package var status: HTTPResponseStatus
    package var headers: HTTPHeaders
    package var body: ByteBuffer

    package init(status: HTTPResponseStatus, headers: HTTPHeaders = HTTPHeaders(), body: ByteBuffer = ByteBuffer()) {
        self.status = status
        self.headers = headers
        self.body = body
    }

    package init(status: HTTPResponseStatus, contentType: String, body: String) {
        let headers: HTTPHeaders = ["Content-Type": contentType]
        self.init(status: status, headers: headers, body: ByteBuffer(string: body))
    }

    /// `{"error":{"code":…,"reason":"…","message":"…"}}`: `code` is the HTTP status, `reason` a stable word for programs,
    /// `message` a sentence for people.
    package static func error(
        _ status: HTTPResponseStatus,
        reason: String,
        message: String,
        headers: HTTPHeaders = HTTPHeaders()
    ) -> HTTPResponse {
        var body = ByteBuffer()
        body.writeString("{\"error\":{\"code\":\(status.code),\"reason\":")
        body.writeJSONString(reason)
        body.writeString(",\"message\":")
        body.writeJSONString(message)
        body.writeString("}}\n")
        var headers = headers
        headers.replaceOrAdd(name: "Content-Type", value: "application/json")
        return HTTPResponse(status: status, headers: headers, body: body)
    }

    /// On every answer: it is what its type says and nothing else, stands in nobody's frame, and the address of a page is
    /// told no other site.
    package static let protections = [
        (name: "X-Content-Type-Options", value: "nosniff"), (name: "X-Frame-Options", value: "DENY"),
        (name: "Referrer-Policy", value: "no-referrer"),
    ]

    /// Whether a body, and so a length, belongs to the status (RFC 9110 section 6.4.1).
    private var mayHaveBody: Bool {
        status.code >= 200 && status.code != 204 && status.code != 304
    }

    /// The bytes on the wire. A header with a line break or NUL in it is left out: no answer can be split in two.
    func serialized(forHEAD: Bool, keepAlive: Bool, date: String) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: 512 + (forHEAD ? 0 : body.readableBytes))
        buffer.writeStatusLine(status)
        for header in headers {
            switch header.name.lowercased() {
            case "content-length", "connection", "transfer-encoding", "date": continue
            default: buffer.writeHeader(header.name, header.value)
            }
        }
        for field in Self.protections where !headers.contains(name: field.name) {
            buffer.writeHeader(field.name, field.value)
        }
        buffer.writeHeader("Date", date)
        if mayHaveBody { buffer.writeHeader("Content-Length", String(body.readableBytes)) }
        let options = headers[canonicalForm: "connection"].map(String.init).filter { !$0.isKeepAliveOrClose }
        let connection = options + (keepAlive ? [] : ["close"])
        if !connection.isEmpty { buffer.writeHeader("Connection", connection.joined(separator: ", ")) }
        buffer.writeString("\r\n")
        if mayHaveBody && !forHEAD { buffer.writeImmutableBuffer(body) }
        return buffer
    }
}

extension String {
    fileprivate var isKeepAliveOrClose: Bool {
        let word = lowercased()
        return word == "keep-alive" || word == "close"
    }
}

extension ByteBuffer {
    mutating func writeStatusLine(_ status: HTTPResponseStatus) {
        writeString("HTTP/1.1 \(status.code) ")
        writeString(status.reasonPhrase)
        writeString("\r\n")
    }

    mutating func writeHeader(_ name: String, _ value: String) {
        guard !name.isEmpty, name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ":") }),
            value.utf8.allSatisfy({ $0 != 0x0D && $0 != 0x0A && $0 != 0 })
        else { return }
        writeString(name)
        writeString(": ")
        writeString(value)
        writeString("\r\n")
    }

    fileprivate mutating func writeJSONString(_ string: String) {
        writeString("\"")
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": writeString("\\\"")
            case "\\": writeString("\\\\")
            case "\u{0}"..."\u{1F}":
                let digits = String(scalar.value, radix: 16)
                writeString("\\u" + String(repeating: "0", count: 4 - digits.count) + digits)
            default: writeString(String(scalar))
            }
        }
        writeString("\"")
    }
}
