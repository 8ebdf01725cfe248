package import WireProtocol

/// What a session may do in a room; the names are those of token claims and of the configuration file.
package struct RoomActions: OptionSet, Sendable, Hashable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Be in it, and get its messages.
    package static let join = RoomActions(rawValue: 1)
    /// Messages and typing.
    package static let publish = RoomActions(rawValue: 2)
    /// See who is there, and who comes and goes.
    package static let presence = RoomActions(rawValue: 4)
    /// Read stored messages, and recover those that were missed.
    package static let history = RoomActions(rawValue: 8)

    package static let all: RoomActions = [.join, .publish, .presence, .history]

    /// In the order in which they are told to people.
    package static let names: [(name: String, action: RoomActions)] = [
        ("join", .join), ("publish", .publish), ("presence", .presence), ("history", .history),
    ]

    /// `nil` for a name that stands for no action.
    package init?(name: String) {
        guard let found = Self.names.first(where: { $0.name == name }) else { return nil }
        self = found.action
    }
}

/// The name of a room, or its beginning and a `*`: `announce`, `team-7/*`, `news:*`, `*`.
package struct RoomPattern: Sendable, Hashable {
    private let text: String
    private let isPrefix: Bool

    /// `nil` when a `*` stands anywhere but at the end, or no room name can begin or be so.
    package init?(_ pattern: String) {
        isPrefix = pattern.hasSuffix("*")
        text = isPrefix ? String(pattern.dropLast()) : pattern
        guard (isPrefix && Self.mayBegin(text)) || (try? RoomName(validating: text)) != nil else { return nil }
    }

    /// Beginnings that are no room names: nothing, and those of private rooms.
    private static func mayBegin(_ text: String) -> Bool {
        guard text.hasPrefix(RoomName.directPrefix) else { return text.isEmpty }
        return text.utf8.allSatisfy {
            switch $0 {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
                UInt8(ascii: "0")...UInt8(ascii: ":"):
                true
            default: "_.@/-%".utf8.contains($0)
            }
        }
    }

    package func matches(_ room: RoomName) -> Bool {
        isPrefix ? room.string.hasPrefix(text) : room.string == text
    }
}

/// What a token says of rooms (the claim `rooms`): `{"team-7/*":["join","publish"],"announce":["join"]}`.
package struct Capabilities: Sendable, Hashable {
    package struct Grant: Sendable, Hashable {
        package let pattern: RoomPattern
        package let actions: RoomActions

        package init(pattern: RoomPattern, actions: RoomActions) {
            self.pattern = pattern
            self.actions = actions
        }
    }

    package var grants: [Grant]

    package init(_ grants: [Grant] = []) { self.grants = grants }

    /// All that the patterns which match the room give together; nothing where none matches.
    package func actions(in room: RoomName) -> RoomActions {
        grants.reduce(into: []) { if $1.pattern.matches(room) { $0.formUnion($1.actions) } }
    }
}
