package import WireProtocol

/// What a client sent before its turn: before its session is open, or its room's join is answered.
///
/// 1. Keeps the order of each room: behind a message that waits, everything for the same room waits, a join too.
/// 2. Is bounded in messages and bytes.
package struct HeldMessages: Sendable {
    package typealias Held = (message: ClientMessage, bytes: [UInt8], size: Int)

    /// The same for all sessions of a node.
    package struct Bounds: Sendable {
        package let count: Int
        package let bytes: Int

        package init(count: Int, bytes: Int) { (self.count, self.bytes) = (count, bytes) }
    }

    private var messages: [Held] = []

    package init() {}

    package var isEmpty: Bool { messages.isEmpty }

    package enum OfferAction: Sendable, Equatable {
        case perform
        case held
        /// It must wait, and there is no room for it.
        case refuse
    }

    /// - Parameters:
    ///   - bytes: what the ranges of the message are of.
    ///   - size: of the frame that it came in, in bytes.
    package mutating func offer(
        _ message: ClientMessage, _ bytes: UnsafeRawBufferPointer, size: Int, to state: SessionState,
        within bounds: Bounds
    ) -> OfferAction {
        guard state.mustWait(message) || waits(forAnyOf: message) else { return .perform }
        let size = max(size, bytes.count)
        let held = messages.reduce(0) { $0 + $1.size }
        guard messages.count < bounds.count, held + size <= bounds.bytes else { return .refuse }
        messages.append((message, Array(bytes), size))
        return .held
    }

    private func waits(forAnyOf message: ClientMessage) -> Bool {
        guard !messages.isEmpty else { return false }
        let rooms = Set(message.rooms)
        return messages.contains { $0.message.rooms.contains(where: rooms.contains) }
    }

    /// Everything, to be offered again in this order: what still has to wait comes back.
    package mutating func release() -> [Held] {
        let released = messages
        messages = []
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
