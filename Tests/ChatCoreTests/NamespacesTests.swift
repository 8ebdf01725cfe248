import ChatCore
import Testing
import WireProtocol

@Suite("Who may do what in which room")
struct NamespacesTests {
    private func room(_ name: String) throws -> RoomName { try RoomName(validating: name) }

    @Test("A pattern is a whole name, or a beginning with a star behind it")
    func patterns() throws {
        let exact = try #require(RoomPattern("announce"))
        #expect(exact.matches(try room("announce")))
        #expect(!exact.matches(try room("announcements")))
        let prefix = try #require(RoomPattern("team-7/*"))
        #expect(prefix.matches(try room("team-7/a")))
        #expect(!prefix.matches(try room("team-70/a")))
        #expect(try #require(RoomPattern("*")).matches(try room("news:x")))
    }

    @Test(
        "A pattern that no room can match is refused",
        arguments: ["", "a*b", "**", "a b", "é*", String(repeating: "x", count: 129)])
    func badPatterns(_ text: String) {
        #expect(RoomPattern(text) == nil)
    }

    @Test("T7: Patterns that match one room add up; in a room that none matches nothing is allowed")
    func capabilities() throws {
        let capabilities = Capabilities([
            .init(pattern: try #require(RoomPattern("team/*")), actions: [.join]),
            .init(pattern: try #require(RoomPattern("team/a")), actions: [.publish]),
        ])
        #expect(capabilities.actions(in: try room("team/a")) == [.join, .publish])
        #expect(capabilities.actions(in: try room("team/b")) == .join)
        #expect(capabilities.actions(in: try room("other")).isEmpty)
    }

    @Test("T7: A namespace that nobody declared has no rules; private rooms always have some")
    func unknownNamespace() throws {
        var team = NamespaceRules()
        team.historyMessages = 7
        let namespaces = Namespaces(named: ["team": team])
        #expect(namespaces.rules(of: try room("team:x"))?.historyMessages == 7)
        #expect(namespaces.rules(of: try room("general"))?.historyMessages == 1000)
        #expect(namespaces.rules(of: try room("Team:x")) == nil)
        #expect(namespaces.rules(of: .direct(try UserName(validating: "a"), try UserName(validating: "b"))) != nil)
    }
}

@Suite("What a session may do in a room, message by message")
struct RightsTests {
    private func room(_ name: String) throws -> RoomName { try RoomName(validating: name) }

    private func token(_ grants: (String, RoomActions)...) throws -> Capabilities {
        Capabilities(try grants.map { .init(pattern: try #require(RoomPattern($0.0)), actions: $0.1) })
    }

    private func code(_ body: () throws -> Void) -> WireError.Code? {
        do {
            try body()
            return nil
        } catch {
            return (error as? WireError)?.code
        }
    }

    private func open(as user: String = "alice") throws -> SessionState {
        var state = SessionState(roomLimit: 10)
        _ = state.authenticate(as: try UserName(validating: user), status: nil)
        #expect(state.opened() == true)
        return state
    }

    /// In the room, joined under these rights.
    private func member(of name: String, _ rights: Rights) throws -> SessionState {
        var state = try open()
        #expect(state.join(try room(name), rights) == .join)
        #expect(state.joined(try room(name)) == true)
        return state
    }

    @Test("each right is asked for what it stands for, and the others are not", arguments: RoomActions.names)
    func eachRight(name: String, action: RoomActions) throws {
        let rights = Rights(Namespaces(), try token(("a", action.union(.join))))
        var state = try member(of: "a", rights)
        let place = try room("a")
        #expect(code { _ = try state.publish(1, in: place, rights, now: 0) } == (action == .publish ? nil : .forbidden))
        #expect(
            code { _ = try state.typing(true, in: place, rights, now: 0) } == (action == .publish ? nil : .forbidden))
        let asksPresence = code { _ = try state.requireMember(of: place, who: .presence, rights) }
        #expect(asksPresence == (action == .presence ? nil : .forbidden))
        #expect(code { _ = try state.requireReader(of: place, rights) } == (action == .history ? nil : .forbidden))
    }

    @Test("T7: without the right to join nobody is in, whatever else the token says")
    func join() throws {
        var state = try open()
        let rights = Rights(Namespaces(), try token(("a", [.publish, .presence, .history])))
        guard case .refuse(let error) = state.join(try room("a"), rights) else { return #expect(Bool(false)) }
        #expect(error.code == .forbidden && error.message.contains("join a"))
        #expect(state.rooms.isEmpty)
        #expect(code { _ = try state.publish(1, in: try room("a"), rights, now: 0) } == .notInRoom)
    }

    @Test("T7: a token that says something of rooms gives those alone; the namespace decides for one that says nothing")
    func namespaces() throws {
        var announce = NamespaceRules()
        announce.allows = .join
        let namespaces = Namespaces(named: ["announce": announce])
        let rights = Rights(namespaces, try token(("announce:staff", .all)))
        #expect(try rights.actions(in: room("announce:staff")) == .all)
        for other in ["announce:all", "lobby"] { #expect(try rights.actions(in: room(other)).isEmpty) }
        #expect(try Rights(namespaces, try token()).actions(in: room("lobby")).isEmpty)
        #expect(try Rights(namespaces).actions(in: room("announce:all")) == .join)
        #expect(try Rights(namespaces).actions(in: room("lobby")) == .all)
    }

    @Test("where nobody is shown who is there, no token shows it")
    func hiddenPresence() throws {
        var hidden = NamespaceRules()
        hidden.showsPresence = false
        let rights = Rights(Namespaces(named: ["h": hidden]), try token(("h:*", .all)))
        #expect(try rights.actions(in: room("h:1")) == [.join, .publish, .history])
    }

    @Test("T7: an unknown namespace is an error of its own, whatever is asked and whatever the token says")
    func unknownNamespace() throws {
        var state = try open()
        let rights = Rights(Namespaces(), try token(("*", .all)))
        let place = try room("nowhere:x")
        guard case .refuse(let error) = state.join(place, rights) else { return #expect(Bool(false)) }
        #expect(error.code == .unknownNamespace && error.message.contains("nowhere"))
        #expect(code { _ = try state.publish(1, in: place, rights, now: 0) } == .unknownNamespace)
        #expect(code { _ = try state.typing(true, in: place, rights, now: 0) } == .unknownNamespace)
        #expect(code { _ = try state.requireMember(of: place, who: .presence, rights) } == .unknownNamespace)
        #expect(code { _ = try state.requireReader(of: place, rights) } == .unknownNamespace)
    }

    @Test("a private room takes the right to publish for a message and the one to its history for reading")
    func direct() throws {
        var state = try open()
        let bob = try UserName(validating: "bob")
        let reads = Rights(Namespaces(), try token(("dm:*", .history)))
        #expect(code { _ = try state.publish(1, to: bob, reads, now: 0) } == .forbidden)
        #expect(try state.requireReader(of: room("dm:alice:bob"), reads).string == "alice")
        let writes = Rights(Namespaces(), try token(("dm:alice:*", .publish)))
        let published = try state.publish(1, to: bob, writes, now: 0).room
        #expect(try published == room("dm:alice:bob"))
        #expect(code { _ = try state.requireReader(of: try room("dm:alice:bob"), writes) } == .forbidden)
        // Of anybody else's room no token says anything.
        #expect(code { _ = try state.requireReader(of: try room("dm:bob:carol"), reads) } == .forbidden)
    }

    @Test("a namespace bounds a message's size, and how many a session sends into a room of it")
    func bounds() throws {
        var small = NamespaceRules()
        small.messageBytes = 10
        small.messagesPerSecond = 1
        small.messageBurst = 2
        let rights = Rights(Namespaces(named: ["s": small, "dm": small]))
        var state = try member(of: "s:1", rights)
        _ = state.join(try room("s:2"), rights)
        _ = state.joined(try room("s:2"))
        let second: UInt64 = 1_000_000_000
        func say(_ bytes: Int, _ name: String, _ now: UInt64) throws(WireError) {
            _ = try state.publish(bytes, in: try RoomName(validating: name), rights, now: now)
        }
        #expect(code { try say(11, "s:1", 0) } == .tooLarge)
        try say(10, "s:1", 0)
        try say(10, "s:1", 0)
        do {
            try say(1, "s:1", 0)
            Issue.record("it took a third")
        } catch {
            #expect(error.code == .rateLimited && (1000...1001).contains(error.retryAfterMilliseconds ?? 0))
        }
        // Each room by itself.
        try say(1, "s:2", 0)
        try say(1, "s:1", second)
        #expect(code { try say(1, "s:1", second) } == .rateLimited)
        // To leave and come back gives no new burst.
        _ = state.leave(try room("s:1"))
        _ = state.join(try room("s:1"), rights)
        _ = state.joined(try room("s:1"))
        #expect(code { try say(1, "s:1", second) } == .rateLimited)
        try say(1, "s:1", 2 * second)
        let bob = try UserName(validating: "bob")
        for _ in 0..<2 { _ = try state.publish(1, to: bob, rights, now: 0) }
        #expect(code { _ = try state.publish(1, to: bob, rights, now: 0) } == .rateLimited)
    }

    @Test("T7: another token takes away at once what it does not give: rooms, and who is in them")
    func renewal() throws {
        var state = try member(of: "a", Rights())
        for name in ["b", "c"] {
            _ = state.join(try room(name), Rights())
            _ = state.joined(try room(name))
        }
        let less = Rights(Namespaces(), try token(("a", []), ("b", [.join, .publish]), ("c", .all)))
        let changes = state.renew(less)
        #expect(changes.count == 3)
        #expect(changes.contains(.left(try room("a"))))
        #expect(changes.contains(.rights(try room("b"), [.join, .publish])))
        #expect(changes.contains(.presence(try room("b"), isShown: false)))
        #expect(code { _ = try state.publish(1, in: try room("a"), less, now: 0) } == .notInRoom)
        #expect(code { _ = try state.requireReader(of: try room("b"), less) } == .forbidden)
        #expect(state.renew(less) == [])
        #expect(state.renew(Rights()) == [.rights(try room("b"), .all), .presence(try room("b"), isShown: true)])
        #expect(code { _ = try state.requireReader(of: try room("b"), less) } == nil)
    }

    @Test("T7: a session that goes on is in those of its rooms that its new token allows")
    func resumed() throws {
        var state = SessionState(roomLimit: 10)
        _ = state.authenticate(as: try UserName(validating: "alice"), status: nil)
        let rights = Rights(Namespaces(), try token(("a", .all), ("b", .presence)))
        #expect(state.opened(rooms: [try room("a"), try room("b"), try room("gone:x")], rights) == true)
        #expect(Array(state.rooms.keys) == [try room("a")])
    }

    @Test("patterns of private rooms are taken, and no other spelling of one of them")
    func directPatterns() throws {
        #expect(try #require(RoomPattern("dm:*")).matches(try room("dm:alice:bob")))
        #expect(try #require(RoomPattern("dm:al*")).matches(try room("dm:alice:bob")))
        #expect(RoomPattern("dm:alice:bob") != nil)
        #expect(RoomPattern("dm:bob:alice") == nil)
        #expect(RoomPattern("dm:{*") == nil)
    }
}

@Suite("The life of a token on a connection")
struct GrantTests {
    private func grant(_ issuedAt: Int64?, _ expiresAt: Int64?) -> Grant {
        Grant(issuedAt: issuedAt, expiresAt: expiresAt, leeway: 30_000, now: 1_000_000)
    }

    @Test(
        "a fifth of its life before its end, but at most a minute, it is told; the connection ends a leeway after the token"
    )
    func due() {
        #expect(grant(1_000_000, 4_600_000).due(wasTold: false) == 4_540_000)
        #expect(grant(1_000_000, 1_100_000).due(wasTold: false) == 1_080_000)
        #expect(grant(nil, 1_100_000).due(wasTold: false) == 1_080_000)
        #expect(grant(900_000, 1_100_000).due(wasTold: false) == 1_060_000)
        // It says that it was made later than it was shown: clocks differ.
        #expect(grant(1_010_000, 1_100_000).due(wasTold: false) == 1_080_000)
        #expect(grant(nil, 1_100_000).due(wasTold: true) == 1_130_000)
        // Shown within the leeway: told at once.
        #expect(grant(nil, 990_000).due(wasTold: false) == 990_000)
        #expect(grant(5, nil).due(wasTold: false) == nil && grant(5, nil).due(wasTold: true) == nil)
    }

    @Test("a token that was made earlier is older; made at once, or saying nothing of it, the one that ends earlier")
    func older() {
        #expect(grant(1, 100).isOlder(than: grant(2, 50)))
        #expect(!grant(2, 50).isOlder(than: grant(1, 100)))
        #expect(grant(nil, 50).isOlder(than: grant(1, 100)))
        #expect(grant(1, 50).isOlder(than: grant(1, nil)))
        #expect(!grant(1, nil).isOlder(than: grant(1, nil)))
    }

    @Test("of many tokens those that are soon due are kept, and found when they are")
    func watch() {
        var watch = TokenWatch<Int>(horizon: 100)
        watch.look(at: 1, due: 150, now: 0)
        #expect(watch.takeDue(now: 200) == [])
        watch.look(at: 1, due: 150, now: 60)
        watch.look(at: 2, due: nil, now: 60)
        watch.look(at: 3, due: 140, now: 60)
        watch.look(at: 4, due: 140, now: 60)
        watch.remove(4)
        #expect(watch.takeDue(now: 139) == [])
        #expect(watch.takeDue(now: 140) == [3])
        // Renewed.
        watch.look(at: 1, due: 1000, now: 141)
        #expect(watch.takeDue(now: 999) == [])
    }
}
