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

    private enum Step: Sendable {
        case anonymous, opening, open, closed
    }

    /// Who it is, or was: outlives the session.
    package private(set) var knownUser: UserName?
    package private(set) var rooms = FewMap<RoomName, RoomPlace>()
    package private(set) var status: PresenceStatus = .online
    private var step = Step.anonymous
    private let roomLimit: Int32
    private var recent: [RoomName: Recent] = [:]

    /// What it did in a room, as far as that bounds what it may do next. Times are monotonic nanoseconds.
    private struct Recent: Sendable {
        var typing: (isTyping: Bool, at: UInt64)?
        /// When it may send as much as the namespace's burst again.
        var messagesFullAt: UInt64 = 0
    }

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
    ///   - rooms: of a session that goes on: it is in those that its rights still allow, and their joins are under way.
    ///   - status: of a session that goes on.
    package mutating func opened(
        rooms: some Sequence<RoomName> = [], status: PresenceStatus? = nil,
        _ rights: @autoclosure () -> Rights = Rights()
    ) -> Bool {
        guard step == .opening else { return false }
        step = .open
        for room in rooms { self.rooms[room] = try? place(in: room, rights()) }
        if let status { self.status = status }
        return true
    }

    package enum JoinAction: Sendable, Equatable {
        case join
        /// Already there: answer with the room as it is now.
        case again
        case refuse(WireError)
    }

    package mutating func join(_ room: RoomName, _ rights: Rights) -> JoinAction {
        guard step == .open, let user = knownUser else { return .refuse(WireError(.notAuthenticated)) }
        if let (first, second) = room.participants, user != first, user != second {
            return .refuse(WireError(.forbidden, "a private room is for its two users"))
        }
        guard !room.isDirect else {
            return .refuse(WireError(.invalidRoom, "a private room needs no join; send direct, and read history"))
        }
        if rooms[room] != nil { return .again }
        do throws(WireError) {
            let place = try place(in: room, rights)
            guard rooms.count < roomLimit else {
                throw WireError(.tooManyRooms, "a session may be in \(roomLimit) rooms; leave one first")
            }
            rooms[room] = place
            return .join
        } catch {
            return .refuse(error)
        }
    }

    /// - Throws: ``WireError`` `unknown_namespace`, or `forbidden`.
    private func place(in room: RoomName, _ rights: Rights) throws(WireError) -> RoomPlace {
        let actions = try rights.actions(in: room)
        try actions.require(.join, in: room)
        return RoomPlace(actions, isBounded: try rights.rules(of: room).isBounded)
    }

    package enum RoomChange: Sendable, Equatable {
        /// It is in the room no more, whose join may be under way.
        case left(RoomName)
        /// It may do this there, and did something else before.
        case rights(RoomName, RoomActions)
        /// From now on it sees who is there, or no more.
        case presence(RoomName, isShown: Bool)
    }

    /// Other rights than before: what that changes, at once.
    package mutating func renew(_ rights: Rights) -> [RoomChange] {
        guard step == .open else { return [] }
        var changes: [RoomChange] = []
        for (room, place) in rooms {
            let actions = (try? rights.actions(in: room)) ?? []
            guard actions.contains(.join) else {
                changes.append(.left(room))
                continue
            }
            guard actions != place.actions else { continue }
            rooms[room] = place.with(actions)
            changes.append(.rights(room, actions))
            let isShown = actions.contains(.presence)
            if isShown != place.actions.contains(.presence) { changes.append(.presence(room, isShown: isShown)) }
        }
        for case .left(let room) in changes { _ = leave(room) }
        return changes
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
        rooms[room]?.isJoined = true
        return true
    }

    /// The place that was given up, if any: also that of a join that failed.
    package mutating func leave(_ room: RoomName) -> RoomPlace? {
        recent[room]?.typing = nil
        // What it has sent there still counts when it comes back.
        if recent[room]?.messagesFullAt == 0 { recent[room] = nil }
        return rooms.removeValue(forKey: room)
    }

    /// Whether the others are to be told. The same state again within ``typingSilence`` says nothing new: clients refresh
    /// it every 3 s.
    ///
    /// - Parameter now: monotonic nanoseconds.
    package mutating func typing(
        _ isTyping: Bool, in room: RoomName, _ rights: @autoclosure () -> Rights, now: UInt64
    ) throws(WireError) -> UserName? {
        let (user, _) = try requireMember(of: room, who: .publish, rights())
        let last = recent[room]?.typing
        if let last, last.isTyping == isTyping, now < last.at + Self.typingSilence { return nil }
        recent[room, default: Recent()].typing = (isTyping, now)
        return user
    }

    /// - Parameters:
    ///   - bytes: of `text`, `data` and `binary` together, as they stand in JSON.
    ///   - rights: asked only where the namespace has bounds of its own, and for who is not in the room.
    ///   - now: monotonic nanoseconds.
    package mutating func publish(
        _ bytes: Int, in room: RoomName, _ rights: @autoclosure () -> Rights, now: UInt64
    ) throws(WireError) -> UserName {
        let (user, place) = try requireMember(of: room, who: .publish, rights())
        if place.isBounded { try take(bytes, in: room, rights().rules(of: room), now) }
        return user
    }

    /// A message for the private room of two users, of whom this is one.
    package mutating func publish(
        _ bytes: Int, to recipient: UserName, _ rights: Rights, now: UInt64
    ) throws(WireError) -> (user: UserName, room: RoomName) {
        let user = try requireOpen()
        let room = RoomName.direct(user, recipient)
        try rights.require(.publish, in: room)
        let rules = try rights.rules(of: room)
        if rules.isBounded { try take(bytes, in: room, rules, now) }
        return (user, room)
    }

    private mutating func take(
        _ bytes: Int, in room: RoomName, _ rules: NamespaceRules, _ now: UInt64
    ) throws(WireError) {
        if let most = rules.messageBytes, bytes > most {
            throw WireError(.tooLarge, "a message in \(room) may have \(most) bytes, this one has \(bytes); send less")
        }
        guard let rate = rules.rate else { return }
        // Those that it is not in, private rooms too, are forgotten where all may be sent again.
        if recent.count > 2 * rooms.count + 100 {
            recent = recent.filter { rooms[$0.key] != nil || $0.value.messagesFullAt > now }
        }
        let taken = rate.take(fullAt: &recent[room, default: Recent()].messagesFullAt, now: now)
        guard case .refuse(let milliseconds) = taken else { return }
        throw WireError(
            .rateLimited, "too many messages in \(room); wait retry_ms and send again",
            retryAfterMilliseconds: milliseconds)
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
        case (.open, .join(let joins)): joins.contains { rooms[$0.room]?.isJoined == false }
        case (.open, _): message.room.map { rooms[$0]?.isJoined == false } ?? false
        }
    }

    /// Publishing, typing and presence need membership; a private room is read by its two users.
    ///
    /// - Parameters:
    ///   - action: the right that it takes.
    ///   - rights: asked only for who is not in the room.
    package func requireMember(
        of room: RoomName, who action: RoomActions, _ rights: @autoclosure () -> Rights
    ) throws(WireError) -> (UserName, RoomPlace) {
        guard step == .open, let user = knownUser else { throw WireError(.notAuthenticated) }
        guard let place = rooms[room], place.isJoined else {
            _ = try rights().rules(of: room)
            throw WireError(.notInRoom, "join \(room) first")
        }
        try place.actions.require(action, in: room)
        return (user, place)
    }

    package func requireReader(of room: RoomName, _ rights: Rights) throws(WireError) -> UserName {
        guard step == .open, let user = knownUser else { throw WireError(.notAuthenticated) }
        if let (first, second) = room.participants {
            guard user == first || user == second else {
                throw WireError(.forbidden, "a private room is for its two users")
            }
            try rights.require(.history, in: room)
            return user
        }
        return try requireMember(of: room, who: .history, rights).0
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
        recent = [:]
        return left
    }
}
