import Testing

@testable import MartletClient

/// What concerns one room must not take the others with it, nor outlive the room's epoch.
struct RoomsOfOneClientTests {
    private var machine = ClientStateMachine(client: "c1", identity: .user("alice"))

    private static let welcome = ServerFrame.welcome(.init(session: "s", user: "alice", node: "node-a"))

    private static func joined(_ room: String, _ seq: Int64, pv: Int64 = 7) -> ServerFrame {
        let roster = ServerFrame.Roster(members: [Member(user: "alice", status: "online")], count: 1, pv: pv)
        return .joined(.init(room: room, epoch: "e", seq: seq, roster: roster))
    }

    private static func invalidRoom(_ id: String, _ room: String?) -> ServerFrame {
        .error(.init(id: id, room: room, number: 108, reason: "invalid_room", message: "no"))
    }

    private static func arrived(_ user: String, pv: Int64) -> ServerFrame {
        .membersChanged(
            room: "a", ServerFrame.RosterChange(joined: [Member(user: user, status: "online")], count: 2, pv: pv))
    }

    private func sent(_ effects: [ClientStateMachine.Effect]) -> [String] {
        effects.compactMap { if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil } }
    }

    private mutating func connect(_ rooms: String...) {
        _ = machine.start(now: 0)
        for room in rooms { _ = machine.join(room) }
        _ = machine.received(Self.welcome, now: 0)
    }

    @Test("A refused name takes only its own room; the others of the frame are joined again")
    mutating func refusedName() {
        connect("a", "bad", "c")
        let effects = machine.received(Self.invalidRoom("join-1", "bad"), now: 1)
        #expect(effects.first == .answerJoin(room: "bad", .failure(MartletError(.refused, "no", number: 108))))
        #expect(sent(effects) == [#"{"type":"join","id":"join-2","rooms":[{"room":"a"},{"room":"c"}]}"#])
        #expect(machine.rooms.keys.sorted() == ["a", "c"])
    }

    @Test("When the server does not say which room is at fault, each is asked for alone")
    mutating func unnamedRoom() {
        connect("a", "bad")
        #expect(
            sent(machine.received(Self.invalidRoom("join-1", nil), now: 1)) == [
                #"{"type":"join","id":"join-2","rooms":[{"room":"a"}]}"#,
                #"{"type":"join","id":"join-3","rooms":[{"room":"bad"}]}"#,
            ])
        _ = machine.received(Self.invalidRoom("join-3", nil), now: 2)
        _ = machine.received(Self.joined("a", 1), now: 2)
        #expect(machine.rooms.keys.sorted() == ["a"])
        #expect(machine.rooms["a"]?.isJoined == true)
    }

    @Test("A room whose name the user gave up meanwhile takes no other with it")
    mutating func leftMeanwhile() {
        connect("a", "bad")
        _ = machine.leave("bad", now: 0)
        #expect(
            sent(machine.received(Self.invalidRoom("join-1", "bad"), now: 1))
                == [#"{"type":"join","id":"join-3","rooms":[{"room":"a"}]}"#])
    }

    @Test("Who was in a room and may not come back is told that they are out")
    mutating func refusedRejoin() {
        connect("a")
        _ = machine.received(Self.joined("a", 1), now: 0)
        _ = machine.lost(code: 1006, reason: "", now: 1, random: 0)
        _ = machine.retry(now: 2)
        _ = machine.received(Self.welcome, now: 3)
        let refusal = ServerFrame.Refusal(id: "join-2", room: "a", number: 116, reason: "forbidden", message: "banned")
        #expect(machine.received(.error(refusal), now: 4).contains(.emit(.left(room: "a", reason: "banned"))))
    }

    @Test("With a new epoch the room's pv counts from a new start, and the list is read again")
    mutating func turnedPresence() {
        connect("a")
        _ = machine.received(Self.joined("a", 4), now: 0)
        #expect(machine.received(Self.arrived("bob", pv: 1), now: 0) == [], "older than what is known")
        let turn = machine.received(.gap(room: "a", epoch: "f", from: nil, to: 1), now: 1)
        #expect(turn.first == .emit(.gap(room: "a", from: nil, to: 1)))
        #expect(sent(turn) == [#"{"type":"presence","room":"a"}"#])
        _ = machine.received(Self.arrived("bob", pv: 1), now: 2)
        #expect(machine.rooms["a"]?.roster.members.keys.sorted() == ["alice", "bob"])
        let list = ServerFrame.Roster(members: [Member(user: "zoe", status: "online")], count: 1, pv: 1)
        _ = machine.received(.members(room: "a", list), now: 3)
        #expect(machine.rooms["a"]?.roster.members.keys.sorted() == ["zoe"])
        #expect(sent(machine.received(.gap(room: "a", epoch: "f", from: 2, to: 3), now: 4)) == [], "the same epoch")
        #expect(machine.received(Self.arrived("yan", pv: 1), now: 5) == [])
    }

    @Test("A server that wants a token, and got none, ends it at once and says so")
    mutating func noToken() {
        _ = machine.start(now: 0)
        let refusal = ServerFrame.Refusal(number: 106, reason: "not_authenticated", message: "send auth first")
        #expect(
            machine.received(.error(refusal), now: 1).last
                == .emit(.state(.closed(code: 4201, reason: "this server asks for a token"))))
    }
}
