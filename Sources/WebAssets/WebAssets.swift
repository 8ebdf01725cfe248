/// One file that nodes serve, embedded in the executable: a node reads nothing from disk.
package struct WebAsset: Sendable {
    /// The path under which a node serves it, from its root.
    package let path: String
    /// The whole `Content-Type` header, with the charset where it is text.
    package let contentType: String
    /// The file as it is in the repository.
    package let bytes: [UInt8]
    /// A strong entity tag with its quotes (RFC 9110, section 8.8.3): another content has another tag.
    package let etag: String

    init(path: String, contentType: String, bytes: [UInt8]) {
        self.path = path
        self.contentType = contentType
        self.bytes = bytes
        self.etag = Self.entityTag(of: bytes)
    }

    /// FNV-1a over 64 bits: the same file has the same tag on every node and in every process, so a browser that
    /// is moved to another node still has its copy.
    private static func entityTag(of bytes: [UInt8]) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in bytes {
            hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01b3
        }
        return "\"\(String(hash, radix: 16))\""
    }
}

/// The chat page, the JavaScript client, and what describes the protocol to programs.
package enum WebAssets {
    /// What a node sends with every one of these files. The page has no inline script or style and asks no other
    /// host; `'self'` includes the WebSocket of the same origin (CSP level 3).
    package static let contentSecurityPolicy =
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    /// Every file, in no particular order.
    package static let all: [WebAsset] = {
        let script = "text/javascript; charset=utf-8"
        return [
            WebAsset(path: "/", contentType: "text/html; charset=utf-8", bytes: PackageResources.chat_html),
            WebAsset(path: "/chat.css", contentType: "text/css; charset=utf-8", bytes: PackageResources.chat_css),
            WebAsset(path: "/chat.js", contentType: script, bytes: PackageResources.chat_js),
            WebAsset(path: "/connection.js", contentType: script, bytes: PackageResources.connection_js),
            WebAsset(path: "/drawers.js", contentType: script, bytes: PackageResources.drawers_js),
            WebAsset(path: "/people.js", contentType: script, bytes: PackageResources.people_js),
            WebAsset(path: "/timeline.js", contentType: script, bytes: PackageResources.timeline_js),
            WebAsset(path: "/view.js", contentType: script, bytes: PackageResources.view_js),
            WebAsset(path: "/martlet.js", contentType: script, bytes: PackageResources.martlet_js),
            WebAsset(
                path: "/martlet.d.ts", contentType: "text/plain; charset=utf-8", bytes: PackageResources.martlet_d_ts),
            WebAsset(path: "/favicon.svg", contentType: "image/svg+xml", bytes: PackageResources.favicon_svg),
            WebAsset(
                path: "/protocol/schema.json", contentType: "application/schema+json; charset=utf-8",
                bytes: PackageResources.schema_json),
            WebAsset(
                path: "/protocol/martlet.proto", contentType: "text/plain; charset=utf-8",
                bytes: PackageResources.martlet_proto),
        ]
    }()

    private static let byPath = Dictionary(uniqueKeysWithValues: all.map { ($0.path, $0) })

    /// The file served under a request's path; the query is not part of it.
    package static func find(path: String) -> WebAsset? {
        byPath[path]
    }
}
