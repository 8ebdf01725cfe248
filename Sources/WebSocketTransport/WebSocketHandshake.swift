import COpenSSL
import NIOCore
import NIOHTTP1

/// The opening handshake of RFC 6455 section 4 without any I/O.
enum WebSocketHandshake {
    /// `Sec-WebSocket-Accept` for a key (section 4.2.2): base64 of the SHA-1 of the key and the protocol's GUID.
    static func accept(for key: String) -> String? {
        let input = Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8)
        var digest = [UInt8](repeating: 0, count: 20)
        var length: UInt32 = 0
        guard EVP_Digest(input, input.count, &digest, &length, EVP_sha1(), nil) == 1, length == 20 else { return nil }
        return base64(digest)
    }

    /// Whether the request asks for a WebSocket: `websocket` among the `Upgrade` protocols.
    static func asksForUpgrade(_ headers: HTTPHeaders) -> Bool {
        headers.lists("websocket", in: "upgrade")
    }

    /// The answer to an opening handshake that can't succeed whatever the application thinks of it; nil when it can.
    static func refusal(for head: HTTPRequestHead) -> HTTPResponse? {
        guard head.method == .GET else {
            return .error(
                .methodNotAllowed,
                reason: "method_not_allowed",
                message: "A WebSocket is opened with GET.",
                headers: ["Allow": "GET"]
            )
        }
        guard head.version == .http1_1 else {
            return .error(.badRequest, reason: "bad_http_version", message: "A WebSocket needs HTTP/1.1.")
        }
        guard asksForUpgrade(head.headers) else {
            return .error(
                .upgradeRequired,
                reason: "upgrade_required",
                message: "This address speaks WebSocket; send `Upgrade: websocket`.",
                headers: ["Upgrade": "websocket", "Connection": "Upgrade"]
            )
        }
        guard head.headers.lists("upgrade", in: "connection") else {
            return .error(
                .badRequest,
                reason: "bad_connection_header",
                message: "`Upgrade: websocket` needs `Connection: Upgrade` with it."
            )
        }
        let versions = head.headers["sec-websocket-version"]
        guard versions == ["13"] else {
            return .error(
                .upgradeRequired,
                reason: "bad_websocket_version",
                message: "Only WebSocket version 13 is spoken here.",
                headers: ["Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"]
            )
        }
        let keys = head.headers["sec-websocket-key"]
        guard keys.count == 1, isValidKey(keys[0]) else {
            return .error(
                .badRequest,
                reason: "bad_websocket_key",
                message: "`Sec-WebSocket-Key` must be 16 bytes in base64."
            )
        }
        return nil
    }

    /// The 101 answer.
    static func acceptance(
        accept: String, subprotocol: String?, deflate: DeflateAgreement? = nil, extraHeaders: HTTPHeaders
    ) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: 256)
        buffer.writeStatusLine(.switchingProtocols)
        buffer.writeHeader("Upgrade", "websocket")
        buffer.writeHeader("Connection", "Upgrade")
        buffer.writeHeader("Sec-WebSocket-Accept", accept)
        if let subprotocol { buffer.writeHeader("Sec-WebSocket-Protocol", subprotocol) }
        if let deflate { buffer.writeHeader("Sec-WebSocket-Extensions", deflate.header) }
        for header in extraHeaders { buffer.writeHeader(header.name, header.value) }
        buffer.writeString("\r\n")
        return buffer
    }

    /// 24 characters of base64 that stand for 16 bytes: 22 digits, the last with four zero bits, and `==`.
    static func isValidKey(_ key: String) -> Bool {
        let bytes = Array(key.utf8)
        guard bytes.count == 24, bytes[22] == UInt8(ascii: "="), bytes[23] == UInt8(ascii: "=") else { return false }
        guard bytes.prefix(22).allSatisfy({ alphabet.contains($0) }) else { return false }
        return alphabet.firstIndex(of: bytes[21]).map { $0 & 0xF == 0 } ?? false
    }

    static func base64(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        var start = 0
        while start < bytes.count {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var word = 0
            for index in 0..<3 { word = word << 8 | (index < group.count ? Int(group[start + index]) : 0) }
            for index in 0..<4 {
                text.append(index <= group.count ? alphabet[word >> (18 - 6 * index) & 0x3F] : UInt8(ascii: "="))
            }
            start += 3
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
}

extension HTTPHeaders {
    /// Whether `word` is among the comma-separated values of `name`, in any case.
    func lists(_ word: String, in name: String) -> Bool {
        self[canonicalForm: name].contains { $0.lowercased() == word }
    }
}
