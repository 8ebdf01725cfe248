/// What a frame of a room is to a member who is slow to read (G6).
package enum FrameKind: Sendable {
    /// A message: everybody gets it, its sender only with echo.
    case message
    /// What a client must know to stay right: a gap.
    case notice
    /// Ephemeral, and worth nothing later.
    case typing
    /// Ephemeral; the room's list as it is later takes the place of what was left out.
    case presence

    package var isEphemeral: Bool {
        switch self {
        case .message, .notice: false
        case .typing, .presence: true
        }
    }
}
