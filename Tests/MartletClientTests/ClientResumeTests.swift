import Testing

@testable import MartletClient

/// "Coming back" of `docs/protocol.md`, frame by frame.
struct ClientResumeTests {
    private typealias Effect = ClientStateMachine.Effect

    private var machine = ClientStateMachine(client: "c1", identity: .user("alice"))

    private static func welcome(_ session: String, secret: String?, resumed: Bool = false) -> ServerFrame {
        .welcome(.init(session: session, user: "alice", node: "n", secret: secret, isResumed: resumed))
    }

    private static func joined(_ room: String, _ seq: Int64, recovered: Bool? = nil) -> ServerFrame {
        let roster = ServerFrame.Roster(members: [], count: 1, pv: 1)
        return .joined(.init(room: room, epoch: "e", seq: seq, tag: "t", recovered: recovered, roster: roster))
    }

    private func sent(_ effects: [Effect]) -> [String] {
        effects.compactMap { if case .send(let bytes) = $0 { String(decoding: bytes, as: UTF8.self) } else { nil } }
    }

    private static func state(_ effects: [Effect]) -> ConnectionState? {
        effects.compactMap { if case .emit(.state(let state)) = $0 { state } else { nil } }.last
    }

    private static func resume(
        _ session: String, _ secret: String, id: String, rooms: String, status: String = "online"
    ) -> String {
        #"{"type":"auth","id":"\#(id)","user":"alice","client":"c1","status":"\#(status)","#
            + #""resume":{"session":"\#(session)","secret":"\#(secret)"}\#(rooms)}"#
    }

    private static let inR = #","rooms":[{"room":"r","since":{"epoch":"e","seq":4,"tag":"t"}}]"#

    /// Online in session `s` and in room `r` at 4, with a first secret.
    private mutating func enter(secret: String? = "one") {
        #expect(machine.start(now: 0) == [.emit(.state(.connecting)), .connect(resuming: false)])
        _ = machine.opened()
        _ = machine.join("r")
        _ = machine.received(Self.welcome("s", secret: secret), now: 0)
        _ = machine.received(Self.joined("r", 4), now: 0)
    }

    /// The connection goes and another is open.
    /// - Returns: what is said on it.
    private mutating func comeBack(at now: Int64 = 10) -> [String] {
        _ = machine.lost(code: 1006, reason: "", now: now, random: 0)
        #expect(machine.retry(now: now).last == .connect(resuming: true))
        return sent(machine.opened())
    }

    @Test("It comes back with one frame: who it is, its session and secret, its rooms and since when")
    mutating func resumes() {
        enter()
        #expect(comeBack() == [Self.resume("s", "one", id: "join-2", rooms: Self.inR)])
        let effects = machine.received(Self.welcome("s", secret: "two", resumed: true), now: 11)
        #expect(Self.state(effects) == .online(node: "n", session: "s"))
        #expect(sent(effects) == [], "no join: the server tells its rooms")
        let joined = machine.received(Self.joined("r", 4, recovered: true), now: 12)
        let answer = JoinedRoom(room: "r", seq: 4, recovered: true)
        #expect(joined.contains(.emit(.joined(answer))))
        #expect(machine.rooms["r"]?.isJoined == true)
        #expect(sent(machine.tick(now: 6000, random: 0)).filter { $0.contains("join") } == [])
        #expect(comeBack(at: 7000) == [Self.resume("s", "two", id: "join-3", rooms: Self.inR)], "the secret rotates")
    }

    @Test("In a new session the server joins the rooms that the first frame named, too")
    mutating func graceIsOver() {
        enter()
        _ = comeBack()
        let effects = machine.received(Self.welcome("s2", secret: "new"), now: 11)
        #expect(Self.state(effects) == .online(node: "n", session: "s2"))
        #expect(sent(effects) == [])
        _ = machine.received(Self.joined("r", 9, recovered: true), now: 12)
        #expect(machine.rooms["r"]?.isJoined == true)
        #expect(comeBack() == [Self.resume("s2", "new", id: "join-3", rooms: Self.inR)])
    }

    @Test("An answer that was lost costs nothing: the next attempt brings the secret of the last welcome that came")
    mutating func brokenHalfway() {
        enter()
        _ = comeBack()
        #expect(comeBack() == [Self.resume("s", "one", id: "join-3", rooms: Self.inR)])
    }

    @Test("A server that keeps no place gave no secret: the client comes as a new one")
    mutating func noGrace() {
        enter(secret: nil)
        _ = machine.lost(code: 1006, reason: "", now: 10, random: 0)
        #expect(machine.retry(now: 10).last == .connect(resuming: false))
        #expect(sent(machine.opened()) == [#"{"type":"status","status":"online"}"#])
        #expect(sent(machine.received(Self.welcome("s2", secret: nil), now: 11)).count == 1)
    }

    @Test("What was joined without a connection is joined behind the welcome, and nothing else")
    mutating func joinedMeanwhile() {
        enter()
        _ = machine.lost(code: 1006, reason: "", now: 10, random: 0)
        _ = machine.join("q")
        _ = machine.retry(now: 10)
        #expect(sent(machine.opened()) == [Self.resume("s", "one", id: "join-2", rooms: Self.inR)])
        #expect(
            sent(machine.received(Self.welcome("s", secret: "two", resumed: true), now: 11))
                == [#"{"type":"join","id":"join-3","rooms":[{"room":"q"}]}"#])
    }

    @Test("A room that was left without a connection is not named; a session that goes on is told to leave it")
    mutating func leftMeanwhile() {
        enter()
        _ = machine.lost(code: 1006, reason: "", now: 10, random: 0)
        #expect(sent(machine.leave("r", now: 10)) == [])
        _ = machine.retry(now: 10)
        #expect(sent(machine.opened()) == [Self.resume("s", "one", id: "join-3", rooms: "")])
        #expect(
            sent(machine.received(Self.welcome("s", secret: "two", resumed: true), now: 11))
                == [#"{"type":"leave","id":"leave-2","room":"r"}"#])
        #expect(machine.received(Self.joined("r", 4), now: 12) == [], "from the time before")
        #expect(machine.received(.left(room: "r", id: "leave-2", reason: nil), now: 13) == [])
        #expect(machine.leaving.isEmpty)
    }

    @Test("A room that is left between the first frame and its welcome is left in whatever session comes")
    mutating func leftBetween() {
        enter()
        _ = comeBack()
        #expect(sent(machine.leave("r", now: 10)) == [])
        #expect(
            sent(machine.received(Self.welcome("s2", secret: "new"), now: 11))
                == [#"{"type":"leave","id":"leave-3","room":"r"}"#])
    }

    @Test("A leave without an answer is forgotten with its session")
    mutating func leftInVain() {
        enter()
        #expect(sent(machine.leave("r", now: 1)) == [#"{"type":"leave","id":"leave-2","room":"r"}"#])
        #expect(comeBack() == [Self.resume("s", "one", id: "join-3", rooms: "")])
        #expect(sent(machine.received(Self.welcome("s2", secret: "new"), now: 11)) == [])
        #expect(machine.leaving.isEmpty)
    }

    @Test("A room that the server does not tell within five seconds is joined")
    mutating func untold() {
        enter()
        _ = comeBack()
        _ = machine.received(Self.welcome("s", secret: "two", resumed: true), now: 1000)
        #expect(sent(machine.tick(now: 5999, random: 0)) == [#"{"type":"ping"}"#])
        #expect(sent(machine.tick(now: 6000, random: 0)) == [#"{"type":"join","id":"join-3"\#(Self.inR)}"#])
    }

    @Test("A room that the first frame named and that the server refuses is told so, and the others stay")
    mutating func refusedRoom() {
        enter()
        _ = comeBack()
        _ = machine.received(Self.welcome("s2", secret: "new"), now: 11)
        let refusal = ServerFrame.Refusal(id: "join-2", room: "r", number: 116, reason: "forbidden", message: "no")
        let effects = machine.received(.error(refusal), now: 12)
        #expect(effects.contains(.emit(.left(room: "r", reason: "no"))))
        #expect(machine.rooms.isEmpty)
    }

    @Test("A first frame that the server does not take is followed by a plain connect")
    mutating func refusedFrame() {
        enter()
        _ = comeBack()
        let refusal = ServerFrame.Refusal(id: "join-2", number: 110, reason: "too_many_rooms", message: "no")
        let effects = machine.received(.error(refusal), now: 11)
        #expect(effects.first == .abandon)
        #expect(effects.last == .connect(resuming: false))
        _ = machine.opened()
        let join = #"{"type":"join","id":"join-3"\#(Self.inR)}"#
        #expect(sent(machine.received(Self.welcome("s2", secret: "new"), now: 12)) == [join])
    }

    @Test("Presence that was set without a connection stands in the first frame")
    mutating func presence() {
        enter()
        _ = machine.lost(code: 1006, reason: "", now: 10, random: 0)
        #expect(machine.setPresence(.away) == [])
        _ = machine.retry(now: 10)
        #expect(sent(machine.opened()) == [Self.resume("s", "one", id: "join-2", rooms: Self.inR, status: "away")])
    }

    @Test("A message without an ack is sent again under its id once its room is told as joined")
    mutating func resend() {
        enter()
        let frame = #"{"type":"message","id":"p1","room":"r","text":"hi"}"#
        #expect(sent(machine.publish(Outbox.Entry(id: "p1", to: .room("r"), text: "hi", data: nil), now: 1)) == [frame])
        #expect(comeBack().count == 1)
        #expect(sent(machine.received(Self.welcome("s", secret: "two", resumed: true), now: 11)) == [])
        #expect(sent(machine.received(Self.joined("r", 4, recovered: true), now: 12)) == [frame])
    }

    @Test("A session that is resumed elsewhere is closed for good here")
    mutating func resumedElsewhere() {
        enter()
        let effects = machine.lost(code: 4202, reason: "resumed elsewhere", now: 1, random: 0)
        #expect(Self.state(effects) == .closed(code: 4202, reason: "resumed elsewhere"))
        #expect(machine.place == nil)
        #expect(machine.retry(now: 2) == [])
    }

    @Test("Who closes says goodbye, answers its callers, and tells the end when the server has heard")
    mutating func goodbye() {
        enter()
        _ = machine.publish(Outbox.Entry(id: "p1", to: .room("r"), text: "hi", data: nil), now: 1)
        let effects = machine.close(now: 2)
        #expect(effects.last == .sayGoodbye)
        #expect(effects.contains { if case .acknowledge("p1", .failure) = $0 { true } else { false } })
        #expect(Self.state(effects) == nil)
        #expect(machine.join("q").count == 1)
        #expect(machine.received(Self.joined("r", 5), now: 3) == [])
        #expect(machine.tick(now: 1001, random: 0) == [])
        #expect(Self.state(machine.lost(code: 1000, reason: "", now: 3, random: 0)) == .closed(code: 1000, reason: ""))
        #expect(machine.close(now: 4) == [])
    }

    @Test("A server that does not answer the goodbye is left after a second; without a connection there is none")
    mutating func unheardGoodbye() {
        enter()
        _ = machine.close(now: 2)
        #expect(Self.state(machine.tick(now: 1002, random: 0)) == .closed(code: 1000, reason: ""))
        machine = ClientStateMachine(client: "c1", identity: .user("alice"))
        enter()
        _ = machine.lost(code: 1006, reason: "", now: 10, random: 0)
        #expect(Self.state(machine.close(now: 11)) == .closed(code: 1000, reason: ""))
    }

    @Test("A token provider is asked at each connect; without a token the next attempt waits")
    mutating func provider() {
        machine = ClientStateMachine(client: "c1", identity: .provider)
        #expect(machine.start(now: 0) == [.emit(.state(.connecting)), .askForToken])
        #expect(machine.connect(withToken: "ey.1", now: 9000) == [.connect(resuming: false)])
        #expect(machine.tick(now: 18_000, random: 0) == [], "the patience for the server begins here")
        #expect(sent(machine.opened()).first == #"{"type":"auth","id":"auth","token":"ey.1","client":"c1"}"#)
        _ = machine.received(Self.welcome("s", secret: "one"), now: 18_000)
        _ = machine.lost(code: 1006, reason: "", now: 18_001, random: 0)
        #expect(machine.retry(now: 18_002).last == .askForToken)
        let lost = machine.lost(code: 1006, reason: "no token: out of order", now: 18_003, random: 0.5)
        #expect(lost.last == .connectLater(milliseconds: 1000))
        #expect(machine.connect(withToken: "ey.late", now: 18_004) == [])
        _ = machine.retry(now: 19_003)
        #expect(machine.connect(withToken: "ey.2", now: 19_004) == [.connect(resuming: true)])
        #expect(
            sent(machine.opened()) == [
                #"{"type":"auth","id":"join-1","token":"ey.2","client":"c1","status":"online","#
                    + #""resume":{"session":"s","secret":"one"}}"#
            ])
    }

    @Test("The round trip is that of a ping, measured on each connection")
    mutating func roundTrip() {
        enter()
        #expect(machine.roundTrip == nil)
        #expect(sent(machine.tick(now: 100, random: 0)) == [#"{"type":"ping"}"#])
        _ = machine.received(Self.joined("r", 4), now: 120)
        _ = machine.received(.pong, now: 142)
        #expect(machine.roundTrip == 42)
        #expect(sent(machine.tick(now: 1100, random: 0)) == [])
        _ = machine.received(.pong, now: 5000)
        #expect(machine.roundTrip == 42)
        _ = comeBack(at: 6000)
        _ = machine.received(Self.welcome("s", secret: "two", resumed: true), now: 6001)
        #expect(sent(machine.tick(now: 6500, random: 0)) == [#"{"type":"ping"}"#])
    }

    @Test("Own messages without an ack count in bytes, sent or not")
    mutating func buffered() {
        enter()
        let entry = Outbox.Entry(id: "p1", to: .room("r"), text: "hi", data: nil)
        _ = machine.publish(entry, now: 1)
        #expect(machine.outbox.bytes == entry.frame.count)
        _ = comeBack()
        #expect(machine.outbox.bytes == entry.frame.count)
        _ = machine.received(.ack(.init(id: "p1", room: "r", seq: 5, timestamp: 1, tag: "t")), now: 11)
        #expect(machine.outbox.bytes == 0)
        _ = machine.publish(entry, now: 12)
        _ = machine.close(now: 13)
        #expect(machine.outbox.bytes == 0)
    }
}
