package import WireProtocol

/// What a client sent before its turn: before its session is open, or its room's join is answered.
///
/// 1. Keeps the order of each room: behind a message that waits, everything for the same room waits, a join too.
/// 2. Is bounded in messages and bytes.
package struct HeldMessages: Sendable {
    package typealias Held = (message: ClientMessage, bytes: [UInt8])

    private let maximumCount: Int
    private let maximumBytes: Int
    private var messages: [Held] = []
    private var byteCount = 0
    private var rooms: Set<RoomName> = []

    package init(maximumCount: Int, maximumBytes: Int) {
        self.maximumCount = maximumCount
        self.maximumBytes = maximumBytes
    }

    package var isEmpty: Bool { messages.isEmpty }

    package enum OfferAction: Sendable, Equatable {
        case perform
        case held
        /// It must wait, and there is no room for it.
        case refuse
    }

    /// - Parameter bytes: the text of the message.
    package mutating func offer(
        _ message: ClientMessage, _ bytes: UnsafeRawBufferPointer, to state: SessionState
    ) -> OfferAction {
        guard state.mustWait(message) || message.rooms.contains(where: rooms.contains) else { return .perform }
        guard messages.count < maximumCount, byteCount + bytes.count <= maximumBytes else { return .refuse }
        messages.append((message, Array(bytes)))
        byteCount += bytes.count
        rooms.formUnion(message.rooms)
        return .held
    }

    /// Everything, to be offered again in this order: what still has to wait comes back.
    package mutating func release() -> [Held] {
        let released = messages
        self = HeldMessages(maximumCount: maximumCount, maximumBytes: maximumBytes)
        return released
    }
}

extension ClientMessage {
    /// All rooms that it is about.
    fileprivate var rooms: [RoomName] {
        if case .join(let joins) = body { return joins.map(\.room) }
        return room.map { [$0] } ?? []
    }
}
