package import WireProtocol

/// What one connection may do and where it is. Decides; the driver acts.
package struct SessionState: Sendable {
    package enum Phase: Sendable, Equatable {
        /// Nobody yet. Goes to `opening` with accepted credentials.
        case anonymous
        /// The user is known and is being written to the cluster. Goes to `open`, or to `closed` when that fails.
        case opening(UserName)
        /// Everything is allowed. Goes to `closed`.
        case open(UserName)
        /// The connection is gone or about to be.
        case closed
    }

    package enum Membership: Sendable, Equatable {
        case joining
        case joined
    }

    private enum Step: Sendable {
        case anonymous, opening, open, closed
    }

    /// Who it is, or was: outlives the session.
    package private(set) var knownUser: UserName?
    package private(set) var rooms = FewMap<RoomName, Membership>()
    package private(set) var status: PresenceStatus = .online
    private var step = Step.anonymous
    private let roomLimit: Int32
    private var typing: [RoomName: (isTyping: Bool, at: UInt64)] = [:]

    package init(roomLimit: Int) {
        self.roomLimit = Int32(clamping: roomLimit)
    }

    package var phase: Phase {
        switch (step, knownUser) {
        case (.opening, let user?): .opening(user)
        case (.open, let user?): .open(user)
        case (.closed, _): .closed
        case (.anonymous, _), (.opening, nil), (.open, nil): .anonymous
        }
    }

    package var user: UserName? { step == .closed ? nil : knownUser }

    package enum AuthAction: Sendable, Equatable {
        case open(UserName)
        /// The same user again: nothing changes.
        case acknowledge(UserName)
        case refuse(WireError)
    }

    package mutating func authenticate(as user: UserName, status: PresenceStatus?) -> AuthAction {
        switch phase {
        case .anonymous:
            step = .opening
            knownUser = user
            if let status { self.status = status }
            return .open(user)
        case .opening(let current), .open(let current):
            return current == user ? .acknowledge(user) : .refuse(WireError(.identityConflict))
        case .closed:
            return .refuse(WireError(.notAuthenticated))
        }
    }

    /// Whether the session was still waiting to be opened.
    ///
    /// - Parameters:
    ///   - rooms: of a session that goes on: it is in them, and their joins are under way.
    ///   - status: of a session that goes on.
    package mutating func opened(rooms: some Sequence<RoomName> = [], status: PresenceStatus? = nil) -> Bool {
        guard step == .opening else { return false }
        step = .open
        for room in rooms { self.rooms[room] = .joining }
        if let status { self.status = status }
        return true
    }

    package enum JoinAction: Sendable, Equatable {
        case join
        /// Already there: answer with the room as it is now.
        case again
        case refuse(WireError)
    }

    package mutating func join(_ room: RoomName) -> JoinAction {
        guard step == .open, let user = knownUser else { return .refuse(WireError(.notAuthenticated)) }
        if let (first, second) = room.participants, user != first, user != second {
            return .refuse(WireError(.forbidden, "a private room is for its two users"))
        }
        guard !room.isDirect else {
            return .refuse(WireError(.invalidRoom, "a private room needs no join; send direct, and read history"))
        }
        if rooms[room] != nil { return .again }
        guard rooms.count < roomLimit else {
            return .refuse(WireError(.tooManyRooms, "a session may be in \(roomLimit) rooms; leave one first"))
        }
        rooms[room] = .joining
        return .join
    }

    /// The joins of one frame, each room once.
    ///
    /// - Throws: when they are more than a session may be in.
    package func distinct(_ joins: [ClientMessage.Join]) throws(WireError) -> [ClientMessage.Join] {
        guard joins.count > 1 else { return joins }
        var rooms: Set<RoomName> = []
        let distinct = joins.filter { rooms.insert($0.room).inserted }
        guard distinct.count <= roomLimit else {
            throw WireError(.tooManyRooms, "a session may be in \(roomLimit) rooms; this frame has more")
        }
        return distinct
    }

    /// Whether the session still wants to be in the room.
    package mutating func joined(_ room: RoomName) -> Bool {
        guard rooms[room] != nil else { return false }
        rooms[room] = .joined
        return true
    }

    /// The membership that was given up, if any: also that of a join that failed.
    package mutating func leave(_ room: RoomName) -> Membership? {
        typing[room] = nil
        return rooms.removeValue(forKey: room)
    }

    /// Whether the others are to be told. The same state again within ``typingSilence`` says nothing new: clients refresh
    /// it every 3 s.
    ///
    /// - Parameter now: monotonic nanoseconds.
    package mutating func typing(_ isTyping: Bool, in room: RoomName, now: UInt64) throws(WireError) -> UserName? {
        let user = try requireMember(of: room)
        if let last = typing[room], last.isTyping == isTyping, now < last.at + Self.typingSilence { return nil }
        typing[room] = (isTyping, now)
        return user
    }

    package static let typingSilence: UInt64 = 2_000_000_000

    /// Whether anything but the answers to `auth` may be sent to it.
    package var isOpen: Bool {
        step == .open
    }

    /// Whether a message came before its turn: a client need not wait for `welcome` before it joins, nor for `joined`
    /// before it speaks. Its turn is when the session is opened, or the join of its room is answered.
    package func mustWait(_ message: ClientMessage) -> Bool {
        switch (step, message.body) {
        case (.opening, .auth), (.opening, .ping), (.anonymous, _), (.closed, _): false
        case (.opening, _): true
        case (.open, .join(let joins)): joins.contains { rooms[$0.room] == .joining }
        case (.open, _): message.room.map { rooms[$0] == .joining } ?? false
        }
    }

    /// Publishing, typing and presence need membership; a private room is read by its two users.
    package func requireMember(of room: RoomName) throws(WireError) -> UserName {
        guard step == .open, let user = knownUser else { throw WireError(.notAuthenticated) }
        guard rooms[room] == .joined else {
            throw WireError(.notInRoom, "join \(room) first")
        }
        return user
    }

    package func requireReader(of room: RoomName) throws(WireError) -> UserName {
        guard step == .open, let user = knownUser else { throw WireError(.notAuthenticated) }
        if let (first, second) = room.participants {
            guard user == first || user == second else {
                throw WireError(.forbidden, "a private room is for its two users")
            }
            return user
        }
        return try requireMember(of: room)
    }

    package func requireOpen() throws(WireError) -> UserName {
        guard step == .open, let user = knownUser else { throw WireError(.notAuthenticated) }
        return user
    }

    package mutating func setStatus(_ status: PresenceStatus) -> Bool {
        guard self.status != status else { return false }
        self.status = status
        return true
    }

    /// Ends the session; what it was in, to be left.
    package mutating func close() -> [RoomName] {
        step = .closed
        let left = Array(rooms.keys)
        rooms = FewMap()
        typing = [:]
        return left
    }
}
