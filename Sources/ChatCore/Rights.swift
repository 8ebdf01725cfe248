package import WireProtocol

/// What one session may do in which room: what its token says, or, where that says nothing of rooms, the room's namespace.
package struct Rights: Sendable {
    private let namespaces: Namespaces
    /// Of the token; `nil` without one, and for one that says nothing of rooms.
    private let capabilities: Capabilities?

    package init(_ namespaces: Namespaces = Namespaces(), _ capabilities: Capabilities? = nil) {
        self.namespaces = namespaces
        self.capabilities = capabilities
    }

    /// - Throws: ``WireError`` `unknown_namespace`.
    package func actions(in room: RoomName) throws(WireError) -> RoomActions {
        let rules = try rules(of: room)
        let actions = capabilities.map { $0.actions(in: room) } ?? rules.allows
        return rules.showsPresence ? actions : actions.subtracting(.presence)
    }

    /// - Throws: ``WireError`` `unknown_namespace`.
    package func rules(of room: RoomName) throws(WireError) -> NamespaceRules {
        guard let rules = namespaces.rules(of: room) else {
            throw WireError(
                .unknownNamespace,
                "the server has no namespace \(room.namespace ?? ""); ask its operator for one, or take another room")
        }
        return rules
    }

    package func allow(_ action: RoomActions, in room: RoomName) -> Bool {
        ((try? actions(in: room)) ?? []).contains(action)
    }

    /// - Throws: ``WireError`` `unknown_namespace`, or `forbidden`, naming the right that is missing.
    package func require(_ action: RoomActions, in room: RoomName) throws(WireError) {
        try actions(in: room).require(action, in: room)
    }
}

extension Namespaces {
    /// Of private rooms.
    package var direct: NamespaceRules { named["dm"] ?? standard }
}

extension NamespaceRules {
    /// Whether messages are held to bounds of its own.
    package var isBounded: Bool { messageBytes != nil || messagesPerSecond != nil }

    /// How often one session may publish into one of the rooms; a burst is two seconds' worth unless it is set.
    var rate: TokenRate? {
        messagesPerSecond.flatMap { TokenRate(ratePerSecond: $0, burst: messageBurst ?? 2 * $0) }
    }
}

extension RoomActions {
    /// - Throws: ``WireError`` `forbidden`, naming the right that is missing.
    func require(_ action: RoomActions, in room: RoomName) throws(WireError) {
        guard !contains(action) else { return }
        let deed =
            switch action {
            case .publish: "publish in"
            case .presence: "see who is in"
            case .history: "read the history of"
            default: "join"
            }
        throw WireError(.forbidden, "this session may not \(deed) \(room); get a token that allows it")
    }
}

/// A room in which a session is, and what it may do there, in one byte.
package struct RoomPlace: Sendable, Equatable {
    private static let joined: UInt8 = 64
    private static let bounded: UInt8 = 32
    private var bits: UInt8

    init(_ actions: RoomActions, isBounded: Bool) {
        bits = actions.rawValue | (isBounded ? Self.bounded : 0)
    }

    package var actions: RoomActions { RoomActions(rawValue: bits).intersection(.all) }
    /// The namespace has bounds of its own for messages.
    var isBounded: Bool { bits & Self.bounded != 0 }
    /// False while the join is under way.
    package var isJoined: Bool {
        get { bits & Self.joined != 0 }
        set { bits = newValue ? bits | Self.joined : bits & ~Self.joined }
    }

    /// The same place under other rights.
    func with(_ actions: RoomActions) -> RoomPlace {
        var place = RoomPlace(actions, isBounded: isBounded)
        place.isJoined = isJoined
        return place
    }
}
