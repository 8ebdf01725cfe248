import WireProtocol

/// A JSON object whose names are unique: what JOSE asks of headers, claims and keys (RFC 7515 section 4, RFC 7519
/// section 4, RFC 7517 section 4).
enum JSONObject {
    /// Calls `body` for each member.
    ///
    /// - Parameter range: where in `json` the object stands; all of it when `nil`.
    /// - Returns: false when the text is no such object; `body` may have been called before.
    static func scan(
        _ json: UnsafeRawBufferPointer, in range: Range<Int>? = nil,
        _ body: (String, JSONValue, UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        var names: Set<String> = []
        var isSound = true
        do throws(JSONError) {
            try JSONScanner.scanObject(json, in: range) { key, value in
                guard let name = JSONText.string(key, in: json), names.insert(name).inserted else {
                    isSound = false
                    return
                }
                body(name, value, json)
            }
        } catch {
            return false
        }
        return isSound
    }

    /// The same for a text of its own, which must be UTF-8.
    static func scan(_ json: [UInt8], _ body: (String, JSONValue, UnsafeRawBufferPointer) -> Void) -> Bool {
        guard String(validating: json, as: UTF8.self) != nil else { return false }
        return json.withUnsafeBytes { scan($0, body) }
    }

    /// The strings of an array of strings.
    static func strings(_ value: JSONValue, in bytes: UnsafeRawBufferPointer) -> [String]? {
        guard value.kind == .array else { return nil }
        var strings: [String] = []
        var isSound = true
        do throws(JSONError) {
            try JSONScanner.scanArray(bytes, in: value.range) { element in
                guard let string = JSONText.string(element, in: bytes) else {
                    isSound = false
                    return
                }
                strings.append(string)
            }
        } catch {
            return nil
        }
        return isSound ? strings : nil
    }
}
