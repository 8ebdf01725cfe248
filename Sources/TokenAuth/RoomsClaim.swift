package import ChatCore
import WireProtocol

/// The claim `rooms`: `{"team-7/*":["join","publish"],"announce":["join"]}`.
package enum RoomsClaim {
    package static let name = "rooms"
    /// Each join of a session looks at all of them.
    package static let maximumPatterns = 100

    /// `nil` for anything but an object of at most ``maximumPatterns`` room patterns, each once, with lists of actions.
    package static func parse(_ json: String) -> Capabilities? {
        Array(json.utf8).withUnsafeBytes { bytes in
            guard let value = try? JSONScanner.scanText(bytes) else { return nil }
            return read(value, in: bytes)
        }
    }

    static func read(_ value: JSONValue, in bytes: UnsafeRawBufferPointer) -> Capabilities? {
        guard value.kind == .object else { return nil }
        var grants: [Capabilities.Grant] = []
        var isSound = true
        let scanned = JSONObject.scan(bytes, in: value.range) { name, value, bytes in
            guard isSound, grants.count < maximumPatterns, let pattern = RoomPattern(name),
                let actions = actions(value, in: bytes)
            else {
                isSound = false
                return
            }
            grants.append(Capabilities.Grant(pattern: pattern, actions: actions))
        }
        return scanned && isSound ? Capabilities(grants) : nil
    }

    private static func actions(_ value: JSONValue, in bytes: UnsafeRawBufferPointer) -> RoomActions? {
        guard let names = JSONObject.strings(value, in: bytes) else { return nil }
        var actions: RoomActions = []
        for name in names {
            guard let action = RoomActions(name: name) else { return nil }
            actions.formUnion(action)
        }
        return actions
    }
}
