import WireProtocol

/// A parsed JSON object whose members are read by name. Unknown ones cost nothing but their scan.
struct JSONObject {
    private static let maximumDepth = JSONScanner.maximumServerDepth

    private let bytes: [UInt8]
    private let range: Range<Int>
    private var members: [String: JSONValue] = [:]

    /// `nil` when the bytes are not one JSON object.
    init?(_ bytes: [UInt8]) {
        self.init(bytes, in: 0..<bytes.count)
    }

    private init?(_ bytes: [UInt8], in range: Range<Int>) {
        self.bytes = bytes
        self.range = range
        var members: [String: JSONValue] = [:]
        let isObject = bytes.withUnsafeBytes { buffer in
            do {
                try JSONScanner.scanObject(buffer, in: range, maximumDepth: Self.maximumDepth) {
                    (key, value) throws(JSONError) in
                    if let name = JSONText.string(key, in: buffer) { members[name] = value }
                }
                return true
            } catch {
                return false
            }
        }
        guard isObject else { return nil }
        self.members = members
    }

    /// A string with a lone surrogate is grammar but no text (RFC 8259 section 8.2): each becomes U+FFFD, as a
    /// browser would show it, so that one odd message does not stop the room.
    func string(_ name: String) -> String? {
        guard let value = members[name] else { return nil }
        return bytes.withUnsafeBytes { JSONText.string(value, in: $0, replacingLoneSurrogates: "\u{FFFD}") }
    }

    /// What a string of base64 stands for.
    func bytes(_ name: String) -> [UInt8]? {
        guard let value = members[name] else { return nil }
        return bytes.withUnsafeBytes { JSONText.bytes(value, in: $0) }
    }

    /// From 0 to 2^53, beyond which not every JSON reader is exact; so that adding to one cannot overflow.
    func integer(_ name: String) -> Int64? {
        guard let value = members[name] else { return nil }
        return bytes.withUnsafeBytes { JSONText.integer(value, in: $0) }.flatMap {
            (0...(1 << 53)).contains($0) ? $0 : nil
        }
    }

    func bool(_ name: String) -> Bool? {
        guard case .bool(let value)? = members[name]?.kind else { return nil }
        return value
    }

    /// The value as JSON text, whatever it is.
    func raw(_ name: String) -> String? {
        guard let value = members[name], value.kind != .null else { return nil }
        return bytes.withUnsafeBytes { JSONText.minified(value.range, in: $0) }
    }

    func object(_ name: String) -> JSONObject? {
        guard let value = members[name], value.kind == .object else { return nil }
        return JSONObject(bytes, in: value.range)
    }

    /// The objects of an array; `nil` when there is no such array.
    func objects(_ name: String) -> [JSONObject]? {
        guard let value = members[name], value.kind == .array else { return nil }
        var ranges: [Range<Int>] = []
        bytes.withUnsafeBytes { buffer in
            try? JSONScanner.scanArray(
                buffer, in: value.range, maximumDepth: Self.maximumDepth
            ) { (element) throws(JSONError) in
                if element.kind == .object { ranges.append(element.range) }
            }
        }
        return ranges.compactMap { JSONObject(bytes, in: $0) }
    }
}
