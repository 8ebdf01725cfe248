import Testing

@testable import MartletClient

struct ClientStateMachineTests {
    private var machine = ClientStateMachine(client: "c1", identity: .user("alice"))

    private static let welcome = ServerFrame.welcome(.init(session: "s", user: "alice", node: "node-a"))

    private static func joined(_ room: String, _ seq: Int64, recovered: Bool? = nil) -> ServerFrame {
        let roster = ServerFrame.Roster(members: [Member(user: "alice", status: "online")], count: 1, pv: 1)
        return .joined(.init(room: room, epoch: "e", seq: seq, tag: "t\(seq)", recovered: recovered, roster: roster))
    }

    private static func message(_ seq: Int64, from: String = "bob", id: String? = nil) -> ServerFrame {
        .message(
            ChatMessage(
                room: "r", seq: seq, from: from, text: "m\(seq)", timestamp: 7, isOwn: false, id: id, tag: "t\(seq)"))
    }

    private static func entry(_ id: String) -> Outbox.Entry {
        Outbox.Entry(id: id, to: .room("r"), text: id, data: nil)
    }

    private func sent(_ effects: [ClientStateMachine.Effect]) -> [String] {
        effects.compactMap { if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil } }
    }

    private func messages(_ effects: [ClientStateMachine.Effect]) -> [Int64] {
        effects.compactMap { if case .emit(.message(let message)) = $0 { message.seq } else { nil } }
    }

    private func ids(_ effects: [ClientStateMachine.Effect]) -> [String] {
        sent(effects).compactMap { JSONObject(Array($0.utf8))?.string("id") }
    }

    private static func tooFast(_ id: String, wait: Int64) -> ServerFrame {
        .error(.init(id: id, room: nil, number: 103, reason: "rate_limited", message: "wait", retryAfter: wait))
    }

    /// In room `r` at `seq`, with the clock at 0.
    private mutating func enter(at seq: Int64, limits: ServerFrame.Limits = .init()) {
        _ = machine.start(now: 0)
        _ = machine.join("r")
        _ = machine.received(.welcome(.init(session: "s", user: "alice", node: "node-a", limits: limits)), now: 0)
        _ = machine.received(Self.joined("r", seq), now: 0)
        machine.isUnmeasured = false
    }

    /// Loses the connection and is in room `r` again.
    private mutating func comeBack(at seq: Int64) {
        _ = machine.lost(code: 1006, reason: "", now: 2, random: 0)
        _ = machine.retry(now: 3)
        _ = machine.received(Self.welcome, now: 4)
        _ = machine.received(Self.joined("r", seq, recovered: true), now: 5)
    }

    @Test("A connection starts with welcome and one join frame for all rooms")
    mutating func start() {
        #expect(machine.start(now: 0) == [.emit(.state(.connecting)), .connect(resuming: false)])
        #expect(machine.start(now: 0) == [])
        #expect(machine.join("a") == [])
        #expect(machine.join("b") == [])
        let effects = machine.received(Self.welcome, now: 1)
        #expect(effects.first == .emit(.state(.online(node: "node-a", session: "s"))))
        #expect(sent(effects) == [#"{"type":"join","id":"join-1","rooms":[{"room":"a"},{"room":"b"}]}"#])
        let answer = machine.received(Self.joined("a", 3), now: 2)
        #expect(answer.first == .answerJoin(room: "a", .success(JoinedRoom(room: "a", seq: 3, recovered: nil))))
    }

    @Test("With a token, the first frame is auth; the next says how to be seen")
    mutating func token() {
        machine = ClientStateMachine(client: "c1", identity: .token("ey.x"))
        let status = #"{"type":"status","status":"online"}"#
        #expect(sent(machine.opened()) == [#"{"type":"auth","id":"auth","token":"ey.x","client":"c1"}"#, status])
        machine = ClientStateMachine(client: "c1", identity: .user("alice"))
        #expect(sent(machine.opened()) == [status])
    }

    @Test("After a loss it waits with jitter, rejoins with its position, and repeats nothing")
    mutating func rejoin() {
        enter(at: 4)
        #expect(messages(machine.received(Self.message(5), now: 0)) == [5])
        let lost = machine.lost(code: 1006, reason: "", now: 100, random: 0.5)
        #expect(lost == [.emit(.state(.waiting(milliseconds: 500, reason: ""))), .connectLater(milliseconds: 500)])
        #expect(machine.retry(now: 600) == [.emit(.state(.connecting)), .connect(resuming: false)])
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
        let ack = machine.received(.ack(.init(id: "p1", room: "r", seq: 5, timestamp: 9, tag: "t5")), now: 6)
        #expect(ack.first == .acknowledge(id: "p1", .success(Acknowledgement(seq: 5, timestamp: 9))))
        #expect(messages(ack) == [5])
        #expect(machine.received(.ack(.init(id: "p1", room: "r", seq: 5, timestamp: 9, tag: "t5")), now: 6) == [])
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
        #expect(machine.received(.ack(.init(id: "p1", room: "r", seq: 5, timestamp: 7, tag: "t5")), now: 7) == [])
    }

    @Test("The ack of a repeated publish may overtake the recovery; the message still stands in its place")
    mutating func earlyAck() {
        enter(at: 4)
        _ = machine.publish(Self.entry("p1"), now: 1)
        _ = machine.lost(code: 1006, reason: "", now: 2, random: 0)
        _ = machine.retry(now: 3)
        _ = machine.received(Self.welcome, now: 4)
        _ = machine.received(Self.joined("r", 6, recovered: true), now: 5)
        #expect(
            messages(machine.received(.ack(.init(id: "p1", room: "r", seq: 6, timestamp: 9, tag: "t6")), now: 6)) == [])
        #expect(messages(machine.received(Self.message(5), now: 7)) == [5, 6])
        #expect(messages(machine.received(Self.message(6, from: "alice", id: "p1"), now: 8)) == [])
    }

    @Test("What was refused for now goes alone, and those behind it when it is stored, in order")
    mutating func rateLimit() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        #expect(machine.received(Self.tooFast("p1", wait: 400), now: 100) == [.wakeLater(milliseconds: 400)])
        #expect(machine.publish(Self.entry("p2"), now: 200) == [])
        #expect(machine.publish(Self.entry("p3"), now: 200) == [])
        #expect(sent(machine.wake(now: 499)).isEmpty)
        #expect(ids(machine.wake(now: 500)) == ["p1"])
        #expect(sent(machine.tick(now: 1500, random: 0)).isEmpty)
        #expect(
            ids(machine.received(.ack(.init(id: "p1", room: "r", seq: 1, timestamp: 9, tag: "t")), now: 1501)) == [
                "p2", "p3",
            ])
    }

    @Test("Messages go at the pace that the server named, in order and without a refusal")
    mutating func pace() {
        enter(at: 0, limits: .init(messagesPerSecond: 30))
        var ids: [String] = []
        var effects: [ClientStateMachine.Effect] = []
        for number in 1...200 { effects += machine.publish(Self.entry("p\(number)"), now: 0) }
        var now: Int64 = 0
        while ids.count < 200, now < 60_000 {
            let new = self.ids(effects)
            ids += new
            #expect(Int64(ids.count) <= 60 + 30 * now / 1000, "the server's bucket has no more")
            let wait = effects.compactMap { if case .wakeLater(let wait) = $0 { wait } else { nil } }.first
            effects = new.flatMap {
                machine.received(.ack(.init(id: $0, room: "r", seq: 1, timestamp: 0, tag: nil)), now: now)
            }
            if let wait {
                now += wait
                effects += machine.wake(now: now)
            }
        }
        #expect(ids == (1...200).map { "p\($0)" })
        #expect((6000...7500).contains(now), "180 messages after the burst, 27 a second")
    }

    @Test("Only so many are on their way at once, with a limit and without", arguments: [(Int64(0), 64), (100, 20)])
    mutating func window(perSecond: Int64, most: Int) {
        enter(at: 0, limits: .init(messagesPerSecond: perSecond))
        let sent = (1...100).flatMap { ids(machine.publish(Self.entry("p\($0)"), now: 1000)) }
        #expect(sent.count == most)
        #expect(machine.wake(now: 5000) == [])
        let ack = machine.received(.ack(.init(id: "p1", room: "r", seq: 1, timestamp: 9, tag: "t")), now: 5000)
        #expect(ids(ack) == ["p\(most + 1)"])
    }

    @Test("A message that was refused for certain may wait for ever; it was not stored")
    mutating func certainlyNotStored() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        for second in stride(from: Int64(0), to: 300_000, by: 1000) {
            _ = machine.received(Self.tooFast("p1", wait: 100), now: second)
            _ = machine.tick(now: second + 999, random: 0)
        }
        #expect(machine.outbox["p1"]?.doubtfulSince == 299_999)
        _ = machine.received(Self.tooFast("p1", wait: 100), now: 300_000)
        let end = machine.close(now: 300_000).first
        #expect(end == .acknowledge(id: "p1", .failure(MartletError(.closed, "the client is closed"))))
    }

    @Test("A refusal answers one attempt: what was sent before a loss may still be stored")
    mutating func stillDoubtful() {
        enter(at: 0)
        _ = machine.publish(Self.entry("p1"), now: 0)
        comeBack(at: 0)
        _ = machine.received(Self.tooFast("p1", wait: 100), now: 5)
        #expect(machine.outbox["p1"]?.doubtfulSince == 0)
    }

    @Test("A message larger than the server takes is refused here, also one from before the welcome")
    mutating func tooLarge() {
        let large = Outbox.Entry(id: "l", to: .room("r"), text: String(repeating: "x", count: 2000), data: nil)
        _ = machine.start(now: 0)
        _ = machine.join("r")
        #expect(machine.publish(large, now: 0) == [])
        let welcome = ServerFrame.Welcome(session: "s", user: "a", node: "n", limits: .init(messageBytes: 1000))
        let why = MartletError(.refused, "the message has 2048 bytes; this server takes at most 1000", number: 104)
        #expect(machine.received(.welcome(welcome), now: 0).contains(.acknowledge(id: "l", .failure(why))))
        _ = machine.received(Self.joined("r", 0), now: 0)
        #expect(machine.publish(large, now: 0) == [.acknowledge(id: "l", .failure(why))])
    }

    @Test("Close code 1009 ends the largest message on its way instead of sending it again for ever")
    mutating func messageTooBig() {
        enter(at: 0)
        _ = machine.publish(Self.entry("small"), now: 0)
        _ = machine.publish(
            Outbox.Entry(id: "l", to: .room("r"), text: String(repeating: "x", count: 90), data: nil), now: 0)
        let effects = machine.lost(code: 1009, reason: "message too big", now: 1, random: 0)
        guard case .acknowledge("l", .failure(let error))? = effects.first else { Issue.record("\(effects)"); return }
        #expect(error.number == 104)
        #expect(machine.outbox.entries.map(\.id) == ["small"])
    }

    @Test("A room that was left can be joined again: the new join waits for the answer to the leave")
    mutating func leaveAndJoin() {
        enter(at: 4)
        let leave = #"{"type":"leave","id":"leave-2","room":"r"}"#
        #expect(sent(machine.leave("r", now: 0)) == [leave])
        #expect(machine.join("r") == [])
        #expect(machine.received(Self.message(5), now: 0) == [])
        #expect(machine.received(.left(room: "r", id: nil, reason: "kicked"), now: 0) == [], "from the time before")
        #expect(
            sent(machine.received(.left(room: "r", id: "leave-2", reason: nil), now: 1))
                == [#"{"type":"join","id":"join-3","rooms":[{"room":"r"}]}"#])
        let answer = machine.received(Self.joined("r", 7), now: 2)
        #expect(answer.first == .answerJoin(room: "r", .success(JoinedRoom(room: "r", seq: 7, recovered: nil))))
        #expect(machine.received(.left(room: "r", id: "leave-2", reason: nil), now: 2) == [])
        #expect(messages(machine.received(Self.message(8), now: 3)) == [8])
    }

    @Test("A leave that was refused for now is sent again, and what is still said of the room is dropped")
    mutating func leaveAgain() {
        enter(at: 4)
        let leave = #"{"type":"leave","id":"leave-2","room":"r"}"#
        _ = machine.leave("r", now: 0)
        #expect(machine.received(Self.tooFast("leave-2", wait: 300), now: 10) == [])
        #expect(machine.received(Self.message(5), now: 20) == [])
        #expect(sent(machine.tick(now: 310, random: 0)) == [leave])
        #expect(sent(machine.tick(now: 1310, random: 0)) == [])
        #expect(sent(machine.tick(now: 10_310, random: 0)) == [leave], "without an answer")
        let notThere = ServerFrame.Refusal(
            id: "leave-2", room: "r", number: 111, reason: "not_in_room", message: "join first")
        #expect(machine.received(.error(notThere), now: 10_400) == [])
        #expect(sent(machine.tick(now: 20_400, random: 0)) == [])
    }

    @Test("A leave ends with its connection: the next session is not in the room")
    mutating func leaveAndLoss() {
        enter(at: 4)
        _ = machine.leave("r", now: 0)
        _ = machine.join("r")
        _ = machine.lost(code: 1006, reason: "", now: 1, random: 0)
        _ = machine.retry(now: 2)
        #expect(
            sent(machine.received(Self.welcome, now: 3))
                == [#"{"type":"join","id":"join-3","rooms":[{"room":"r"}]}"#])
        #expect(machine.leave("q", now: 4) == [], "never joined")
    }

    @Test("Of the rooms that were not joined only private ones bring messages")
    mutating func unknownRoom() {
        enter(at: 0)
        var message = ChatMessage(room: "q", seq: 1, from: "bob", text: "x", timestamp: 7, isOwn: false)
        #expect(machine.received(.message(message), now: 0) == [])
        message.room = "dm:alice:bob"
        #expect(messages(machine.received(.message(message), now: 0)) == [1])
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

    @Test("Told to reconnect, it goes on until the node closes, and then connects at once")
    mutating func reconnect() {
        enter(at: 0)
        #expect(machine.received(.reconnect, now: 1000) == [])
        #expect(machine.tick(now: 9000, random: 0) == [])
        #expect(
            machine.lost(code: 4000, reason: "draining, reconnect", now: 9001, random: 0.9)
                == [.emit(.state(.connecting)), .connect(resuming: false)])
        #expect(machine.backoff.attempts == 0)
        #expect(
            machine.lost(code: 1006, reason: "", now: 9002, random: 0.5).last == .connectLater(milliseconds: 500),
            "once")
    }

    @Test("A node that dies before it closes is lost as any other, with jitter")
    mutating func lostBeforeTheClose() {
        enter(at: 0)
        _ = machine.received(.reconnect, now: 1000)
        #expect(
            machine.lost(code: 1006, reason: "", now: 2000, random: 0.5).last == .connectLater(milliseconds: 500))
    }

    @Test("A refused join is answered; one that may succeed later is sent again")
    mutating func refusedJoin() {
        _ = machine.start(now: 0)
        _ = machine.received(Self.welcome, now: 0)
        machine.isUnmeasured = false
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

    @Test("Rooms whose join was refused for now are joined again in one frame")
    mutating func refusedRejoin() {
        _ = machine.start(now: 0)
        for room in ["a", "b"] { _ = machine.join(room) }
        _ = machine.received(Self.welcome, now: 0)
        machine.isUnmeasured = false
        #expect(machine.received(Self.tooFast("join-1", wait: 300), now: 0) == [])
        #expect(
            sent(machine.tick(now: 300, random: 0))
                == [#"{"type":"join","id":"join-2","rooms":[{"room":"a"},{"room":"b"}]}"#])
    }

    @Test("A presence is told again to the next node, at once")
    mutating func presence() {
        enter(at: 0)
        let frame = #"{"type":"status","status":"busy"}"#
        #expect(sent(machine.setPresence(.busy)) == [frame])
        _ = machine.lost(code: 1006, reason: "", now: 1, random: 0)
        _ = machine.retry(now: 2)
        #expect(sent(machine.opened()) == [frame])
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
