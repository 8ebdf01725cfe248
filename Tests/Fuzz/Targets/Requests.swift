#if DEBUG || FUZZING
import NIOCore
import NIOEmbedded
import NIOHTTP1
@testable import RouterServer
@testable import WebSocketTransport

/// The first byte: whether the peer is a trusted proxy, and whether the bytes are a client's or a node's; then a head and
/// a body.
///
/// 1. Heads and bodies do not depend on how the bytes come in.
/// 2. The head for the node is one head to the router's parser and to the node's, with the same method, target and
///    fields: nothing is smuggled past one of them.
/// 3. Of somebody who is no trusted proxy no word on who the client is goes on.
func fuzzRouter(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let (choice, bytes) = input.splitFirst()
    let scanned = scan([bytes])
    try hold("a head in pieces is the same head", scanned == scan(bytes.pieces))
    guard case .success(let head?) = scanned else { return }
    if choice & 2 == 0 {
        guard let request = try? HTTPSyntax.request(head.lines) else { return }
        try checkRequest(request, peerIsTrusted: choice & 1 == 1, rest: head.rest)
    } else {
        guard let response = try? HTTPSyntax.response(head.lines) else { return }
        try checkResponse(response, method: choice & 1 == 1 ? "HEAD" : "GET", rest: head.rest)
    }
}

private struct ScannedHead: Equatable {
    var lines: ByteBuffer
    var rest: ByteBuffer
}

private func scan(_ pieces: [UnsafeRawBufferPointer]) -> Result<ScannedHead?, HTTPFault> {
    var scanner = HeadScanner(limit: 8192)
    var buffer = ByteBuffer()
    var found: ByteBuffer?
    do throws(HTTPFault) {
        for piece in pieces {
            buffer.writeBytes(piece)
            if found == nil { found = try scanner.scan(&buffer) }
        }
    } catch {
        return .failure(error)
    }
    return .success(found.map { ScannedHead(lines: $0, rest: buffer) })
}

private func checkRequest(_ head: RequestHead, peerIsTrusted: Bool, rest: ByteBuffer) throws(FuzzFinding) {
    guard let peer = IPAddress("192.0.2.7"),
        let block = AddressBlock(peerIsTrusted ? "192.0.2.0/24" : "10.0.0.0/8"),
        let request = try? ProxiedRequest(
            head, peer: peer, trusted: TrustedProxies([block]), newID: "new-id", subject: { $0.isEmpty ? nil : $0 })
    else { return }
    try checkBody(request.body, rest)
    let written = request.headForNode(address: "127.0.0.1:1", peer: peer)
    var scanned: Result<ScannedHead?, HTTPFault> = .success(nil)
    written.withUnsafeReadableBytes { scanned = scan([$0]) }
    guard case .success(let own?) = scanned, own.rest.readableBytes == 0,
        let passed = try? HTTPSyntax.request(own.lines)
    else { throw FuzzFinding(description: "the head for the node is one head") }
    try hold("it asks for the same", passed.method == request.head.method && passed.target == request.target)
    try hold("its body is the same", (try? passed.bodyLength()) == request.body)
    try checkForwarding(passed, peerIsTrusted: peerIsTrusted)
    try checkAsNode(written, passed)
}

private func checkForwarding(_ passed: RequestHead, peerIsTrusted: Bool) throws(FuzzFinding) {
    for key in ["host", "x-forwarded-for", "x-request-id"] {
        try hold("there is one \(key)", passed.fields.values(key).count == 1)
    }
    let chain = passed.fields.first("x-forwarded-for") ?? ""
    try hold("the peer stands last among who passed it on", chain.hasSuffix("192.0.2.7"))
    guard !peerIsTrusted else { return }
    try hold("nobody else stands there", chain == "192.0.2.7")
    try hold("the request has the router's name", passed.fields.first("x-request-id") == "new-id")
    let words = passed.fields.map(\.key).filter { $0.hasPrefix("x-forwarded-") }
    try hold(
        "no other word of the client's is passed on",
        Set(words).isSubset(of: ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"])
            && Set(words).count == words.count && passed.fields.values("forwarded").isEmpty
            && passed.fields.values("x-real-ip").isEmpty)
}

/// Through llhttp, which a node reads requests with.
private func checkAsNode(_ written: ByteBuffer, _ passed: RequestHead) throws(FuzzFinding) {
    let parts = nodeParts(of: [written])
    guard case .head(let head)? = parts.first else {
        // Methods that llhttp does not know, and what it takes for no URL, are answered 400 by the node.
        return try hold("a node reads one head or none", parts.isEmpty)
    }
    try hold("a node reads one head", parts.filter { if case .head = $0 { true } else { false } }.count == 1)
    try hold("of the same method and target", head.method.rawValue == passed.method && head.uri == passed.target)
    try hold(
        "with the same fields",
        head.headers.map { "\($0.name): \($0.value)" }.sorted()
            == passed.fields.map { "\($0.name): \($0.text)" }.sorted())
}

private func checkResponse(_ head: RouterServer.ResponseHead, method: String, rest: ByteBuffer) throws(FuzzFinding) {
    guard let length = try? head.bodyLength(answering: method) else { return }
    try checkBody(length, rest)
    let framing: BodyLength = length == .untilClose ? .chunked : length
    let written = head.headForClient(
        framing: framing, keepsLength: length == .none, closes: true, cookie: "martlet_affinity=x")
    var scanned: Result<ScannedHead?, HTTPFault> = .success(nil)
    written.withUnsafeReadableBytes { scanned = scan([$0]) }
    guard case .success(let own?) = scanned, own.rest.readableBytes == 0,
        let passed = try? HTTPSyntax.response(own.lines)
    else { throw FuzzFinding(description: "the head for the client is one head") }
    try hold("it has the same status", passed.status == head.status)
    if head.status >= 200, let again = try? passed.bodyLength(answering: method) {
        try hold("its body is framed as it is written", again == framing || framing == .none)
    }
}

private func checkBody(_ length: BodyLength, _ rest: ByteBuffer) throws(FuzzFinding) {
    let (whole, inPieces) = rest.withUnsafeReadableBytes { bytes in
        (decodeBody(length, [bytes]), decodeBody(length, bytes.pieces))
    }
    try hold("a body in pieces is the same body", whole == inPieces)
}

private enum DecodedBody: Equatable {
    case whole(data: ByteBuffer, rest: ByteBuffer)
    case incomplete(data: ByteBuffer)
    case fault
}

private func decodeBody(_ length: BodyLength, _ pieces: [UnsafeRawBufferPointer]) -> DecodedBody {
    var decoder = BodyDecoder(length)
    var buffer = ByteBuffer()
    var data = ByteBuffer()
    for piece in pieces {
        buffer.writeBytes(piece)
        do throws(HTTPFault) {
            while !decoder.hasEnded, case .data(let more)? = try decoder.next(&buffer) {
                data.writeImmutableBuffer(more)
            }
        } catch {
            return .fault
        }
    }
    if decoder.hasEnded || decoder.endOfInput() { return .whole(data: data, rest: buffer) }
    return .incomplete(data: data)
}

/// What a node reads from a client.
///
/// 1. Requests do not depend on how the bytes come in.
/// 2. What comes of a target is a path and no more than its own bytes; a handshake is answered with one head, in which
///    nothing of the request stands that could end a line.
func fuzzNode(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) {
    let whole = nodeParts(of: [ByteBuffer(bytes: input)])
    let inPieces = nodeParts(of: input.pieces.map { ByteBuffer(bytes: $0) })
    try hold("requests in pieces are the same", joined(whole) == joined(inPieces))
    for case .head(let head) in whole {
        if let target = RequestTarget(head.uri) {
            try hold("a path is not empty", !target.path.isEmpty)
            let length =
                target.path.utf8.count
                + target.queryItems.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
            try hold("a target is not more than its bytes", length <= head.uri.utf8.count + 1)
        }
        let request = HTTPRequest(method: head.method, uri: head.uri, headers: head.headers)
        try hold("a request has a name for the log", (1...128).contains(request.requestID.utf8.count))
        try checkHandshake(request, head)
    }
}

private func checkHandshake(_ request: HTTPRequest, _ head: HTTPRequestHead) throws(FuzzFinding) {
    let deflate = DeflateAgreement(offers: head.headers["sec-websocket-extensions"])
    let written: ByteBuffer
    if let refusal = WebSocketHandshake.refusal(for: head) {
        written = refusal.serialized(forHEAD: false, keepAlive: false, date: "now")
    } else {
        guard let key = head.headers.first(name: "sec-websocket-key"),
            let accept = WebSocketHandshake.accept(for: key)
        else { throw FuzzFinding(description: "a handshake that is not refused has a key") }
        written = WebSocketHandshake.acceptance(
            accept: accept, subprotocol: request.offeredSubprotocols.first, deflate: deflate,
            extraHeaders: ["X-Request-ID": request.requestID])
    }
    var scanned: Result<ScannedHead?, HTTPFault> = .success(nil)
    written.withUnsafeReadableBytes { scanned = scan([$0]) }
    guard case .success(let own?) = scanned, let answer = try? HTTPSyntax.response(own.lines) else {
        throw FuzzFinding(description: "an answer is one head")
    }
    try hold("nothing stands behind the head of a handshake", answer.status != 101 || own.rest.readableBytes == 0)
}

/// As the node's own decoder reads it.
private func nodeParts(of buffers: [ByteBuffer]) -> [HTTPServerRequestPart] {
    var limits = NIOHTTPDecoderLimitConfiguration()
    limits.maxHeaderFieldSize = 8192
    limits.maxHeaderListSize = 8192
    let decoder = ByteToMessageHandler(
        HTTPRequestDecoder(leftOverBytesStrategy: .forwardBytes, limitConfiguration: limits),
        maximumBufferSize: 16384)
    let channel = EmbeddedChannel(handler: decoder)
    defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
    var parts: [HTTPServerRequestPart] = []
    for buffer in buffers {
        guard (try? channel.writeInbound(buffer)) != nil else { break }
    }
    while let part = try? channel.readInbound(as: HTTPServerRequestPart.self) { parts.append(part) }
    return parts
}

/// With the pieces of each body together.
private func joined(_ parts: [HTTPServerRequestPart]) -> [HTTPServerRequestPart] {
    var all: [HTTPServerRequestPart] = []
    for part in parts {
        if case .body(let more) = part, case .body(var before)? = all.last {
            before.writeImmutableBuffer(more)
            all[all.count - 1] = .body(before)
        } else {
            all.append(part)
        }
    }
    return all
}
#endif
