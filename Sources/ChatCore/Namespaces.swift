package import WireProtocol

/// What holds for the rooms of one namespace.
package struct NamespaceRules: Sendable, Hashable {
    /// What those may do of whose token no claim speaks of the room.
    package var allows = RoomActions.all
    /// Messages that a room keeps, 0 for none.
    package var historyMessages = 1000
    /// How long a room keeps a message.
    package var historyMilliseconds: Int64 = 86_400_000
    /// Whether who is in a room is told at all, by lists and by events.
    package var showsPresence = true
    /// `nil`: as large as any message may be.
    package var messageBytes: Int?
    /// Messages that one session may publish into one of the rooms; `nil`: no more than the session's own limit.
    package var messagesPerSecond: Int?
    /// Messages at once before ``messagesPerSecond`` holds.
    package var messageBurst: Int?

    package init() {}
}

/// The rules of every room there can be: a namespace that nobody declared has none.
package struct Namespaces: Sendable, Hashable {
    /// Of rooms whose names have no `:`.
    package var standard: NamespaceRules
    /// By what stands before the first `:`. That of private messages is `dm`; it goes by ``standard`` where it is not here.
    package var named: [String: NamespaceRules]

    package init(standard: NamespaceRules = NamespaceRules(), named: [String: NamespaceRules] = [:]) {
        self.standard = standard
        self.named = named
    }

    /// `nil`: the room's namespace is unknown.
    package func rules(of room: RoomName) -> NamespaceRules? {
        guard let namespace = room.namespace else { return standard }
        return named[String(namespace)] ?? (room.isDirect ? standard : nil)
    }
}
