import WireProtocol

/// The members of one JSON object that a server wrote. Missing ones read as `nil`.
struct JSONMembers {
    private let bytes: UnsafeRawBufferPointer
    private var members: [(key: JSONValue, value: JSONValue)] = []

    /// - Parameter range: of the object; the whole of `bytes` without it.
    init?(_ bytes: UnsafeRawBufferPointer, in range: Range<Int>? = nil) {
        self.bytes = bytes
        members.reserveCapacity(12)
        do throws(JSONError) {
            try JSONScanner.scanObject(bytes, in: range, maximumDepth: JSONScanner.maximumServerDepth) {
                (key, value) throws(JSONError) in
                members.append((key, value))
            }
        } catch {
            return nil
        }
    }

    func value(_ name: StaticString) -> JSONValue? {
        members.last { JSONText.matches($0.key, in: bytes, name) }?.value
    }

    /// A lone surrogate, which protobuf has no place for, reads as U+FFFD.
    func string(_ name: StaticString) -> String? {
        value(name).flatMap { JSONText.string($0, in: bytes, replacingLoneSurrogates: "\u{FFFD}") }
    }

    func integer(_ name: StaticString) -> Int64? {
        value(name).flatMap { JSONText.integer($0, in: bytes) }
    }

    func bool(_ name: StaticString) -> Bool? {
        if case .bool(let bool) = value(name)?.kind { bool } else { nil }
    }

    /// As it stands.
    func text(_ name: StaticString) -> String? {
        value(name).map { String(decoding: bytes[$0.range], as: UTF8.self) }
    }

    func base64(_ name: StaticString) -> [UInt8]? {
        value(name).flatMap { JSONText.bytes($0, in: bytes) }
    }

    func object(_ name: StaticString) -> JSONMembers? {
        value(name).flatMap { $0.kind == .object ? JSONMembers(bytes, in: $0.range) : nil }
    }

    func objects(_ name: StaticString) -> [JSONMembers] {
        guard let value = value(name), value.kind == .array else { return [] }
        var objects: [JSONMembers] = []
        do throws(JSONError) {
            try JSONScanner.scanArray(bytes, in: value.range, maximumDepth: JSONScanner.maximumServerDepth) {
                (element) throws(JSONError) in
                if let object = JSONMembers(bytes, in: element.range) { objects.append(object) }
            }
        } catch {
            return []
        }
        return objects
    }
}
