import Testing

@testable import MartletClient

struct ClientStateMachineTests {
    private var machine = ClientStateMachine(client: "c1", token: nil)

    private static let welcome = ServerFrame.welcome(session: "s", user: "alice", node: "node-a")

    private static func joined(_ room: String, _ seq: Int64, recovered: Bool? = nil) -> ServerFrame {
        let roster = ServerFrame.Roster(members: [Member(user: "alice", status: "online")], count: 1, pv: 1)
        return .joined(.init(room: room, epoch: "e", seq: seq, tag: "t\(seq)", recovered: recovered, roster: roster))
    }

    private static func message(_ seq: Int64, from: String = "bob", id: String? = nil) -> ServerFrame {
        .message(
            ChatMessage(
                room: "r", seq: seq, from: from, text: "m\(seq)", timestamp: 7, isOwn: false, id: id, tag: "t\(seq)"))
    }

    private static func entry(_ id: String) -> Outbox.Entry { Outbox.Entry(id: id, room: "r", text: id, data: nil) }

    private func sent(_ effects: [ClientStateMachine.Effect]) -> [String] {
        effects.compactMap { if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil } }
    }

    private func messages(_ effects: [ClientStateMachine.Effect]) -> [Int64] {
        effects.compactMap { if case .emit(.message(let message)) = $0 { message.seq } else { nil } }
    }

    /// In room `r` at `seq`, with the clock at 0.
    private mutating func enter(at seq: Int64) {
        _ = machine.start(now: 0)
        _ = machine.join("r")
        _ = machine.received(Self.welcome, now: 0)
        _ = machine.received(Self.joined("r", seq), now: 0)
    }

    @Test("A connection starts with welcome and one join frame for all rooms")
    mutating func start() {
        #expect(machine.start(now: 0) == [.emit(.state(.connecting)), .connect])
        #expect(machine.start(now: 0) == [])
        #expect(machine.join("a") == [])
        #expect(machine.join("b") == [])
        let effects = machine.received(Self.welcome, now: 1)
        #expect(effects.first == .emit(.state(.online(node: "node-a", session: "s"))))
        #expect(sent(effects) == [#"{"type":"join","id":"join-1","rooms":[{"room":"a"},{"room":"b"}]}"#])
        let answer = machine.received(Self.joined("a", 3), now: 2)
        #expect(answer.first == .answerJoin(room: "a", .success(JoinedRoom(room: "a", seq: 3, recovered: nil))))
    }

    @Test("With a token, the first frame is auth")
    func token() {
        let machine = ClientStateMachine(client: "c1", token: "ey.x")
        #expect(sent(machine.opened()) == [#"{"type":"auth","token":"ey.x","client":"c1"}"#])
    }

    @Test("After a loss it waits with jitter, rejoins with its position, and repeats nothing")
    mutating func rejoin() {
        enter(at: 4)
        #expect(messages(machine.received(Self.message(5), now: 0)) == [5])
        let lost = machine.lost(code: 1006, reason: "", now: 100, random: 0.5)
        #expect(lost == [.emit(.state(.waiting(milliseconds: 500, reason: ""))), .connectLater(milliseconds: 500)])
        #expect(machine.retry(now: 600) == [.emit(.state(.connecting)), .connect])
        #expect(
            sent(machine.received(Self.welcome, now: 700)) == [
                #"{"type":"join","id":"join-2","rooms":[{"room":"r","since":{"epoch":"e","seq":5,"tag":"t5"}}]}"#
            ])
        _ = machine.received(Self.joined("r", 7, recovered: true), now: 700)
        #expect(messages(machine.received(Self.message(5), now: 700)) == [])
        #expect(messages(machine.received(Self.message(6), now: 700)) == [6])
        #expect(messages(machine.received(Self.message(7), now: 700)) == [7])
    }

    @Test("An unacknowledged message is sent again with the same id, after the join")
    mutating func resend() {
        enter(at: 4)
        let frame = #"{"type":"message","id":"p1","room":"r","text":"p1"}"#
        #expect(sent(machine.publish(Self.entry("p1"), now: 1)) == [frame])
        _ = machine.lost(code: 4001, reason: "slow, resume", now: 2, random: 0)
        _ = machine.retry(now: 3)
        #expect(sent(machine.received(Self.welcome, now: 4)).count == 1)
        #expect(sent(machine.received(Self.joined("r", 4, recovered: true), now: 5)) == [frame])
        let ack = machine.received(.ack(id: "p1", seq: 5, timestamp: 9, tag: "t5"), now: 6)
        #expect(ack.first == .acknowledge(id: "p1", .success(Acknowledgement(seq: 5, timestamp: 9))))
        #expect(messages(ack) == [5])
        #expect(machine.received(.ack(id: "p1", seq: 5, timestamp: 9, tag: "t5"), now: 6) == [])
    }

    @Test("An own message that recovery brings is its acknowledgement, and appears once")
    mutating func recoveredOwn() {
        enter(at: 4)
        _ = machine.publish(Self.entry("p1"), now: 1)
        _ = machine.lost(code: 1006, reason: "", now: 2, random: 0)
        _ = machine.retry(now: 3)
        _ = machine.received(Self.welcome, now: 4)
        _ = machine.received(Self.joined("r", 5, recovered: true), now: 5)
        let effects = machine.received(Self.message(5, from: "alice", id: "p1"), now: 6)
        #expect(effects.first == .acknowledge(id: "p1", .success(Acknowledgement(seq: 5, timestamp: 7))))
        #expect(messages(effects) == [5])
        #expect(machine.received(.ack(id: "p1", seq: 5, timestamp: 7, tag: "t5"), now: 7) == [])
    }

    @Test("The ack of a repeated publish may overtake the recovery; the message still stands in its place")
    mutating func earlyAck() {
        enter(at: 4)
        _ = machine.publish(Self.entry("p1"), now: 1)
        _ = machine.lost(code: 1006, reason: "", now: 2, random: 0)
        _ = machine.retry(now: 3)
        _ = machine.received(Self.welcome, now: 4)
        _ = machine.received(Self.joined("r", 6, recovered: true), now: 5)
        #expect(messages(machine.received(.ack(id: "p1", seq: 6, timestamp: 9, tag: "t6"), now: 6)) == [])
        #expect(messages(machine.received(Self.message(5), now: 7)) == [5, 6])
        #expect(messages(machine.received(Self.message(6, from: "alice", id: "p1"), now: 8)) == [])
    }

    @Test("A rate limit delays the message and those behind it, in order")
    mutating func rateLimit() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        let refusal = ServerFrame.Refusal(
            id: "p1", room: nil, number: 103, reason: "rate_limited", message: "wait", retryAfter: 400)
        #expect(machine.received(.error(refusal), now: 100) == [])
        #expect(machine.publish(Self.entry("p2"), now: 200) == [])
        #expect(sent(machine.tick(now: 499, random: 0)).isEmpty)
        #expect(sent(machine.tick(now: 500, random: 0)).count == 2)
    }

    @Test("A final refusal ends the publish with the server's number")
    mutating func refusal() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        let refusal = ServerFrame.Refusal(id: "p1", room: "r", number: 104, reason: "too_large", message: "send less")
        #expect(
            machine.received(.error(refusal), now: 1) == [
                .acknowledge(id: "p1", .failure(MartletError(.refused, "send less", number: 104)))
            ])
        #expect(machine.outbox.entries.isEmpty)
    }

    @Test("After two minutes without an ack the outcome is unknown, and nothing is sent twice")
    mutating func unknownOutcome() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        _ = machine.lost(code: 1006, reason: "", now: 1, random: 0)
        let effects = machine.tick(now: Outbox.resendWindow + 2, random: 0)
        guard case .acknowledge("p1", .failure(let error))? = effects.first else { Issue.record("\(effects)"); return }
        #expect(error.kind == .outcomeUnknown)
    }

    @Test("Close codes 4200 to 4299 end it; every waiting call is answered")
    mutating func stop() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        _ = machine.history("r", before: nil, after: nil, limit: 1, id: "h")
        let effects = machine.lost(code: 4200, reason: "kicked", now: 1, random: 0)
        #expect(effects.last == .emit(.state(.closed(code: 4200, reason: "kicked"))))
        #expect(effects.contains { if case .acknowledge("p1", .failure) = $0 { true } else { false } })
        #expect(effects.contains { if case .answerHistory("h", .failure) = $0 { true } else { false } })
        #expect(machine.retry(now: 2) == [])
        #expect(machine.publish(Self.entry("p2"), now: 3).count == 1)
    }

    @Test("A silent server is pinged, and left when it does not answer")
    mutating func liveness() {
        enter(at: 0)
        #expect(sent(machine.tick(now: 20_000, random: 0)).isEmpty)
        #expect(sent(machine.tick(now: 20_001, random: 0)) == [#"{"type":"ping"}"#])
        #expect(machine.tick(now: 30_001, random: 0) == [])
        #expect(machine.tick(now: 30_002, random: 0).first == .abandon)
    }

    @Test("Told to reconnect, it goes on until the given time and then moves")
    mutating func reconnect() {
        enter(at: 0)
        _ = machine.received(.reconnect(delay: 5000), now: 1000)
        #expect(machine.tick(now: 5999, random: 0) == [])
        let effects = machine.tick(now: 6000, random: 0)
        #expect(effects == [.abandon, .emit(.state(.connecting)), .connect])
        enter(at: 0)
    }

    @Test("When the server closes before that time, the wait is the given one")
    mutating func reconnectEarly() {
        enter(at: 0)
        _ = machine.received(.reconnect(delay: 5000), now: 1000)
        #expect(
            machine.lost(code: 4000, reason: "draining", now: 2000, random: 0.9).last
                == .connectLater(milliseconds: 4000))
    }

    @Test("A refused join is answered; one that may succeed later is sent again")
    mutating func refusedJoin() {
        _ = machine.start(now: 0)
        _ = machine.received(Self.welcome, now: 0)
        _ = machine.join("r")
        var refusal = ServerFrame.Refusal(
            id: "join-1", room: "r", number: 113, reason: "unavailable", message: "wait", retryAfter: 300)
        #expect(machine.received(.error(refusal), now: 0) == [])
        #expect(sent(machine.tick(now: 300, random: 0)) == [#"{"type":"join","id":"join-2","rooms":[{"room":"r"}]}"#])
        refusal = ServerFrame.Refusal(id: "join-2", room: "r", number: 116, reason: "forbidden", message: "no")
        #expect(
            machine.received(.error(refusal), now: 400) == [
                .answerJoin(room: "r", .failure(MartletError(.refused, "no", number: 116)))
            ])
        #expect(machine.rooms.isEmpty)
    }

    @Test("A presence is told again to the next node, before the join")
    mutating func presence() {
        enter(at: 0)
        let frame = #"{"type":"status","status":"busy"}"#
        #expect(sent(machine.setPresence(.busy)) == [frame])
        _ = machine.lost(code: 1006, reason: "", now: 1, random: 0)
        _ = machine.retry(now: 2)
        #expect(sent(machine.received(Self.welcome, now: 3)).first == frame)
    }

    @Test("Typing goes out every three seconds at most")
    mutating func typing() {
        enter(at: 0)
        #expect(sent(machine.setTyping(true, in: "r", now: 0)).count == 1)
        #expect(machine.setTyping(true, in: "r", now: 2999) == [])
        #expect(sent(machine.setTyping(true, in: "r", now: 3000)).count == 1)
        #expect(sent(machine.setTyping(false, in: "r", now: 3001)).count == 1)
        #expect(machine.setTyping(false, in: "r", now: 3002) == [])
    }
}
