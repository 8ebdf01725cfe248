/// Who is in a room and who types there, as far as the server's events tell. A hole in `pv` shows that an event is lost.
struct RoomRoster: Equatable {
    private(set) var members: [String: Member] = [:]
    private(set) var count = 0
    private var pv: Int64 = 0
    /// User → when their typing ends, in milliseconds.
    private var typing: [String: Int64] = [:]

    static let typingExpiry: Int64 = 6000

    /// The whole list counts, whatever was known.
    mutating func replace(with list: ServerFrame.Roster) {
        members = Dictionary(list.members.map { ($0.user, $0) }, uniquingKeysWith: { $1 })
        count = list.count
        pv = list.pv
    }

    enum ChangeResult: Equatable {
        case old
        case applied
        /// An earlier event is missing: ask for the whole list.
        case appliedWithHole
    }

    mutating func apply(_ change: ServerFrame.RosterChange) -> ChangeResult {
        guard change.pv > pv else { return .old }
        let changes = Int64(change.joined.count + change.left.count + change.updated.count)
        let isHole = changes > 0 && change.pv - changes > pv
        for member in change.joined + change.updated { members[member.user] = member }
        for user in change.left {
            members[user] = nil
            typing[user] = nil
        }
        count = change.count
        pv = change.pv
        return isHole ? .appliedWithHole : .applied
    }

    /// After a reconnect, or when the room counts from a new start, events count from any `pv` on.
    mutating func forgetVersion() {
        pv = 0
    }

    mutating func forgetTyping() {
        typing = [:]
    }

    var typingUsers: [String] { typing.keys.sorted() }

    mutating func setTyping(_ user: String, _ isTyping: Bool, now: Int64) {
        typing[user] = isTyping ? now + Self.typingExpiry : nil
    }

    /// - Returns: whether somebody's typing ended by time or because their message is here.
    mutating func endTyping(now: Int64, of user: String? = nil) -> Bool {
        let before = typing.count
        typing = typing.filter { $0.value > now && $0.key != user }
        return typing.count != before
    }
}
